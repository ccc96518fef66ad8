"""What is counted of the line, for `/metrics`. Labels come of fixed sets, never from a request."""

import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, NamedTuple

from service import tracing
from service.tally import Read, Series, Tally

Step = Literal["receive", "normalise", "describe", "store", "queue", "retry"]
STEPS: Final = ("receive", "normalise", "describe", "store", "queue", "retry")
UPLOADED: Final = ("stored", "duplicate", "queued", "rejected", "refused", "failed")
RETRIED: Final = ("stored", "unavailable", "rejected")
ANSWERS: Final = ("2xx", "3xx", "4xx", "5xx", "denied", "none")
CLASSES: Final = ("2xx", "3xx", "4xx", "5xx")
BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""Seconds, upper bounds that are included."""

_LONGEST: Final = 64  # characters of a template's name, or of a path's
_DENIED: Final = frozenset({401, 403, 407})


class Metric(NamedTuple):
    """A metric: its name without a suffix, what it tells, its labels, and the values known before.

    The `known` are there from the first scrape on, so that a rate sees the first event.
    """

    name: str
    text: str
    labels: tuple[str, ...] = ()
    known: tuple[tuple[str, ...], ...] = ((),)


def _each(values: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    return tuple((value,) for value in values)


UPLOADS: Final = Metric(
    "jpegstow_uploads",
    "Pictures that went through the line, by what became of them and by template.",
    ("outcome", "template"),
    (),
)
BYTES_IN: Final = Metric("jpegstow_bytes_in", "Bytes of these pictures as they came.")
BYTES_OUT: Final = Metric("jpegstow_bytes_out", "Bytes of the codestreams made of them.")
REQUESTS: Final = Metric(
    "jpegstow_requests",
    "Requests answered, by route and class of status.",
    ("route", "status"),
    tuple(("/v1/instances", each) for each in CLASSES),
)
STORE_ANSWERS: Final = Metric(
    "jpegstow_store_answers",
    "Answers of the store, by class of status.",
    ("status",),
    _each(ANSWERS),
)
RETRIES: Final = Metric(
    "jpegstow_retries",
    "Tries of whatever drains the queue on this machine, by outcome.",
    ("outcome",),
    _each(RETRIED),
)
COUNTERS: Final = (UPLOADS, BYTES_IN, BYTES_OUT, REQUESTS, STORE_ANSWERS, RETRIES)
STEP_SECONDS: Final = Metric(
    "jpegstow_step_seconds", "Seconds that a step of the line takes.", ("step",), _each(STEPS)
)
LEFT_ALONE: Final = Series("jpegstow_left_alone_until", (), stands=True)
SUM: Final = "sum"

_tally: Final = Tally()
_templates: Final[list[str]] = []


def keep_in(folder: Path) -> None:
    """Share what is counted with all processes that keep it in the same folder."""
    _tally.keep_in(folder)


def know(templates: Iterable[str]) -> None:
    """Tell of the templates that there are."""
    _templates[:] = sorted(templates)


def read() -> Read:
    """Return what all of them have counted."""
    return _tally.read()


def uploaded(outcome: str, template: str, bytes_in: int, bytes_out: int) -> None:
    """Count a picture that went through the line; the template is one that there is, or empty."""
    _tally.add(Series(UPLOADS.name, (outcome, _template(template))))
    _tally.add(Series(BYTES_IN.name), bytes_in)
    if bytes_out:
        _tally.add(Series(BYTES_OUT.name), bytes_out)


def answered(route: str, status: int) -> None:
    """Count a request that was answered; the route is a rule of the application, or empty."""
    _tally.add(Series(REQUESTS.name, (_short(route) or "unknown", _class(status))))


def store_answered(status: int) -> None:
    """Count what the store answered; 0 for no answer."""
    kind = "denied" if status in _DENIED else _class(status) if status else "none"
    _tally.add(Series(STORE_ANSWERS.name, (kind,)))


def store_denied() -> None:
    """Count a request to the store that there were no credentials for."""
    _tally.add(Series(STORE_ANSWERS.name, ("denied",)))


def retried(outcome: str) -> None:
    """Count a try to send an entry of the queue."""
    _tally.add(Series(RETRIES.name, (outcome,)))


def left_alone(seconds: float) -> None:
    """Tell for how long this process leaves the store alone; 0 if it doesn't."""
    _tally.set(LEFT_ALONE, time.time() + seconds if seconds else 0.0)


def took(step: Step, seconds: float) -> None:
    """Count the time of one step."""
    place = bisect_left(BUCKETS, seconds)
    bound = f"{BUCKETS[place]:g}" if place < len(BUCKETS) else "+Inf"
    _tally.add(Series(STEP_SECONDS.name, (step, bound)))
    _tally.add(Series(STEP_SECONDS.name, (step, SUM)), seconds)


@contextmanager
def step(name: Step) -> Iterator[None]:
    """Measure a step of the line, whether it succeeds or not."""
    started = time.perf_counter()
    with tracing.span(name):
        try:
            yield
        finally:
            took(name, time.perf_counter() - started)


def left_alone_by(read: Read, now: float) -> int:
    """Return how many processes leave the store alone at a moment, in seconds since 1970."""
    return sum(until > now for until in read.standing.get(LEFT_ALONE, ()))


def values_of(read: Read, metric: Metric) -> Mapping[tuple[str, ...], float]:
    """Return the numbers of a counter by its labels' values."""
    known = metric.known
    if metric is UPLOADS:
        known = tuple((outcome, _template(name)) for name in _templates for outcome in UPLOADED)
    zero = dict.fromkeys(known, 0.0)
    return zero | {
        series.labels: number
        for series, number in sorted(read.counted.items())
        if series.metric == metric.name
    }


def _class(status: int) -> str:
    return f"{min(5, max(2, status // 100))}xx"


def _template(name: str) -> str:
    return _short(name) or "unknown"


def _short(name: str) -> str:
    """Keep a label's value to what an operator would name a template; else it has none."""
    return name if len(name) <= _LONGEST and name.isascii() and name.isprintable() else ""
