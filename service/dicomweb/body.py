"""Reading the body of a request from a client that may be slow, malicious, or gone.

A thread that reads a body does nothing else. So each body has to come within a time, and some
threads are always left for requests without one.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Final

from flask import current_app, request
from werkzeug.exceptions import (
    HTTPException,
    RequestEntityTooLarge,
    RequestTimeout,
    ServiceUnavailable,
)

from service.errors import BadRequest

SILENCE: Final = 30.0  # seconds that a client may say nothing
_RATE: Final = 50_000  # bytes a second; who sends less than that all the time is cut off
_WAIT: Final = 2.0  # seconds for a free thread
_SLOW: Final = "the body comes too slowly"


class Readers:
    """How many threads may read bodies at once, and for how long nothing may come."""

    def __init__(self, threads: int, silence: float) -> None:
        self._free = threading.BoundedSemaphore(threads)
        self.silence = silence

    @contextmanager
    def one(self) -> Iterator[None]:
        """Hold one of the threads while the block runs.

        Raises
        ------
        ServiceUnavailable
            If none is free.
        """
        if not self._free.acquire(timeout=_WAIT):
            raise ServiceUnavailable("too many bodies are being sent at once", retry_after=5)
        try:
            yield
        finally:
            self._free.release()


def read() -> bytes:
    """Return the whole body of the request.

    Raises
    ------
    BadRequest
        If it is shorter than its Content-Length, or not chunked as it should be.
    RequestEntityTooLarge
        If it is longer than what is taken.
    RequestTimeout
        If it comes too slowly.
    ServiceUnavailable
        If too many others are being read.
    """
    try:
        stream = request.stream  # too long a one is refused here, unread
        readers: Readers = current_app.extensions["readers"]
        with readers.one(), _deadline(readers.silence) as late:
            body = _whole(stream, late)
    except (BadRequest, HTTPException):
        _shut()  # or the server would go on to read what is left
        raise
    if request.content_length not in (None, len(body)):
        raise BadRequest(
            f"the body ends at byte {len(body)} of {request.content_length}",
            reason="truncated",
            mend="send the whole body",
        )
    return body


def _shut() -> None:
    """Read no more from the client."""
    client: socket.socket | None = request.environ.get("gunicorn.socket")
    if client is not None:
        with suppress(OSError):
            client.shutdown(socket.SHUT_RD)


def _whole(stream: IO[bytes], late: threading.Event) -> bytes:
    try:
        body = stream.read()
    except RequestEntityTooLarge:
        raise
    except Exception as error:  # the server's own errors for a broken connection, a malformed chunk
        if late.is_set() or isinstance(error.__context__ or error, TimeoutError):
            raise RequestTimeout(_SLOW) from error
        raise BadRequest("the body can't be read to its end", reason="truncated") from error
    if late.is_set():
        raise RequestTimeout(_SLOW)
    return body


@contextmanager
def _deadline(silence: float) -> Iterator[threading.Event]:
    """Bound how long the block may read from the client; the event tells that it was too long."""
    late = threading.Event()
    client: socket.socket | None = request.environ.get("gunicorn.socket")
    if client is None:  # another server's business
        yield late
        return

    def cut_off() -> None:
        late.set()
        with suppress(OSError):
            client.shutdown(socket.SHUT_RD)

    length = request.content_length
    expected = current_app.config["MAX_CONTENT_LENGTH"] if length is None else length
    timer = threading.Timer(silence + expected / _RATE, cut_off)
    timer.daemon = True
    timer.start()
    client.settimeout(silence)
    try:
        yield late
    finally:
        timer.cancel()
        with suppress(OSError):
            client.settimeout(None)
