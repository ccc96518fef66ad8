"""Files that are whole and on the disk, or not there at all; locks that a death releases."""

import errno
import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from service.dicom.codestream import Buffer

_PATIENCE: Final = 15.0  # seconds
_NO_LINKS: Final = {errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS, errno.EXDEV}


@contextmanager
def incoming(folder: Path, pieces: Iterable[Buffer], suffix: str = "") -> Iterator[Path]:
    """Write pieces to a new file and flush it to the disk; whoever wants to keep it renames it."""
    descriptor, name = tempfile.mkstemp(suffix, dir=folder)
    path = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        yield path
    finally:
        path.unlink(missing_ok=True)


def publish(temporary: Path, target: Path, levels: int = 1) -> None:
    """Give a whole file its final name, in a folder that is there, to survive a loss of power.

    So many folders above it are flushed whether new or not: a folder may have been made by a
    process that died before it could flush the folder's own entry.
    """
    temporary.replace(target)
    for folder in list(target.parents)[:levels]:
        flush_folder(folder)


def publish_kept(temporary: Path, target: Path, levels: int = 1) -> None:
    """Do as `publish`, but leave the temporary name too, as a mark for who cleans up after a crash.

    A file system without hard links has no such mark. The target must not be there.
    """
    try:
        os.link(temporary, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        temporary.replace(target)
    for folder in list(target.parents)[:levels]:
        flush_folder(folder)


def flush_folder(folder: Path) -> None:
    """Flush the entries of a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_new(folder: Path) -> None:
    """Flush the entries of a folder that may be new, and its own, as far as these can be read.

    The folder above may be new, too.
    """
    flush_folder(folder)
    for above in (folder.parent, folder.parent.parent):
        with suppress(OSError):
            flush_folder(above)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock among all threads and processes; a death releases it.

    Raises
    ------
    TimeoutError
        If another process, perhaps a stopped one, has held it for `_PATIENCE` seconds.
    """
    with path.open("wb") as file:
        _lock(file, fcntl.LOCK_EX)
        yield


def _lock(file: BinaryIO, kind: int) -> None:
    end = time.monotonic() + _PATIENCE
    pause = 0.0005
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                message = f"another process has held {Path(file.name).name} for {_PATIENCE:g} s"
                raise TimeoutError(message) from None
            time.sleep(pause)
            pause = min(0.02, 2 * pause)
        else:
            return


@contextmanager
def opening(path: Path) -> Iterator[tuple[BinaryIO, bool]]:
    """Hold the lock that every user of a folder shares, and tell whether the folder is idle.

    Yields the file whose lock lasts until it is closed, and whether nobody else holds it: then
    the block may clean up, and whoever opens the folder meanwhile waits for its end.
    """
    file = path.open("wb")
    alone = False
    try:
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = True
        if not alone:
            _lock(file, fcntl.LOCK_SH)
        yield file, alone
        fcntl.flock(file, fcntl.LOCK_SH)  # from exclusive: it never waits
    except BaseException:
        file.close()
        raise


@contextmanager
def sharing(folder: Path, tidy: Callable[[], None]) -> Iterator[None]:
    """Share a folder with other processes by its own lock; tidy it up first if nobody else has it.

    Where folders can't be locked, as on some network disks, none is tidied up.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass
            else:
                tidy()
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)
