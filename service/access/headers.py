"""What browsers are told beside each answer of the service."""

from typing import Final

from flask import Flask, Response, request

_POLICY: Final = (
    "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
_POLICY_OF_DATA: Final = "default-src 'none'; frame-ancestors 'none'"
_ALWAYS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=()",
}
_A_YEAR: Final = "max-age=31536000"


def add_headers(app: Flask) -> None:
    """Send security headers with every answer; what a view has set itself stays."""

    @app.after_request
    def secure(response: Response) -> Response:
        is_page = response.mimetype == "text/html"
        told = _ALWAYS | {"Content-Security-Policy": _POLICY if is_page else _POLICY_OF_DATA}
        if is_https():
            told |= {"Strict-Transport-Security": _A_YEAR}
        if not request.path.startswith("/static/"):
            told |= {"Cache-Control": "no-store"}  # there may be patients in it
        for name, value in told.items():
            response.headers.setdefault(name, value)
        return response


def is_https() -> bool:
    """Tell whether the browser's own connection is encrypted, as far as a proxy says so.

    Whoever lies of it gets stricter answers, and nothing else.
    """
    forwarded = request.headers.get("X-Forwarded-Proto", "").partition(",")[0].strip()
    return request.is_secure or forwarded == "https"
