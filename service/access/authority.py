"""Whose a request is, by what it shows: a key, a session."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from werkzeug.datastructures import Headers

from service.access import keys
from service.access.caller import ANYBODY, Caller
from service.access.keys import KeyFile
from service.access.session import Sessions
from service.errors import Unauthorized
from service.setting_texts import ApiKey

_MEND: Final = "send an API key: Authorization: Bearer jpegstow_..."


@dataclass(frozen=True, slots=True)
class Access:
    """How callers are told.

    Attributes
    ----------
    given
        Keys beside those of the file.
    sessions
        Of who has signed in; None where nobody can, as in the archive.
    """

    kind: Literal["none", "apikey"]
    file: KeyFile
    given: Sequence[ApiKey] = ()
    sessions: Sessions | None = None

    def caller(self, headers: Headers, cookie: str) -> Caller:
        """Return whose a request is, by its headers, else by its session's cookie.

        Raises
        ------
        Unauthorized
            If it is nobody's.
        KeysUnusable
            If it can't be told.
        """
        if self.kind == "none":
            return ANYBODY
        authorization = headers.get("Authorization", "")
        if cookie and not authorization:
            return self._of_session(cookie)
        return self._of_key(_bearer(authorization))

    def session(self, credential: str) -> str:
        """Return the cookie of a session for who shows a key.

        Raises
        ------
        Unauthorized
            If it is nobody's.
        """
        assert self.sessions  # noqa: S101 - else there is no page to sign in
        return self.sessions.of_key(self._key(credential))

    def _of_session(self, cookie: str) -> Caller:
        found = self.sessions.caller(cookie, self._keys()) if self.sessions else None
        if found is None:
            raise Unauthorized("the session has ended", reason="no-session", mend="sign in again")
        return found

    def _of_key(self, credential: str) -> Caller:
        found = self._key(credential)
        return Caller(found.name, "key", found.scopes)

    def _key(self, credential: str) -> ApiKey:
        found = keys.find(keys.digest_of(credential), self._keys())
        if found is None:
            raise _unknown("unknown-key", "there is no such key, or it is revoked")
        return found

    def _keys(self) -> Sequence[ApiKey]:
        return [*self.given, *self.file.read()]


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
