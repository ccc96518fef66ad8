"""Any DICOMweb server as a store: one outgoing call, one map of its failures."""

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3

from service.dicom import multipart, part10, stow
from service.dicom.dataset import Instance
from service.dicom.multipart import Payload
from service.dicom.outcome import Conflict, Outcome, Rejected, Stored, Unavailable, Verdict
from service.errors import BadSettings, JpegstowError
from service.settings import LOOPBACK, Settings

MAX_ANSWER = 4 * 1024 * 1024  # bytes; some 5,000 instances in one answer

_BLOCK = 262_144  # bytes
_ANY_SYNTAX = "application/dicom; transfer-syntax=*"
_INSTANCE = f'multipart/related; type="application/dicom"; transfer-syntax=*, {_ANY_SYNTAX}'


class DicomwebStore:
    """A DICOMweb server, reached over connections that are kept and shared by threads."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.store_url
        self._timeouts = (settings.store_connect_timeout, settings.store_read_timeout)
        self._headers = {"Storage-Class": settings.storage_class} if settings.storage_class else {}
        self._wire: stow.Wire = "part10" if settings.dicomweb_wire == "part10" else "json"
        self._may_change_wire = settings.dicomweb_wire == "auto"
        self._session = _session(settings)
        self._credential_errors = _google_errors() if settings.auth == "google" else ()

    def store(self, instances: Sequence[Instance]) -> dict[str, Outcome]:
        """Send instances in one request and return what became of each, by SOP Instance UID.

        A store that has an instance already is asked for it: the same content is a success,
        other content a refusal.
        """
        verdicts = self._send(instances)
        return {
            instance.sop_instance_uid: self._settled(instance, verdicts[instance.sop_instance_uid])
            for instance in instances
        }

    def store_file(self, data: bytes, sop_instance_uid: str) -> Verdict:
        """Send one ready DICOM file, byte for byte."""
        return self._post(stow.package_files([data]), {sop_instance_uid: ""})[sop_instance_uid]

    def unreachable(self) -> str:
        """Return why the store can't be reached, in no words of its own; "" if it can."""
        answer = self._call("GET", "/studies?limit=1", {"Accept": "application/dicom+json"})
        if isinstance(answer, Unavailable):
            return answer.reason
        status, headers, _ = answer
        if status == 204:  # nothing found
            return ""
        verdict = stow.read_status(status, headers, b"")
        return verdict.reason if isinstance(verdict, Unavailable) else ""

    def _send(self, instances: Sequence[Instance]) -> dict[str, Verdict]:
        """Post in the current wire format, and in the other where the store doesn't take it."""
        sop_classes = {each.sop_instance_uid: each.sop_class_uid for each in instances}
        wire = self._wire
        verdicts = self._post(stow.package(instances, wire), sop_classes)
        if wire == "json" and self._may_change_wire and _is_unsupported(verdicts):
            self._wire = "part10"
            verdicts = self._post(stow.package(instances, "part10"), sop_classes)
        return verdicts

    def _post(self, payload: Payload, sop_classes: Mapping[str, str]) -> dict[str, Verdict]:
        headers = {
            "Accept": "application/dicom+json",
            "Content-Type": payload.content_type,
            **self._headers,
        }
        answer = self._call("POST", "/studies", headers, payload)
        if isinstance(answer, Unavailable):
            return dict.fromkeys(sop_classes, answer)
        return stow.read_response(*answer, sop_classes)

    def _settled(self, instance: Instance, verdict: Verdict) -> Outcome:
        """Turn a conflict into a success or a refusal by reading what the store has."""
        path = (
            f"/studies/{instance.study_instance_uid}/series/{instance.series_instance_uid}"
            f"/instances/{instance.sop_instance_uid}"
        )
        if isinstance(verdict, Stored) and not verdict.retrieve_url:
            return replace(verdict, retrieve_url=self._url + path)
        if not isinstance(verdict, Conflict):
            return verdict
        # Much more than was sent is other content, whatever it is.
        limit = 2 * len(instance.codestream) + MAX_ANSWER
        answer = self._call("GET", path, {"Accept": _INSTANCE}, limit=limit)
        if isinstance(answer, Unavailable):
            return answer
        status, headers, body = answer
        if status != 200:
            reason = f"{verdict.reason}; reading it back to compare was answered {status}"
            return Unavailable(reason, stow.retry_after(headers), status, operator=True)
        if _holds(headers, body, instance):
            return Stored(self._url + path, duplicate=True)
        return Rejected(f"{verdict.reason}, with other content", verdict.failure_reason, 409)

    def _call(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        payload: Payload | None = None,
        limit: int = MAX_ANSWER,
    ) -> tuple[int, dict[str, str], bytes] | Unavailable:
        """Send one request; a connection that broke is tried once more, since nothing is lost.

        A kept connection may have been closed by the store at the moment it was used again.
        """
        for attempt in (1, 2):
            try:
                with _within(self._timeouts[1]):
                    return self._exchange(method, self._url + path, dict(headers), payload, limit)
            except requests.ConnectTimeout:
                return Unavailable(f"no connection to the store within {self._timeouts[0]:g} s")
            except (requests.Timeout, urllib3.exceptions.TimeoutError):
                return Unavailable(f"no answer from the store within {self._timeouts[1]:g} s")
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
                if attempt == 2:
                    return Unavailable(f"the connection to the store failed ({_name(error)})")
            except self._credential_errors as error:
                reason = f"no Google credentials for the store ({_name(error)})"
                return Unavailable(reason, operator=True)
            except ValueError as error:
                return Unavailable(f"the store's answer can't be read ({_name(error)})")
        raise AssertionError("unreachable")

    def _exchange(
        self, method: str, url: str, headers: dict[str, str], payload: Payload | None, limit: int
    ) -> tuple[int, dict[str, str], bytes]:
        # A redirect would turn the POST into a GET, whose 200 means nothing: it isn't followed.
        with self._session.request(
            method,
            url,
            data=_Blocks(payload) if payload else None,  # type: ignore[arg-type] # memoryviews too
            headers=headers,
            timeout=self._timeouts,
            stream=True,
            allow_redirects=False,
        ) as response:
            body = _body(response, limit)
            return (
                response.status_code,
                {name.lower(): value for name, value in response.headers.items()},
                body,
            )


def _body(response: requests.Response, limit: int) -> bytes:
    """Read a body; nothing of one that is longer than `limit` bytes."""
    body = bytearray()
    while chunk := response.raw.read1(65_536, decode_content=True):
        body += chunk
        if len(body) > limit:
            return b""
    return bytes(body)


class _Watch:
    """Cuts a connection whose answer isn't whole in time.

    A socket's own timeout bounds the wait for each byte only, and so no dripping header, no
    trailer and no 100 Continue without end.
    """

    def __init__(self, seconds: float) -> None:
        self.is_over = False
        self._seconds = seconds
        self._timer: threading.Timer | None = None

    def begin(self, connection: socket.socket) -> None:
        """Count from now, when the request has been sent."""
        self.end()
        self._timer = threading.Timer(self._seconds, self._cut, [connection])
        self._timer.daemon = True
        self._timer.start()

    def end(self) -> None:
        if self._timer:
            self._timer.cancel()

    def _cut(self, connection: socket.socket) -> None:
        self.is_over = True
        with contextlib.suppress(OSError):
            # Not TLS's own shutdown, which takes its state from under the thread that reads.
            socket.socket.shutdown(connection, socket.SHUT_RDWR)


_WATCH: ContextVar[_Watch] = ContextVar("_WATCH")


@contextlib.contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Bound the answers read inside; raise requests.ReadTimeout whatever cutting them led to."""
    watch = _Watch(seconds)
    token = _WATCH.set(watch)
    try:
        yield
    finally:
        _WATCH.reset(token)
        watch.end()
        if watch.is_over:
            raise requests.ReadTimeout


class _HTTPConnection(urllib3.connection.HTTPConnection):
    def getresponse(self) -> urllib3.response.HTTPResponse:  # type: ignore[override] # as there
        _WATCH.get().begin(self.sock)
        return super().getresponse()


class _HTTPSConnection(urllib3.connection.HTTPSConnection):
    def getresponse(self) -> urllib3.response.HTTPResponse:  # type: ignore[override] # as there
        _WATCH.get().begin(self.sock)
        return super().getresponse()


class _Adapter(requests.adapters.HTTPAdapter):
    """Makes connections that are watched, through a proxy too."""

    def get_connection_with_tls_context(self, *args: Any, **named: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **named)
        pool.ConnectionCls = _HTTPSConnection if pool.scheme == "https" else _HTTPConnection
        return pool


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


def _is_unsupported(verdicts: Mapping[str, Verdict]) -> bool:
    return all(isinstance(v, Rejected) and v.status == 415 for v in verdicts.values())


def _holds(headers: Mapping[str, str], body: bytes, instance: Instance) -> bool:
    """Tell whether an answer's DICOM file has the content of an instance."""
    content_type = headers.get("content-type", "")
    try:
        media_type, _ = multipart.parse_media_type(content_type)
        file: bytes | memoryview = body
        if media_type == "multipart/related":
            file = bytes(multipart.decode(body, content_type)[0].body)
        return part10.holds(part10.decode(file), instance.dataset, instance.codestream)
    except (JpegstowError, IndexError):
        return False


def _name(error: BaseException) -> str:
    """Return the innermost cause: ConnectionRefusedError says more than its wrappers."""
    seen = error
    for _ in range(8):
        inner = seen.__cause__ or seen.__context__ or getattr(seen, "reason", None)
        if not isinstance(inner, BaseException):
            break
        seen = inner
    return type(seen).__name__


def _session(settings: Settings) -> requests.Session:
    session = _google_session() if settings.auth == "google" else requests.Session()
    if settings.auth == "basic":
        session.auth = (settings.dicomweb_user, settings.dicomweb_password)
    elif settings.auth == "bearer":
        session.auth = _Bearer(settings.dicomweb_token)
    else:
        session.auth = _unchanged
    if urlsplit(settings.store_url).hostname in LOOPBACK:
        session.trust_env = False  # a proxy of this machine's can't lead to this machine
    size = settings.threads
    adapter = _Adapter(pool_connections=2, pool_maxsize=size, max_retries=0)
    for prefix in ("http://", "https://"):
        session.mount(prefix, adapter)
    session.get_redirect_target = _no_redirect  # type: ignore[method-assign,assignment]
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers["User-Agent"] = "jpegstow"
    session.headers["Accept-Encoding"] = "identity"
    return session


def _no_redirect(_: requests.Response) -> None:
    """Find no redirect: else requests reads its whole body and its Location, followed or not."""


def _google_errors() -> tuple[type[Exception], ...]:
    from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415

    return (GoogleAuthError,)


def _google_session() -> requests.Session:
    import google.auth  # noqa: PLC0415 - 60 ms that only Google's store needs
    import google.auth.transport.requests  # noqa: PLC0415

    scopes = ["https://www.googleapis.com/auth/cloud-healthcare"]
    try:
        credentials, _ = google.auth.default(scopes=scopes)
    except google.auth.exceptions.GoogleAuthError as error:
        problem = "DICOMWEB_AUTH: google, but there are no application default credentials"
        raise BadSettings([problem]) from error
    session: requests.Session = google.auth.transport.requests.AuthorizedSession(credentials)
    return session


class _Bearer:
    """Adds a token to each request; a session's own header would be overruled by a .netrc file."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _unchanged(request: Any) -> Any:
    """Keep a .netrc file's credentials out of the request."""
    return request
