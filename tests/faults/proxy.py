"""A reverse proxy before a DICOM store, which plays faults by chance.

It is a `ScriptedServer` with one step:

with ScriptedServer(Faults("127.0.0.1:8042", seed=1)) as proxy:
    ...                      # DICOMWEB_URL is proxy.dicomweb_url
"""

import threading
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse
from random import Random
from typing import Final

from tests.peers import (
    LoseAnswer,
    Received,
    ResetMidBody,
    Respond,
    Step,
    Wire,
    empty_200,
    names_another_uid,
    stored,
    throttled,
    unavailable,
)

STALL: Final = 3.0  # seconds; longer than the service waits for an answer

Weather = Mapping[str, int]
"""How often each thing happens, against the others."""

PASS: Final = "passed"
AWAY: Final = "store away"
# Answers that a search or a retrieval can't give.
LIES: Final = frozenset({"200 empty", "200 of another", "200 not stored"})

CLEAR: Final[Weather] = {PASS: 1}
CALM: Final[Weather] = {
    PASS: 900,
    "503": 10,
    "503 with Retry-After": 10,
    "429": 10,
    "reset within": 10,
    "answer lost": 10,
    "hung": 3,
    "late": 3,
    "answer cut": 10,
    "200 empty": 10,
    "200 of another": 10,
    "200 not stored": 10,
}
STORM: Final[Weather] = {
    **dict.fromkeys(CALM, 4),
    PASS: 40,
    "hung": 1,
    "late": 1,
}


class StoreAway(Exception):
    """Nobody answers behind the proxy."""


@dataclass(frozen=True)
class Answer:
    """What the store said."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Forward:
    """Pass a request on, and the answer back."""

    store: str

    def play(self, wire: Wire) -> None:
        """Answer as the store does."""
        answer = fetch(self.store, wire)
        relay(wire, answer, len(answer.body))


@dataclass(frozen=True)
class ForwardAndReset:
    """Pass a request on, and lose the answer."""

    store: str

    def play(self, wire: Wire) -> None:
        """Reset the connection when all is done."""
        fetch(self.store, wire)
        wire.reset()


@dataclass(frozen=True)
class ForwardAndCut:
    """Pass a request on, and break off within the answer's body."""

    store: str

    def play(self, wire: Wire) -> None:
        """Announce all of it and send one half."""
        answer = fetch(self.store, wire)
        relay(wire, answer, len(answer.body) // 2)
        wire.close_connection = True


@dataclass(frozen=True)
class Stall:
    """Do something after so many seconds only, or when the server ends."""

    seconds: float
    then: Step = field(default_factory=LoseAnswer)

    def play(self, wire: Wire) -> None:
        """Wait without reading."""
        wire.script.released.wait(self.seconds)
        self.then.play(wire)


def fetch(store: str, wire: Wire) -> Answer:
    """Send what came to the store, and return its answer.

    Raises
    ------
    StoreAway
        If there is no whole answer.
    ConnectionResetError
        If the client broke off: what it began to say is for nobody.
    """
    request = wire.receive()
    if request.length < int(request.headers.get("content-length", 0)):
        raise ConnectionResetError("the client broke off")
    connection = HTTPConnection(store, timeout=10)
    try:
        return _exchange(connection, request)
    except (OSError, HTTPException) as error:
        raise StoreAway(store) from error
    finally:
        connection.close()


def _exchange(connection: HTTPConnection, request: Received) -> Answer:
    headers = {**request.headers, "connection": "close"}
    connection.request(request.method, request.path, request.body or None, headers)
    response: HTTPResponse = connection.getresponse()
    headers = {name: value for name, value in response.getheaders() if name.lower() not in _HOPS}
    return Answer(response.status, headers, response.read())


# Of each connection by itself.
_HOPS: Final = frozenset({"connection", "content-length", "date", "server", "transfer-encoding"})


def relay(wire: Wire, answer: Answer, length: int) -> None:
    """Send an answer with so many bytes of its body."""
    wire.head(answer.status, answer.headers, len(answer.body))
    wire.wfile.write(answer.body[:length])


def steps(store: str, stall: float) -> dict[str, Step]:
    """Return what can happen to a request, by name."""
    return {
        PASS: Forward(store),
        "503": unavailable(),
        "503 with Retry-After": Respond(503, {"Retry-After": "1"}),
        "429": throttled(retry_after=1),
        "reset within": ResetMidBody(after=500),
        "answer lost": ForwardAndReset(store),
        "hung": Stall(stall),
        "late": Stall(stall, ForwardAndReset(store)),
        "answer cut": ForwardAndCut(store),
        "200 empty": empty_200(),
        "200 of another": names_another_uid(),
        "200 not stored": stored(),
    }


class Faults:
    """The step of every request: those of a list first, then whatever the weather brings."""

    def __init__(self, store: str, seed: int = 0, stall: float = STALL) -> None:
        """Take the store's host and port, and the seconds for which what hangs does."""
        self.weather = CLEAR
        self.played: Counter[str] = Counter()
        self._steps = steps(store, stall)
        self._due: deque[str] = deque()
        self._random = Random(seed)
        self._lock = threading.Lock()

    def begin_with(self, names: Iterable[str]) -> None:
        """Let these happen to the next POSTs."""
        with self._lock:
            self._due.extend(names)

    def end(self) -> None:
        """Let nothing happen any more."""
        with self._lock:
            self.weather = CLEAR
            self._due.clear()

    def play(self, wire: Wire) -> None:
        """Let something happen; where the store is away, be as a proxy is then."""
        wire.script.requests.clear()  # thousands of pictures aren't kept
        try:
            self._steps[self._choose(wire.command)].play(wire)
        except StoreAway:
            self._count(AWAY)
            if self._random.random() < 0.5:
                wire.reset()
            else:
                wire.head(502, {}, 0)

    def _choose(self, method: str) -> str:
        with self._lock:
            weather = self.weather
            if self._due and method == "POST":
                name = self._due.popleft()
            else:
                (name,) = self._random.choices(list(weather), list(weather.values()))
            if method != "POST" and name in LIES:
                name = PASS
            self.played[name] += 1
        return name

    def _count(self, name: str) -> None:
        with self._lock:
            self.played[name] += 1
