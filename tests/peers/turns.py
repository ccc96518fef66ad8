"""Two or more who use one bucket, whose requests are answered in an order that a test chooses.

with Turns(2) as turns:
    results = turns.run(bucket, [act, other], [0, 0, 1, 0, 1])

Each has a server of its own. A request waits until it is its sender's turn, so that the same turns
are the same interleaving, as long as each has one request under way at a time.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Self

from tests.loopback import BOUND
from tests.peers.buckets import Bucket, BucketServer
from tests.peers.scripted import Wire
from tests.peers.steps import Respond


@dataclass
class _Actor:
    """One who sends requests."""

    turns: "Turns"
    left: int = 0  # requests that are answered before all are refused
    asking: int = 0
    allowed: int = 0
    answering: int = 0
    done: bool = True

    def play(self, wire: Wire) -> None:
        """Answer a request when it is its turn."""
        changed = self.turns.changed
        with changed:
            self.asking += 1
            changed.notify_all()
            assert changed.wait_for(lambda: self.allowed > 0, BOUND)
            self.allowed -= 1
            self.left -= 1
            lives = self.left >= 0
        try:
            (self.turns.bucket if lives else Respond(403)).play(wire)
        finally:
            with changed:
                self.answering -= 1
                changed.notify_all()

    @property
    def waits(self) -> bool:
        """Whether it has a request that waits for its turn, or will send none any more."""
        return self.answering == 0 and (self.done or self.asking > 0)


@dataclass
class Turns:
    """Servers for so many, over one bucket."""

    count: int
    bucket: Bucket = field(default_factory=Bucket)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def __enter__(self) -> Self:
        self._actors = [_Actor(self) for _ in range(self.count)]
        self._stack = ExitStack()
        self.servers = [self._stack.enter_context(BucketServer(one)) for one in self._actors]
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(
        self,
        bucket: Bucket,
        acts: Sequence[Callable[[], object]],
        order: Sequence[int],
        lives: Sequence[int] = (),
    ) -> list[object]:
        """Do all acts at once, and return what each returned or raised.

        Parameters
        ----------
        order
            Whose turn it is, modulo the number of those who wait; then the first one's.
        lives
            How many requests each is answered before all of its others are refused.
        """
        self.bucket = bucket
        results: list[object] = [None] * len(acts)
        for number, actor in enumerate(self._actors[: len(acts)]):
            actor.left = lives[number] if number < len(lives) else 1 << 30
            actor.done = False

        def run(number: int) -> None:
            try:
                results[number] = acts[number]()
            except Exception as error:  # noqa: BLE001 - it is a result
                results[number] = error
            with self.changed:
                self._actors[number].done = True
                self.changed.notify_all()

        threads = [threading.Thread(target=run, args=(n,)) for n in range(len(acts))]
        for thread in threads:
            thread.start()
        turns = iter(order)
        while self._next(next(turns, 0)):
            pass
        for thread in threads:
            thread.join(BOUND)
        return results

    def _next(self, turn: int) -> bool:
        with self.changed:
            assert self.changed.wait_for(lambda: all(one.waits for one in self._actors), BOUND)
            waiting = [one for one in self._actors if one.asking]
            if not waiting:
                return False
            chosen = waiting[turn % len(waiting)]
            chosen.asking -= 1
            chosen.allowed += 1
            chosen.answering += 1
            self.changed.notify_all()
            return True
