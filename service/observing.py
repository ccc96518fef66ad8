"""What every process that stores something does before it begins, so that it can be watched."""

from service import counting, tracing
from service.settings import Settings


def observe(settings: Settings) -> None:
    """Let this process, and those that are forked from it, count and trace what they do."""
    counting.keep_in(settings.metrics_place)
    tracing.configure(settings.google_cloud_project)
    if settings.otel_exporter_otlp_endpoint:
        from service import spans  # noqa: PLC0415 - what few have

        spans.export()
