"""The embedded retry queue: a folder of files, and an SQLite index of what is to be done with them.

folder/
    entries/SOP      what is kept of an instance, whole (`kept`)
    incoming/        files that aren't whole yet
    damaged/         files that were found to be
    queue.sqlite
    write.lock       held by the one thread of all processes that changes anything
    alive.lock       shared by every process that has the queue open

The file is there before its row and goes after it, so that no row points at nothing. Whoever opens
the queue alone makes rows for files without one: an index that is lost or damaged costs nothing
but the attempts that it remembered.
"""

import re
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from service.database import Database
from service.durable import flush_folder, incoming, locked, opening, publish
from service.errors import BadRequest, DamagedEntry, QueueUnusable
from service.ingest import Attempt, Described, Upload
from service.retry import entry as entries
from service.retry import kept, recovery, schema
from service.retry.entry import Entry
from service.retry.kept import Kept
from service.retry.protocol import (
    LEASE,
    Filter,
    Lease,
    Limits,
    Page,
    Totals,
    check_free,
    check_state,
    no_such_entry,
    queue_full,
)
from service.retry.trouble import clear, explained, is_of_one_file, room

_PATIENCE: Final = 30.0  # seconds to wait for another process's transaction


class SqliteQueue:
    """A retry queue in a folder, for several threads and processes at once (`protocol.Queue`)."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        """Open the queue in a folder, make it if it is new, and mend it if nobody else has it open.

        Raises
        ------
        QueueUnusable
            If the folder can't be written, or its index is damaged while others use it.
        """
        self._folder = folder.absolute()
        self._limits = limits
        self._database = Database(self._folder / "queue.sqlite", _PATIENCE)
        with explained("opened"):
            recovery.make_folders(self._folder)
            with opening(self._folder / "alive.lock") as (self._alive, alone):
                recovery.open_index(self._folder, self._database, alone=alone)
            self._database.close()  # none may be open when a server forks its workers

    def close(self) -> None:
        """Let go of the queue; the next process to open it may mend it."""
        self._database.close()
        self._alive.close()

    def put(
        self, upload: Upload, described: Described | None, attempt: Attempt | None, now: float
    ) -> None:
        """Keep an instance durably: its file whole, its row, both on the disk.

        One that is kept already keeps its place; a dead one waits again, and the other way round,
        as the attempt says.
        """
        entry, pieces = kept.made(upload, described, attempt, now)
        with explained("written"):
            with self._database.reading() as connection:
                self._check_room(connection, entry)  # before megabytes are written in vain
            with (
                incoming(self._folder / "incoming", pieces) as temporary,
                self._lock(),
                self._putting(temporary, entry, attempt) as connection,
            ):
                self._check_room(connection, entry)

    def replace(
        self, sop_instance_uid: str, upload: Upload, described: Described, now: float
    ) -> None:
        """Put an instance in the place of an entry, limits or not; NoSuchEntry, BeingSent."""
        entry, pieces = kept.made(upload, described, None, now)
        with (
            explained("written"),
            incoming(self._folder / "incoming", pieces) as temporary,
            self._lock(),
        ):
            with self._putting(temporary, entry, None) as connection:
                check_free(_found(connection, sop_instance_uid), now)
                if entry.sop_instance_uid != sop_instance_uid:
                    schema.mark_dropped(connection, sop_instance_uid)
            if entry.sop_instance_uid != sop_instance_uid:
                self._discard(sop_instance_uid)

    @contextmanager
    def _putting(
        self, temporary: Path, entry: Entry, attempt: Attempt | None
    ) -> Iterator[sqlite3.Connection]:
        """Make an entry of a file, durably, within the transaction that the block may refuse."""
        path = self._path(entry.sop_instance_uid)
        is_new = False
        try:
            with self._database.writing() as connection:
                yield connection
                known = schema.find(connection, entry.sop_instance_uid)
                is_new = known is None
                # What was accepted stays as it is, whatever has changed since.
                replaced = known is None or known.state == "dead" or not _is_sound(path)
                if replaced:
                    if path.is_dir():
                        clear(path)
                    publish(temporary, path)
                if known is None:
                    schema.save(connection, entry)
                elif known.state != "leased":
                    schema.save(connection, entries.joined(known, entry, replaced=replaced))
                elif replaced:  # whoever sends it now has the last word on all else
                    schema.resize(connection, entry.sop_instance_uid, entry.size)
                _count(connection, attempt)
        except BaseException:
            if is_new:
                self._take_back(entry.sop_instance_uid)
            raise

    def _take_back(self, sop_instance_uid: str) -> None:
        """Remove the file of what isn't acknowledged, unless its row was written all the same.

        An interrupt, as of Ctrl-C, may come right behind the commit; the row may have taken the
        place of another then, and the file is all that there is of the picture.
        """
        with suppress(sqlite3.Error):  # who can't tell leaves the file to the next start
            if not self._holds(sop_instance_uid):
                self._path(sop_instance_uid).unlink(missing_ok=True)

    def lease(self, now: float, *, probe: bool = False) -> Lease | None:
        """Take the oldest entry whose time has come, or for a probe the least tried one."""
        token = secrets.token_hex(8)
        with explained("read"):
            with self._database.reading() as connection:
                if not schema.is_any_due(connection, now):
                    return None
            with self._writing() as connection:
                entry = schema.lease(connection, token, now, probe=probe)
        return Lease(entry, token) if entry else None

    def renew(self, leases: Sequence[Lease], now: float) -> None:
        """Hold leases for `LEASE` seconds from now."""
        with explained("written"), self._writing() as connection:
            connection.executemany(
                "UPDATE entry SET due = ? WHERE token = ? AND state = 'leased'",
                [(now + LEASE, lease.token) for lease in leases],
            )

    def load(self, sop_instance_uid: str) -> Kept:
        """Return what is kept of an entry; NoSuchEntry, DamagedEntry."""
        self.show(sop_instance_uid)
        with explained("read"):
            try:
                return _read(self._path(sop_instance_uid))
            except (OSError, ValueError) as error:
                if not is_of_one_file(error):
                    raise
                flush_folder(self._folder / "entries")  # where all are gone, no entry is at fault
                self.show(sop_instance_uid)  # it may have been finished meanwhile
                raise DamagedEntry(
                    "what the queue kept of the instance is damaged or gone",
                    where=f"entries/{sop_instance_uid}",
                    mend="upload the picture again, which mends the entry, or drop it",
                ) from error

    def finish(self, sop_instance_uid: str, attempt: Attempt | None = None) -> None:
        """Let go of an instance that the store has, whoever holds its lease."""
        with explained("written"):
            if not self._holds(sop_instance_uid) and attempt is None:
                return
            with self._lock():
                with self._database.writing() as connection:
                    schema.delete(connection, sop_instance_uid)
                    _count(connection, attempt)
                clear(self._path(sop_instance_uid))

    def put_back(self, lease: Lease, not_before: float, attempt: Attempt | None) -> None:
        """Let an entry wait on; without an attempt, as if it had not been taken.

        Nothing happens if the lease has run out and somebody else holds the entry, or none is left.
        """
        waiting = replace(lease.entry, state="pending", next_attempt=not_before)
        self._settle(lease, waiting, attempt)

    def bury(self, lease: Lease, attempt: Attempt) -> None:
        """Keep an entry as dead, for an operator; as `put_back` if somebody else holds it."""
        self._settle(lease, replace(lease.entry, state="dead", next_attempt=None), attempt)

    def list(self, chosen: Filter, limit: int, after: str = "") -> Page:
        """Return up to `limit` entries, oldest first, from where the page before ended.

        Raises
        ------
        BadRequest
            If `after` is no such place.
        """
        with explained("read"), self._database.reading() as connection:
            found = schema.select(connection, chosen, limit + 1, _place(after))
        entries = [entry for _, entry in found[:limit]]
        return Page(entries, str(found[limit - 1][0]) if len(found) > limit else "")

    def show(self, sop_instance_uid: str) -> Entry:
        """Return one entry; NoSuchEntry."""
        with explained("read"), self._database.reading() as connection:
            return _found(connection, sop_instance_uid)

    def revive(self, chosen: Filter, now: float) -> int:
        """Let dead and pending instances be tried at once; return how many."""
        with explained("written"), self._writing() as connection:
            return schema.revive(connection, chosen, now)

    def drop(self, sop_instance_uid: str, now: float, state: str = "") -> None:
        """Discard an entry for good; NoSuchEntry, BeingSent, EntryChanged.

        It is marked first, so that no crash brings it back.
        """
        with explained("written"), self._lock():
            with self._database.writing() as connection:
                entry = _found(connection, sop_instance_uid)
                check_free(entry, now)
                check_state(entry, state)
                schema.mark_dropped(connection, sop_instance_uid)
            self._discard(sop_instance_uid)

    def totals(self) -> Totals:
        """Count."""
        with explained("read"), self._database.reading() as connection:
            return schema.totals(connection)

    def unusable(self) -> str:
        """Return why nothing could be put into the queue now; "" if it could."""
        try:
            with (
                explained("written"),
                incoming(self._folder / "incoming", [b"\0"]),
                self._writing() as connection,
            ):
                entries, size = schema.written(connection)
        except QueueUnusable as error:
            return str(error)
        full = entries >= self._limits.entries or size >= self._limits.size
        full = full or room(self._folder) <= 0
        return f"it is full: {entries} entries of {size} bytes" if full else ""

    def _settle(self, lease: Lease, entry: Entry, attempt: Attempt | None) -> None:
        with explained("written"), self._writing() as connection:
            current = schema.find(connection, entry.sop_instance_uid)
            if current and schema.is_current(connection, lease):
                kept_now = replace(entry, size=current.size)
                schema.save(connection, entries.after(kept_now, attempt) if attempt else kept_now)
            _count(connection, attempt)

    def _discard(self, sop_instance_uid: str) -> None:
        """Remove what is left of an entry that is marked as dropped, the mark last.

        A file that came back after a loss of power, and found no mark, would be sent.
        """
        clear(self._path(sop_instance_uid))
        flush_folder(self._folder / "entries")
        with self._database.writing() as connection:
            schema.delete(connection, sop_instance_uid)

    def _lock(self) -> AbstractContextManager[None]:
        # SQLite's own lock is unfair: a process can wait for seconds while another takes it anew.
        return locked(self._folder / "write.lock")

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock(), self._database.writing() as connection:
            yield connection

    def _path(self, sop_instance_uid: str) -> Path:
        return self._folder / "entries" / sop_instance_uid

    def _holds(self, sop_instance_uid: str) -> bool:
        with self._database.reading() as connection:
            return schema.find(connection, sop_instance_uid) is not None

    def _check_room(self, connection: sqlite3.Connection, entry: Entry) -> None:
        entries, size = schema.filled(connection)
        reached = self._limits.reached(entries, size, entry.size)
        no_room = entry.size > room(self._folder)
        if (reached or no_room) and not schema.find(connection, entry.sop_instance_uid):
            what = "it may hold no more" if reached else "its disk has no room"
            raise queue_full(what, [*reached, "RETRY_QUEUE"][0], entries, size)


def _found(connection: sqlite3.Connection, sop_instance_uid: str) -> Entry:
    entry = schema.find(connection, sop_instance_uid)
    if entry is None:
        raise no_such_entry()
    return entry


def _read(path: Path) -> Kept:
    """Read an entry's file; ValueError if it isn't what was written, or another entry's."""
    found = kept.decode(path.read_bytes())
    if entries.name_of(*found) != path.name:
        raise ValueError("the file is another entry's")
    return found


def _is_sound(path: Path) -> bool:
    try:
        _read(path)
    except (OSError, ValueError) as error:
        if is_of_one_file(error):
            return False
        raise
    return True


def _count(connection: sqlite3.Connection, attempt: Attempt | None) -> None:
    if attempt and attempt.asked:
        schema.count_outcome(connection, type(attempt.outcome).__name__.lower())


def _place(after: str) -> int:
    if not re.fullmatch(r"\d{0,18}", after, re.ASCII):
        raise BadRequest("there is no such place in the list", where="after")
    return int(after or 0)
