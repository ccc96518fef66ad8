"""Who pushes: the OpenID Connect token that Google signs for a subscription's service account.

That a token is Google's proves nothing: anybody has one. It is who it was made for (`aud`) and
whose it is (`email`) that counts. No text of a token gets into an error.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from service.errors import Forbidden, JpegstowError, Unauthorized

if TYPE_CHECKING:
    from jwt import PyJWK

_ALGORITHM: Final = "RS256"
_ISSUERS: Final = ("accounts.google.com", "https://accounts.google.com")
# A clock that nobody sets runs wrong by less, and a token lives for an hour: what has leaked can
# be used for a minute longer, which is little, and an honest push isn't refused.
_LEEWAY: Final = 60.0  # seconds
_KEPT: Final = 3600.0  # seconds that a key which Google has withdrawn is trusted at most
_REST: Final = 60.0  # seconds between two fetches, however many unknown keys are named
_REST_IN_TROUBLE: Final = 10.0
_TROUBLE_LENGTH: Final = 200  # characters

# The classes of PyJWT's errors -> reason and detail
_REFUSALS: Final = {
    "InvalidAlgorithmError": ("wrong-algorithm", "the key isn't one for RS256"),
    "InvalidSignatureError": ("bad-signature", "the signature isn't that of the key"),
    "ExpiredSignatureError": ("expired-token", "the token has expired"),
    "ImmatureSignatureError": ("early-token", "the token is of a time to come"),
    "InvalidIssuerError": ("wrong-issuer", "the token isn't issued by Google"),
    "MissingRequiredClaimError": ("missing-claim", "the token lacks exp, iat or iss"),
}
_MALFORMED: Final = ("malformed-token", "the token isn't a JSON Web Token (RFC 7519)")
_UNKNOWN_KEY: Final = ("unknown-key", "the token is signed with a key that isn't Google's")
_MEND: Final = "let the subscription push with an OIDC token of its service account"


class KeysUnavailable(JpegstowError):
    """The public keys of push tokens can't be had now."""

    http_status = 503
    transient = True
    title = "Keys unavailable"
    reason = "keys-unavailable"


class PushTokens:
    """Knows a subscription's own tokens from all others; threads may share it.

    Parameters
    ----------
    keys_url
        Where Google's public keys are, as a JSON Web Key Set (RFC 7517).
    audience, email
        What the token must be made for, and the service account that it must be of; where
        either is empty, nobody is let in.
    timeout
        Seconds to wait for the keys: for each answer of the network, and for another thread.
    clock
        Seconds that only grow; how old the keys are is measured with it.
    """

    def __init__(
        self,
        keys_url: str,
        audience: str,
        email: str,
        timeout: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = _Keys(keys_url, timeout, clock)
        self._audience = audience
        self._email = email

    def check(self, authorization: str) -> None:
        """Return if a request's Authorization header is that of our subscription.

        Raises
        ------
        Unauthorized
            No token, or one that isn't Google's and of now.
        Forbidden
            A good token, but for another service or of another account.
        KeysUnavailable
            It can't be told: Google's keys can't be fetched.
        """
        if not self._audience or not self._email:
            raise Forbidden(
                "nobody may push here",
                reason="push-not-set-up",
                where="PUSH_AUDIENCE, PUSH_SERVICE_ACCOUNT",
                mend="set both as the subscription has them",
            )
        token = _bearer(authorization)
        key = self._keys.find(_key_id(token))
        self._check_is_ours(_claims(token, key))

    def _check_is_ours(self, claims: Mapping[str, Any]) -> None:
        if claims.get("aud") != self._audience:
            raise Forbidden(
                "the token is made for another audience",
                reason="wrong-audience",
                where="PUSH_AUDIENCE",
                mend="let the setting and the subscription's audience be the same text",
            )
        if claims.get("email") != self._email:
            raise Forbidden(
                "the token is of another account",
                reason="wrong-email",
                where="PUSH_SERVICE_ACCOUNT",
                mend="let the setting be the email of the subscription's service account",
            )
        if claims.get("email_verified") is not True:
            raise Forbidden(
                "the token's email isn't verified", reason="email-not-verified", mend=_MEND
            )


def _bearer(authorization: str) -> str:
    """Return the token of an Authorization header (RFC 6750 section 2.1)."""
    scheme, _, token = authorization.partition(" ")
    if not scheme:
        raise _untrusted("no-token", "the request has no token")
    if scheme.lower() != "bearer":
        raise _untrusted("not-bearer", "the request's credentials aren't a Bearer token")
    if not token.isascii():
        raise _untrusted(*_MALFORMED)
    return token.strip()


def _key_id(token: str) -> str:
    """Return which key a token says it is signed with; nothing of it is proven yet."""
    import jwt  # noqa: PLC0415 - with its cryptography 60 ms that only pushes need

    try:
        header = jwt.get_unverified_header(token)
    except jwt.PyJWTError:
        raise _untrusted(*_MALFORMED) from None
    if header.get("alg") != _ALGORITHM:
        raise _untrusted("wrong-algorithm", "the token isn't signed by RS256")
    kid = header.get("kid")
    if not isinstance(kid, str):
        raise _untrusted(*_UNKNOWN_KEY)
    return kid


def _claims(token: str, key: "PyJWK") -> dict[str, Any]:
    """Return what a token says, once it is proven to be Google's and of now."""
    import jwt  # noqa: PLC0415

    try:
        return jwt.decode(
            token,
            key,
            algorithms=[_ALGORITHM],
            issuer=_ISSUERS,
            leeway=_LEEWAY,
            options={"require": ["exp", "iat"], "verify_aud": False},
        )
    except jwt.PyJWTError as error:
        reason, detail = _REFUSALS.get(type(error).__name__, _MALFORMED)
        raise _untrusted(reason, detail) from None  # PyJWT's texts may quote it


def _untrusted(reason: str, detail: str) -> Unauthorized:
    return Unauthorized(detail, reason=reason, where="Authorization", mend=_MEND)


class _Keys:
    """The public keys at a URL, fetched when they are needed and not more often."""

    def __init__(self, url: str, timeout: float, clock: Callable[[], float]) -> None:
        self._url = url
        self._timeout = timeout
        self._clock = clock
        self._fetching = threading.Lock()
        self._rest_until = float("-inf")
        self._trouble = ""  # of the last fetch
        # Until when, and which: one value, because it is read without the lock.
        self._kept: tuple[float, Sequence[PyJWK]] = float("-inf"), ()

    def find(self, kid: str) -> "PyJWK":
        """Return a key by its name; nobody waits for the network who names a key that is here."""
        return self._known(kid) or self._fetched(kid)

    def _known(self, kid: str) -> "PyJWK | None":
        until, keys = self._kept
        current = keys if self._clock() < until else ()
        return next((key for key in current if key.key_id == kid), None)

    def _fetched(self, kid: str) -> "PyJWK":
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
        if key is None:
            raise self._unavailable(trouble) if trouble else _untrusted(*_UNKNOWN_KEY)
        return key

    def _fetch(self) -> None:
        import jwt  # noqa: PLC0415

        try:
            client = jwt.PyJWKClient(self._url, timeout=self._timeout)
            self._kept = self._clock() + _KEPT, client.get_signing_keys()
            self._trouble = ""
        except (jwt.PyJWTError, OSError, ValueError) as error:
            cause = error.__cause__ or error
            self._trouble = f"{type(cause).__name__}: {cause}"[:_TROUBLE_LENGTH]
        self._rest_until = self._clock() + (_REST_IN_TROUBLE if self._trouble else _REST)

    def _unavailable(self, trouble: str) -> KeysUnavailable:
        return KeysUnavailable(
            f"the keys of push tokens can't be fetched: {trouble}",
            where="PUSH_KEYS_URL",
            mend="send again later; if it stays so, see whether this machine reaches that URL",
        )
