"""Reads what `/metrics` tells."""

from prometheus_client.parser import text_string_to_metric_families

Figures = dict[tuple[str, ...], float]
"""From a sample's name, and its labels' values in their order, to its number."""


def figures(text: str) -> Figures:
    """Return every sample of an exposition."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
