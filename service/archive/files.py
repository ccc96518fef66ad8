"""Where an instance lies on disk, and how its bytes get there: whole, or not at all.

root/
    instances/STUDY/SERIES/SOP.dcm
    incoming/        files that aren't whole yet
    index.sqlite
    write.lock       held by the one thread of all processes that changes files and index
    alive.lock       shared by every process that has the archive open
"""

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from service.dicom.codestream import Buffer

_UID = re.compile(r"(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))*")


def is_uid(text: object) -> bool:
    """Tell whether a text has the strict form of a UID (PS3.5 9.1): no path can be hidden in it."""
    return isinstance(text, str) and len(text) <= 64 and _UID.fullmatch(text) is not None


class InstanceUids(NamedTuple):
    """The key of an instance: Study, Series and SOP Instance UID."""

    study: str
    series: str
    instance: str

    def path(self, instances: Path) -> Path:
        """Return where the file lies under the folder `instances`.

        Raises
        ------
        ValueError
            If any of the three isn't a UID.
        """
        if not all(map(is_uid, self)):
            raise ValueError("not a UID")
        return instances / self.study / self.series / f"{self.instance}.dcm"


@contextmanager
def incoming(folder: Path, pieces: Iterable[Buffer]) -> Iterator[Path]:
    """Write pieces to a new file and flush it to the disk; whoever wants to keep it renames it."""
    descriptor, name = tempfile.mkstemp(dir=folder)
    path = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        yield path
    finally:
        path.unlink(missing_ok=True)


def publish(temporary: Path, target: Path) -> None:
    """Give a whole file its final name, so that it survives a loss of power.

    Its series, its study, and the folder of all studies are flushed whether new or not: a folder
    may have been made by a process that died before it could flush the folder's own entry.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary.replace(target)
    for folder in list(target.parents)[:3]:
        flush_folder(folder)


def flush_folder(folder: Path) -> None:
    """Flush the entries of a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(target: Path, instances: Path) -> None:
    """Remove a file, a series or a study, and the folders above it that this leaves empty."""
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)
    for folder in target.parents:
        if folder == instances:
            return
        with suppress(OSError):  # not empty, or not there
            folder.rmdir()


def stored_files(instances: Path) -> Iterator[tuple[InstanceUids, Path]]:
    """Yield every file whose path is that of an instance, in the order of the UIDs."""
    for study in _sorted(instances):
        for series in _sorted(study):
            for path in _sorted(series):
                uids = InstanceUids(study.name, series.name, path.stem)
                if path.suffix == ".dcm" and all(map(is_uid, uids)):
                    yield uids, path


def _sorted(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock among all threads and processes; a death releases it."""
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def open_alive(root: Path) -> BinaryIO:
    """Empty `incoming` if no other process has the archive open; return the held shared lock."""
    file = (root / "alive.lock").open("wb")
    with suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for leftover in (root / "incoming").iterdir():
            leftover.unlink()
    fcntl.flock(file, fcntl.LOCK_SH)
    return file
