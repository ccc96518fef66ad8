"""gunicorn's worker, with an end to its waiting for clients, and with errors in our form.

By itself it gives a thread to clients that say nothing yet, waits there without end for the rest of
a request's headers, lets all others wait for the last word of one that it has answered, and answers
in HTML what isn't HTTP at all, or longer than its limits.
"""

import json
import logging
import selectors
import socket
import struct
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from gunicorn.http import errors
from gunicorn.util import close_graceful
from gunicorn.workers.gthread import ThreadWorker

from service import telemetry
from service.answers import PROBLEM, problem_of

_LONGEST: Final = 65_536  # bytes of them
_REST: Final = 1  # seconds that it may be silent within what gunicorn takes for headers
_ANSWER: Final = 60  # seconds that it may take nothing of its answer
_SILENCE: Final = 2.0  # seconds that it may be silent within a body that nobody wants
_PATIENCE: Final = 10.0  # seconds that such a body may go on
_LAST_WORD: Final = 0.5  # seconds

_MESSAGES: Final[tuple[tuple[type[Exception], int, str], ...]] = (
    (errors.LimitRequestLine, 414, "the URL is too long"),
    (errors.LimitRequestHeaders, 431, "a header is too long, or there are too many"),
    (errors.UnsupportedTransferCoding, 501, "only chunked transfer coding is known"),
    (errors.ParseException, 400, "the request isn't HTTP as RFC 9112 has it"),
)


class Worker(ThreadWorker):  # type: ignore[misc] # gunicorn has no types
    """A worker that gives up on clients that stand still.

    Attributes
    ----------
    headers
        Seconds until a new client's headers have come.
    media_type
        Of what `told` returns.
    """

    headers = 5.0
    media_type = PROBLEM

    def init_process(self) -> None:
        """Begin to work."""
        # The others answer somebody else meanwhile, whoever sends on.
        self._reading_on = threading.Semaphore(max(1, self.cfg.threads // 2))
        self.log.error_log.addFilter(_tells_more_than_silence)
        super().init_process()

    def told(self, status: int, message: str) -> Mapping[str, Any]:
        """Return the body of an answer to what is no request."""
        phrase = HTTPStatus(status).phrase
        return problem_of(status, (phrase.lower().replace(" ", "-"), phrase, message))

    def enqueue_req(self, conn: Any) -> None:
        """Give a connection a thread, a new one once the headers of its request have come."""
        if conn.initialized or conn.data_ready:
            super().enqueue_req(conn)
            return
        conn.timeout = time.monotonic() + self.headers
        self.pending_conns.append(conn)
        readable = partial(self.on_pending_socket_readable, conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, readable)

    def on_pending_socket_readable(self, conn: Any, client: socket.socket) -> None:
        """Look at what a new client says."""
        if _has_said_all(client):
            super().on_pending_socket_readable(conn, client)

    def on_client_socket_readable(self, conn: Any, client: socket.socket) -> None:
        """Look at what a client says further."""
        if _has_said_all(client):
            super().on_client_socket_readable(conn, client)

    def handle(self, conn: Any) -> Any:
        """Handle a request on a connection."""
        # Unlike a timeout of Python's, these stay when the socket is made blocking again.
        for option, seconds in ((socket.SO_RCVTIMEO, _REST), (socket.SO_SNDTIMEO, _ANSWER)):
            conn.sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", seconds, 0))
        kept = super().handle(conn)
        if kept is False:
            # gunicorn waits for the client's last word in the thread that accepts all others; with
            # its sender shut, nothing is left there to wait for.
            with suppress(OSError):
                close_graceful(conn.sock.dup(), _LAST_WORD)
                conn.sock.shutdown(socket.SHUT_RD)
        return kept

    def handle_request(self, req: Any, conn: Any) -> bool:
        """Answer a request; tell whether the connection is good for another one."""
        kept = super().handle_request(req, conn)
        return self._read_on(req, conn) and bool(kept)

    def _read_on(self, req: Any, conn: Any) -> bool:
        """Read what is left of a request's body once it is answered; tell whether it has ended.

        A server that closes while its client still sends makes the kernel reset the connection, and
        the client may then never see the answer that told it to stop. So some threads wait for
        what is still to come, while the others take only what is there.
        """
        waits = self._reading_on.acquire(blocking=False)
        end = time.monotonic() + _PATIENCE
        try:
            conn.sock.settimeout(_SILENCE if waits else 0)
            while req.body.read(65_536):
                if time.monotonic() > end:
                    return False
        except (OSError, ValueError, errors.ParseException):  # it is broken, or gone
            return False
        else:
            return True
        finally:
            if waits:
                self._reading_on.release()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:  # noqa: ARG002
        """Answer what isn't a request, or has failed, without a word of what it is."""
        told = ((status, text) for kind, status, text in _MESSAGES if isinstance(exc, kind))
        status, message = next(told, (500, "the server failed"))
        if status == HTTPStatus.INTERNAL_SERVER_ERROR:
            # gunicorn would log its URL, too, whose query may hold a patient's name.
            telemetry.log_exception("unforeseen error", exc)
        with suppress(OSError):
            client.sendall(self._answer(status, message))

    def _answer(self, status: int, message: str) -> bytes:
        body = json.dumps(self.told(status, message)).encode()
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nConnection: close\r\n"
            f"Content-Type: {self.media_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


def _has_said_all(client: socket.socket) -> bool:
    """Tell whether a request's headers are there to be read, or nothing more of them will come.

    Until then nobody is woken again before there is more of them.
    """
    try:
        head = client.recv(_LONGEST, socket.MSG_PEEK)
        is_longer = len(head) >= client.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)
        is_whole = b"\r\n\r\n" in head or not is_longer
        if not is_whole and len(head) == _LONGEST:
            client.shutdown(socket.SHUT_RD)
            is_whole = True
        lowest = 1 if is_whole else len(head) + 1
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, lowest)
    except OSError:  # it is gone, which gunicorn finds out
        return True
    return is_whole


def _tells_more_than_silence(record: logging.LogRecord) -> bool:
    """Tell whether a line is more than the trace of a client that stood still."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, BlockingIOError | TimeoutError)
