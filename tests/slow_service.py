"""The protected service for gunicorn, with little patience: ``tests.slow_service:app("ROOT")``."""

import os
from typing import Any

from flask import Flask

from service import assemble
from service.worker import Worker
from service.wsgi import application
from tests.serving import settings_for

SILENCE = 0.5  # seconds


class Impatient(Worker):
    headers = SILENCE


def app(root: str) -> Flask:
    given = {"DATA_DIR": root, "AUTH": "apikey", "KEYS": os.environ["KEYS"]}
    current = settings_for("http://127.0.0.1:1", **given)
    made = application(current, assemble.retry_queue(current))
    made.config["CLIENT_TIMEOUT"] = SILENCE
    made.wsgi_app = failing(made.wsgi_app)  # type: ignore[method-assign]
    return made


def failing(app: Any) -> Any:
    """Let a request for /broken fail outside of Flask, which would know what to answer."""

    def called(environ: dict[str, Any], start: Any) -> Any:
        if environ["PATH_INFO"] == "/broken":
            raise RuntimeError(environ["QUERY_STRING"])
        return app(environ, start)

    return called
