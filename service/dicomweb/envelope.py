"""The form of errors that Google's APIs have."""

from http import HTTPStatus
from typing import Any

# google.rpc.Code where it has a name for the status; the status's own name elsewhere.
_RPC_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    409: "ALREADY_EXISTS",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}


def envelope(code: int, message: str) -> dict[str, Any]:
    """Return the body of an error answer."""
    status = _RPC_STATUS.get(code) or HTTPStatus(code).name
    return {"error": {"code": code, "message": message, "status": status}}
