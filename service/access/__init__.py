"""Who asks, and what they may do: callers, scopes, API keys, sessions."""

from service.access.authority import Access
from service.access.caller import EVERYTHING, Caller
from service.access.guard import add_access
from service.access.keys import KeyFile, digest_of, make
from service.access.left import Left
from service.access.login import Login
from service.access.provider import Provider, openid, provider_keys, proxy
from service.access.rate import Rate
from service.access.routes import ARCHIVE, SERVICE
from service.access.session import Sessions

__all__ = [
    "ARCHIVE",
    "EVERYTHING",
    "SERVICE",
    "Access",
    "Caller",
    "KeyFile",
    "Left",
    "Login",
    "Provider",
    "Rate",
    "Sessions",
    "add_access",
    "digest_of",
    "make",
    "openid",
    "provider_keys",
    "proxy",
]
