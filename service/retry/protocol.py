"""What a retry queue is, whatever holds it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from service.errors import BeingSent, EntryChanged, NoSuchEntry, QueueFull
from service.ingest import Attempt, Described, Upload
from service.retry.entry import Entry, State
from service.retry.kept import Kept

LEASE: Final = 30.0  # seconds; its holder renews it as long as it lives
HELD: Final = 2 * LEASE  # seconds; what a lease has left at most, by the clock of any machine


class Limits(NamedTuple):
    """How much a queue may hold, the dead included; `size` is in bytes."""

    entries: int
    size: int

    def reached(self, entries: int, size: int, more: int) -> list[str]:
        """Name the settings that keep a queue of so much from taking one entry more."""
        full = {
            "QUEUE_MAX_ENTRIES": entries >= self.entries,
            "QUEUE_MAX_BYTES": size + more > self.size,
        }
        return [name for name, is_full in full.items() if is_full]


class Lease(NamedTuple):
    """An entry that is this holder's alone to send, for `LEASE` seconds."""

    entry: Entry
    token: str


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries are meant; an empty text means all.

    Attributes
    ----------
    reason
        A part of the last attempt's reason, in capitals or not.
    study
        A Study Instance UID.
    instance
        A SOP Instance UID.
    """

    state: str = ""
    reason: str = ""
    study: str = ""
    instance: str = ""


class Page(NamedTuple):
    """Some entries, oldest first; `after` is where the next page begins, empty at the end."""

    entries: Sequence[Entry]
    after: str


class Totals(NamedTuple):
    """The queue at one glance.

    Attributes
    ----------
    entries
        How many there are in each state.
    size
        Bytes on the disk.
    oldest
        When the oldest that isn't dead came, in seconds since 1970; None without one.
    outcomes
        How many attempts have come to what, ever.
    """

    entries: Mapping[State, int]
    size: int
    oldest: float | None
    outcomes: Mapping[str, int]


def is_on_its_way(entry: Entry, now: float) -> bool:
    """Tell whether somebody is sending an entry: by a lease that hasn't run out."""
    return entry.state == "leased" and 0.0 < (entry.next_attempt or 0.0) - now <= HELD


def check_free(entry: Entry, now: float) -> None:
    """Raise BeingSent if an entry is on its way."""
    if is_on_its_way(entry, now):
        raise being_sent()


def being_sent() -> BeingSent:
    """Make the error of an entry that is another's at the moment."""
    return BeingSent(
        "the entry is being sent at this moment",
        where="id",
        mend="look again in half a minute: it may be stored by then",
    )


def check_state(entry: Entry, state: str) -> None:
    """Raise EntryChanged if a state is given and the entry has another."""
    if state and entry.state != state:
        raise EntryChanged(
            f"the entry was {state}, and is {entry.state} now", where="id", mend="look at it again"
        )


def no_such_entry() -> NoSuchEntry:
    """Make the error of an entry that isn't there."""
    return NoSuchEntry(
        "the retry queue holds no such entry",
        where="id",
        mend="look for the instance in the store: it may have been stored meanwhile",
    )


def queue_full(what: str, where: str, entries: int, size: int) -> QueueFull:
    """Make the error of a queue that takes no more beside so many entries of so many bytes."""
    return QueueFull(
        f"the retry queue is full: {what} beside {entries} entries of {size} bytes",
        where=where,
        mend="find out why the store takes nothing, drop dead entries, or give it more",
    )


class Queue(Protocol):
    """What every retry queue does; several processes share one. Moments are seconds since 1970.

    All raise QueueUnusable where the queue can't be read or written.
    """

    def put(
        self, upload: Upload, described: Described | None, attempt: Attempt | None, now: float
    ) -> None:
        """Keep an instance durably, or as dead what could not be described; QueueFull."""

    def replace(
        self, sop_instance_uid: str, upload: Upload, described: Described, now: float
    ) -> None:
        """Put an instance in the place of an entry, limits or not; NoSuchEntry, BeingSent."""

    def lease(self, now: float, *, probe: bool = False) -> Lease | None:
        """Take the oldest entry whose time has come; one whose lease has run out is among them.

        A probe takes the one that was tried least: one after the other might fail for reasons of
        its own, and keep all the others waiting for a store that is there.
        """

    def load(self, sop_instance_uid: str) -> Kept:
        """Return what is kept of an entry; NoSuchEntry, DamagedEntry."""

    def renew(self, leases: Sequence[Lease], now: float) -> None:
        """Hold leases for `LEASE` seconds from now."""

    def finish(self, sop_instance_uid: str, attempt: Attempt | None = None) -> None:
        """Let go of an instance that the store has, whoever holds its lease."""

    def put_back(self, lease: Lease, not_before: float, attempt: Attempt | None) -> None:
        """Let an entry wait on; without an attempt, as if it had not been taken.

        Nothing happens if the lease has run out and somebody else holds the entry, or none is left.
        """

    def bury(self, lease: Lease, attempt: Attempt) -> None:
        """Keep an entry as dead, for an operator; as `put_back` if somebody else holds it."""

    def list(self, chosen: Filter, limit: int, after: str = "") -> Page:
        """Return up to `limit` entries, oldest first, from where the page before ended."""

    def show(self, sop_instance_uid: str) -> Entry:
        """Return one entry; NoSuchEntry."""

    def revive(self, chosen: Filter, now: float) -> int:
        """Let dead and pending instances be tried at once; return how many."""

    def drop(self, sop_instance_uid: str, now: float, state: str = "") -> None:
        """Discard an entry for good; NoSuchEntry, BeingSent.

        EntryChanged if a state is given and the entry has another: somebody looked at it before.
        """

    def totals(self) -> Totals:
        """Count."""

    def unusable(self) -> str:
        """Return why nothing could be put into the queue now; "" if it could."""

    def close(self) -> None:
        """Let go of the queue."""
