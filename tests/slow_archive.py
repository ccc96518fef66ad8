"""The archive for gunicorn, with little patience: ``tests.slow_archive:app("ROOT")``."""

from pathlib import Path

from flask import Flask

from service.archive import Archive
from service.dicomweb import create_app
from service.dicomweb.body import Readers
from service.dicomweb.worker import ArchiveWorker

SILENCE = 0.5  # seconds


class Impatient(ArchiveWorker):
    headers = SILENCE


def app(root: str) -> Flask:
    return create_app(Archive(Path(root)), readers=Readers(2, SILENCE))
