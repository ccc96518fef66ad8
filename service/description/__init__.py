"""The description of the service's HTTP face: `openapi.yaml`, which is kept by hand, and a page."""

from pathlib import Path
from typing import Final

from flask import Blueprint, Flask, Response

DESCRIPTION: Final = Path(__file__).parents[1] / "openapi.yaml"

_STYLE: Final = Path(__file__).parent / "html" / "docs.css"
_POLICY: Final = "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'"


def add_description(app: Flask) -> None:
    """Serve the description at ``/openapi.yaml``, and as a page for people at ``/docs``."""
    api = Blueprint("description", __name__)

    @api.get("/openapi.yaml")
    def openapi() -> Response:
        return Response(DESCRIPTION.read_bytes(), mimetype="application/yaml")

    @api.get("/docs")
    def docs() -> Response:
        # Slow to make, and asked for by few.
        from service.description.page import page  # noqa: PLC0415

        response = Response(page(DESCRIPTION.read_text("utf-8")), mimetype="text/html")
        response.headers["Content-Security-Policy"] = _POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    @api.get("/docs/style.css")
    def style() -> Response:
        return Response(_STYLE.read_bytes(), mimetype="text/css")

    app.register_blueprint(api)
