"""The way to a store: one outgoing call, one map of its failures."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import requests
import urllib3

from service.dicom.multipart import Payload
from service.dicom.outcome import Unavailable
from service.settings import Settings
from service.store import watch
from service.store.session import credential_errors, session_for

MAX_ANSWER = 4 * 1024 * 1024  # bytes; some 5,000 instances in one answer

_BLOCK = 262_144  # bytes


class Answer(NamedTuple):
    """What a store answered; the names of its headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """Sends requests to a store; what goes wrong is a value."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.store_url
        self._timeouts = (settings.store_connect_timeout, settings.store_read_timeout)
        self._session = session_for(settings)
        self._credential_errors = credential_errors(settings)

    def call(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        payload: Payload | None = None,
        limit: int = MAX_ANSWER,
    ) -> Answer | Unavailable:
        """Send one request within the deadline, if there is time left for it.

        Parameters
        ----------
        path
            Behind the store's URL.
        limit
            Bytes; of a longer answer the body is left empty.
        """
        deadline = watch.deadline()
        if not deadline.is_over:
            answer = self._call(method, path, headers, payload, limit)
            if isinstance(answer, Answer) or not deadline.is_over:
                return answer
        return Unavailable(f"no answer from the store within {deadline.seconds:g} s")

    def _call(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        payload: Payload | None,
        limit: int,
    ) -> Answer | Unavailable:
        """Send one request; a connection that broke is tried once more, since nothing is lost.

        A kept connection may have been closed by the store at the moment it was used again.
        """
        connect_timeout, answer_timeout = self._timeouts
        for attempt in (1, 2):
            try:
                with watch.watched(answer_timeout):
                    return self._exchange(method, path, dict(headers), payload, limit)
            except requests.ConnectTimeout:
                return Unavailable(f"no connection to the store within {connect_timeout:g} s")
            except (requests.Timeout, urllib3.exceptions.TimeoutError):
                return Unavailable(f"no answer from the store within {answer_timeout:g} s")
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
                if attempt == 2 or watch.deadline().is_over:
                    return Unavailable(f"the connection to the store failed ({_name(error)})")
            except self._credential_errors as error:
                reason = f"no Google credentials for the store ({_name(error)})"
                return Unavailable(reason, operator=True)
            except ValueError as error:
                return Unavailable(f"the store's answer can't be read ({_name(error)})")
        raise AssertionError("unreachable")

    def _exchange(
        self, method: str, path: str, headers: dict[str, str], payload: Payload | None, limit: int
    ) -> Answer:
        # A redirect would turn the POST into a GET, whose 200 means nothing: it isn't followed.
        with self._session.request(
            method,
            self._url + path,
            data=_Blocks(payload) if payload else None,  # type: ignore[arg-type] # memoryviews too
            headers=headers,
            timeout=self._timeouts,
            stream=True,
            allow_redirects=False,
        ) as response:
            body = _body(response, limit)
            names = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status_code, names, body)


def _body(response: requests.Response, limit: int) -> bytes:
    """Read a body; nothing of one that is longer than `limit` bytes."""
    body = bytearray()
    while chunk := response.raw.read1(65_536, decode_content=True):
        body += chunk
        if len(body) > limit:
            return b""
    return bytes(body)


@dataclass(frozen=True, slots=True)
class _Blocks:
    """A payload in small blocks, since the connect timeout bounds the sending of each one.

    As one block, a large picture would have to pass a thin line within that timeout.
    """

    payload: Payload

    def __len__(self) -> int:
        return len(self.payload)

    def __iter__(self) -> Iterator[memoryview]:
        for piece in self.payload:
            view = memoryview(piece)
            for start in range(0, len(view), _BLOCK):
                yield view[start : start + _BLOCK]


def _name(error: BaseException) -> str:
    """Return the innermost cause: ConnectionRefusedError says more than its wrappers."""
    seen = error
    for _ in range(8):
        inner = seen.__cause__ or seen.__context__ or getattr(seen, "reason", None)
        if not isinstance(inner, BaseException):
            break
        seen = inner
    return type(seen).__name__
