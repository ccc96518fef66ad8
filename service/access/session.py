"""Who has signed in to the pages: a signed cookie, and the token that its requests have to show.

A session is nothing but its cookie: no process has to know of it, and all that have the secret
take it. It ends after a shift, or once it is left or the key that it was opened with is revoked.
"""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from itsdangerous import BadData, URLSafeSerializer

from service.access.caller import Caller
from service.access.left import Left
from service.settings import ApiKey, ordered

COOKIE: Final = "jpegstow_session"
LENGTH: Final = 12 * 3600.0  # seconds


@dataclass(frozen=True)
class Sessions:
    """Opens sessions and knows them again.

    Attributes
    ----------
    secret
        Whoever has it can be anybody.
    clock
        Seconds since 1970.
    left
        Those that were signed out of; None where nobody remembers them.
    """

    secret: str
    clock: Callable[[], float] = time.time
    left: Left | None = None

    def of_key(self, key: ApiKey) -> str:
        """Return the cookie of who has shown an API key."""
        return self._sealed({"key": _trace(key.digest)}, LENGTH)

    def of_caller(self, caller: Caller, until: float) -> str:
        """Return the cookie of who is known otherwise, good until a moment but no longer than any.

        `until` is in seconds since 1970.
        """
        said = {"name": caller.name, "kind": caller.kind, "scopes": ordered(caller.scopes)}
        return self._sealed(said, min(LENGTH, until - self.clock()))

    def caller(self, cookie: str, keys: Iterable[ApiKey]) -> Caller | None:
        """Return whose session a cookie is; None if it is none, or has ended.

        Raises
        ------
        OSError, ValueError
            If it can't be told whether it was left.
        """
        said = self._said(cookie)
        if said is None or (self.left and said["id"] in self.left):
            return None
        if "key" not in said:
            return Caller(said["name"], said["kind"], frozenset(said["scopes"]))
        for key in keys:
            if not key.revoked and hmac.compare_digest(_trace(key.digest), said["key"]):
                return Caller(key.name, "key", key.scopes)
        return None

    def leave(self, cookie: str) -> None:
        """End the session of a cookie, if it is one, before its time.

        Raises
        ------
        OSError, ValueError
            If nobody can remember it.
        """
        said = self._said(cookie)
        if said and self.left:
            self.left.add(said["id"], said["until"])

    def token(self, cookie: str) -> str:
        """Return what a request with this cookie has to show, so that no other site can send it."""
        return hmac.new(self.secret.encode(), b"csrf" + cookie.encode(), hashlib.sha256).hexdigest()

    def _said(self, cookie: str) -> dict[str, Any] | None:
        """Return what a cookie says; None if it is none of ours, or its time is over."""
        try:
            said: dict[str, Any] = self._serializer.loads(cookie)
        except BadData:
            return None
        return said if "id" in said and said["until"] > self.clock() else None

    def _sealed(self, said: dict[str, Any], seconds: float) -> str:
        # The cookie itself can be written in several ways, its last letter for one.
        said |= {"until": int(self.clock() + seconds), "id": secrets.token_urlsafe(12)}
        sealed = self._serializer.dumps(said)
        return sealed if isinstance(sealed, str) else sealed.decode()

    @cached_property
    def _serializer(self) -> URLSafeSerializer:
        ways = {"key_derivation": "hmac", "digest_method": hashlib.sha256}
        return URLSafeSerializer(self.secret, salt="named session", signer_kwargs=ways)


def _trace(digest: str) -> str:
    """Return by what a session knows its key, which tells nothing of the key or its digest."""
    return hashlib.sha256(b"session" + digest.encode()).hexdigest()
