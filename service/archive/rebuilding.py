"""The index made anew from the files alone."""

import hashlib
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, NamedTuple

from service.archive import index as rows
from service.archive.attributes import Description, describe
from service.archive.files import storage_class, stored_files
from service.archive.index import Kept
from service.archive.schema import SCHEMA, VERSION
from service.dicom import part10
from service.durable import flush_folder
from service.errors import BadRequest

_STEP: Final = 1_000  # files


class Rebuilt(NamedTuple):
    """How many files are in a rebuilt index, and how many can't be read as what they are named."""

    indexed: int
    skipped: int


def version(root: Path) -> int:
    """Return the version of the index in a folder; 0 if there is none.

    Raises
    ------
    RuntimeError
        If the file is damaged, or can't be opened.
    """
    path = root / "index.sqlite"
    if not path.exists():
        return 0
    with closing(sqlite3.connect(path)) as connection:
        try:
            (number,) = connection.execute("PRAGMA user_version").fetchone()
        except sqlite3.OperationalError as error:
            raise RuntimeError("the index can't be opened; is its disk full?") from error
        except sqlite3.DatabaseError as error:
            raise RuntimeError(
                "the index is damaged; make it anew with jpegstow archive --rebuild"
            ) from error
    return int(number)


def build(root: Path, told: Callable[[Rebuilt], None] = lambda _: None) -> Rebuilt:
    """Make an index beside the one that is there, and put it in its place.

    Only for who has the archive alone. What a crash leaves is the old index, or none, which the
    next start makes anew.

    Parameters
    ----------
    told
        Is called after each thousand files.
    """
    new, old = root / "index.sqlite.new", root / "index.sqlite"
    _forget(new)
    new.touch(mode=0o600)  # it holds names; SQLite keeps the mode
    with closing(sqlite3.connect(new, isolation_level=None)) as connection:
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -65536"):
            connection.execute(f"PRAGMA {pragma}")
        connection.executescript(f"{SCHEMA}; BEGIN")

        def step(so_far: Rebuilt) -> None:
            connection.execute("COMMIT")
            connection.execute("BEGIN")
            told(so_far)

        rebuilt = fill(connection, root / "instances", step)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")
    _flush(new)
    # An old log beside a new index would be read into it, so the old one goes first.
    _forget(old)
    new.replace(old)
    flush_folder(root)
    return rebuilt


def _forget(index: Path) -> None:
    for suffix in ("", "-journal", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            index.with_name(index.name + suffix).unlink()


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def fill(
    connection: sqlite3.Connection,
    instances: Path,
    step: Callable[[Rebuilt], None] = lambda _: None,
) -> Rebuilt:
    """Add a row for every file that is what its name says."""
    indexed = skipped = 0
    for uids, path in stored_files(instances):
        data = path.read_bytes()
        description = described(data)
        if description is None or description.uids != uids:
            skipped += 1
        else:
            rows.add(connection, description, kept(data, path))
            indexed += 1
        if (indexed + skipped) % _STEP == 0:
            step(Rebuilt(indexed, skipped))
    return Rebuilt(indexed, skipped)


def described(data: bytes) -> Description | None:
    """Describe a file; None if it isn't an instance."""
    try:
        return describe(part10.decode(data))
    except BadRequest:
        return None


def kept(data: bytes, path: Path) -> Kept:
    """Return what the index keeps of a file with these bytes at its final place."""
    return Kept(len(data), hashlib.sha256(data).hexdigest(), storage_class(path))
