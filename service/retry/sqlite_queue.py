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

import errno
import os
import re
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from service.database import Database
from service.durable import flush_folder, incoming, locked, opening, publish
from service.errors import (
    BadRequest,
    BeingSent,
    DamagedEntry,
    NoSuchEntry,
    QueueFull,
    QueueUnusable,
)
from service.ingest import Attempt, Described, Upload
from service.retry import entry as entries
from service.retry import kept, recovery, schema
from service.retry.entry import Entry
from service.retry.kept import Kept
from service.retry.protocol import LEASE, Filter, Lease, Page, Totals, is_held

_RESERVE: Final = 1 << 24  # bytes
_PATIENCE: Final = 30.0  # seconds to wait for another process's transaction


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a queue may hold, the dead included; `size` is in bytes."""

    entries: int
    size: int


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
        with _told("opened"):
            recovery.make_folders(self._folder)
            with (
                opening(self._folder / "alive.lock") as (self._alive, alone),
                locked(self._folder / "write.lock"),
            ):
                recovery.open_index(self._folder, self._database, alone=alone)
            self._database.close()  # none may be open when a server forks its workers

    def close(self) -> None:
        """Let go of the queue; the next process to open it may mend it."""
        self._database.close()
        self._alive.close()

    def put(
        self, upload: Upload, described: Described, attempt: Attempt | None, now: float
    ) -> None:
        """Keep an instance durably: its file whole, its row, both on the disk.

        One that is kept already keeps its place; a dead one waits again, and the other way round,
        as the attempt says.
        """
        pieces = kept.encode(upload, described, now)
        entry = entries.new(upload, described, attempt, now, sum(map(len, pieces)))
        with _told("written"):
            with self._database.reading() as connection:
                self._check_room(connection, entry)  # before megabytes are written in vain
            with incoming(self._folder / "incoming", pieces) as temporary:
                self._keep(temporary, entry, attempt)

    def _keep(self, temporary: Path, entry: Entry, attempt: Attempt | None) -> None:
        path = self._path(entry.sop_instance_uid)
        with locked(self._folder / "write.lock"):
            is_new = False
            try:
                with self._database.writing() as connection:
                    self._check_room(connection, entry)
                    known = schema.find(connection, entry.sop_instance_uid)
                    is_new = known is None
                    publish(temporary, path)  # in the place of one that may be damaged, too
                    if known is None:
                        schema.save(connection, entry)
                    elif known.state != "leased":  # whoever sends it now has the last word
                        schema.save(connection, entries.joined(known, entry))
                    _count(connection, attempt)
            except BaseException:
                if is_new:
                    path.unlink(missing_ok=True)  # it is not acknowledged
                raise

    def lease(self, now: float) -> Lease | None:
        """Take the oldest entry whose time has come; one whose lease has run out is among them."""
        token = secrets.token_hex(8)
        with _told("read"):
            with self._database.reading() as connection:
                if not schema.is_any_due(connection, now):
                    return None
            with self._writing() as connection:
                entry = schema.lease(connection, token, now)
        return Lease(entry, token) if entry else None

    def renew(self, leases: Sequence[Lease], now: float) -> None:
        """Hold leases for `LEASE` seconds from now."""
        with _told("written"), self._writing() as connection:
            connection.executemany(
                "UPDATE entry SET due = ? WHERE token = ? AND state = 'leased'",
                [(now + LEASE, lease.token) for lease in leases],
            )

    def load(self, sop_instance_uid: str) -> Kept:
        """Return what is kept of an entry; NoSuchEntry, DamagedEntry."""
        self.show(sop_instance_uid)
        with _told("read"):
            try:
                return kept.decode(self._path(sop_instance_uid).read_bytes())
            except (FileNotFoundError, ValueError) as error:
                flush_folder(self._folder / "entries")  # where all are gone, no entry is at fault
                self.show(sop_instance_uid)  # it may have been finished meanwhile
                raise DamagedEntry(
                    "what the queue kept of the instance is damaged or gone",
                    where=f"entries/{sop_instance_uid}",
                    mend="upload the picture again, and drop the entry",
                ) from error

    def finish(self, sop_instance_uid: str, attempt: Attempt | None = None) -> None:
        """Let go of an instance that the store has, whoever holds its lease."""
        with _told("written"):
            if not self._holds(sop_instance_uid) and attempt is None:
                return
            with locked(self._folder / "write.lock"):
                with self._database.writing() as connection:
                    schema.delete(connection, sop_instance_uid)
                    _count(connection, attempt)
                self._path(sop_instance_uid).unlink(missing_ok=True)

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
        with _told("read"), self._database.reading() as connection:
            found = schema.select(connection, chosen, limit + 1, _place(after))
        entries = [entry for _, entry in found[:limit]]
        return Page(entries, str(found[limit - 1][0]) if len(found) > limit else "")

    def show(self, sop_instance_uid: str) -> Entry:
        """Return one entry; NoSuchEntry."""
        with _told("read"), self._database.reading() as connection:
            entry = schema.find(connection, sop_instance_uid)
        if entry is None:
            raise NoSuchEntry("the retry queue holds no such entry", where="id")
        return entry

    def revive(self, chosen: Filter, now: float) -> int:
        """Let dead and pending entries be tried at once; return how many."""
        condition, parameters = schema.where(chosen)
        with _told("written"), self._writing() as connection:
            return connection.execute(
                "UPDATE entry SET state = 'pending', due = :now, since = :now, token = NULL"  # noqa: S608
                f" WHERE {condition} AND NOT (state = 'leased' AND due > :now AND due <= :until)",
                parameters | {"now": now, "until": now + LEASE},
            ).rowcount

    def drop(self, sop_instance_uid: str, now: float) -> None:
        """Discard an entry for good; NoSuchEntry, BeingSent.

        It is marked first, so that no crash brings it back.
        """
        with _told("written"), locked(self._folder / "write.lock"):
            with self._database.writing() as connection:
                entry = schema.find(connection, sop_instance_uid)
                if entry is None:
                    raise NoSuchEntry("the retry queue holds no such entry", where="id")
                if is_held(entry, now):
                    raise BeingSent(
                        "the entry is being sent at this moment",
                        where="id",
                        mend="look again in half a minute: it may be stored by then",
                    )
                schema.mark_dropped(connection, sop_instance_uid)
            self._path(sop_instance_uid).unlink(missing_ok=True)
            with self._database.writing() as connection:
                schema.delete(connection, sop_instance_uid)

    def totals(self) -> Totals:
        """Count."""
        with _told("read"), self._database.reading() as connection:
            return schema.totals(connection)

    def unusable(self) -> str:
        """Return why nothing could be put into the queue now; "" if it could."""
        try:
            with (
                _told("written"),
                incoming(self._folder / "incoming", [b"\0"]),
                self._writing() as connection,
            ):
                entries, size = schema.written(connection)
        except QueueUnusable as error:
            return str(error)
        full = entries >= self._limits.entries or size >= self._limits.size
        full = full or _room(self._folder) <= 0
        return f"it is full: {entries} entries of {size} bytes" if full else ""

    def _settle(self, lease: Lease, entry: Entry, attempt: Attempt | None) -> None:
        with _told("written"), self._writing() as connection:
            if schema.is_held(connection, lease):
                schema.save(connection, entries.after(entry, attempt) if attempt else entry)
            _count(connection, attempt)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        # SQLite's own lock is unfair: a process can wait for seconds while another takes it anew.
        with locked(self._folder / "write.lock"), self._database.writing() as connection:
            yield connection

    def _path(self, sop_instance_uid: str) -> Path:
        return self._folder / "entries" / sop_instance_uid

    def _holds(self, sop_instance_uid: str) -> bool:
        with self._database.reading() as connection:
            return schema.find(connection, sop_instance_uid) is not None

    def _check_room(self, connection: sqlite3.Connection, entry: Entry) -> None:
        entries, size = schema.held(connection)
        full = {
            "QUEUE_MAX_ENTRIES": entries >= self._limits.entries,
            "QUEUE_MAX_BYTES": size + entry.size > self._limits.size,
            "RETRY_QUEUE": entry.size > _room(self._folder),
        }
        reached = [name for name, is_full in full.items() if is_full]
        if reached and not schema.find(connection, entry.sop_instance_uid):
            what = "its disk has no room" if reached == ["RETRY_QUEUE"] else "it may hold no more"
            raise QueueFull(
                f"the retry queue is full: {what} beside {entries} entries of {size} bytes",
                where=reached[0],
                mend="find out why the store takes nothing, drop dead entries, or give it more",
            )


def _room(folder: Path) -> int:
    """Return the bytes that may still be put on a disk: sending and finishing need some, too."""
    disk = os.statvfs(folder)
    total, free = disk.f_frsize * disk.f_blocks, disk.f_frsize * disk.f_bavail
    return free - min(_RESERVE, total // 8)


def _count(connection: sqlite3.Connection, attempt: Attempt | None) -> None:
    if attempt:
        schema.count_outcome(connection, type(attempt.outcome).__name__.lower())


def _place(after: str) -> int:
    if not re.fullmatch(r"\d{0,18}", after, re.ASCII):
        raise BadRequest("there is no such place in the list", where="after")
    return int(after or 0)


@contextmanager
def _told(done: str) -> Iterator[None]:
    """Turn what files and SQLite raise into an error that tells what to mend."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        why = errno.errorcode.get(getattr(error, "errno", None) or 0, "") or str(error)
        raise QueueUnusable(
            f"the retry queue can't be {done} ({type(error).__name__}: {why})",
            where="RETRY_QUEUE",
            mend="see that its folder is there, is writable and has space",
        ) from error
