"""What a scripted server can do with a request, as values."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random

from tests.loopback import BOUND
from tests.peers.scripted import Received, Step, Wire

_DICOM_JSON = {"Content-Type": "application/dicom+json"}


@dataclass(frozen=True)
class Respond:
    """Read the request, then answer; a callable body is made from what was received."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Callable[[Received], bytes] = b""

    def play(self, wire: Wire) -> None:
        """Answer with an exact Content-Length."""
        request = wire.receive()
        body = self.body(request) if callable(self.body) else self.body
        wire.head(self.status, self.headers, len(body))
        wire.wfile.write(body)


@dataclass(frozen=True)
class ResetMidBody:
    """Reset the connection after so many bytes of the request's body."""

    after: int = 1000

    def play(self, wire: Wire) -> None:
        """Read a little and slam the door."""
        wire.receive(self.after)
        wire.reset()


@dataclass(frozen=True)
class LoseAnswer:
    """Read the whole request and close without a word: was it stored or not?."""

    def play(self, wire: Wire) -> None:
        """Hang up."""
        wire.receive()
        wire.close_connection = True


@dataclass(frozen=True)
class CutAnswer:
    """Announce more bytes of body than are sent before the connection closes."""

    body: bytes = b'{"00081199"'
    announced: int = 1000
    status: int = 200

    def play(self, wire: Wire) -> None:
        """Break off in the middle of the answer."""
        wire.receive()
        wire.head(self.status, _DICOM_JSON, self.announced)
        wire.wfile.write(self.body)
        wire.close_connection = True


@dataclass(frozen=True)
class Hang:
    """Say nothing until the server is released or stopped; then do as `then` says."""

    then: Step = field(default_factory=LoseAnswer)

    def play(self, wire: Wire) -> None:
        """Wait without reading."""
        wire.script.released.wait(BOUND)
        self.then.play(wire)


@dataclass(frozen=True)
class SlowBody:
    """Answer one byte at a time, `pause` seconds apart, until released or done."""

    body: bytes = b"{}"
    pause: float = 0.05
    status: int = 200

    def play(self, wire: Wire) -> None:
        """Trickle."""
        wire.receive()
        wire.head(self.status, _DICOM_JSON, len(self.body))
        for byte in self.body:
            wire.wfile.write(bytes([byte]))
            wire.script.released.wait(self.pause)


@dataclass(frozen=True)
class Flood:
    """Answer with `length` bytes of nothing: no answer is that long."""

    length: int = 1 << 28
    status: int = 200

    def play(self, wire: Wire) -> None:
        """Send until all is sent or the client has had enough."""
        wire.receive()
        wire.head(self.status, _DICOM_JSON, self.length)
        block = bytes(1 << 16)
        for _ in range(self.length // len(block)):
            wire.wfile.write(block)
        wire.wfile.write(block[: self.length % len(block)])


@dataclass(frozen=True)
class Garbage:
    """Answer with bytes that aren't HTTP."""

    length: int = 100

    def play(self, wire: Wire) -> None:
        """Babble; the same bytes each time."""
        wire.receive()
        wire.wfile.write(Random(0).randbytes(self.length))
        wire.close_connection = True
