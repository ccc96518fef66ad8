"""The archive's worker, whose errors have the form of Google's."""

from collections.abc import Mapping
from typing import Any

from service.dicomweb.envelope import envelope
from service.worker import Worker


class ArchiveWorker(Worker):
    """A worker that gives up on clients that stand still, in Google's words."""

    media_type = "application/json"

    def told(self, status: int, message: str) -> Mapping[str, Any]:
        """Return the body of an answer to what is no request."""
        return envelope(status, message)
