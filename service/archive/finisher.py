"""A thread that finishes what an answer needn't wait for."""

import threading
from collections.abc import Callable
from queue import SimpleQueue

from service import telemetry


class Finisher:
    """Does one piece of work after another; its thread begins with the first of them.

    So a process that is forked before has a thread of its own. What a process doesn't come to is
    done by the next one that opens the archive.
    """

    def __init__(self) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def submit(self, work: Callable[[], None]) -> None:
        """Do a piece of work soon."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True)
                self._thread.start()
        self._work.put(work)

    def close(self) -> None:
        """Do what is left, and end."""
        if self._thread:
            self._work.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while work := self._work.get():
            try:
                work()
            except Exception as error:  # noqa: BLE001 - the next piece of work is still to be done
                telemetry.log_exception("the archive couldn't finish a deletion", error)
