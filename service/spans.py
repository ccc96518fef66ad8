"""Spans for OpenTelemetry: one for each request, one for each step of the line within it.

Only where OTEL_EXPORTER_OTLP_ENDPOINT is set and the extra `trace` is installed. What a span holds
is a route, a method, a status and times; never a text of an error, which may quote a value.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from service import __version__, telemetry, tracing
from service.tracing import Trace

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

_NAMES: Final = {
    "method": "http.request.method",
    "route": "http.route",
    "status": "http.response.status_code",
}
_TIMEOUT: Final = 3.0  # seconds that the collector may take; a process that ends waits for it


def export() -> None:
    """Export spans from now on, or say in one line what is missing for it."""
    if _is_installed():
        tracing.mark_by(Spans())
        return
    telemetry.log(
        "WARNING",
        "no spans are exported, though OTEL_EXPORTER_OTLP_ENDPOINT is set",
        mend="install the extra: pip install 'jpegstow[trace]'",
    )


def _is_installed() -> bool:
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http.trace_exporter") is not None
    except (ImportError, ValueError):
        return False


class Spans:
    """Makes spans in whatever process asks for one; each has an exporter of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = 0
        self._tracer: Tracer | None = None

    @contextmanager
    def span(self, name: str, kind: str, parent: Trace | None) -> Iterator["Marked"]:
        """Yield a span; whatever is raised within marks it as failed."""
        span = self._own().start_span(name, context=_context(parent), kind=_kind(kind))
        try:
            yield Marked(span)
        except BaseException:
            Marked(span).fail()
            raise
        finally:
            span.end()

    def _own(self) -> "Tracer":
        """Return this process's tracer; what sends its spans is a thread, which no fork has."""
        with self._lock:
            if self._tracer is None or self._process != os.getpid():
                self._process = os.getpid()
                self._tracer = _tracer()
            return self._tracer


class Marked:
    """A span that is under way."""

    def __init__(self, span: "Span") -> None:
        self._span = span

    @property
    def trace(self) -> Trace:
        """Where in its trace it is."""
        context = self._span.get_span_context()
        ids = f"{context.trace_id:032x}", f"{context.span_id:016x}"
        return Trace(*ids, sampled=context.trace_flags.sampled)

    def tell(self, **attributes: Any) -> None:
        """Say something of it, of `_NAMES`."""
        for name, value in attributes.items():
            self._span.set_attribute(_NAMES[name], value)

    def fail(self) -> None:
        """Mark it as failed."""
        from opentelemetry.trace import StatusCode  # noqa: PLC0415

        self._span.set_status(StatusCode.ERROR)


def _tracer() -> "Tracer":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    own = Resource({"service.name": "jpegstow", "service.version": __version__})
    provider = TracerProvider(resource=own.merge(OTELResourceDetector().detect()))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=_TIMEOUT)))
    return provider.get_tracer("jpegstow", __version__)


def _context(parent: Trace | None) -> Any:
    from opentelemetry import context, trace  # noqa: PLC0415

    if parent is None or not parent.span_id:
        return context.Context()
    ids = int(parent.trace_id, 16), int(parent.span_id, 16)
    flags = trace.TraceFlags(trace.TraceFlags.SAMPLED if parent.sampled else 0)
    remote = trace.NonRecordingSpan(trace.SpanContext(*ids, is_remote=True, trace_flags=flags))
    return trace.set_span_in_context(remote, context.Context())


def _kind(name: str) -> Any:
    from opentelemetry.trace import SpanKind  # noqa: PLC0415

    return SpanKind[name.upper()]
