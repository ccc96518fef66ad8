"""What drains the queue: at most so many instances at once, slowly at first, oldest first."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from service import counting, telemetry
from service.dicom.outcome import Outcome, Rejected, Stored, Unavailable, loggable
from service.errors import DamagedEntry, JpegstowError, NoSuchEntry
from service.ingest import Attempt, Store
from service.retry import timing
from service.retry.breaker import Breaker, Permit, is_failure
from service.retry.protocol import Lease, Queue
from service.retry.timing import Again, Decision, Finish, GiveUp, Waiting


class Pace(NamedTuple):
    """How a queue is drained.

    Attributes
    ----------
    concurrency
        The most instances that are being sent at once.
    max_age
        Seconds after which an instance is given up.
    """

    concurrency: int
    max_age: float


class Drain:
    """One process's part in draining a queue.

    `take`, then `send` in a thread of its own, then `settle`; all but `send` from one thread only.
    Every moment is an argument, in seconds since 1970.
    """

    def __init__(self, queue: Queue, store: Store, pace: Pace, chance: Callable[[], float]) -> None:
        self._queue = queue
        self._store = store
        self._pace = pace
        self._chance = chance
        self._breaker = Breaker()
        self._at_once = 1  # grows with every success: a store that is back isn't stormed
        self._held: dict[str, tuple[Lease, Permit]] = {}

    @property
    def held(self) -> Sequence[Lease]:
        """The leases that have been taken and not settled."""
        return [lease for lease, _ in self._held.values()]

    def take(self, now: float) -> Lease | None:
        """Take an entry to be sent; None if none is due, or none may be sent now."""
        if len(self._held) >= self._at_once:
            return None
        permit = self._breaker.allows(now)
        if permit is None:
            return None
        lease = None
        try:
            lease = self._queue.lease(now, probe=permit.probe > 0)
        finally:
            if lease is None:
                self._breaker.cancel(permit)
        if lease:
            self._held[lease.token] = (lease, permit)
            self._tell(now, permit)
        return lease

    def send(self, lease: Lease) -> Outcome:
        """Send an entry, and return what came of it; whatever goes wrong is an outcome."""
        return send(self._queue, self._store, lease)

    def settle(self, lease: Lease, outcome: Outcome, now: float) -> None:
        """Do with an entry what its outcome demands.

        Raises
        ------
        QueueUnusable
            If that can't be written; the entry comes back when its lease runs out.
        """
        _, permit = self._held.pop(lease.token)
        self._learn(outcome, now, permit)
        attempt = Attempt(now, outcome, self._store.wire)
        settle(self._queue, lease, attempt, self._chance(), self._pace.max_age)

    def renew(self, now: float) -> None:
        """Keep what is held."""
        if self._held:
            self._queue.renew(self.held, now)

    def put_back_all(self, now: float) -> None:
        """Let others have what is held, as if it had never been taken."""
        for lease in self.held:
            del self._held[lease.token]
            self._queue.put_back(lease, now, None)

    def _learn(self, outcome: Outcome, now: float, permit: Permit) -> None:
        if not isinstance(outcome, Stored) and not outcome.asked:
            self._breaker.cancel(permit)
            self._tell(now, permit)
            return
        self._breaker.record(outcome, now, permit)
        counting.left_alone(self._breaker.opens_in(now))
        if is_failure(outcome):
            self._at_once = max(1, self._at_once // 2)
        else:
            self._at_once = min(self._pace.concurrency, self._at_once + 1)

    def _tell(self, now: float, permit: Permit) -> None:
        """Tell for how long the others leave the store alone, once a probe is sent or given up."""
        if permit.probe:
            counting.left_alone(self._breaker.opens_in(now))


def send(queue: Queue, store: Store, lease: Lease) -> Outcome:
    """Send an entry, and return what came of it; whatever goes wrong is an outcome."""
    name = lease.entry.sop_instance_uid
    try:
        described = queue.load(name).described
        if described is None:
            return Rejected("it has not been described", asked=False)
        with counting.step("retry"):
            return store.store([described.instance])[name]
    except NoSuchEntry:
        return Unavailable("the entry is gone", asked=False)
    except DamagedEntry as error:
        return Rejected(str(error), asked=False)
    except JpegstowError as error:
        return Unavailable(str(error), asked=False)
    except Exception as error:  # noqa: BLE001 - a thread's error would be nobody's
        telemetry.log_exception("unforeseen error", error)
        return Unavailable(f"the service failed ({type(error).__name__})")


def settle(queue: Queue, lease: Lease, attempt: Attempt, chance: float, max_age: float) -> Decision:
    """Do with an entry what an attempt's outcome demands, and tell what that was; QueueUnusable."""
    outcome, now = attempt.outcome, attempt.at
    waiting = Waiting(lease.entry.attempts + attempt.asked, lease.entry.since)
    _log(lease, outcome, waiting.attempts)
    if attempt.asked:
        counting.retried(type(outcome).__name__.lower())
    decision = timing.decide(outcome, waiting, now, chance, max_age)
    match decision:
        case Finish():
            queue.finish(lease.entry.sop_instance_uid, attempt)
        case Again(not_before):
            queue.put_back(lease, not_before, attempt)
        case GiveUp():
            queue.bury(lease, attempt)
    return decision


def _log(lease: Lease, outcome: Outcome, attempts: int) -> None:
    """Write the line of an attempt; what only an operator can mend is loud."""
    operator = isinstance(outcome, Unavailable) and outcome.operator
    warned = isinstance(outcome, Stored) and outcome.warning
    telemetry.log(
        "ERROR" if operator or isinstance(outcome, Rejected) else "WARNING" if warned else "INFO",
        "retry",
        SOPInstanceUID=lease.entry.sop_instance_uid,
        outcome=type(outcome).__name__.lower(),
        reason=loggable(outcome),
        attempts=attempts,
    )
