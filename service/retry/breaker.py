"""A circuit breaker: a store that keeps failing is left alone, but for one probe at a time."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeGuard

from service import counting
from service.dicom.dataset import Instance
from service.dicom.outcome import Outcome, Unavailable, loggable
from service.ingest import Store
from service.retry.timing import LONGEST_WAIT

_FAILURES: Final = 3  # in a row
_FIRST_REST: Final = 1.0  # seconds, then twice as long after each probe that fails
_LONGEST_REST: Final = 30.0
_PROBE: Final = 300.0  # seconds after which a probe that nobody told of is given up


class Permit(NamedTuple):
    """Leave to ask the store once: as the probe of that number, or 0 as everybody may."""

    probe: int = 0


class Breaker:
    """What one process knows of one store: whether it is worth asking.

    Times are seconds of any clock. A moment further away than any rest could be comes of a clock
    that was set back, and counts as past.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures = 0
        self._why = ""
        self._rest_until: float | None = None
        self._probes = 0  # the number of the last one
        self._probe_until: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether the store is left alone."""
        return self._rest_until is not None

    @property
    def why(self) -> str:
        """What the store's last failure was, without its own words: they may be of a patient."""
        return self._why

    def allows(self, now: float) -> Permit | None:
        """Return leave to ask the store; None if it is left alone, or another is its probe.

        Whoever is allowed tells by `record` what came of it, or by `cancel` that nothing did.
        """
        with self._lock:
            if self._rest_until is None:
                return Permit()
            if _is_ahead(self._rest_until, now) or _is_ahead(self._probe_until, now):
                return None
            self._probe_until = now + _PROBE
            self._probes += 1
            return Permit(self._probes)

    def opens_in(self, now: float) -> float:
        """Return the seconds until a probe may be allowed; 0 if it may be now."""
        with self._lock:
            until = max(self._rest_until or 0.0, self._probe_until or 0.0)
            return until - now if _is_ahead(until, now) else 0.0

    def cancel(self, permit: Permit) -> None:
        """Give back what `allows` has granted: nothing was asked."""
        with self._lock:
            if self._is_probe(permit):
                self._probe_until = None

    def record(self, outcome: Outcome, now: float, permit: Permit) -> None:
        """Learn from an answer; what is said of one instance only says that the store is there."""
        with self._lock:
            if not is_failure(outcome):
                self._failures = 0
                self._rest_until = self._probe_until = None
                return
            self._why = loggable(outcome)
            asked_for = now + min(LONGEST_WAIT, outcome.retry_after or 0.0)
            if self.is_open and not self._is_probe(permit):
                # It was sent before the rest began: one failure more or less of the same outage.
                if asked_for > now:
                    self._rest_until = max(self._rest_until or 0.0, asked_for)
                return
            self._failures += 1
            if self.is_open or asked_for > now or self._failures >= _FAILURES:
                doublings = min(max(0, self._failures - _FAILURES), 20)
                rest = min(_LONGEST_REST, _FIRST_REST * 2.0**doublings)
                self._rest_until = max(now + rest, asked_for)
                self._probe_until = None

    def _is_probe(self, permit: Permit) -> bool:
        return permit.probe > 0 and permit.probe == self._probes


def is_failure(outcome: Outcome) -> TypeGuard[Unavailable]:
    """Tell whether an outcome says that the store itself is in trouble."""
    return isinstance(outcome, Unavailable) and outcome.is_of_store


def _is_ahead(moment: float | None, now: float) -> bool:
    return moment is not None and 0.0 < moment - now <= max(LONGEST_WAIT, _PROBE)


class GuardedStore:
    """A store that isn't asked while the breaker is open."""

    def __init__(
        self,
        store: Store,
        breaker: Breaker,
        within: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Guard a store; `within` is the deadline, in seconds, where the caller names none."""
        self._store = store
        self._breaker = breaker
        self._within = within
        self._clock = clock

    @property
    def wire(self) -> str:
        """The wire format in use."""
        return self._store.wire

    def store(
        self, instances: Sequence[Instance], within: float | None = None
    ) -> dict[str, Outcome]:
        """Send instances, or tell at once that the store is left alone."""
        names = [instance.sop_instance_uid for instance in instances]
        now = self._clock()
        permit = self._breaker.allows(now)
        if permit is None:
            # One text for all of an outage, by which an operator finds them, and its cause.
            reason = f"the store keeps failing, and is left alone: {self._breaker.why}"
            return dict.fromkeys(names, Unavailable(reason, asked=False))
        if permit.probe:  # until it comes back, all others still leave the store alone
            counting.left_alone(self._breaker.opens_in(now))
        outcomes: dict[str, Outcome] = dict.fromkeys(names, Unavailable("the service failed"))
        try:
            outcomes |= self._store.store(instances, self._within if within is None else within)
        finally:
            # One request is one success or one failure, however many instances it has.
            telling = min(outcomes.values(), key=is_failure)
            now = self._clock()
            self._breaker.record(telling, now, permit)
            counting.left_alone(self._breaker.opens_in(now))
        return outcomes


class UnaskedStore:
    """No store at all: what is sent to it goes to the retry queue, as the uploader wished."""

    wire = ""

    def store(
        self,
        instances: Sequence[Instance],
        within: float | None = None,  # noqa: ARG002
    ) -> dict[str, Outcome]:
        """Tell of each instance that nobody has asked a store."""
        waiting = Unavailable("not sent yet, as was asked for", asked=False)
        return {instance.sop_instance_uid: waiting for instance in instances}
