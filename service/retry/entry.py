"""Entries of the retry queue: values, and how an attempt changes them."""

from dataclasses import dataclass, replace
from typing import Final, Literal

from service.dicom import uid
from service.dicom.outcome import Rejected, Unavailable
from service.ingest import Attempt, Described, Upload
from service.retry.timing import LONGEST_WAIT

State = Literal["pending", "leased", "dead"]

STATES: Final[tuple[State, ...]] = ("pending", "leased", "dead")
HISTORY: Final = 10  # attempts that are remembered


@dataclass(frozen=True, slots=True)
class Past:
    """An attempt as it is remembered: at seconds since 1970, with its outcome's own words."""

    at: float
    outcome: str
    status: int
    reason: str
    wire: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One instance that the queue keeps.

    Attributes
    ----------
    sop_instance_uid
        The entry's id too. What could not be described has a name of its own here, and no other
        UIDs and no transfer syntax.
    wire
        The wire format of the last attempt; empty before the first.
    size
        Bytes on the disk.
    first_seen, since, next_attempt
        Seconds since 1970: when it came; from when its age counts, which an operator's retry and
        trouble that only an operator can mend begin anew; when it is to be tried again, or None.
    attempts
        All attempts ever made; `history` has the last ten, the latest at its end.
    """

    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    sop_class_uid: str
    transfer_syntax: str
    template: str
    source: str
    wire: str
    size: int
    state: State
    first_seen: float
    since: float
    next_attempt: float | None
    attempts: int
    reason: str
    history: tuple[Past, ...]

    @property
    def is_described(self) -> bool:
        """Whether it holds an instance; else an upload that is none yet."""
        return self.transfer_syntax != ""


def new(
    upload: Upload, described: Described | None, attempt: Attempt | None, now: float, size: int
) -> Entry:
    """Return the entry of an instance that was tried once, or not yet; `size` is in bytes.

    What could not be described is dead from the beginning.
    """
    instance = described.instance if described else None
    entry = Entry(
        sop_instance_uid=name_of(upload, described),
        series_instance_uid=instance.series_instance_uid if instance else "",
        study_instance_uid=instance.study_instance_uid if instance else "",
        sop_class_uid=instance.sop_class_uid if instance else "",
        transfer_syntax=instance.transfer_syntax if instance else "",
        template=upload.template,
        source=upload.source,
        wire="",
        size=size,
        state="pending" if instance else "dead",
        first_seen=now,
        since=now,
        next_attempt=now if instance else None,
        attempts=0,
        reason="",
        history=(),
    )
    if attempt is None:
        return entry
    match attempt.outcome:
        case Rejected():
            entry = replace(entry, state="dead", next_attempt=None)
        case Unavailable(retry_after=seconds) if seconds:
            entry = replace(entry, next_attempt=now + min(LONGEST_WAIT, seconds))
    return after(entry, attempt)


def name_of(upload: Upload, described: Described | None) -> str:
    """Return the id that an entry has."""
    return described.instance.sop_instance_uid if described else undescribed_name(upload)


def undescribed_name(upload: Upload) -> str:
    """Name an upload that could not be described: the same one has the same name."""
    said = uid.canonical(upload.attributes)
    names = (upload.digest, upload.template, upload.idempotency_key, said)
    return f"undescribed-{uid.digest(*names)[:32]}"


def joined(known: Entry, entry: Entry, *, replaced: bool) -> Entry:
    """Return a kept entry after one more upload of the same instance.

    `replaced` tells that what the new upload is made of has taken the place of what was kept.
    """
    same = known.state == entry.state
    return replace(
        entry if replaced else known,
        state=entry.state,
        first_seen=known.first_seen,
        since=known.since if same else entry.since,
        next_attempt=known.next_attempt if same else entry.next_attempt,
        wire=entry.wire or known.wire,
        attempts=known.attempts + entry.attempts,
        reason=entry.reason or known.reason,
        history=(*known.history, *entry.history)[-HISTORY:],
    )


def after(entry: Entry, attempt: Attempt) -> Entry:
    """Return an entry that remembers an attempt; only why, if it asked no store."""
    if not attempt.asked:
        return replace(entry, reason=attempt.reason)
    past = Past(
        at=attempt.at,
        outcome=type(attempt.outcome).__name__.lower(),
        status=getattr(attempt.outcome, "status", 0),
        reason=attempt.reason,
        wire=attempt.wire,
    )
    operator = isinstance(attempt.outcome, Unavailable) and attempt.outcome.operator
    return replace(
        entry,
        since=attempt.at if operator else entry.since,
        wire=attempt.wire,
        attempts=entry.attempts + 1,
        reason=past.reason,
        history=(*entry.history, past)[-HISTORY:],
    )
