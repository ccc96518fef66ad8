"""The protected service for gunicorn, with little patience: ``tests.slow_service:app("ROOT")``."""

import os

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
    return made
