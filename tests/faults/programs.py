"""Commands of jpegstow as processes that are killed with -9 and started again."""

import os
import signal
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

from tests.processes import clean, is_alive, start, tree, wait_for_answer, wait_until
from tests.serving import COMMAND


class Program:
    """`jpegstow COMMAND`, whose address stays the same however often it is started."""

    def __init__(self, command: str, port: int, log: Path, **environment: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        self._command = command
        self._environment = clean(**environment)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start it, and wait until it answers."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave nothing of it behind."""
        self.kill()

    def start(self, **environment: str) -> None:
        """Start it, and wait until it answers; nothing is left of one that doesn't.

        A session of its own keeps the terminal's Ctrl-C from it: it is ended in its turn.
        """
        command, given = [COMMAND, self._command], self._environment | environment
        self._process = start(command, self.log, given, session=True)
        try:
            wait_for_answer(self._process, f"{self.url}/healthz", self.log)
        except BaseException:
            self.kill()
            raise

    @property
    def ended(self) -> str:
        """How it ended by itself, which it never should; "" while it runs."""
        assert self._process, "it isn't running"
        status = self._process.poll()
        return "" if status is None else f"{self._command} ended by itself with status {status}"

    def kill(self) -> None:
        """Kill all of its processes at once, and wait until they are gone."""
        if self._process:
            family: set[int] = set()
            try:
                freeze(self._process.pid, family)
            finally:  # whatever interrupts it: nobody shall wait for what stands still
                send(family, signal.SIGKILL)
            self._process.wait()
            self._process = None
            wait_until(lambda: not any(map(is_alive, family)))

    def kill_one_of(self, count: int, argument: str, random: Random) -> None:
        """Kill one of the processes with an argument, as soon as there are so many of them."""
        wait_until(lambda: len(self.processes(argument)) == count)
        send(random.sample(self.processes(argument), 1), signal.SIGKILL)

    def processes(self, argument: str) -> list[int]:
        """Return its processes that have this argument and no child of their own."""
        assert self._process, "it isn't running"
        found = family(self._process.pid)
        return [pid for pid in found if argument in arguments(pid) and len(family(pid)) == 1]


def family(root: int) -> list[int]:
    """Return a process and all that descend from it, also while they come and go."""
    while True:
        try:
            return tree(root)
        except (FileNotFoundError, ProcessLookupError):
            if not is_alive(root):
                return []


def arguments(pid: int) -> list[str]:
    """Return a process's command line; nothing of one that has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_text("utf-8", "replace").split("\0")
    return []


def freeze(root: int, stopped: set[int]) -> None:
    """Stop a process and all that descend from it, so that none can start another; note each."""
    while new := set(family(root)) - stopped:
        stopped |= new
        send(new, signal.SIGSTOP)


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to processes; one that has ended needs none."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
