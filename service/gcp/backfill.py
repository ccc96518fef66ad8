"""What is in a bucket already, published as if it had just been written."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from service.errors import BadRequest, JpegstowError
from service.gcp import metadata
from service.gcp.objects import Listed

_SUFFIXES: Final = (".jpg", ".jpeg", ".jpe", ".jfif")
_BATCH: Final = 1000  # messages; as many as one request may have
_BATCH_BYTES: Final = 1_000_000
_LATENCY: Final = 0.05  # seconds that a message waits for others
_OUTSTANDING: Final = 4 * _BATCH
_BURST: Final = 0.1  # seconds; what has not been used of the rate for longer is forfeit


class Confirmation(Protocol):
    """A message on its way, as the library's futures tell of it."""

    def done(self) -> bool:
        """Tell whether it is confirmed, or given up."""

    def result(self) -> object:
        """Wait until it is confirmed, or raise why it never will be."""


Publish = Callable[[Mapping[str, str]], Confirmation]
"""From attributes to what tells when they are published."""


@dataclass(slots=True)
class Count:
    """Objects, and their bytes."""

    objects: int = 0
    size: int = 0

    def add(self, listed: Listed) -> None:
        """Count an object."""
        self.objects += 1
        self.size += listed.size


class Rate:
    """A token bucket: so many a second, and no more at once than in a tenth of a second."""

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._most = max(1.0, _BURST * rate)
        self._tokens = self._most
        self._then = now

    def take(self, now: float) -> float:
        """Take a token; return the seconds until it is there."""
        self._tokens = min(self._most, self._tokens + (now - self._then) * self._rate)
        self._then = now
        self._tokens -= 1.0
        return max(0.0, -self._tokens / self._rate)


def unhurried(
    objects: Iterable[Listed],
    rate: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Listed]:
    """Let through at most `rate` objects a second."""
    tokens = Rate(rate, clock())
    for listed in objects:
        wait = tokens.take(clock())
        if wait > 0.0:
            sleep(wait)
        yield listed


def pictures(objects: Iterable[Listed], *, whatever: bool = False) -> Iterator[Listed]:
    """Let through the objects whose names are those of JPEGs; or all but sidecars."""
    for listed in objects:
        name = listed.name.lower()
        if name.endswith(_SUFFIXES) or (whatever and not metadata.is_sidecar(name)):
            yield listed


def notification(bucket: str, listed: Listed) -> dict[str, str]:
    """Return the attributes that Cloud Storage's own notification of an object would have.

    The generation is empty, which means the current one, where the listing tells none, or no
    number: s3:// has ETags.
    """
    generation = listed.generation if listed.generation.isdecimal() else ""
    return {
        "eventType": "OBJECT_FINALIZE",
        "bucketId": bucket.removeprefix("gs://"),
        "objectId": listed.name,
        "objectGeneration": generation,
    }


def backfill(
    bucket: str, objects: Iterable[Listed], publish: Publish, outstanding: int = _OUTSTANDING
) -> Iterator[Listed]:
    """Publish objects; yield each once it and all before it are confirmed.

    Parameters
    ----------
    outstanding
        How many may be on their way at once.

    Raises
    ------
    BadRequest
        If one can't be published; nothing behind it is confirmed then.
    JpegstowError
        Whatever going through the objects raises, once all before it are confirmed.
    """
    pending: deque[tuple[Listed, Confirmation]] = deque()
    failures: list[JpegstowError] = []
    for listed in _until_failing(objects, failures):
        pending.append((listed, publish(notification(bucket, listed))))
        while len(pending) >= outstanding or (pending and pending[0][1].done()):
            yield _confirmed(*pending.popleft())
    while pending:
        yield _confirmed(*pending.popleft())
    if failures:
        raise failures[0]


def _until_failing(objects: Iterable[Listed], failures: list[JpegstowError]) -> Iterator[Listed]:
    """Keep the failure of a listing for later: what came before is on its way."""
    try:
        yield from objects
    except JpegstowError as error:
        failures.append(error)


def _confirmed(listed: Listed, confirmation: Confirmation) -> Listed:
    try:
        confirmation.result()
    except Exception as error:
        raise _unusable(error) from error
    return listed


@contextmanager
def publisher(topic: str) -> Iterator[Publish]:
    """Give what publishes to ``projects/P/topics/T``, many messages in one request.

    Raises
    ------
    BadRequest
        If there are no credentials.
    """
    from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415 - slow to import
    from google.cloud.pubsub_v1 import PublisherClient, types  # noqa: PLC0415

    batches = types.BatchSettings(_BATCH_BYTES, _LATENCY, _BATCH)
    try:
        client = PublisherClient(batches)
    except GoogleAuthError as error:
        raise _unusable(error) from error

    def publish(attributes: Mapping[str, str]) -> Any:
        return client.publish(topic, b"", **attributes)

    yield publish
    # Not after a failure: batches that are still on their way would each print a traceback.
    client.transport.close()


def _unusable(error: Exception) -> BadRequest:
    return BadRequest(
        f"the topic can't be published to: {type(error).__name__}",
        reason="topic",
        where="--topic",
        mend=_MEND.get(type(error).__name__, "see that it is there, and go on from where it ended"),
    )


_MEND: Final = {
    "NotFound": "create it, or mend its name",
    "PermissionDenied": "grant the account roles/pubsub.publisher on it",
    "DefaultCredentialsError": "run as a service account, or set GOOGLE_APPLICATION_CREDENTIALS",
}
