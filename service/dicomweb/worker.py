"""gunicorn's worker, with an end to its waiting for clients, and with errors in our form.

It waits without end for the rest of a request's headers, and for a client that doesn't take its
answer; and what isn't HTTP at all, or longer than its limits, it answers in HTML.
"""

import json
import socket
import struct
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final

from gunicorn.http import errors
from gunicorn.util import close_graceful
from gunicorn.workers.gthread import ThreadWorker

from service.dicomweb.envelope import envelope

_HEADERS: Final = 4  # seconds that a client may be silent within its headers
_LAST_WORD: Final = 0.5  # seconds
_ANSWER: Final = 60  # seconds that it may take nothing of its answer

_MESSAGES: Final = (
    (errors.LimitRequestLine, 414, "the URL is too long"),
    (errors.LimitRequestHeaders, 431, "a header is too long, or there are too many"),
    (errors.UnsupportedTransferCoding, 501, "only chunked transfer coding is known"),
    (errors.ParseException, 400, "the request isn't HTTP as RFC 9112 has it"),
)


class Worker(ThreadWorker):  # type: ignore[misc] # gunicorn has no types
    """A worker that gives up on clients that stand still."""

    def handle(self, conn: Any) -> Any:
        """Handle a request on a connection."""
        # Unlike a timeout of Python's, these stay when the socket is made blocking again.
        for option, seconds in ((socket.SO_RCVTIMEO, _HEADERS), (socket.SO_SNDTIMEO, _ANSWER)):
            conn.sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", seconds, 0))
        kept = super().handle(conn)
        if kept is False:
            # Here, since gunicorn waits for the client's last word where it accepts all others.
            close_graceful(conn.sock, _LAST_WORD)
        return kept

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer what isn't a request, without a word of what it is."""
        for kind, status, message in _MESSAGES:
            if isinstance(exc, kind):
                with suppress(OSError):
                    client.sendall(_answer(status, message))
                return
        super().handle_error(req, client, addr, exc)


def _answer(status: int, message: str) -> bytes:
    body = json.dumps(envelope(status, message)).encode()
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
