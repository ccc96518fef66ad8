"""Callers of a protected service: one key for each role, and the rows of what each may."""

from collections.abc import Iterable, Iterator, Mapping

from flask import Flask
from werkzeug.routing import Rule

from service.access import make
from service.settings import SCOPES, ApiKey

SCOPES_OF: Mapping[str, tuple[str, ...]] = {
    "known": (),
    "upload": ("upload",),
    "read": ("read",),
    "operate": ("operate",),
    "all": SCOPES,
}
MADE = {role: make(role, scopes) for role, scopes in SCOPES_OF.items()}
KEYS = " ".join(str(kept) for _, kept in MADE.values())
ROLES = ("nobody", *SCOPES_OF)

EVERYBODY = frozenset(ROLES)
WHO_IS_KNOWN = EVERYBODY - {"nobody"}
WHO_UPLOADS = frozenset({"upload", "all"})
WHO_READS = frozenset({"read", "all"})
WHO_OPERATES = frozenset({"operate", "all"})
WHO_LOOKS = WHO_READS | WHO_OPERATES


def kept(role: str) -> ApiKey:
    """Return what is kept of a role's key."""
    return MADE[role][1]


def shown(role: str) -> dict[str, str]:
    """Return the headers by which a role is known."""
    return {} if role == "nobody" else {"Authorization": f"Bearer {MADE[role][0]}"}


def endpoints(app: Flask) -> Iterator[tuple[str, Rule]]:
    """Yield every method of every route."""
    for rule in app.url_map.iter_rules():
        for method in sorted(rule.methods or ()):
            yield method, rule


def path_of(rule: Rule, values: Mapping[str, str]) -> str:
    """Return a path that leads to a route."""
    return "".join(
        values[part] if is_dynamic else part.lstrip("|") for is_dynamic, part in pieces(rule)
    )


def pieces(rule: Rule) -> Iterable[tuple[bool, str]]:
    """Yield the parts of a rule, and whether each is the name of a value."""
    for number, part in enumerate(rule.rule.replace(">", "<").split("<")):
        yield number % 2 == 1, part.rpartition(":")[2] if number % 2 else part
