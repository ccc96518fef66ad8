"""What a ringing alarm brings about: one try to send one entry."""

import random
import time
from collections.abc import Callable, Mapping

from service import telemetry
from service.errors import BadRequest, JpegstowError
from service.gcp import envelope
from service.gcp.envelope import Message
from service.gcp.queue.alarm import name_of
from service.gcp.queue.bucket_queue import BucketQueue
from service.ingest import Attempt, Store
from service.retry.drain import send, settle
from service.retry.timing import Again


class NotYet(JpegstowError):
    """An entry still waits, so that its message must come again."""

    http_status = 503
    transient = True
    title = "Not yet"
    reason = "not-yet"


class Redelivery:
    """Sends what alarms ring for; threads share it."""

    def __init__(
        self,
        queue: BucketQueue,
        store: Store,
        max_age: float,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Send to a store, which is left alone while it fails; `max_age` is in seconds."""
        self._queue = queue
        self._store = store
        self._max_age = max_age
        self._clock = clock
        self._chance = chance

    def push(self, body: bytes, headers: Mapping[str, str]) -> bool:
        """Take a push request, as `take` takes its message; header names in lower case.

        Returns
        -------
        Whether nothing is to be waited for; else the message must come again, as after an error.
        """
        try:
            message = envelope.read(body, headers)
        except BadRequest as error:
            _ignore(error)
            return True
        try:
            self.take(message)
        except NotYet:
            return False
        return True

    def take(self, message: Message) -> None:
        """Try to send the entry that a message is of; return once nothing is to be waited for.

        Raises
        ------
        JpegstowError
            A transient one: the message must come again. NotYet, QueueUnusable.
        """
        try:
            name = name_of(message)
        except BadRequest as error:
            _ignore(error)
            return
        lease = self._queue.lease_entry(name, self._clock())
        if lease is None:
            if not self._queue.is_at_end(name):
                raise _not_yet()
            return
        outcome = send(self._queue, self._store, lease)
        attempt = Attempt(self._clock(), outcome, self._store.wire)
        decision = settle(self._queue, lease, attempt, self._chance(), self._max_age)
        if isinstance(decision, Again):
            raise _not_yet()


def _ignore(error: BadRequest) -> None:
    """Tell of a message that no second delivery would mend."""
    telemetry.log("ERROR", "message ignored", reason=str(error))


def _not_yet() -> NotYet:
    return NotYet("the entry waits on", mend="deliver its message again")
