"""`jpegstow pull` and other commands as processes, and pictures to pull."""

import base64
import signal
import struct
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.peers import BOUND
from tests.peers.pubsub import PubSub
from tests.processes import clean, start
from tests.serving import COMMAND, SECRET


class Command:
    """A command of jpegstow's, with nothing set but these; its output is in a file."""

    def __init__(self, log: Path, *arguments: str, **environment: str) -> None:
        self._log = log
        self._arguments = arguments
        self._environment = environment

    def __enter__(self) -> Self:
        """Start it."""
        environment = clean(UID_NAMESPACE=SECRET) | self._environment
        self.process = start([COMMAND, *self._arguments], self._log, environment)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Kill it, if it still runs."""
        self.kill()

    def kill(self) -> None:
        """End it as the kernel does that runs out of memory."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Ask it to end, and return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(BOUND)

    def says(self, text: str) -> bool:
        """Tell whether it has printed something."""
        assert self.process.poll() is None or text in self.output, self.output[-3000:]
        return text in self.output

    @property
    def output(self) -> str:
        """What it, and those before it with the same file, have printed."""
        return self._log.read_text()


def numbered(picture: bytes, serial: int) -> bytes:
    """Return a picture that differs from all others by a COM segment."""
    return picture[:2] + b"\xff\xfe" + struct.pack(">HI", 6, serial) + picture[2:]


def publish_all(
    pubsub: PubSub, topic: str, pictures: Sequence[tuple[bytes, dict[str, str]]]
) -> None:
    """Publish pictures with their attributes, many in one request."""
    messages = [
        {"data": base64.b64encode(data).decode(), "attributes": attributes}
        for data, attributes in pictures
    ]
    for first in range(0, len(messages), 500):
        pubsub.ask("POST", f"{topic}:publish", {"messages": messages[first : first + 500]})


def left(pubsub: PubSub, subscription: str) -> list[dict[str, Any]]:
    """Return some messages that a subscription would deliver now, and acknowledge them."""
    asked = {"maxMessages": 1000, "returnImmediately": True}
    received = pubsub.ask("POST", f"{subscription}:pull", asked).get("receivedMessages", [])
    if received:
        names = {"ackIds": [one["ackId"] for one in received]}
        pubsub.ask("POST", f"{subscription}:acknowledge", names)
    return [one["message"] for one in received]
