"""A little room that is kept on the disk, so that a full one can be read, and deleted from.

SQLite makes files beside an index to read it, and a deletion takes room before it gives any back.
"""

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

_SIZE: Final = 1 << 17  # bytes: an index's shared memory of 32 KiB, and some blocks
_NAME: Final = "reserve"


def keep(root: Path) -> None:
    """Take the room, as far as there is any and it isn't taken yet."""
    path = root / _NAME
    with suppress(OSError):
        if not path.exists() or path.stat().st_size < _SIZE:
            path.write_bytes(bytes(_SIZE))


def give(root: Path) -> None:
    """Let go of the room."""
    (root / _NAME).unlink(missing_ok=True)


def spend(root: Path, work: Callable[[], None]) -> None:
    """Do some work, and if it fails do it again with the room let go of."""
    try:
        work()
    except (OSError, sqlite3.OperationalError):
        give(root)
        work()
