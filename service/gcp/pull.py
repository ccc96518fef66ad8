"""Streaming pull: messages come to us, and are acknowledged once they are at their end."""

import queue
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Final

from service import telemetry
from service.errors import BadRequest, JpegstowError
from service.gcp.envelope import Message

GRACE: Final = 6.0  # seconds that what is under way may go on once the process shall end

_CLOSING: Final = 1.0  # seconds for the last acknowledgements
_LEASE: Final = 10  # seconds, the least there is; the library renews it while we work
_PAUSE: Final = 1.0  # seconds; a subscription without a retry policy delivers again at once
_PATIENCE: Final = 5.0  # seconds for Pub/Sub to tell of a subscription
_LOOK: Final = 0.2  # seconds between two looks whether a signal has come

Take = Callable[[Message], None]


def pull(subscription: str, take: Take, concurrency: int, most_bytes: int) -> Counter[str]:
    """Take the messages of a subscription until SIGTERM or SIGINT; return how many came to what.

    Parameters
    ----------
    subscription
        ``projects/P/subscriptions/S``.
    take
        Brings a message to its end, or raises; only then it is acknowledged. Threads share it.
    concurrency
        Messages at once; as many again wait.
    most_bytes
        The bytes of all these messages together, about.

    Returns
    -------
    The number of `acknowledged` messages, and of those that were `returned` to come again.

    Raises
    ------
    BadRequest
        If the subscription can't be pulled: it isn't there, or isn't ours to read.
    """
    from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415 - slow to import
    from google.cloud.pubsub_v1 import SubscriberClient, types  # noqa: PLC0415

    told: queue.SimpleQueue[str] = queue.SimpleQueue()  # its put may be a signal handler's
    counts: Counter[str] = Counter()
    limits = types.FlowControl(
        max_messages=2 * concurrency,
        max_bytes=most_bytes,
        max_duration_per_lease_extension=_LEASE,
    )
    workers = Workers(concurrency)
    _stop_on_signals(told)
    try:
        client = SubscriberClient()
    except GoogleAuthError as error:
        raise _unusable(error) from error
    with client:
        stream = client.subscribe(
            subscription,
            lambda received: _take(received, take, counts, workers.stopping),
            flow_control=limits,
            scheduler=workers,
            await_callbacks_on_shutdown=True,
        )
        stream.add_done_callback(lambda _: told.put("the stream has ended"))
        why = _wait(told)
        workers.stop()
        telemetry.log("INFO", why)
        _wind_up(stream)
    return counts


def missing(subscription: str) -> str:
    """Return why a subscription can't be pulled; "" if it is there."""
    from google.api_core.exceptions import GoogleAPICallError, PermissionDenied  # noqa: PLC0415
    from google.api_core.retry import Retry  # noqa: PLC0415
    from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415
    from google.cloud.pubsub_v1 import SubscriberClient  # noqa: PLC0415

    bounds: dict[str, Any] = {"retry": Retry(timeout=_PATIENCE), "timeout": _PATIENCE}
    try:
        with SubscriberClient() as client:
            found = client.get_subscription(subscription=subscription, **bounds)
    except PermissionDenied:
        return ""  # a subscriber may pull without being let look
    except (GoogleAPICallError, GoogleAuthError) as error:
        return str(_unusable(error))
    return "it pushes, and can't be pulled" if found.push_config.push_endpoint else ""


class Workers:
    """The threads that messages are taken by; what the library calls a scheduler.

    Its own lets the process end only when all is done, however long that takes.

    Attributes
    ----------
    queue
        What the library writes acknowledgements into, and reads them from.
    stopping
        Set once nothing new is begun.
    """

    def __init__(self, count: int, grace: float = GRACE) -> None:
        self.queue: queue.Queue[Any] = queue.Queue()
        self.stopping = threading.Event()
        self._grace = grace
        self._end = 0.0  # of the grace, by the monotonic clock
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._under_way: list[Any] = []
        for _ in range(count):
            threading.Thread(target=self._work, daemon=True).start()

    def schedule(self, callback: Callable[[Any], None], message: Any) -> None:
        """Have a message taken as soon as a thread is free."""
        with self._changed:
            self._waiting.append((callback, message))
            self._changed.notify()

    def stop(self) -> None:
        """Begin nothing new; what is under way has its grace from now on.

        The library comes to `shutdown` only once its stream is closed, up to a second later.
        """
        with self._changed:
            if not self.stopping.is_set():
                self._end = time.monotonic() + self._grace
                self.stopping.set()
                self._changed.notify_all()

    def shutdown(self, await_msg_callbacks: bool = False) -> list[Any]:  # noqa: FBT001, FBT002 - the library's
        """Begin nothing new, wait for what is under way, and return the messages without an end.

        Those the library gives back to the subscription.
        """
        self.stop()
        with self._changed:
            if await_msg_callbacks:
                left = max(0.0, self._end - time.monotonic())
                self._changed.wait_for(lambda: not self._under_way, left)
            waiting = [message for _, message in self._waiting]
            self._waiting.clear()
            return waiting + self._under_way

    def _work(self) -> None:
        while work := self._next():
            callback, message = work
            callback(message)
            with self._changed:
                self._under_way.remove(message)
                self._changed.notify_all()

    def _next(self) -> tuple[Callable[[Any], None], Any] | None:
        """Wait for a message; None if there shall be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self.stopping.is_set())
            if self.stopping.is_set():
                return None
            work = self._waiting.popleft()
            self._under_way.append(work[1])
            return work


def _take(received: Any, take: Take, counts: Counter[str], stopping: threading.Event) -> None:
    """Take what the library received; acknowledge it, or let it come again."""
    published = received.publish_time.isoformat()
    attributes = dict(received.attributes)
    try:
        take(Message(received.data, attributes, received.message_id, published))
    except JpegstowError as error:
        telemetry.log("WARNING", "message returned", reason=error.reason)
    except Exception as error:  # noqa: BLE001 - one message's trouble is no other's
        telemetry.log_exception("message returned", error)
    else:
        received.ack()
        counts["acknowledged"] += 1
        return
    counts["returned"] += 1
    stopping.wait(_PAUSE)
    received.nack()


def _stop_on_signals(told: "queue.SimpleQueue[str]") -> None:
    def stop(_number: int, _frame: FrameType | None) -> None:
        told.put("told to stop")

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


def _wait(told: "queue.SimpleQueue[str]") -> str:
    """Return what is told, once something is.

    The kernel may give a signal to any thread, to one that just starts for instance; but it is this
    one that runs the handler, and what waits without an end would never wake to do so.
    """
    while True:
        with suppress(queue.Empty):
            return told.get(timeout=_LOOK)


def _wind_up(stream: Any) -> None:
    """End the stream, or raise why it has ended by itself."""
    from google.api_core.exceptions import GoogleAPICallError  # noqa: PLC0415
    from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415

    stream.cancel()
    try:
        stream.result(timeout=GRACE + _CLOSING)
    except TimeoutError:
        telemetry.log("WARNING", "some messages come again only when their lease has run out")
    except (GoogleAPICallError, GoogleAuthError) as error:
        raise _unusable(error) from error


def _unusable(error: Exception) -> BadRequest:
    return BadRequest(
        f"the subscription can't be pulled: {type(error).__name__}",
        reason="subscription",
        where="SUBSCRIPTION",
        mend=_MEND.get(type(error).__name__, "see that it is there, and ours to pull from"),
    )


_MEND: Final = {
    "NotFound": "create it, or mend its name",
    "PermissionDenied": "grant the service account roles/pubsub.subscriber on it",
    "DefaultCredentialsError": "run as a service account, or set GOOGLE_APPLICATION_CREDENTIALS",
    "InvalidArgument": "it has to be a pull subscription",
}
