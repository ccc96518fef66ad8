"""A loopback HTTP server whose behaviour is a list of steps."""

import hashlib
import socket
import struct
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Protocol, Self

from tests.loopback import BOUND


@dataclass(frozen=True)
class Received:
    """One request as it came; the names of its headers are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def length(self) -> int:
        """Count the body's bytes."""
        return len(self.body)

    @property
    def sha256(self) -> str:
        """Digest the body, in hexadecimal."""
        return hashlib.sha256(self.body).hexdigest()


class Step(Protocol):
    """What a server does with one request."""

    def play(self, wire: "Wire") -> None:
        """Read as much of the request as wanted, and answer or not."""


class Wire(BaseHTTPRequestHandler):
    """One connection, as the steps see it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = BOUND
    server: "_Listener"

    @property
    def script(self) -> "ScriptedServer":
        """The server that this connection belongs to."""
        return self.server.script

    def receive(self, limit: int | None = None) -> Received:
        """Read the body, or its first `limit` bytes, and record the request."""
        body = b"".join(self._blocks(limit))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Received(self.command, self.path, headers, body)
        self.script.record(request)
        return request

    def _blocks(self, limit: int | None) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while length := int(self.rfile.readline().split(b";")[0] or b"0", 16):
                yield self.rfile.read(length)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass  # trailers
        else:
            length = int(self.headers.get("Content-Length", 0))
            yield self.rfile.read(length if limit is None else min(limit, length))

    def head(self, status: int, headers: Mapping[str, str], length: int) -> None:
        """Send the status line and headers."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def reset(self) -> None:
        """Close with a TCP reset, what was sent or received notwithstanding."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def handle(self) -> None:
        """Serve one connection; a client that went away is no error here."""
        with suppress(ConnectionError):
            super().handle()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parent's name
        """Keep standard error quiet."""

    def _play(self) -> None:
        self.script.next_step(self.command).play(self)

    do_GET = do_POST = do_PUT = do_DELETE = _play  # noqa: N815 - http.server calls them by name


class _Listener(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128

    def __init__(self, script: "ScriptedServer") -> None:
        super().__init__(("127.0.0.1", 0), Wire)
        self.script = script
        self.open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """Wake the threads that wait for a next request on a connection that is kept alive."""
        for connection in tuple(self.open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_: object) -> None:
        """Keep the error of a step for the end: it is a bug of the test."""
        error = sys.exception()
        if error:
            self.script.errors.append(error)


class ScriptedServer:
    """A loopback HTTP server that plays one step per request; the last step repeats.

    Requests whose method is in `also` get that step and leave the script where it is. One that is
    `lasting` needs no end: it serves for as long as the process lives.
    """

    def __init__(
        self, *steps: Step, also: Mapping[str, Step] | None = None, lasting: bool = False
    ) -> None:
        self.requests: list[Received] = []
        self.errors: list[BaseException] = []
        self.released = threading.Event()
        self._steps = list(steps)
        self._also = also or {}
        self._changed = threading.Condition()
        self._listener = _Listener(self)
        self._listener.daemon_threads = lasting
        self._thread = threading.Thread(
            target=self._listener.serve_forever, args=(0.01,), daemon=lasting
        )

    def __enter__(self) -> Self:
        """Start listening on a free port."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Release what hangs, close every connection, and wait for the threads.

        Raises
        ------
        AssertionError
            If a step has failed. That of a thread would get lost: what silences pydicom's warnings
            silences pytest's as well.
        """
        self.released.set()
        self._listener.shutdown()
        self._thread.join()
        self._listener.hang_up()
        self._listener.server_close()
        if self.errors:
            raise AssertionError(f"a step failed, on {self.url}") from self.errors[0]

    @property
    def url(self) -> str:
        """The address, without a final slash."""
        return f"http://127.0.0.1:{self._listener.server_port}"

    @property
    def dicomweb_url(self) -> str:
        """The address of a DICOMweb service, without a final slash."""
        return f"{self.url}/dicomWeb"

    def next_step(self, method: str) -> Step:
        """Take the step for a request that has just arrived."""
        if method in self._also:
            return self._also[method]
        with self._changed:
            return self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]

    def record(self, request: Received) -> None:
        """Keep a request for the test to look at."""
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()

    def wait_for(self, count: int, timeout: float = BOUND) -> list[Received]:
        """Return the requests once there are `count` of them."""
        with self._changed:
            come = self._changed.wait_for(lambda: len(self.requests) >= count, timeout)
        assert come, f"{len(self.requests)} of {count} requests came within {timeout} s"
        return self.requests
