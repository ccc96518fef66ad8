"""Push tokens as Google makes them, those that it never made, and a server of the public keys."""

import base64
import hashlib
import hmac
import json
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.peers import Respond, ScriptedServer

AUDIENCE = "https://jpegstow.example/v1/pubsub"
EMAIL = "pusher@jpegstow-tests.iam.gserviceaccount.com"
ISSUER = "https://accounts.google.com"
KID = "key-of-today"
ABSENT = ...

# By name; a key is made when it is first asked for.
PRIVATE_KEYS: defaultdict[str, RSAPrivateKey] = defaultdict(
    lambda: generate_private_key(public_exponent=65537, key_size=2048)
)


def jwk(kid: str) -> dict[str, Any]:
    """Return a public key as an entry of a JSON Web Key Set, as Google's is."""
    key = jwt.algorithms.RSAAlgorithm.to_jwk(PRIVATE_KEYS[kid].public_key(), as_dict=True)
    named = {name: key[name] for name in ("kty", "n", "e")}
    return named | {"kid": kid, "alg": "RS256", "use": "sig"}


def keys(*kids: str) -> Respond:
    """Return the step of a server that answers with public keys."""
    return keys_as({"keys": [jwk(kid) for kid in kids]})


def keys_as(body: Any) -> Respond:
    """Return the step of a server that answers with any JSON."""
    return Respond(200, {"Content-Type": "application/json"}, json.dumps(body).encode())


def key_server() -> ScriptedServer:
    """Return a server of the public key that `bearer` signs with, by default."""
    return ScriptedServer(keys(KID))


def at(seconds: float) -> int:
    """Return a moment as tokens have it, so many seconds from now."""
    return int(time.time() + seconds)


def claims(**changes: Any) -> dict[str, Any]:
    """Return what a good token says, but for the changes; `ABSENT` leaves a claim out."""
    good = {
        "aud": AUDIENCE,
        "azp": "113774264463038321964",
        "email": EMAIL,
        "email_verified": True,
        "exp": at(3600),
        "iat": at(0),
        "iss": ISSUER,
        "sub": "113774264463038321964",
    }
    return {name: value for name, value in (good | changes).items() if value is not ABSENT}


def bearer(key: str = KID, **changes: Any) -> str:
    """Return an Authorization header whose token Google has signed with the key of that name."""
    return signed(claims(**changes), key)


def signed(said: Any, key: str = KID, **header: Any) -> str:
    """Return an Authorization header whose token is signed, whatever it and its header say."""
    named = {"kid": key, "alg": "RS256"} | header
    payload = json.dumps(said).encode()
    token = jwt.api_jws.encode(payload, PRIVATE_KEYS[key], named["alg"], named)
    return f"Bearer {token}"


def unsigned(header: Mapping[str, Any], signature: bytes = b"") -> str:
    """Return an Authorization header whose token has any header and any signature."""
    return f"Bearer {_unsigned(header)}.{_base64url(signature)}"


def signed_with_public_key() -> str:
    """Return the classic forgery: HS256, whose secret is the PEM text of the public key."""
    content = _unsigned({"alg": "HS256", "typ": "JWT", "kid": KID})
    public = PRIVATE_KEYS[KID].public_key()
    secret = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signature = hmac.new(secret, content.encode(), hashlib.sha256).digest()
    return f"Bearer {content}.{_base64url(signature)}"


def _unsigned(header: Mapping[str, Any]) -> str:
    return ".".join(_base64url(json.dumps(part).encode()) for part in (header, claims()))


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
