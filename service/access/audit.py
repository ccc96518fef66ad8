"""The audit: a line of the log for what somebody did, or was not let do.

Its events are named as in PS3.15 A.5, whose XML form it isn't. It holds UIDs, never a patient, nor
what was searched for.
"""

from http import HTTPStatus
from typing import Any, Final, NamedTuple

from flask import Response, g, request

from service import telemetry
from service.access.caller import Caller
from service.dicom.uid import is_uid


class Event(NamedTuple):
    """What PS3.15 A.5 calls it, and its action: Create, Read, Update, Delete, Execute."""

    name: str
    action: str
    type: str = ""


_QUERY: Final = Event("Query", "E")
_STORE: Final = Event("DICOM Instances Transferred", "C")
_READ: Final = Event("DICOM Instances Accessed", "R")
_CHANGE: Final = Event("DICOM Instances Accessed", "U")
_DISCARD: Final = Event("DICOM Instances Accessed", "D")
_DELETE_STUDY: Final = Event("DICOM Study Deleted", "D")
LOGIN: Final = Event("User Authentication", "E", "Login")
LOGOUT: Final = Event("User Authentication", "E", "Logout")
KEYS: Final = Event("Security Alert", "E", "User Security Attributes Changed")
_RESTRICTED: Final = Event("Security Alert", "E", "Use of Restricted Function")

_BY_METHOD: Final = {"GET": _READ, "HEAD": _READ, "DELETE": _DISCARD}
# By the end of the rule, where the method alone doesn't tell.
_SEARCHES: Final = ("/studies", "/series", "/instances", "/v1/queue", "/queue")
_SEARCHES_BY_POST: Final = ("/studies/search", "/queue/list")
_STORES: Final = ("/v1/instances", "/studies", "/studies/<study>")
_QUIET: Final = ("/", "/metrics", "/operations/<operation>")  # no instance is in them
_UIDS: Final = {
    "study": "StudyInstanceUID",
    "series": "SeriesInstanceUID",
    "instance": "SOPInstanceUID",
    "name": "SOPInstanceUID",
}


def write(event: Event, caller: Caller | None, status: int, **values: Any) -> None:
    """Write a line: who, what, with which outcome, and whatever values besides."""
    failed = status >= HTTPStatus.BAD_REQUEST or status == HTTPStatus.MULTI_STATUS
    serious = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    telemetry.log(
        "WARNING" if failed else "INFO",
        "audit",
        event=event.name,
        type=event.type,
        action=event.action,
        who=caller.name if caller else "unknown",
        kind=caller.kind if caller else "",
        outcome="serious failure" if serious else "minor failure" if failed else "success",
        status=status,
        **values,
    )


def write_of_request(response: Response) -> None:
    """Write the line of the request that was answered, if it is one to be told of.

    Its UIDs are those of its path, and what its view has left in ``flask.g.audited``, by keyword.
    """
    event = _event(response.status_code)
    if event is not None:
        values = _uids(response.status_code) | g.get("audited", {})
        write(event, g.caller, response.status_code, address=request.remote_addr, **values)


def _event(status: int) -> Event | None:
    if g.caller is None:
        return LOGIN if status >= HTTPStatus.BAD_REQUEST else None
    if status in {HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS}:
        return _RESTRICTED
    rule = request.url_rule.rule if request.url_rule else "/"
    if rule == "/queue/list" and status == HTTPStatus.NO_CONTENT:
        return None  # an open page asks again and again, and has been told that nothing is new
    return event_of(request.method, rule)


def event_of(method: str, rule: str) -> Event | None:
    """Return the event of a route; None for one that has to do with no instance."""
    if rule.endswith(_QUIET[1:]) or rule == _QUIET[0]:
        return None
    if method == "DELETE" and rule.endswith("/studies/<study>"):
        return _DELETE_STUDY
    if method == "POST" and rule.endswith(_STORES):
        return _STORE
    if rule.endswith(_SEARCHES if method in {"GET", "HEAD"} else _SEARCHES_BY_POST):
        return _QUERY
    return _BY_METHOD.get(method, _CHANGE)


def _uids(status: int) -> dict[str, Any]:
    """Return the UIDs of the path; what isn't one is left out unless there was such a thing."""
    given = request.view_args or {}
    was_there = status < HTTPStatus.BAD_REQUEST
    return {
        keyword: given[name]
        for name, keyword in _UIDS.items()
        if name in given and (is_uid(given[name]) or (was_there and name == "name"))
    }
