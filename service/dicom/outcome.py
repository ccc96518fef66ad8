"""What became of an instance that was sent to a store. Statuses are values, not exceptions."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stored:
    """The store's answer names the instance as stored.

    `duplicate` tells that it was there before, with the same content. `warning_reason` is the
    store's (0008,1196), 0 without one.
    """

    retrieve_url: str = ""
    duplicate: bool = False
    warning_reason: int = 0


@dataclass(frozen=True, slots=True)
class Rejected:
    """The store refused the instance for good; sending it again as it is would not help.

    `failure_reason` is the store's (0008,1197), 0 without one; `status` is the HTTP status.
    """

    reason: str
    failure_reason: int = 0
    status: int = 0


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The store can't take the instance now, or didn't say what became of it; try again.

    `retry_after` is in seconds, None where the store named no time. `operator` tells that waiting
    alone will not mend it: credentials, rights, or the store's address are wrong.
    """

    reason: str
    retry_after: float | None = None
    status: int = 0
    operator: bool = False


@dataclass(frozen=True, slots=True)
class Conflict:
    """The store has an instance of that identity; whether with the same content is not known."""

    reason: str
    failure_reason: int = 0
    status: int = 0


Outcome = Stored | Rejected | Unavailable
Verdict = Outcome | Conflict
