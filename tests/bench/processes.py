"""What a tree of processes costs: CPU time and memory, read from /proc."""

import os
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.processes import tree

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(root: int) -> float:
    """Return the user and system time that the living processes of a tree have used."""
    return sum(map(_ticks, tree(root))) / _TICKS


def _ticks(pid: int) -> int:
    # Fields 14 and 15 of proc(5); the second, the name in brackets, may hold spaces.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def memory_bytes(root: int) -> int:
    """Return the proportional set size of a tree: shared pages count once in all."""
    return sum(map(_pss, tree(root)))


def _pss(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    line = next(line for line in rollup.splitlines() if line.startswith("Pss:"))
    return int(line.split()[1]) * 1024


class PeakMemory:
    """The most memory that a tree has had, looked at every 50 ms while the block runs."""

    def __init__(self, root: int) -> None:
        self.root = root
        self.peak = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            # A thread or process that ends while it is looked at makes only this look void.
            with suppress(FileNotFoundError, ProcessLookupError):
                self.peak = max(self.peak, memory_bytes(self.root))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()
