"""Who asks, and what they may do: callers, scopes, API keys."""

from service.access.caller import EVERYTHING, Caller
from service.access.guard import Access, add_access
from service.access.keys import KeyFile, digest_of, make
from service.access.routes import ARCHIVE, SERVICE

__all__ = [
    "ARCHIVE",
    "EVERYTHING",
    "SERVICE",
    "Access",
    "Caller",
    "KeyFile",
    "add_access",
    "digest_of",
    "make",
]
