"""Uploads, faults and kills at once; then the drain, the check and the report."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

import requests

from tests.faults.operating import operating
from tests.faults.pictures import Requests
from tests.faults.proxy import CALM, PASS
from tests.faults.stage import TROUBLES, WEATHERS, Action, Stage, kill_service
from tests.faults.uploading import uploading
from tests.peers import BOUND

EVERY: Final = 7.0  # seconds from one trouble to the next, about
SPELL: Final = 15.0  # seconds of one weather
SHOWN: Final = 20  # violations


@dataclass(frozen=True, order=True)
class Event:
    """Something that happens so many seconds after the start."""

    at: float
    name: str


def plan(seconds: float, seed: int) -> list[Event]:
    """Return the troubles and the changes of weather in so many seconds; each at least once."""
    random = Random(seed)
    rounds = max(1, round(seconds / EVERY / len(TROUBLES)))
    names = [name for _ in range(rounds) for name in random.sample(list(TROUBLES), len(TROUBLES))]
    step = seconds / len(names)
    events = [Event((number + random.random()) * step, name) for number, name in enumerate(names)]
    spells = max(1, round(seconds / SPELL / len(WEATHERS)))
    weathers = [*WEATHERS] * spells
    step = seconds / len(weathers)
    return sorted(events + [Event(number * step, name) for number, name in enumerate(weathers)])


def each_fault_once() -> list[str]:
    """Return what is to happen to the first requests: every fault, and peace after each."""
    return [name for fault in CALM if fault != PASS for name in (fault, PASS)]


def play(
    on: Stage, requests_: Requests, events: Sequence[Event], seconds: float, late: float
) -> None:
    """Upload for so many seconds, and what is late for some more; the events happen meanwhile."""
    actions: dict[str, Action] = WEATHERS | TROUBLES
    started = time.monotonic()
    seed = on.random.getrandbits(32)
    with (
        uploading(on.service.url, requests_, on.ledger, (seconds, seconds + late), seed),
        operating(on.service.url, on.ledger, seed) as operator,
    ):
        for event in events:
            time.sleep(max(0.0, started + event.at - time.monotonic()))
            actions[event.name](on)
            on.events[event.name] += 1
    on.acts.update(operator.done)


def drain(on: Stage, seconds: float) -> float:
    """End the faults, and wait until the queue is empty; return the seconds it took.

    A process that was killed as it let go of an instance leaves its file behind, until the next
    start takes that in and sends it again.
    """
    on.faults.end()
    started = time.monotonic()
    end = started + seconds
    _wait_for_empty_queue(on, end)
    if any((on.queue / "entries").iterdir()) and time.monotonic() < end:
        kill_service(on)
        _wait_for_empty_queue(on, end)
    return time.monotonic() - started


def _wait_for_empty_queue(on: Stage, end: float) -> None:
    """Tell what waits for its next attempt, as an operator would, to try at once."""
    queue = f"{on.service.url}/v1/queue"
    while time.monotonic() < end and not on.service.ended:
        totals = requests.get(queue, params={"limit": 1}, timeout=BOUND).json()["totals"]
        if not totals["pending"] and not totals["leased"]:
            break
        requests.post(f"{queue}/retry", params={"state": "pending"}, timeout=BOUND)
        time.sleep(0.5)


@dataclass(frozen=True)
class Report:
    """What a campaign did and found."""

    seed: int
    on: Stage
    seconds: float
    drained: float
    checked: int
    wrong: Sequence[str]

    def __str__(self) -> str:
        """Return the figures, and some of the violations."""
        ledger, events = self.on.ledger, self.on.events
        made, acknowledged = len(ledger.made), len(ledger.acknowledged)
        rows = {
            "pictures by answer": _counts(ledger.answers),
            "troubles": _counts(Counter({name: events[name] for name in TROUBLES})),
            "operator": _counts(self.on.acts),
            "requests by fault": _counts(self.on.faults.played),
            "instances": f"{made} sent, {acknowledged} acknowledged, {self.checked} compared",
            "seconds": f"{self.seconds:.0f}, of them {self.drained:.1f} for the drain",
            "seed": str(self.seed),
            "violations": str(len(self.wrong)),
        }
        lines = [f"{name:20}{text}" for name, text in rows.items()]
        return "\n".join([*lines, *self.wrong[:SHOWN]])


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def run(on: Stage, pictures: int, uploads: float, seconds: float, seed: int) -> Report:
    """Run a whole campaign on what has just been started, and for the first time.

    Parameters
    ----------
    uploads
        Seconds over which the pictures are spread, and with them the kills.
    seconds
        The time within which the queue must be drained too; it ends as soon as it is. Half of what
        the uploads leave of it is for those that are late.
    """
    started = time.monotonic()
    on.faults.begin_with(each_fault_once())
    late = (seconds - uploads) / 2
    play(on, Requests(pictures, seed), plan(uploads, seed), uploads, late)
    drained = drain(on, started + seconds - time.monotonic())
    checked, found = on.judge()
    wrong = [*_unplayed(on, pictures), *found]
    return Report(seed, on, time.monotonic() - started, drained, checked, wrong)


def _unplayed(on: Stage, pictures: int) -> list[str]:
    """Return what should have happened and didn't: then the rest proves little."""
    sent = on.ledger.uploaded
    few = [] if sent >= pictures else [f"only {sent} of {pictures} pictures were sent in time"]
    missing = [name for name in CALM if not on.faults.played[name]]
    return few + [f"the fault {name!r} was never played" for name in missing]
