"""Programs as processes of the test's own: started, waited for, and ended with all they started."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from tests.loopback import BOUND, free_port, wait_for_http

Started = TypeVar("Started")


def clean(**given: str) -> dict[str, str]:
    """Return an environment of what any program needs of this one's, and what is given."""
    needed = ("PATH", "HOME", "PYTHONPATH")
    return {name: os.environ[name] for name in needed if name in os.environ} | given


def start(
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str] | None = None,
    *,
    session: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a program in its log's folder; what it says is added to the log.

    A session of its own keeps the terminal's Ctrl-C from it.
    """
    with log.open("ab") as said:
        return subprocess.Popen(
            command,
            cwd=log.parent,
            env=environment,
            stdout=said,
            stderr=said,
            start_new_session=session,
        )


def wait_for_answer(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Wait for a program's first answer, whatever its status; kill one that gives none."""
    try:
        wait_for_http(url, alive=lambda: process.poll() is None)
    except TimeoutError as error:
        kill_family(process)
        raise TimeoutError(f"{error}\n{log.read_text()[-3000:]}") from error


def on_a_port(begin: Callable[[int], Started]) -> Started:
    """Start a server on a free port; another program may take it before, so that it gets a few."""
    for _ in range(2):
        with suppress(TimeoutError):
            return begin(free_port())
    return begin(free_port())


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a program to end, if it still runs, and kill what it leaves behind."""
    if process.poll() is None:
        left = tree(process.pid)
        process.terminate()
        try:
            process.wait(BOUND)
        finally:
            kill(left)


def kill_family(process: subprocess.Popen[bytes]) -> None:
    """Kill a program and all that it has started, as a loss of power would."""
    kill(tree(process.pid))
    process.wait(BOUND)


def kill(pids: Sequence[int]) -> None:
    """Kill processes that this test has started, if they still run, and wait until they don't."""
    for pid in filter(is_alive, pids):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, pids)))


def tree(root: int) -> list[int]:
    """Return a process and all that descend from it."""
    children = []
    with suppress(FileNotFoundError, ProcessLookupError):  # a thread may end meanwhile
        for task in Path(f"/proc/{root}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                children += [int(child) for child in (task / "children").read_text().split()]
    return [root, *(pid for child in children for pid in tree(child))]


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended but not been waited for doesn't."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def wait_until(condition: Callable[[], bool], seconds: float = BOUND) -> None:
    """Poll a condition of other processes until it holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"it didn't come true within {seconds} s"
        time.sleep(0.02)
