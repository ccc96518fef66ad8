"""JSON Web Tokens (RFC 7519) of somebody who is believed, and the public keys that prove them.

No text of a token gets into an error.
"""

import json
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, Final

from service.errors import JpegstowError, Unauthorized

if TYPE_CHECKING:
    from jwt import PyJWK

# A clock that nobody sets runs wrong by less, and a token lives for an hour: what has leaked can
# be used for a minute longer, which is little, and an honest request isn't refused.
_LEEWAY: Final = 60.0  # seconds
_KEPT: Final = 3600.0  # seconds that a key which was withdrawn is trusted at most
_REST: Final = 60.0  # seconds between two fetches, however many unknown keys are named
_REST_IN_TROUBLE: Final = 10.0
_TROUBLE_LENGTH: Final = 200  # characters
_LONGEST_DISCOVERY: Final = 1_000_000  # bytes

# The classes of PyJWT's errors -> reason and detail
_REFUSALS: Final = {
    "InvalidAlgorithmError": ("wrong-algorithm", "the key isn't one for the token's algorithm"),
    "InvalidSignatureError": ("bad-signature", "the signature isn't that of the key"),
    "ExpiredSignatureError": ("expired-token", "the token has expired"),
    "ImmatureSignatureError": ("early-token", "the token is of a time to come"),
    "InvalidIssuerError": ("wrong-issuer", "the token isn't issued by {}"),
    "InvalidAudienceError": ("wrong-audience", "the token is made for another audience"),
    "MissingRequiredClaimError": ("missing-claim", "the token lacks a claim that it needs"),
}
_MALFORMED: Final = ("malformed-token", "the token isn't a JSON Web Token (RFC 7519)")
_UNKNOWN_KEY: Final = ("unknown-key", "the token is signed with a key that isn't one of {}")


class KeysUnavailable(JpegstowError):
    """The public keys of tokens can't be had now."""

    http_status = 503
    transient = True
    title = "Keys unavailable"
    reason = "keys-unavailable"


@dataclass(frozen=True, slots=True)
class Signer:
    """Who is believed.

    Attributes
    ----------
    name
        As errors have it.
    issuers, algorithms
        What the token may say of itself. An algorithm with a shared secret isn't among them: who
        checks tokens can't make any.
    required
        The claims that it has to have.
    audience
        What it has to be made for; None if the caller sees to that.
    where, mend
        The header that has it, and what to do about a refusal.
    names_keys
        Whether each token says which key it is signed with. OpenID Connect Core 1.0 section 10.1
        wants it only where there are several.
    """

    name: str
    issuers: tuple[str, ...]
    algorithms: tuple[str, ...]
    required: tuple[str, ...]
    audience: str | None
    where: str
    mend: str
    names_keys: bool = True

    def claims(self, token: str, keys: "Keys") -> dict[str, Any]:
        """Return what a token says, once it is proven to be the signer's and of now.

        Raises
        ------
        Unauthorized
            If it isn't.
        KeysUnavailable
            If it can't be told.
        """
        if not token.isascii():
            raise self.untrusted(*_MALFORMED)
        key = keys.find(self._key_id(token))
        if key is None:
            raise self.untrusted(*_UNKNOWN_KEY)
        return self._proven(token, key)

    def untrusted(self, reason: str, detail: str) -> Unauthorized:
        """Return why a token isn't believed."""
        detail = detail.format(self.name)
        return Unauthorized(detail, reason=reason, where=self.where, mend=self.mend)

    def _key_id(self, token: str) -> str | None:
        """Return which key a token says it is signed with, if it does; nothing is proven yet."""
        import jwt  # noqa: PLC0415 - with its cryptography 60 ms that only tokens need

        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            raise self.untrusted(*_MALFORMED) from None
        if header.get("alg") not in self.algorithms:
            detail = f"the token isn't signed by {' or '.join(self.algorithms)}"
            raise self.untrusted("wrong-algorithm", detail)
        kid: str | None = header.get("kid")
        if kid is None and self.names_keys:
            raise self.untrusted(*_UNKNOWN_KEY)
        return kid

    def _proven(self, token: str, key: "PyJWK") -> dict[str, Any]:
        import jwt  # noqa: PLC0415

        try:
            return jwt.decode(
                token,
                key,
                algorithms=list(self.algorithms),
                issuer=self.issuers,
                audience=self.audience,
                leeway=_LEEWAY,
                options={
                    "require": list(self.required),
                    "verify_aud": self.audience is not None,
                },
            )
        except jwt.PyJWTError as error:
            # PyJWT's texts may quote it.
            raise self.untrusted(*_REFUSALS.get(type(error).__name__, _MALFORMED)) from None


class Keys:
    """The public keys at a URL, fetched when they are needed and not more often; threads share it.

    Parameters
    ----------
    locate
        Returns the URL of a JSON Web Key Set (RFC 7517); may ask the network for it.
    what, setting
        Whose keys they are and which setting leads to them, for errors.
    timeout
        Seconds to wait for the keys: for each answer of the network, and for another thread.
    clock
        Seconds that only grow; how old the keys are is measured with it.
    """

    def __init__(
        self,
        locate: Callable[[], str],
        what: str,
        setting: str,
        timeout: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._locate = locate
        self._what = what
        self._setting = setting
        self._timeout = timeout
        self._clock = clock
        self._fetching = threading.Lock()
        self._rest_until = float("-inf")
        self._trouble = ""  # of the last fetch
        # Until when, and which: one value, because it is read without the lock.
        self._kept: tuple[float, Sequence[PyJWK]] = float("-inf"), ()

    def find(self, kid: str | None) -> "PyJWK | None":
        """Return a key by its name, or without a name the only one; None if there is none.

        Nobody waits for the network who names a key that is here.

        Raises
        ------
        KeysUnavailable
            If it can't be told.
        """
        return self._known(kid) or self._fetched(kid)

    def _known(self, kid: str | None) -> "PyJWK | None":
        until, keys = self._kept
        current = keys if self._clock() < until else ()
        if kid is None:
            return current[0] if len(current) == 1 else None
        return next((key for key in current if key.key_id == kid), None)

    def _fetched(self, kid: str | None) -> "PyJWK | None":
        if not self._fetching.acquire(timeout=self._timeout):
            raise self._unavailable("another request is still waiting for them")
        try:
            key = self._known(kid)  # another thread may have fetched it meanwhile
            if key is None and self._clock() >= self._rest_until:
                self._fetch()
                key = self._known(kid)
            trouble = self._trouble
        finally:
            self._fetching.release()
        if key is None and trouble:
            raise self._unavailable(trouble)
        return key

    def _fetch(self) -> None:
        import jwt  # noqa: PLC0415

        try:
            client = jwt.PyJWKClient(self._locate(), timeout=self._timeout)
            self._kept = self._clock() + _KEPT, client.get_signing_keys()
            self._trouble = ""
        except (jwt.PyJWTError, OSError, ValueError, HTTPException) as error:
            cause = error.__cause__ or error
            self._trouble = f"{type(cause).__name__}: {cause}"[:_TROUBLE_LENGTH]
        self._rest_until = self._clock() + (_REST_IN_TROUBLE if self._trouble else _REST)

    def _unavailable(self, trouble: str) -> KeysUnavailable:
        return KeysUnavailable(
            f"the keys of {self._what} can't be fetched: {trouble}",
            where=self._setting,
            mend="send again later; if it stays so, see whether this machine reaches that URL",
        )


def discovered(issuer: str, timeout: float = 5.0) -> dict[str, Any]:
    """Return what an issuer says of itself (OpenID Connect Discovery 1.0, section 4).

    Raises
    ------
    ValueError, OSError
        If it doesn't say, or can't be asked.
    """
    url = issuer.rstrip("/") + "/.well-known/openid-configuration"
    with urllib.request.urlopen(url, timeout=timeout) as answer:  # noqa: S310 - a setting's URL
        said = json.loads(answer.read(_LONGEST_DISCOVERY))
    if not isinstance(said, dict) or said.get("issuer") != issuer:
        raise ValueError("what it says there isn't the issuer's own")
    return said


def url_in(said: Mapping[str, Any], name: str) -> str:
    """Return a URL that an issuer tells; ValueError if it doesn't."""
    url = said.get(name)
    if not isinstance(url, str) or not url.startswith(("https://", "http://")):
        raise ValueError(f"it names no {name}")
    return url
