"""The alarm clock of the queue in a bucket: a message for each entry that waits.

A message holds an entry's id and nothing else. Whoever gets it tries to send the entry, and
doesn't acknowledge the message as long as that fails: Pub/Sub then delivers it again, after the
waits of the subscription's retry policy.
"""

import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from service.errors import BadRequest, QueueUnusable
from service.gcp.envelope import Message
from service.gcp.queue.record import is_id

if TYPE_CHECKING:
    from google.cloud.pubsub_v1 import PublisherClient

_PATIENCE: Final = 10.0  # seconds for Pub/Sub to take messages
_AT_ONCE: Final = 1000  # messages; no request may have more

_MEND: Final = {
    "NotFound": "create the topic, or mend its name",
    "PermissionDenied": "grant the service account roles/pubsub.publisher on the topic",
    "DefaultCredentialsError": "run as a service account, or set GOOGLE_APPLICATION_CREDENTIALS",
}


class Alarm:
    """Publishes to ``projects/P/topics/T``; threads share it, and it may be made before a fork."""

    def __init__(self, topic: str, patience: float = _PATIENCE) -> None:
        """Publish to a topic, which has so many seconds to take what it is given."""
        self._topic = topic
        self._patience = patience
        self._client: PublisherClient | None = None
        self._lock = threading.Lock()

    def set(self, names: Sequence[str]) -> None:
        """Have entries tried soon; QueueUnusable if Pub/Sub doesn't take a message."""
        try:
            for start in range(0, len(names), _AT_ONCE):
                self._publish(names[start : start + _AT_ONCE])
        except Exception as error:
            kind = type(error).__name__
            raise QueueUnusable(
                f"the alarm of a retry can't be set ({kind})",
                where="RETRY_QUEUE",
                mend=_MEND.get(kind, "see that the topic can be reached, and send again"),
            ) from error

    def missing(self) -> str:
        """Return why the topic can't be used; "" if it is there."""
        try:
            self._opened().get_topic(topic=self._topic, **self._bounds())
        except Exception as error:  # noqa: BLE001 - whatever it is, it is in the way
            kind = type(error).__name__
            if kind == "PermissionDenied":
                return ""  # a publisher may publish without being let look
            return f"the topic can't be used ({kind}); {_MEND.get(kind, 'can it be reached?')}"
        return ""

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock, suppress(Exception):
            if self._client:
                self._client.transport.close()
            self._client = None

    def _publish(self, names: Sequence[str]) -> None:
        """Publish in this thread: the library's own way makes one for each message."""
        from google.pubsub_v1 import PublisherClient as Plain  # noqa: PLC0415

        Plain.publish(
            self._opened(),
            topic=self._topic,
            messages=[{"data": name.encode()} for name in names],
            **self._bounds(),
        )

    def _bounds(self) -> dict[str, Any]:
        """Return how long a call may take: the library's own way goes on for minutes."""
        from google.api_core.retry import Retry  # noqa: PLC0415

        half = self._patience / 2  # the last attempt may begin when the time for them is over
        return {"retry": Retry(timeout=half), "timeout": half}

    def _opened(self) -> "PublisherClient":
        """Return the client, made when it is first needed: it is slow to import and forks badly."""
        from google.cloud.pubsub_v1 import PublisherClient  # noqa: PLC0415

        with self._lock:
            if self._client is None:
                self._client = PublisherClient()
            return self._client


def name_of(message: Message) -> str:
    """Return the id of the entry that a message is of.

    Raises
    ------
    BadRequest
        If it is of none.
    """
    name = message.data.decode("ascii", "replace").strip()
    if not is_id(name):
        raise BadRequest(
            "the message holds no entry's id", where="message.data", mend="publish one, or nothing"
        )
    return name
