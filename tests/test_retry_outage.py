"""What drains the queue, in simulated time: an hour without a store passes in seconds."""

import heapq
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from typing import Any

import pytest

from service.dicom.dataset import Instance
from service.dicom.outcome import Outcome, Stored, Unavailable
from service.retry import LEASE, Drain, Pace, Queue
from tests.queues import (
    DOWN,
    NOW,
    WEEK,
    Made,
    copies,
    drain_of,
    put,
    sqlite_queue,
    uid_of,
)

HOUR = 3600.0
POLL = 0.5  # seconds between two looks


@dataclass
class Site:
    """A store in simulated time, and what it has seen.

    `answers` maps a moment to what a request that begins then comes to, and after how many
    seconds.
    """

    answers: Callable[[float], tuple[Outcome, float]]
    wire: str = "json"
    now: float = NOW
    took: float = 0.0
    begun: list[tuple[float, str]] = field(default_factory=list)
    ended: list[tuple[float, Outcome]] = field(default_factory=list)
    stored: list[str] = field(default_factory=list)
    in_flight: list[int] = field(default_factory=list)

    def store(
        self,
        instances: Sequence[Instance],
        within: float | None = None,  # noqa: ARG002
    ) -> dict[str, Outcome]:
        (name,) = [instance.sop_instance_uid for instance in instances]
        self.begun.append((self.now, name))
        outcome, self.took = self.answers(self.now)
        self.ended.append((self.now + self.took, outcome))
        if outcome == Stored():
            self.stored.append(name)
        return {name: outcome}


def run(site: Site, queue: Queue, drain: Drain, arrivals: Sequence[tuple[float, Made]]) -> None:
    """Let uploads arrive at their moments, and drain until the queue is empty."""
    order = count()
    events: list[tuple[float, int, Any]] = [(at, next(order), kept) for at, kept in arrivals]
    heapq.heapify(events)
    renewed = site.now
    while events or any(queue.totals().entries.values()):
        if events and events[0][0] <= site.now + POLL:
            site.now, _, event = heapq.heappop(events)
            if isinstance(event, Made):
                put(queue, event, None, site.now)
            else:
                lease, outcome = event
                drain.settle(lease, outcome, site.now)
        else:
            site.now += POLL
        if site.now - renewed > LEASE / 3:
            drain.renew(site.now)
            renewed = site.now
        while lease := drain.take(site.now):
            outcome = drain.send(lease)
            heapq.heappush(events, (site.now + site.took, next(order), (lease, outcome)))
            site.in_flight.append(len(drain.held))


@pytest.fixture
def fast_queue() -> Iterator[Queue]:
    """Open a queue where flushing costs nothing, if there is such a place."""
    memory = Path("/dev/shm")
    folder = Path(mkdtemp(dir=memory if memory.is_dir() else None))
    with sqlite_queue(folder) as queue:
        yield queue
    shutil.rmtree(folder)


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    with sqlite_queue(tmp_path / "queue") as opened:
        yield opened


def during(site: Site, start: float, end: float) -> list[tuple[float, str]]:
    return [one for one in site.begun if start <= one[0] < end]


def most_at_once(site: Site, start: float, end: float) -> int:
    """Count the requests that were on their way together, of those begun between two moments."""
    spans = [
        (begin, until)
        for (begin, _), (until, _) in zip(site.begun, site.ended, strict=True)
        if start <= begin < end
    ]
    return max(sum(a <= begin < b for a, b in spans) for begin, _ in spans)


def check_ramp(site: Site, back: float, concurrency: int) -> None:
    """Hold each request after an outage to one more at once for each success before it."""
    successes = [at for at, outcome in site.ended if at >= back and outcome == Stored()]
    for (begin, _), flying in zip(site.begun, site.in_flight, strict=True):
        earlier = sum(at <= begin for at in successes[:concurrency])
        assert begin < back or flying <= min(concurrency, 1 + earlier)


def check_order(site: Site, back: float) -> None:
    """Of what was not tried before, the oldest was sent first."""
    before = {name for begin, name in site.begun if begin < back}
    fresh = [int(name[5:]) for begin, name in site.begun if begin >= back and name not in before]
    assert fresh == sorted(fresh)


@pytest.mark.parametrize(("concurrency", "uploads"), [(4, 160), (16, 600)])
def test_an_hour_without_a_store_costs_few_requests_and_no_instance(
    fast_queue: Queue, concurrency: int, uploads: int
) -> None:
    random = Random(concurrency)
    start, back = NOW + 30.0, NOW + 30.0 + HOUR

    def answers(now: float) -> tuple[Outcome, float]:
        return (DOWN, random.uniform(0.01, 20.0)) if start <= now < back else (Stored(), 3.0)

    site = Site(answers)
    burst = uploads // 4  # so that as many as may be are on their way when the outage begins
    moments = [NOW] * burst + sorted(random.uniform(NOW, back) for _ in range(uploads - burst))
    arrivals = list(zip(moments, copies(uploads), strict=True))
    drain = Drain(fast_queue, site, Pace(concurrency, WEEK), random.random)
    run(site, fast_queue, drain, arrivals)
    assert sorted(site.stored) == sorted(uid_of(kept) for _, kept in arrivals)
    assert max(site.in_flight) == concurrency
    assert len(during(site, start, back)) <= 2 * concurrency + HOUR / 30 + 10
    # What was sent before the outage may still succeed for three seconds.
    failures = sorted(at for at, outcome in site.ended if outcome == DOWN and at > start + 3.0)
    assert most_at_once(site, failures[2] + 0.001, back) == 1
    check_ramp(site, back, concurrency)
    check_order(site, back)
    assert fast_queue.totals().outcomes["stored"] == uploads


@pytest.mark.parametrize("status", [429, 503])
def test_a_store_that_names_a_time_is_asked_nothing_before(queue: Queue, status: int) -> None:
    busy = Unavailable("busy", retry_after=90.0, status=status)
    back = NOW + 400.0
    site = Site(lambda now: (busy, 1.0) if now < back else (Stored(), 0.1))
    arrivals = [(NOW + n / 10, kept) for n, kept in enumerate(copies(40))]
    run(site, queue, drain_of(queue, site), arrivals)
    told = [at for at, outcome in site.ended if outcome == busy]
    assert 4 <= len(told) <= 9
    for at in told:
        assert during(site, at, at + 90.0) == []
    assert len(site.stored) == len(set(site.stored)) == 40
    check_ramp(site, back, 4)
