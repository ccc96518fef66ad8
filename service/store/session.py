"""Connections that are kept and shared by threads, and the credentials that go with a request."""

from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import requests

from service.errors import BadSettings
from service.settings import LOOPBACK, Settings
from service.store.watch import Adapter


def session_for(settings: Settings) -> requests.Session:
    """Return a session that sends what the settings say, and nothing of this machine's own.

    Raises
    ------
    BadSettings
        If there are no credentials of the kind that is set.
    """
    session = _google_session() if settings.store_auth == "google" else requests.Session()
    if settings.store_auth == "basic":
        session.auth = (settings.dicomweb_user, settings.dicomweb_password)
    elif settings.store_auth == "bearer":
        session.auth = _Bearer(settings.store_token)
    else:
        session.auth = _unchanged
    if urlsplit(settings.store_url).hostname in LOOPBACK:
        session.trust_env = False  # a proxy of this machine's can't lead to this machine
    size = settings.threads
    adapter = Adapter(pool_connections=2, pool_maxsize=size, max_retries=0)
    for prefix in ("http://", "https://"):
        session.mount(prefix, adapter)
    session.get_redirect_target = _no_redirect  # type: ignore[method-assign,assignment]
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers["User-Agent"] = "jpegstow"
    session.headers["Accept-Encoding"] = "identity"
    return session


def _no_redirect(_: requests.Response) -> None:
    """Find no redirect: else requests reads its whole body and its Location, followed or not."""


def credential_errors(settings: Settings) -> tuple[type[Exception], ...]:
    """Return what is raised when credentials can't be had."""
    if settings.store_auth != "google":
        return ()
    from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415 - slow to import

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
    tokens = requests.Session()  # fetching one counts as part of a call
    for prefix in ("http://", "https://"):
        tokens.mount(prefix, Adapter(max_retries=3))
    transport = google.auth.transport.requests
    session: requests.Session = transport.AuthorizedSession(
        credentials, auth_request=transport.Request(tokens)
    )
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
