"""The trace that a request belongs to, as the caller's headers tell of it."""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, Final, NamedTuple, Protocol

# Compiled, by `re` itself, when the first trace comes: the service starts without.
_TRACEPARENT: Final = (
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
_CLOUD: Final = r"(?!0{32})([0-9a-fA-F]{32})(?:/(\d{1,20}))?(?:;o=(\d{1,3}))?"


class Trace(NamedTuple):
    """A place in a trace, in small hexadecimal: 32 digits, and 16 of the span or none."""

    trace_id: str
    span_id: str
    sampled: bool

    @property
    def traceparent(self) -> str:
        """The header that carries it on (W3C Trace Context 3.2); empty without a span."""
        flags = "01" if self.sampled else "00"
        return f"00-{self.trace_id}-{self.span_id}-{flags}" if self.span_id else ""


class Marked(Protocol):
    """A part of the work that is under way."""

    @property
    def trace(self) -> Trace:
        """Where in its trace it is."""

    def tell(self, **attributes: Any) -> None:
        """Say something of it."""

    def fail(self) -> None:
        """Mark it as failed."""


class Marker(Protocol):
    """Who is told of the parts of the work."""

    def span(self, name: str, kind: str, parent: Trace | None) -> AbstractContextManager[Marked]:
        """Mark a part of the work: `internal`, or of a request that a `server` answers."""


_trace: ContextVar[Trace | None] = ContextVar("trace", default=None)
_project: list[str] = []
_markers: list[Marker] = []


def configure(project: str) -> None:
    """Name the traces in log lines as Cloud Logging does, within a project; "" for plain ids."""
    _project[:] = [project] if project else []


def mark_by(marker: Marker) -> None:
    """Tell somebody of each part of the work from now on."""
    _markers[:] = [marker]


def read(traceparent: str, cloud_context: str) -> Trace | None:
    """Return the trace that a request's headers name; None if neither is well-formed.

    `traceparent` comes first; Google's own X-Cloud-Trace-Context has its span in decimal.
    """
    if found := re.fullmatch(_TRACEPARENT, traceparent.strip()):
        trace_id, span_id, flags, rest = found.groups()
        if not (rest and traceparent.startswith("00")):  # version 00 ends with its flags
            return Trace(trace_id, span_id, sampled=bool(int(flags, 16) & 1))
    if found := re.fullmatch(_CLOUD, cloud_context.strip(), re.ASCII):
        trace_id, span, options = found.groups()
        number = int(span or 0)
        span_id = f"{number:016x}" if 0 < number < 1 << 64 else ""
        return Trace(trace_id.lower(), span_id, sampled=bool(int(options or 0) & 1))
    return None


def enter(trace: Trace | None) -> None:
    """Let this thread work for a trace, or for none, from now on."""
    _trace.set(trace)


def current() -> Trace | None:
    """Return the trace that this thread works for."""
    return _trace.get()


def fields() -> dict[str, Any]:
    """Return what a log line says of the trace."""
    trace = _trace.get()
    if trace is None:
        return {}
    if not _project:
        return {"trace": trace.trace_id, "spanId": trace.span_id}
    return {
        "logging.googleapis.com/trace": f"projects/{_project[0]}/traces/{trace.trace_id}",
        "logging.googleapis.com/spanId": trace.span_id,
        "logging.googleapis.com/trace_sampled": trace.sampled or None,
    }


def headers() -> dict[str, str]:
    """Return what carries the trace on to another server."""
    trace = _trace.get()
    return {"traceparent": trace.traceparent} if trace and trace.traceparent else {}


@contextmanager
def span(name: str, kind: str = "internal") -> Iterator[Marked | None]:
    """Mark a part of the work, where there is somebody to be told of it.

    What is logged and sent meanwhile belongs to that part.
    """
    if not _markers:
        yield None
        return
    with _markers[0].span(name, kind, _trace.get()) as marked:
        token = _trace.set(marked.trace)
        try:
            yield marked
        finally:
            _trace.reset(token)
