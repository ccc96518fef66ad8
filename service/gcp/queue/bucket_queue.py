"""A retry queue in a bucket, which any number of machines share (`retry.protocol.Queue`).

The bucket is the list: what it holds is the queue, whatever happens to messages. An entry's payload
is there before its record and goes after it; its alarm is set before it is acknowledged.
"""

import secrets
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, Protocol

from service.dicom.codestream import Buffer
from service.errors import DamagedEntry, QueueUnusable
from service.gcp.queue import record as form
from service.gcp.queue.finding import arrival, matches, matching
from service.gcp.queue.keeping import CheckRoom, keep, remove, sound
from service.gcp.queue.record import Record
from service.gcp.queue.records import Placed, Records
from service.gcp.queue.room import Room
from service.gcp.queue.sweep import Swept, sweep
from service.ingest import Attempt, Described, Upload
from service.retry import entry as entries
from service.retry import kept
from service.retry.entry import STATES, Entry
from service.retry.kept import Kept
from service.retry.protocol import (
    LEASE,
    Filter,
    Lease,
    Limits,
    Page,
    Totals,
    being_sent,
    check_free,
    check_state,
    is_on_its_way,
    no_such_entry,
)

_FRESH: Final = 10.0  # seconds that one look at the whole queue is leased from


class Ring(Protocol):
    """What wakes whoever sends an entry."""

    def set(self, names: Sequence[str]) -> None:
        """Have entries tried soon; QueueUnusable."""

    def missing(self) -> str:
        """Return why nobody could be woken; "" if somebody could."""

    def close(self) -> None:
        """Let go of it."""


class BucketQueue:
    """A retry queue in a bucket, for several threads, processes and machines at once."""

    def __init__(self, records: Records, ring: Ring, limits: Limits) -> None:
        """Open a queue; nothing is asked before it is used, so that it survives a fork."""
        self._records = records
        self._ring = ring
        self._room = Room(records, limits)
        self._outcomes: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._due: list[Entry] = []
        self._looked = 0.0

    def close(self) -> None:
        """Let go of the queue."""
        self._ring.close()

    def put(
        self, upload: Upload, described: Described | None, attempt: Attempt | None, now: float
    ) -> None:
        """Keep an instance durably, and set its alarm.

        One that is kept already keeps its place; a dead one waits again, and the other way round,
        as the attempt says.
        """
        entry, pieces = kept.made(upload, described, attempt, now)
        self._keep(entry, pieces, self._room.check)
        self._count(attempt)

    def replace(
        self, sop_instance_uid: str, upload: Upload, described: Described, now: float
    ) -> None:
        """Put an instance in the place of an entry, limits or not; NoSuchEntry, BeingSent."""
        entry, pieces = kept.made(upload, described, None, now)
        if entry.sop_instance_uid == sop_instance_uid:
            check_free(self.show(sop_instance_uid), now)
            self._keep(entry, pieces, lambda _: None)
            return
        held = self._hold(sop_instance_uid, now)
        try:
            self._keep(entry, pieces, lambda _: None)
        except BaseException:  # Ctrl-C too: a dead entry that is left to its lease would be sent
            self._settle(held, lambda _: held.entry)
            raise

        def marked(record: Record) -> Record:
            if record.token != held.token:
                raise being_sent()  # that took so long that the lease has run out
            return replace(record, dropped=True)

        remove(self._records, self._room, sop_instance_uid, marked)

    def lease(self, now: float, *, probe: bool = False) -> Lease | None:
        """Take the oldest entry whose time has come, or for a probe the least tried one.

        All records are looked at for that, once for many leases. Who is told by a message which
        entry to take uses `lease_entry`.
        """
        for look in (False, True):
            if look:
                self._look(now)
            while entry := self._next_due(now, probe=probe):
                if lease := self.lease_entry(entry.sop_instance_uid, now):
                    return lease
        return None

    def lease_entry(self, sop_instance_uid: str, now: float) -> Lease | None:
        """Take one entry; None if it isn't there, or not due, or another's."""
        token = secrets.token_hex(8)

        def taken(record: Record) -> Record | None:
            if not form.is_due(record.entry, now):
                return None
            entry = replace(record.entry, state="leased", next_attempt=now + LEASE)
            return record.with_entry(entry, token)

        placed = self._records.change(sop_instance_uid, taken)
        return Lease(placed.record.entry, token) if placed else None

    def renew(self, leases: Sequence[Lease], now: float) -> None:
        """Hold leases for `LEASE` seconds from now."""
        for lease in leases:
            self._settle(lease, lambda entry: replace(entry, next_attempt=now + LEASE), keep=True)

    def load(self, sop_instance_uid: str) -> Kept:
        """Return what is kept of an entry; NoSuchEntry, DamagedEntry."""
        placed = self._found(sop_instance_uid)
        found = sound(self._records, placed.place)
        if found is None:
            self._found(sop_instance_uid)  # it may have been finished meanwhile
            raise DamagedEntry(
                "what the queue kept of the instance is damaged or gone",
                where=f"entries/{placed.place.name}",
                mend="upload the picture again, which mends the entry, or drop it",
            )
        return found

    def finish(self, sop_instance_uid: str, attempt: Attempt | None = None) -> None:
        """Let go of an instance that the store has, whoever holds its lease."""
        for place in self._records.places(sop_instance_uid):
            self._records.finish(place)
            self._room.changed(-1, 0)
        self._count(attempt)

    def put_back(self, lease: Lease, not_before: float, attempt: Attempt | None) -> None:
        """Let an entry wait on; without an attempt, as if it had not been taken.

        Nothing happens if the lease has run out and somebody else holds the entry, or none is left.
        """
        waiting = replace(lease.entry, state="pending", next_attempt=not_before)
        self._settle(lease, lambda entry: _after(waiting, entry, attempt))
        self._count(attempt)
        self._due = []

    def bury(self, lease: Lease, attempt: Attempt) -> None:
        """Keep an entry as dead, for an operator; as `put_back` if somebody else holds it."""
        dead = replace(lease.entry, state="dead", next_attempt=None)
        self._settle(lease, lambda entry: _after(dead, entry, attempt))
        self._count(attempt)

    def list(self, chosen: Filter, limit: int, after: str = "") -> Page:
        """Return up to `limit` entries, oldest first, from where the page before ended.

        Raises
        ------
        BadRequest
            If `after` is no such place.
        """
        found: list[Placed] = []
        for placed in matching(self._records, chosen, arrival(after)):
            if len(found) == limit:
                return Page([one.record.entry for one in found], str(found[-1].place.arrival))
            found.append(placed)
        return Page([one.record.entry for one in found], "")

    def show(self, sop_instance_uid: str) -> Entry:
        """Return one entry; NoSuchEntry."""
        return self._found(sop_instance_uid).record.entry

    def revive(self, chosen: Filter, now: float) -> int:
        """Let dead and pending instances be tried at once; return how many."""

        def revived(record: Record) -> Record | None:
            entry = record.entry
            if is_on_its_way(entry, now) or not entry.is_described:
                return None
            if not matches(entry, chosen):
                return None
            due = replace(entry, state="pending", next_attempt=now, since=now)
            return record.with_entry(due)  # its alarm is not set yet

        names = [one.place.sop_instance_uid for one in matching(self._records, chosen)]
        count = 0
        for awake in self._records.change_many(names, revived):
            self._wake(awake)
            count += len(awake)
        return count

    def drop(self, sop_instance_uid: str, now: float, state: str = "") -> None:
        """Discard an entry for good; NoSuchEntry, BeingSent, EntryChanged.

        It is marked first, so that no crash brings it back.
        """

        def marked(record: Record) -> Record:
            check_free(record.entry, now)
            check_state(record.entry, state)
            return replace(record, dropped=True)

        remove(self._records, self._room, sop_instance_uid, marked)

    def is_at_end(self, sop_instance_uid: str) -> bool:
        """Tell whether no alarm can do anything for an entry: it is dead, or gone.

        One whose record can't be read may be a newer version's to send.
        """
        placed = self._records.find(sop_instance_uid)
        if placed is None:
            return not self._records.places(sop_instance_uid)
        return placed.record.entry.state == "dead"

    def totals(self) -> Totals:
        """Count; the outcomes are those of this process."""
        counts, size, oldest = dict.fromkeys(STATES, 0), 0, None
        for placed in matching(self._records, Filter()):
            entry = placed.record.entry
            counts[entry.state] += 1
            size += entry.size
            if oldest is None and entry.state != "dead":
                oldest = entry.first_seen
        return Totals(counts, size, oldest, dict(self._outcomes))

    def unusable(self) -> str:
        """Return why nothing could be put into the queue now; "" if it could."""
        try:
            self._records.try_to_write()
            return self._ring.missing() or self._room.is_full()
        except QueueUnusable as error:
            return str(error)

    def sweep(self, now: float, silence: float) -> Swept:
        """Set the alarms again of entries that nothing was heard of for `silence` seconds."""
        self._due = []
        return sweep(self._records, self._ring.set, now, silence)

    def _keep(self, entry: Entry, pieces: Sequence[Buffer], check: CheckRoom) -> None:
        """Keep an entry, and set its alarm."""
        state = keep(self._records, self._room, entry, pieces, check)
        if state != "dead":  # who holds it may be dead, and his alarm with him
            self._wake([entry.sop_instance_uid])

    def _hold(self, sop_instance_uid: str, now: float) -> Lease:
        """Lease an entry, dead or not due as it may be, and return it as it was."""
        before: list[Entry] = []
        token = secrets.token_hex(8)

        def held(record: Record) -> Record:
            check_free(record.entry, now)
            before[:] = [record.entry]
            entry = replace(record.entry, state="leased", next_attempt=now + LEASE)
            return record.with_entry(entry, token)

        if self._records.change(sop_instance_uid, held) is None:
            raise no_such_entry()
        return Lease(before[0], token)

    def _settle(
        self, lease: Lease, change: Callable[[Entry], Entry], *, keep: bool = False
    ) -> None:
        def settled(record: Record) -> Record | None:
            if record.token != lease.token:
                return None
            return record.with_entry(change(record.entry), record.token if keep else "")

        self._records.change(lease.entry.sop_instance_uid, settled)

    def _found(self, sop_instance_uid: str) -> Placed:
        placed = self._records.find(sop_instance_uid)
        if placed is None:
            raise no_such_entry()
        return placed

    def _look(self, now: float) -> None:
        """Look for what is due."""
        everything = (one.record.entry for one in matching(self._records, Filter()))
        self._due = [entry for entry in everything if form.is_due(entry, now)]
        self._looked = now

    def _next_due(self, now: float, *, probe: bool) -> Entry | None:
        with self._lock:
            due = self._due
            if not due or not 0.0 <= now - self._looked <= _FRESH:
                return None
            wanted = min(due, key=lambda entry: entry.attempts) if probe else due[0]
            due.remove(wanted)
            return wanted

    def _wake(self, names: Sequence[str]) -> None:
        self._due = []
        if names:
            self._ring.set(names)

    def _count(self, attempt: Attempt | None) -> None:
        if attempt and attempt.asked:
            with self._lock:
                self._outcomes[type(attempt.outcome).__name__.lower()] += 1


def _after(settled: Entry, current: Entry, attempt: Attempt | None) -> Entry:
    entry = replace(settled, size=current.size)
    return entries.after(entry, attempt) if attempt else entry
