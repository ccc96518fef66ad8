"""The service with one path more, which reads a request as an upload is read and does nothing."""

import os
import sys

from flask import Flask, request


def service() -> Flask:
    """Return the service under the environment's settings, with POST /receive beside it."""
    # pydicom loads these where it finds them; they are here for the tests, and no user has them.
    sys.modules |= dict.fromkeys(["numpy", "gdcm", "libjpeg"])  # type: ignore[arg-type]
    from service import wsgi  # noqa: PLC0415

    app = wsgi.service()

    @app.post("/receive")
    def receive() -> tuple[dict[str, int], int]:
        form = request.mimetype == "multipart/form-data"
        sizes = [file.stream.seek(0, os.SEEK_END) for file in request.files.getlist("image")]
        return {"bytes": sum(sizes) if form else len(request.get_data(cache=False))}, 201

    return app
