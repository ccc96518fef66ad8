"""Opening a queue's folder: what a crash, a full disk or a careless hand has left there."""

import re
import sqlite3
from pathlib import Path

from service import telemetry
from service.database import Database
from service.durable import flush_folder, flush_new
from service.errors import QueueUnusable
from service.retry import entry as entries
from service.retry import kept, schema
from service.retry.entry import Entry
from service.retry.trouble import clear

_FOLDER_MODE = 0o700  # what is kept holds names
_FILE_MODE = 0o600


def make_folders(folder: Path) -> None:
    """Make what isn't there yet."""
    for path in (folder, *(folder / name for name in ("entries", "incoming", "damaged"))):
        path.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    (folder / "queue.sqlite").touch(mode=_FILE_MODE)  # SQLite keeps the mode for its other files
    flush_new(folder)


def open_index(folder: Path, database: Database, *, alone: bool) -> None:
    """Make the index usable: create it; if nobody else has the queue open, mend it.

    A damaged one is set aside, and made anew from the files of the entries.
    """
    try:
        _create(database)
        if alone:
            _check(database)
    except sqlite3.DatabaseError as error:
        if not alone or not _is_damage(error):
            raise
        database.close()  # none may go on with the file that is set aside
        _set_aside(folder, error)
        _create(database)
    if alone:
        _mend(folder, database)


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Tell damage from a full disk and missing rights, which are to be mended by others."""
    code = getattr(error, "sqlite_errorcode", None)  # none where the check itself has told
    cut = code == sqlite3.SQLITE_IOERR_SHORT_READ
    return cut or not isinstance(error, sqlite3.OperationalError)


def _create(database: Database) -> None:
    with database.reading() as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            connection.executescript(
                f"BEGIN IMMEDIATE; {schema.SCHEMA}; PRAGMA user_version = {schema.VERSION}; COMMIT"
            )
        elif version != schema.VERSION:
            raise QueueUnusable(
                f"the retry queue's index is of version {version}, not {schema.VERSION}",
                where="RETRY_QUEUE",
                mend="drain it with the jpegstow that made it, or name another folder",
            )


def _check(database: Database) -> None:
    with database.reading() as connection:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
    if verdict != "ok" or not {"entry", "total", "outcome"} <= tables:
        raise sqlite3.DatabaseError("the index is damaged")


def _set_aside(folder: Path, error: Exception) -> None:
    """Keep a damaged index under another name, for whoever wants to know what happened."""
    number = sum(1 for _ in folder.glob("queue.sqlite.damaged-*"))
    (folder / "queue.sqlite").replace(folder / f"queue.sqlite.damaged-{number}")
    for suffix in ("-wal", "-shm"):
        (folder / f"queue.sqlite{suffix}").unlink(missing_ok=True)
    (folder / "queue.sqlite").touch(mode=_FILE_MODE)
    flush_folder(folder)
    telemetry.log(
        "ERROR",
        "the retry queue's index was damaged, and is made anew from its entries",
        error=type(error).__name__,
    )


def _mend(folder: Path, database: Database) -> None:
    """Undo what processes that have died left half done."""
    for leftover in filter(Path.is_file, (folder / "incoming").iterdir()):
        leftover.unlink()
    with database.writing() as connection:
        connection.execute(
            "UPDATE entry SET state = 'pending', due = first_seen, token = NULL"
            " WHERE state = 'leased'"
        )
        dropped = connection.execute(
            "SELECT sop_instance_uid FROM entry WHERE state = 'dropped'"
        ).fetchall()
        for (name,) in dropped:
            clear(folder / "entries" / name)
        flush_folder(folder / "entries")
        for (name,) in dropped:
            schema.delete(connection, name)
        adopted = sum(_adopt(connection, path) for path in _orphans(connection, folder))
    if adopted:
        telemetry.log("WARNING", "the retry queue took in files without an entry", count=adopted)


def _orphans(connection: sqlite3.Connection, folder: Path) -> list[Path]:
    """Return the files that have no row, oldest first.

    They come of a crash between the two, or of an index that was lost.
    """
    known = {name for (name,) in connection.execute("SELECT sop_instance_uid FROM entry")}
    files = filter(Path.is_file, (folder / "entries").iterdir())
    found = [path for path in files if path.name not in known]
    return sorted(found, key=lambda path: path.stat().st_mtime_ns)


def _adopt(connection: sqlite3.Connection, path: Path) -> bool:
    """Make an entry of a file; one that can't be read is put where nobody trips over it."""
    try:
        entry = _entry_of(path)
    except OSError as error:
        # Whoever may read it again finds it in its place at the next start.
        name = path.name if re.fullmatch(r"[0-9.]{1,64}", path.name) else None
        message = "a file of the retry queue can't be read"
        telemetry.log("ERROR", message, SOPInstanceUID=name, error=type(error).__name__)
        return False
    except (AttributeError, ValueError):
        entry = None
    if entry is None or entry.sop_instance_uid != path.name:
        path.replace(path.parent.parent / "damaged" / path.name)
        telemetry.log("ERROR", "a file of the retry queue is damaged, and put aside")
        return False
    schema.save(connection, entry)
    return True


def _entry_of(path: Path) -> Entry:
    with path.open("rb") as file:
        found, first_seen = kept.read_head(file)
    return entries.new(*found, None, first_seen, path.stat().st_size)
