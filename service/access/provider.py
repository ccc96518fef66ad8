"""People and machines whom an identity provider knows: OpenID Connect, Identity-Aware Proxy.

A token's signature, issuer, audience and time prove whose it is; a claim of it says what they may.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from service.access.caller import Caller
from service.settings import Grant
from service.tokens import Keys, Signer, discovered, url_in

IAP_HEADER: Final = "X-Goog-IAP-JWT-Assertion"
_IAP: Final = "https://cloud.google.com/iap"
# None that has a shared secret: whoever knew it could make tokens (RFC 8725 section 3.1).
_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "ES512", "EdDSA")
_REQUIRED: Final = ("exp", "iat", "iss", "aud", "sub")
_LONGEST_NAME: Final = 200  # characters


@dataclass(frozen=True, slots=True)
class Provider:
    """One whose tokens are taken.

    Attributes
    ----------
    claim
        Whose values are held against `grants`: a claim's name, or the way to it with dots.
    """

    kind: Literal["token", "iap"]
    signer: Signer
    keys: Keys
    claim: str
    grants: Sequence[Grant]

    def caller(self, token: str) -> tuple[Caller, float]:
        """Return whose a token is, and until when, in seconds since 1970.

        Raises
        ------
        Unauthorized
            If it isn't the provider's, of now, and made for this service.
        KeysUnavailable
            If it can't be told.
        """
        claims = self.claims(token)
        return self.caller_of(claims), float(claims["exp"])

    def claims(self, token: str) -> dict[str, Any]:
        """Return what a token says, once it is proven; raise as `caller` does."""
        return self.signer.claims(token, self.keys)

    def caller_of(self, claims: Mapping[str, Any]) -> Caller:
        """Return whom a proven token names."""
        # Who may have made up an email is nobody by it.
        vain = self.claim == "email" and not _is_email_proven(claims)
        values = set() if vain else _values(claims, self.claim)
        scopes = (grant.scopes for grant in self.grants if grant.value in {"*", *values})
        return Caller(_name(claims), self.kind, frozenset().union(*scopes))


def provider_keys(issuer: str, keys_url: str) -> Keys:
    """Return the keys of an OpenID Connect provider; without `keys_url` it is asked for the URL."""

    def locate() -> str:
        return keys_url or url_in(discovered(issuer), "jwks_uri")

    return Keys(locate, "the provider", "OIDC_KEYS_URL" if keys_url else "OIDC_ISSUER")


def openid(issuer: str, audience: str, keys: Keys, claim: str, grants: Sequence[Grant]) -> Provider:
    """Return an OpenID Connect provider."""
    signer = Signer(
        name="OIDC_ISSUER",
        issuers=(issuer,),
        algorithms=_ALGORITHMS,
        required=_REQUIRED,
        audience=audience,
        where="Authorization",
        mend="get a new token of the provider's for this service",
        names_keys=False,
    )
    return Provider("token", signer, keys, claim, grants)


def proxy(audience: str, keys_url: str, grants: Sequence[Grant]) -> Provider:
    """Return Google's Identity-Aware Proxy, which signs a header for each request."""
    signer = Signer(
        name="Identity-Aware Proxy",
        issuers=(_IAP,),
        algorithms=("ES256",),
        required=_REQUIRED,
        audience=audience,
        where=IAP_HEADER,
        mend="let IAP_AUDIENCE be what the proxy signs for, and come through the proxy",
    )
    keys = Keys(lambda: keys_url, "Identity-Aware Proxy", "IAP_KEYS_URL")
    return Provider("iap", signer, keys, "email", grants)


def _values(claims: Mapping[str, Any], claim: str) -> set[str]:
    """Return the texts of a claim: those of a list, or the words of a text as `scope` has them.

    The name is first taken as it stands, since claims may have dots in their names.
    """
    found: Any = claims.get(claim)
    if found is None:
        found = claims
        for part in claim.split("."):
            found = found.get(part) if isinstance(found, dict) else None
    if isinstance(found, str):
        found = found.split()
    listed = found if isinstance(found, list) else []
    return {value for value in listed if isinstance(value, str)}


def _name(claims: Mapping[str, Any]) -> str:
    """Return the caller's name: an email only if nobody could have made it up."""
    email = claims.get("email")
    proven = isinstance(email, str) and _is_email_proven(claims)
    return str(email if proven else claims["sub"])[:_LONGEST_NAME]


def _is_email_proven(claims: Mapping[str, Any]) -> bool:
    return claims["iss"] == _IAP or claims.get("email_verified") is True
