"""The other ends of the wire: a real Orthanc, and HTTP servers whose behaviour is a list of steps.

with ScriptedServer(throttled(retry_after=2), stored()) as store:
    ...                                  # the first request meets 429, all others 200
assert [request.length for request in store.requests] == [len(payload)] * 2
"""

from tests.loopback import BOUND, free_port, refused_port, wait_for_http
from tests.peers.orthanc import Orthanc
from tests.peers.scripted import Received, ScriptedServer, Step, Wire
from tests.peers.steps import (
    CutAnswer,
    Flood,
    Garbage,
    Hang,
    LoseAnswer,
    ResetMidBody,
    Respond,
    SlowBody,
)
from tests.peers.stow import (
    already_exists_409,
    empty_200,
    failed,
    instances_in,
    names_another_uid,
    no_studies,
    partial_202,
    parts_of,
    stored,
    stored_xml,
    throttled,
    unauthorized,
    unavailable,
    unsupported_media_type,
)

__all__ = [
    "BOUND",
    "CutAnswer",
    "Flood",
    "Garbage",
    "Hang",
    "LoseAnswer",
    "Orthanc",
    "Received",
    "ResetMidBody",
    "Respond",
    "ScriptedServer",
    "SlowBody",
    "Step",
    "Wire",
    "already_exists_409",
    "empty_200",
    "failed",
    "free_port",
    "instances_in",
    "names_another_uid",
    "no_studies",
    "partial_202",
    "parts_of",
    "refused_port",
    "stored",
    "stored_xml",
    "throttled",
    "unauthorized",
    "unavailable",
    "unsupported_media_type",
    "wait_for_http",
]
