"""How full the queue in a bucket is: counted now and then, and reckoned between."""

import threading
import time
from typing import Final

from service.gcp.queue.records import Records
from service.retry.entry import Entry
from service.retry.protocol import Limits, queue_full

_COUNT: Final = 600.0  # seconds between two counts; each lists the whole queue
_COUNT_IF_FULL: Final = 10.0


class Room:
    """What a process knows of the room in a queue that others fill and drain too."""

    def __init__(self, records: Records, limits: Limits) -> None:
        self._records = records
        self._limits = limits
        self._lock = threading.Lock()
        self._counted: float | None = None  # by the monotonic clock
        self._entries = self._size = 0

    def check(self, entry: Entry) -> None:
        """Raise QueueFull if an entry has no room."""
        if reached := self._reached(entry.size):
            raise queue_full("it may hold no more", reached[0], self._entries, self._size)

    def is_full(self) -> str:
        """Tell how much the queue holds, if it takes no more; "" if it does."""
        held = f"it is full: {self._entries} entries of {self._size} bytes"
        return held if self._reached(1) else ""

    def changed(self, entries: int, size: int) -> None:
        """Reckon with what has come, or with what has gone."""
        with self._lock:
            self._entries = max(0, self._entries + entries)
            self._size = max(0, self._size + size)

    def _reached(self, more: int) -> list[str]:
        self._count(_COUNT)
        reached = self._limits.reached(self._entries, self._size, more)
        if reached:
            self._count(_COUNT_IF_FULL)  # others may have drained it
        return self._limits.reached(self._entries, self._size, more)

    def _count(self, every: float) -> None:
        now = time.monotonic()
        with self._lock:
            if self._counted is not None and now - self._counted < every:
                return
        sizes = [one.size for one in self._records.payloads().values()]
        with self._lock:
            self._counted, self._entries, self._size = now, len(sizes), sum(sizes)
