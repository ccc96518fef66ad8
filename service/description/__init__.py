"""The description of the service's HTTP face: `openapi.yaml`, which is kept by hand."""

from pathlib import Path
from typing import Final

from flask import Blueprint, Flask, Response

DESCRIPTION: Final = Path(__file__).parents[1] / "openapi.yaml"


def add_description(app: Flask) -> None:
    """Serve the description at ``/openapi.yaml``."""
    api = Blueprint("description", __name__)

    @api.get("/openapi.yaml")
    def openapi() -> Response:
        return Response(DESCRIPTION.read_bytes(), mimetype="application/yaml")

    app.register_blueprint(api)
