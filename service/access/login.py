"""Signing in at an OpenID Connect provider: its authorization code flow, with PKCE.

    /sign-in/provider   sends the browser to the provider; a cookie keeps what was begun
    the provider        finds out who it is, as it wants to, and sends the browser back
    /sign-in/return     is told a code, for which the provider gives us an ID token

OpenID Connect Core 1.0 section 3.1, RFC 7636 (PKCE), OpenID Connect RP-Initiated Logout 1.0.
"""

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from itsdangerous import BadData, URLSafeSerializer

from service.access.caller import Caller
from service.access.provider import Provider
from service.errors import JpegstowError, Unauthorized
from service.tokens import discovered, url_in

COOKIE: Final = "jpegstow_sign_in"
LENGTH: Final = 600  # seconds that somebody may take at the provider

_TIMEOUT: Final = 10.0  # seconds to wait for the provider
_LONGEST_ANSWER: Final = 200_000  # bytes
_BASIC: Final = "client_secret_basic"


class ProviderUnavailable(JpegstowError):
    """The provider can't be asked now."""

    http_status = 503
    transient = True
    title = "Provider unavailable"
    reason = "provider-unavailable"


@dataclass(frozen=True)
class Login:
    """A provider at which people sign in.

    Attributes
    ----------
    provider
        Whose ID tokens are taken: those that are made for `client_id`.
    client_id, client_secret
        What the service is registered as there. Without a secret PKCE alone proves that a code is
        ours.
    scope
        What is asked for: ``openid``, and what brings the claims that are wanted.
    secret
        By which what was begun is signed.
    clock
        Seconds since 1970.
    """

    issuer: str
    provider: Provider
    client_id: str
    client_secret: str
    scope: str
    secret: str
    clock: Callable[[], float] = time.time

    @property
    def host(self) -> str:
        """The provider's host, as people know it."""
        return urlsplit(self.issuer).netloc

    def begin(self, back: str, wanted: str) -> tuple[str, str]:
        """Return the URL to send a browser to, and the cookie that keeps what was begun.

        Parameters
        ----------
        back
            The URL to come back to, as it is registered at the provider.
        wanted
            The path to go on to then.

        Raises
        ------
        ProviderUnavailable
            If the provider doesn't say where people sign in.
        """
        begun = {name: secrets.token_urlsafe(32) for name in ("state", "nonce", "verifier")}
        digest = hashlib.sha256(begun["verifier"].encode()).digest()
        asked = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": back,
            "scope": self.scope,
            "state": begun["state"],
            "nonce": begun["nonce"],
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        url = _url(_discovered(self.issuer), "authorization_endpoint")
        until = int(self.clock()) + LENGTH
        cookie = self._serializer.dumps(begun | {"wanted": wanted, "until": until})
        return _with_query(url, asked), str(cookie)

    def finish(self, back: str, cookie: str, told: Mapping[str, str]) -> tuple[Caller, str]:
        """Return who has signed in, and the path to go on to.

        Parameters
        ----------
        back
            As at the beginning.
        told
            The query with which the browser comes back.

        Raises
        ------
        Unauthorized
            If nobody has.
        ProviderUnavailable, KeysUnavailable
            If it can't be told.
        """
        begun = self._begun(cookie)
        if not _same(begun["state"], told.get("state")):
            raise _refused("the provider's answer belongs to another sign-in")
        if "code" not in told:
            raise _refused("the provider has signed nobody in")
        claims = self.provider.claims(self._id_token(back, told["code"], begun["verifier"]))
        if not _same(begun["nonce"], claims.get("nonce")):
            raise _refused("the provider's token belongs to another sign-in")
        if claims.get("azp", self.client_id) != self.client_id:
            raise _refused("the provider's token is made for another client")
        return self.provider.caller_of(claims), begun["wanted"]

    def leave(self, back: str) -> str:
        """Return the URL where the provider's own session ends, too; "" if it tells none."""
        try:
            url = _url(_discovered(self.issuer), "end_session_endpoint")
        except ProviderUnavailable:
            return ""
        return _with_query(url, {"client_id": self.client_id, "post_logout_redirect_uri": back})

    def _begun(self, cookie: str) -> dict[str, Any]:
        """Return what this browser has begun, not long ago."""
        try:
            begun: dict[str, Any] = self._serializer.loads(cookie)
        except BadData:
            raise _refused("this browser has not begun to sign in") from None
        if begun["until"] <= self.clock():
            raise _refused("it has taken too long")
        return begun

    def _id_token(self, back: str, code: str, verifier: str) -> str:
        """Return the ID token that the provider gives for a code (Core 1.0 section 3.1.3)."""
        said = _discovered(self.issuer)
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": back,
            "code_verifier": verifier,
        }
        basic = None
        if self.client_secret and _BASIC in _methods(said):
            # Each encoded as in a form (RFC 6749 section 2.3.1).
            basic = quote(self.client_id, safe=""), quote(self.client_secret, safe="")
        else:
            form["client_id"] = self.client_id
            form |= {"client_secret": self.client_secret} if self.client_secret else {}
        return _token_in(_posted(_url(said, "token_endpoint"), form, basic))

    @cached_property
    def _serializer(self) -> URLSafeSerializer:
        ways = {"key_derivation": "hmac", "digest_method": hashlib.sha256}
        return URLSafeSerializer(self.secret, salt="sign-in", signer_kwargs=ways)


def _discovered(issuer: str) -> dict[str, Any]:
    try:
        return discovered(issuer, _TIMEOUT)
    except (OSError, ValueError) as error:
        raise _unavailable(type(error).__name__) from error


def _url(said: Mapping[str, Any], name: str) -> str:
    try:
        return url_in(said, name)
    except ValueError as error:
        raise _unavailable(str(error)) from error


def _methods(said: Mapping[str, Any]) -> list[Any]:
    """Return how the provider lets a client with a secret prove itself."""
    methods = said.get("token_endpoint_auth_methods_supported")
    return methods if isinstance(methods, list) else [_BASIC]


def _posted(url: str, form: Mapping[str, str], basic: tuple[str, str] | None) -> bytes:
    import requests  # noqa: PLC0415 - who signs in needs it, and no start
    import urllib3  # noqa: PLC0415

    try:
        with requests.post(
            url,
            data=form,
            auth=basic or _unchanged,
            headers={"Accept": "application/json"},
            timeout=_TIMEOUT,
            allow_redirects=False,
            stream=True,
        ) as answer:
            body: bytes = answer.raw.read(_LONGEST_ANSWER, decode_content=True)
    except (OSError, urllib3.exceptions.HTTPError) as error:
        raise _unavailable(type(error).__name__) from error
    if answer.status_code >= 500:
        raise _unavailable(f"it answered {answer.status_code}")
    if answer.status_code != 200:
        raise _refused(f"the provider has answered {answer.status_code} to the code")
    return body


def _unchanged(request: Any) -> Any:
    """Keep a .netrc file's credentials out of the request."""
    return request


def _token_in(body: bytes) -> str:
    try:
        said = json.loads(body)
    except ValueError:
        said = None
    token = said.get("id_token") if isinstance(said, dict) else None
    if not isinstance(token, str):
        raise _refused("the provider has given no ID token", mend="ask for the scope openid")
    return token


def _with_query(url: str, asked: Mapping[str, str]) -> str:
    return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode(asked)}"


def _same(ours: str, theirs: object) -> bool:
    return isinstance(theirs, str) and hmac.compare_digest(ours.encode(), theirs.encode())


def _refused(detail: str, mend: str = "begin to sign in again") -> Unauthorized:
    return Unauthorized(detail, reason="not-signed-in", where="sign-in", mend=mend)


def _unavailable(trouble: str) -> ProviderUnavailable:
    return ProviderUnavailable(
        f"the provider can't be asked: {trouble}",
        where="OIDC_ISSUER",
        mend="try again later; if it stays so, see whether this machine reaches it",
    )
