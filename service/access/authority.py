"""Whose a request is, by what it shows: a key, a token, a session."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from werkzeug.datastructures import Headers

from service.access import keys
from service.access.caller import ANYBODY, Caller
from service.access.keys import KeyFile
from service.access.login import Login
from service.access.provider import IAP_HEADER, Provider
from service.access.rate import Rate
from service.access.session import Sessions
from service.errors import JpegstowError, Unauthorized
from service.settings import ApiKey

_MEND: Final = "send an API key: Authorization: Bearer jpegstow_..."


class SessionsUnusable(JpegstowError):
    """Which sessions were left can't be read; nobody gets in by one."""

    http_status = 503
    transient = True
    title = "Sessions not usable"
    reason = "sessions-unusable"


class Identified(NamedTuple):
    """A caller, and how they are told: whether a browser would do it for another site's page."""

    caller: Caller
    by: Literal["header", "cookie", "browser"]


@dataclass(frozen=True, slots=True)
class Access:
    """How callers are told.

    Attributes
    ----------
    given
        Keys beside those of the file.
    sessions
        Of who has signed in; None where nobody can, as in the archive.
    login
        Where people sign in at the provider; None where they can't.
    provider, proxy
        Whose tokens are taken as bearer tokens, and Identity-Aware Proxy; None for none.
    rate
        How often each caller may ask; None for no such limit.
    own
        The key by which the archive knows the service.
    hosts
        The names by which it may be asked; empty for any.
    """

    kind: Literal["none", "apikey", "oidc"]
    file: KeyFile
    given: Sequence[ApiKey] = ()
    sessions: Sessions | None = None
    login: Login | None = None
    provider: Provider | None = None
    proxy: Provider | None = None
    rate: Rate | None = None
    own: ApiKey | None = None
    hosts: frozenset[str] = frozenset()

    def identify(self, headers: Headers, cookie: str) -> Identified:
        """Return whose a request is, by its headers, else by its session's cookie.

        A key comes before the proxy's word, which each request has that comes through it.

        Raises
        ------
        Unauthorized
            If it is nobody's.
        KeysUnusable, KeysUnavailable, SessionsUnusable
            If it can't be told.
        """
        if self.kind == "none":
            return Identified(ANYBODY, "browser")
        authorization = headers.get("Authorization", "")
        assertion = headers.get(IAP_HEADER, "") if self.proxy else ""
        if self.proxy and assertion and f" {keys.PREFIX}" not in authorization:
            return Identified(self.proxy.caller(assertion)[0], "browser")
        if cookie and not authorization:
            return Identified(self._of_session(cookie), "cookie")
        return Identified(self._of_credential(_bearer(authorization)), "header")

    def session(self, credential: str) -> tuple[Caller, str]:
        """Return who shows a key or a token, and the cookie of a session for them.

        Raises
        ------
        Unauthorized
            If it is nobody's.
        """
        assert self.sessions  # noqa: S101 - else there is no page to sign in
        if self.provider and not credential.startswith(keys.PREFIX):
            caller, until = self.provider.caller(credential)
            return caller, self.sessions.of_caller(caller, until)
        key = self._key(credential)
        return _holder(key), self.sessions.of_key(key)

    def _of_session(self, cookie: str) -> Caller:
        try:
            found = self.sessions.caller(cookie, self._keys()) if self.sessions else None
        except (OSError, ValueError) as error:
            raise SessionsUnusable(
                f"it can't be told whether the session was left ({type(error).__name__})",
                where="DATA_DIR",
                mend="let the service's user read and write it",
            ) from None
        if found is None:
            raise Unauthorized("the session has ended", reason="no-session", mend="sign in again")
        return found

    def _of_credential(self, credential: str) -> Caller:
        if self.provider and not credential.startswith(keys.PREFIX):
            return self.provider.caller(credential)[0]
        found = self._key(credential)
        return _holder(found, "service" if found is self.own else "key")

    def _key(self, credential: str) -> ApiKey:
        found = keys.find(keys.digest_of(credential), self._keys())
        if found is None:
            raise _unknown("unknown-key", "there is no such key, or it is revoked")
        return found

    def _keys(self) -> Sequence[ApiKey]:
        own = [self.own] if self.own else []
        return [*own, *self.given, *self.file.read()]


def _holder(key: ApiKey, kind: Literal["key", "service"] = "key") -> Caller:
    return Caller(key.name, kind, key.scopes)


def _bearer(authorization: str) -> str:
    """Return the token of an Authorization header (RFC 6750 section 2.1)."""
    scheme, _, token = authorization.partition(" ")
    if not scheme:
        raise _unknown("no-key", "the request says nothing of who sends it")
    if scheme.lower() != "bearer":
        raise _unknown("not-bearer", "the request's credentials aren't a Bearer token")
    return token.strip()


def _unknown(reason: str, detail: str) -> Unauthorized:
    return Unauthorized(detail, reason=reason, where="Authorization", mend=_MEND)
