"""Whose request it is; views find it as ``flask.g.caller``."""

from typing import Final, Literal, NamedTuple

from service.settings import SCOPES

EVERYTHING: Final = frozenset(SCOPES)


class Caller(NamedTuple):
    """Who asks.

    Attributes
    ----------
    name
        As the audit has it: a key's name, a user's email or subject.
    kind
        How it was told: by nothing (``none``), an API key (``key``), a provider's token
        (``token``), or Identity-Aware Proxy's (``iap``); ``service`` is the service itself, as its
        archive knows it, and ``command`` who runs a command on the machine.
    scopes
        What they may do: some of `SCOPES`.
    """

    name: str
    kind: Literal["none", "key", "token", "iap", "service", "command"]
    scopes: frozenset[str]


ANYBODY: Final = Caller("anybody", "none", EVERYTHING)
