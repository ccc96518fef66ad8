"""What became of an instance that was sent to a store. Statuses are values, not exceptions."""

from dataclasses import dataclass
from typing import Final

ANSWERING_STATUSES: Final = frozenset({200, 201, 202, 409})  # their body speaks of each instance


@dataclass(frozen=True, slots=True)
class Stored:
    """The store's answer names the instance as stored.

    `duplicate` tells that it was there before, with the same content. `warning_reason` is the
    store's (0008,1196), 0 without one: B000H, it has changed values; B006H, it has discarded
    elements; B007H, the data set doesn't match the SOP class (PS3.4 Table B.2-1).
    """

    retrieve_url: str = ""
    duplicate: bool = False
    warning_reason: int = 0

    @property
    def warning(self) -> str:
        """What the store warns of, in no words of its own; empty if of nothing."""
        if not self.warning_reason:
            return ""
        return f"stored, but not as it was sent: warning reason {self.warning_reason:04X}H"


@dataclass(frozen=True, slots=True)
class Rejected:
    """The store refused the instance for good; sending it again as it is would not help.

    `failure_reason` is the store's (0008,1197), 0 without one; `status` is the HTTP status. `asked`
    tells whether the store was asked at all.
    """

    reason: str
    failure_reason: int = 0
    status: int = 0
    asked: bool = True


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The store can't take the instance now, or didn't say what became of it; try again.

    `retry_after` is in seconds, None where the store named no time. `operator` tells that waiting
    alone will not mend it: credentials, rights, or the store's address are wrong. `asked` tells
    whether the store was asked at all.
    """

    reason: str
    retry_after: float | None = None
    status: int = 0
    operator: bool = False
    asked: bool = True

    @property
    def is_of_store(self) -> bool:
        """Whether it says something of the store, and not of this one instance only."""
        return self.operator or self.status not in ANSWERING_STATUSES


@dataclass(frozen=True, slots=True)
class Conflict:
    """The store has an instance of that identity; whether with the same content is not known."""

    reason: str
    failure_reason: int = 0
    status: int = 0


Outcome = Stored | Rejected | Unavailable
Verdict = Outcome | Conflict


def loggable(outcome: Outcome) -> str:
    """Return what may be logged of an outcome; a store's own text may quote a patient's value."""
    match outcome:
        case Rejected() if outcome.asked:
            return f"status {outcome.status}, failure reason {outcome.failure_reason:04X}H"
        case Rejected() | Unavailable():
            return f"status {outcome.status}" if outcome.status else outcome.reason
        case Stored():
            return outcome.warning or ("already stored" if outcome.duplicate else "")
