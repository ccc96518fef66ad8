"""Answers in JSON: what was asked for, or a problem (RFC 9457)."""

from typing import Any, Final

from flask import Response, json

from service.errors import JpegstowError

PROBLEM: Final = "application/problem+json"

Answer = dict[str, Any]

_RETRY_AFTER: Final = 30.0  # seconds until another try may succeed, where nobody knows better


def json_answer(body: Answer, status: int = 200) -> Response:
    """Answer with a JSON object."""
    return Response(json.dumps(body) + "\n", status, mimetype="application/json")


def problem_answer(problem: Answer, *, transient: bool = False) -> Response:
    """Answer with a problem; a transient one says when to come again."""
    response = Response(json.dumps(problem) + "\n", problem["status"], mimetype=PROBLEM)
    if transient:
        response.headers["Retry-After"] = f"{_RETRY_AFTER:.0f}"
    return response


def problem_of(status: int, kind: tuple[str, str, str], mend: str = "") -> Answer:
    """Return a problem: its slug, title and detail, and what can be done about it."""
    slug, title, detail = kind
    problem = {"type": f"urn:jpegstow:{slug}", "title": title, "status": int(status)}
    return problem | {"detail": detail} | ({"mend": mend} if mend else {})


def problem_from(error: JpegstowError) -> Answer:
    """Return what the service refuses as a problem."""
    kind = error.reason, error.title, error.detail
    problem = problem_of(error.http_status, kind, error.mend)
    return problem | ({"where": error.where} if error.where else {})
