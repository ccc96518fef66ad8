"""When to try again: pure functions of what happened, of the time, and of chance."""

from dataclasses import dataclass
from typing import Final, NamedTuple

from service.dicom.outcome import Outcome, Rejected, Stored, Unavailable

LONGEST_WAIT: Final = 600.0  # seconds, whatever a store asks for

_LEAST_ATTEMPTS: Final = 10  # before an instance is given up, however long nobody could try
_FIRST_WAIT: Final = 2.0  # seconds; at most so long after the first failure, then twice as long


@dataclass(frozen=True, slots=True)
class Finish:
    """The store has the instance."""


class Again(NamedTuple):
    """Try again, not before a moment in seconds since 1970."""

    not_before: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Wait for an operator: the store refused the instance, or has been away for too long."""


Decision = Finish | Again | GiveUp


class Waiting(NamedTuple):
    """How long an instance has been waiting: attempts made, and since when, in seconds of 1970."""

    attempts: int
    since: float


def decide(
    outcome: Outcome, waiting: Waiting, now: float, chance: float, max_age: float
) -> Decision:
    """Decide what to do after an attempt.

    Parameters
    ----------
    waiting
        With the attempt that has just ended.
    chance
        From 0 to 1, drawn anew for each decision.
    max_age
        Seconds after which to give up, once it was tried some times. Where only an operator can
        mend what is wrong, such as credentials, or no store was asked, nothing is given up: no
        instance is at fault then.
    """
    match outcome:
        case Stored():
            return Finish()
        case Rejected():
            return GiveUp()
        case Unavailable():
            no_fault = outcome.operator or not outcome.asked
            old = now - waiting.since >= max_age and waiting.attempts >= _LEAST_ATTEMPTS
            if old and not no_fault:
                return GiveUp()
            return Again(now + wait(max(1, waiting.attempts), outcome.retry_after, chance))


def wait(attempts: int, retry_after: float | None, chance: float) -> float:
    """Return seconds to wait after so many attempts: exponential, with full jitter.

    Never less than `retry_after` and never more than `LONGEST_WAIT`, which bounds both.
    """
    jitter = chance * min(LONGEST_WAIT, _FIRST_WAIT * 2.0 ** min(attempts - 1, 20))
    return min(LONGEST_WAIT, (retry_after or 0.0) + jitter)
