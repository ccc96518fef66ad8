"""Who pushes: the OpenID Connect token that Google signs for a subscription's service account.

That a token is Google's proves nothing: anybody has one. It is who it was made for (`aud`) and
whose it is (`email`) that counts. No text of a token gets into an error.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from service.errors import Forbidden
from service.tokens import Keys, Signer

_MEND: Final = "let the subscription push with an OIDC token of its service account"
_GOOGLE: Final = Signer(
    name="Google",
    issuers=("accounts.google.com", "https://accounts.google.com"),
    algorithms=("RS256",),
    required=("exp", "iat"),
    audience=None,  # PushTokens tells of it in its own words
    where="Authorization",
    mend=_MEND,
)


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
        self._keys = Keys(lambda: keys_url, "push tokens", "PUSH_KEYS_URL", timeout, clock)
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
        self._check_is_ours(_GOOGLE.claims(_bearer(authorization), self._keys))

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
        raise _GOOGLE.untrusted("no-token", "the request has no token")
    if scheme.lower() != "bearer":
        raise _GOOGLE.untrusted("not-bearer", "the request's credentials aren't a Bearer token")
    return token.strip()
