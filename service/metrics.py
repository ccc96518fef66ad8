"""The retry queue's figures for Prometheus.

They come from the queue itself, so every process that shares it tells the same.
"""

from collections.abc import Iterator
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.retry import Totals

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

_OUTCOMES: Final = ("stored", "unavailable", "rejected")


def exposition(totals: Totals, now: float) -> bytes:
    """Return a queue's figures in Prometheus' text format; `now` is in seconds since 1970."""
    return generate_latest(_Figures(totals, now))


class _Figures(Collector):
    """A queue at one moment, as prometheus_client asks for it."""

    def __init__(self, totals: Totals, now: float) -> None:
        self._totals = totals
        self._now = now

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        totals = self._totals
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
            0.0 if totals.oldest is None else max(0.0, self._now - totals.oldest),
        )
        attempts = CounterMetricFamily(
            "jpegstow_queue_attempts", "Tries to store them, by outcome.", labels=["outcome"]
        )
        for outcome, count in (dict.fromkeys(_OUTCOMES, 0) | dict(totals.outcomes)).items():
            attempts.add_metric([outcome], count)
        yield attempts
