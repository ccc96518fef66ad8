"""The way to a store: one outgoing call, one map of its failures."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar
from urllib.parse import urlsplit

import requests
import urllib3

from service import counting, tracing
from service.dicom.multipart import Payload
from service.dicom.outcome import Unavailable
from service.settings import Settings
from service.store import watch
from service.store.session import credential_errors, session_for

MAX_ANSWER = 4 * 1024 * 1024  # bytes; some 5,000 instances in one answer

_BLOCK = 262_144  # bytes
_SLOWEST: Final = 4_096  # bytes a second; an answer that comes more slowly is none
_Made = TypeVar("_Made")


class Answer(NamedTuple):
    """What a store answered; the names of its headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Download:
    """An answer whose body is still to come; reading its blocks raises `Interrupted`."""

    status: int
    headers: dict[str, str]
    blocks: Iterator[bytes]

    @property
    def is_framed(self) -> bool:
        """Whether HTTP itself tells the end of the body from a connection that broke."""
        chunked = "chunked" in self.headers.get("transfer-encoding", "").lower()
        return chunked or "content-length" in self.headers


class Interrupted(Exception):
    """The body of an answer broke off; `outcome` says how."""

    def __init__(self, outcome: Unavailable) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


class Client:
    """Sends requests to a store; what goes wrong is a value."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.store_url
        self._timeouts = (settings.store_connect_timeout, settings.store_read_timeout)
        self.session = session_for(settings)
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
            Behind the store's URL; or a whole URL of the same server.
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
        return self.attempt(lambda: self._exchange(method, path, dict(headers), payload, limit))

    def attempt(self, exchange: Callable[[], _Made]) -> _Made | Unavailable:
        """Make an exchange over this client's session, and turn what goes wrong into a value.

        A connection that broke is tried once more, since nothing is lost: a kept connection may
        have been closed by the store at the moment it was used again.
        """
        made = self._attempt(exchange)
        if isinstance(made, Unavailable):
            counting.store_denied() if made.operator else counting.store_answered(0)
        return made

    def _attempt(self, exchange: Callable[[], _Made]) -> _Made | Unavailable:
        connect_timeout, answer_timeout = self._timeouts
        for attempt in (1, 2):
            try:
                with watch.watched(answer_timeout):
                    return exchange()
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

    @contextmanager
    def download(self, path: str, headers: Mapping[str, str]) -> Iterator[Download | Unavailable]:
        """Get a resource whose body may be too large for memory; its head comes within the timeout.

        The body may take any time at more than 4 kB a second.
        """
        response = self.attempt(lambda: self._request("GET", path, dict(headers), None))
        if isinstance(response, Unavailable):
            yield response
            return
        with response:
            yield Download(response.status_code, _names(response), self._blocks(response))

    def _blocks(self, response: requests.Response) -> Iterator[bytes]:
        answer_timeout = self._timeouts[1]
        end, received = time.monotonic() + answer_timeout, 0
        try:
            while block := response.raw.read1(_BLOCK, decode_content=True):
                received += len(block)
                if time.monotonic() > end + received / _SLOWEST:
                    raise Interrupted(Unavailable("the store's answer comes too slowly"))
                yield block
        except (urllib3.exceptions.TimeoutError, TimeoutError) as error:
            reason = f"nothing more of the store's answer came for {answer_timeout:g} s"
            raise Interrupted(Unavailable(reason)) from error
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise Interrupted(
                Unavailable(f"the store's answer broke off ({_name(error)})")
            ) from error

    def _exchange(
        self, method: str, path: str, headers: dict[str, str], payload: Payload | None, limit: int
    ) -> Answer:
        with self._request(method, path, headers, payload) as response:
            return Answer(response.status_code, _names(response), _body(response, limit))

    def _request(
        self, method: str, path: str, headers: dict[str, str], payload: Payload | None
    ) -> requests.Response:
        # A redirect would turn the POST into a GET, whose 200 means nothing: it isn't followed.
        response = self.session.request(
            method,
            self._url_of(path),
            data=_Blocks(payload) if payload else None,  # type: ignore[arg-type] # memoryviews too
            headers=headers | tracing.headers(),
            timeout=self._timeouts,
            stream=True,
            allow_redirects=False,
        )
        counting.store_answered(response.status_code)
        return response

    def _url_of(self, path: str) -> str:
        """Return a URL of the store's server: credentials go nowhere else."""
        if path.startswith("/") or not path:
            return self._url + path
        if urlsplit(path)[:2] != urlsplit(self._url)[:2]:
            raise ValueError("the URL is another server's")
        return path


def _names(response: requests.Response) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


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
