"""Deadlines: connections that are cut when their time is over.

A socket's own timeout bounds the wait for each byte only, and so no slow reader, no dripping
header, no trailer and no 100 Continue without end.
"""

import contextlib
import math
import socket
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

import requests
import urllib3

_LEAST = 0.001  # seconds; a socket takes 0 for "don't wait", and fails at once


class Deadline(NamedTuple):
    """The moment by which everything must be over, as long after it was set as `seconds` say."""

    seconds: float
    end: float

    @property
    def left(self) -> float:
        """Seconds that are left; none, or less, when it is over."""
        return self.end - time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether nothing may be begun any more."""
        return self.left <= 0


_NEVER = Deadline(math.inf, math.inf)
_DEADLINE = ContextVar("_DEADLINE", default=_NEVER)


def deadline() -> Deadline:
    """Return the deadline of what this thread does now."""
    return _DEADLINE.get()


@contextlib.contextmanager
def within(seconds: float | None) -> Iterator[None]:
    """Bound all calls made inside together; None leaves each to its own timeouts."""
    allowed = math.inf if seconds is None else seconds
    token = _DEADLINE.set(Deadline(allowed, time.monotonic() + allowed))
    try:
        yield
    finally:
        _DEADLINE.reset(token)


class _Watch:
    """Cuts the connection of one call when its time is over."""

    def __init__(self, answer_timeout: float) -> None:
        self.answer_timeout = answer_timeout
        self.has_cut = False
        self._timer: threading.Timer | None = None

    def begin(self, connection: socket.socket, seconds: float) -> None:
        """Give a connection so many seconds from now, and forget what was given before."""
        self.end()
        if seconds < math.inf:
            self._timer = threading.Timer(max(0.0, seconds), self._cut, [connection])
            self._timer.daemon = True
            self._timer.start()

    def end(self) -> None:
        if self._timer:
            self._timer.cancel()

    def _cut(self, connection: socket.socket) -> None:
        self.has_cut = True
        with contextlib.suppress(OSError):
            # Not TLS's own shutdown, which takes its state from under the thread that reads.
            socket.socket.shutdown(connection, socket.SHUT_RDWR)


_WATCH: ContextVar[_Watch] = ContextVar("_WATCH")


@contextlib.contextmanager
def watched(answer_timeout: float) -> Iterator[None]:
    """Bound the call inside by the deadline, and its answer by a timeout from its request's end.

    Raise requests.ReadTimeout whatever cutting the connection led to.
    """
    watch = _Watch(answer_timeout)
    token = _WATCH.set(watch)
    try:
        yield
    finally:
        _WATCH.reset(token)
        watch.end()
        if watch.has_cut:
            raise requests.ReadTimeout


def _watched(kind: Any) -> Any:
    """Return a class of connections, HTTP or HTTPS, that the watch of a call can cut."""

    class Connection(kind):  # type: ignore[misc] # the same three moments of both
        timeout: float  # of connecting, and then of each byte

        def _new_conn(self) -> Any:
            """Connect to one of the host's addresses; all of them have but the time left."""
            allowed, left = self.timeout, deadline().left
            if left < math.inf:
                places = socket.getaddrinfo(self._dns_host, self.port, type=socket.SOCK_STREAM)
                self.timeout = max(_LEAST, min(allowed, left / len(places)))
            connection = super()._new_conn()
            self.timeout = max(_LEAST, min(allowed, deadline().left))
            connection.settimeout(self.timeout)  # of TLS's handshake too, which no watch can cut
            _WATCH.get().begin(connection, deadline().left)
            return connection

        def request(self, *args: Any, **named: Any) -> None:
            if self.sock is not None:
                _WATCH.get().begin(self.sock, deadline().left)
            super().request(*args, **named)

        def getresponse(self) -> Any:
            watch = _WATCH.get()
            watch.begin(self.sock, min(watch.answer_timeout, deadline().left))
            return super().getresponse()

    return Connection


_CONNECTIONS = {
    "http": _watched(urllib3.connection.HTTPConnection),
    "https": _watched(urllib3.connection.HTTPSConnection),
}


class Adapter(requests.adapters.HTTPAdapter):
    """Makes connections that are watched, through a proxy too."""

    def get_connection_with_tls_context(self, *args: Any, **named: Any) -> Any:
        """Return urllib3's pool for a request, with connections of our own."""
        pool: Any = super().get_connection_with_tls_context(*args, **named)
        pool.ConnectionCls = _CONNECTIONS[pool.scheme]
        return pool
