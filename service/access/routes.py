"""Which scope each route needs: one table for the service, one for the archive.

A route that has no row is nobody's, where somebody is asked who they are.
"""

from collections.abc import Mapping
from typing import Final

Needed = frozenset[str]
"""The scopes of which one is enough."""

OPEN: Final = None
"""Asks nobody, or has a rule of its own, as what Pub/Sub pushes has."""

KNOWN: Final[Needed] = frozenset({"upload", "read", "operate", ""})
"""Anybody who is known, with whatever scopes."""

_UPLOAD: Final = frozenset({"upload"})
_READ: Final = frozenset({"read"})
_OPERATE: Final = frozenset({"operate"})
# What waits is read by who may read it later in the store, and by who has to mend it.
_LOOK: Final = frozenset({"read", "operate"})

Table = Mapping[tuple[str, str], Needed | None]

_STUDY: Final = "/studies/<study>"
_SERIES: Final = f"{_STUDY}/series/<series>"
_INSTANCE: Final = f"{_SERIES}/instances/<instance>"

SERVICE: Final[Table] = {
    ("GET", "/healthz"): OPEN,
    ("GET", "/readyz"): OPEN,
    ("POST", "/v1/pubsub"): OPEN,
    ("POST", "/v1/retry"): OPEN,
    ("GET", "/sign-in"): OPEN,
    ("POST", "/sign-in"): OPEN,
    ("GET", "/sign-in/provider"): OPEN,
    ("GET", "/sign-in/return"): OPEN,
    ("POST", "/sign-out"): OPEN,
    ("POST", "/v1/instances"): _UPLOAD,
    ("GET", "/v1/queue"): _LOOK,
    ("GET", "/v1/queue/<name>"): _LOOK,
    ("GET", "/v1/queue/<name>/image"): _LOOK,
    ("POST", "/v1/queue/retry"): _OPERATE,
    ("POST", "/v1/queue/<name>/retry"): _OPERATE,
    ("DELETE", "/v1/queue/<name>"): _OPERATE,
    ("GET", "/metrics"): KNOWN,
    # What describes the service, and what pages are drawn with, tells nothing of anybody.
    ("GET", "/openapi.yaml"): OPEN,
    ("GET", "/docs"): OPEN,
    ("GET", "/docs/style.css"): OPEN,
    ("GET", "/static/<path:filename>"): OPEN,
    ("GET", "/language/<name>"): OPEN,
    ("GET", "/"): KNOWN,
    ("GET", "/queue"): _LOOK,
    ("POST", "/queue/list"): _LOOK,
    ("POST", "/queue/retry"): _OPERATE,
    ("GET", "/queue/<name>"): _LOOK,
    ("GET", "/queue/<name>/thumbnail"): _LOOK,
    ("GET", "/studies"): _READ,
    ("POST", "/studies/search"): _READ,
    ("GET", _STUDY): _READ,
    ("GET", f"{_STUDY}/thumbnail"): _READ,
    ("GET", _INSTANCE): _READ,
    ("GET", f"{_INSTANCE}/thumbnail"): _READ,
    ("GET", f"{_INSTANCE}/rendered"): _READ,
    ("GET", f"{_INSTANCE}/file"): _READ,
    ("DELETE", _STUDY): _OPERATE,
    ("DELETE", _INSTANCE): _OPERATE,
}

_READABLE: Final = (
    "/studies",
    "/series",
    "/instances",
    _STUDY,
    f"{_STUDY}/series",
    f"{_STUDY}/instances",
    f"{_STUDY}/metadata",
    _SERIES,
    f"{_SERIES}/instances",
    f"{_SERIES}/metadata",
    _INSTANCE,
    f"{_INSTANCE}:getStorageInfo",
    f"{_INSTANCE}/metadata",
    f"{_INSTANCE}/rendered",
    f"{_INSTANCE}/frames/<frames>",
    f"{_INSTANCE}/frames/<frames>/rendered",
    f"{_INSTANCE}/bulkdata/<path:where>",
)
_DATASET: Final = (
    "/<any(v1, v1beta1):version>/projects/<project>/locations/<location>/datasets/<dataset>"
)
_BASES: Final = ("/dicomWeb", f"{_DATASET}/dicomStores/<store>/dicomWeb")

ARCHIVE: Final[Table] = {
    ("GET", "/healthz"): OPEN,
    ("GET", f"{_DATASET}/operations/<operation>"): _OPERATE,
    **{("GET", base + path): _READ for base in _BASES for path in _READABLE},
    **{("POST", base + path): _UPLOAD for base in _BASES for path in ("/studies", _STUDY)},
    **{
        ("DELETE", base + path): _OPERATE
        for base in _BASES
        for path in (_STUDY, _SERIES, _INSTANCE)
    },
}

_NOBODY: Final[Needed] = frozenset()


def needed(table: Table, method: str, rule: str) -> Needed | None:
    """Return the scopes of which one is needed for a method at a rule."""
    if method == "OPTIONS":
        return OPEN  # tells the methods, and does nothing
    return table.get(("GET" if method == "HEAD" else method, rule), _NOBODY)
