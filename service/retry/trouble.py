"""What may go wrong with a queue's disk, and what to say of it."""

import errno
import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from service.errors import QueueUnusable

# What a single file may suffer: gone, another's, a folder, on a bad sector. None: its content.
_OF_ONE_FILE: Final = {None, errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.EIO}
_RESERVE: Final = 1 << 24  # bytes


def room(folder: Path) -> int:
    """Return the bytes that may still be put on a disk: sending and finishing need some, too."""
    disk = os.statvfs(folder)
    total, free = disk.f_frsize * disk.f_blocks, disk.f_frsize * disk.f_bavail
    return free - min(_RESERVE, total // 8)


def clear(path: Path) -> None:
    """Remove an entry's file; a folder that somebody has put in its place is put aside."""
    if path.is_dir():
        path.replace(path.parent.parent / "damaged" / f"{path.name}-{secrets.token_hex(4)}")
    path.unlink(missing_ok=True)


def is_of_one_file(error: OSError | ValueError) -> bool:
    """Tell whether an error is one file's own: its content, its rights, a bad sector."""
    return getattr(error, "errno", None) in _OF_ONE_FILE


@contextmanager
def explained(done: str) -> Iterator[None]:
    """Turn what files and SQLite raise into an error that tells what to mend."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        why = errno.errorcode.get(getattr(error, "errno", None) or 0, "") or str(error)
        raise QueueUnusable(
            f"the retry queue can't be {done} ({type(error).__name__}: {why})",
            where="RETRY_QUEUE",
            mend=_mend(error),
        ) from error


def _mend(error: OSError | sqlite3.Error) -> str:
    if isinstance(error, TimeoutError):
        return "find the process that holds that file (fuser tells): has it been stopped?"
    if type(error) is sqlite3.DatabaseError:
        return "stop all that use it and start again: its index is then made anew from the entries"
    return "see that its folder is there, is writable and has space"
