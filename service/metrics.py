"""What Prometheus reads: the retry queue's figures, and what all processes have counted.

The queue's come from the queue itself, so every process that shares it tells the same.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from service import counting
from service.retry import Totals
from service.tally import Read

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

_OUTCOMES: Final = ("stored", "unavailable", "rejected")
_BOUNDS: Final = (*(f"{bound:g}" for bound in counting.BUCKETS), "+Inf")


def exposition(totals: Totals, read: Read, now: float) -> bytes:
    """Return all figures in Prometheus' text format; `now` is in seconds since 1970."""
    return generate_latest(_Figures(totals, read, now))


class _Figures(Collector):
    """A service at one moment, as prometheus_client asks for it."""

    def __init__(self, totals: Totals, read: Read, now: float) -> None:
        self._totals = totals
        self._read = read
        self._now = now

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        yield from _queue(self._totals, self._now)
        for metric in counting.COUNTERS:
            family = CounterMetricFamily(metric.name, metric.text, labels=metric.labels)
            for labels, value in counting.values_of(self._read, metric).items():
                family.add_metric(labels, value)
            yield family
        yield _steps(self._read)
        yield GaugeMetricFamily(
            "jpegstow_breakers_open",
            "Processes that leave the store alone, since it keeps failing.",
            counting.left_alone_by(self._read, self._now),
        )


def _queue(totals: Totals, now: float) -> Iterator[Metric]:
    entries = GaugeMetricFamily(
        "jpegstow_queue_entries", "Instances in the retry queue.", labels=["state"]
    )
    for state, count in totals.entries.items():
        entries.add_metric([state], count)
    yield entries
    yield GaugeMetricFamily("jpegstow_queue_bytes", "Their bytes on the disk.", totals.size)
    yield GaugeMetricFamily(
        "jpegstow_queue_oldest_seconds",
        "The age of the oldest that isn't dead.",
        0.0 if totals.oldest is None else max(0.0, now - totals.oldest),
    )
    attempts = CounterMetricFamily(
        "jpegstow_queue_attempts", "Tries to store them, by outcome.", labels=["outcome"]
    )
    for outcome, count in (dict.fromkeys(_OUTCOMES, 0) | dict(totals.outcomes)).items():
        attempts.add_metric([outcome], count)
    yield attempts


def _steps(read: Read) -> Metric:
    metric = counting.STEP_SECONDS
    family = HistogramMetricFamily(metric.name, metric.text, labels=metric.labels)
    values = counting.values_of(read, metric)
    for step in counting.STEPS:
        total = values.get((step, counting.SUM), 0.0)
        family.add_metric([step], list(_cumulative(values, step)), total)
    return family


def _cumulative(values: Mapping[tuple[str, ...], float], step: str) -> Iterator[tuple[str, float]]:
    """Yield for each bound how often the step took no longer."""
    count = 0.0
    for bound in _BOUNDS:
        count += values.get((step, bound), 0.0)
        yield bound, count
