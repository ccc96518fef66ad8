"""Processes that fill and drain one retry queue, and are killed with -9, all at once.

python -m tests.queue_gang QUEUE LEDGER ROUNDS KEPT

Ends when so many instances have been acknowledged in each of so many rounds. The ledger has a line
for each: `kept UID` once the queue has it, `sent UID` before it is let go of.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Final

from pydicom import Dataset

from service.dicom.outcome import Rejected, Stored, Unavailable
from service.ingest import Attempt, Described, Upload, digest_of
from service.retry import Limits, SqliteQueue
from tests.describing import PHOTOGRAPH, described
from tests.jpegs import make_jpeg
from tests.processes import wait_until

IMAGE: Final = make_jpeg()
LIMITS: Final = Limits(1_000_000, 1 << 34)
FILLING, DRAINING = 4, 2

_UPLOAD: Final = Upload(IMAGE, digest_of(IMAGE), Dataset(), PHOTOGRAPH, "http", "request")
_DESCRIBED: Final = described(IMAGE)


def keep(queue: SqliteQueue, uid: str, now: float) -> None:
    """Put an instance of its own into a queue, without an attempt."""
    queue.put(_UPLOAD, _named(uid), None, now)


def _named(uid: str) -> Described:
    instance = _DESCRIBED.instance
    dataset = copy(instance.dataset)
    dataset.SOPInstanceUID = uid
    return replace(_DESCRIBED, instance=replace(instance, dataset=dataset))


def fill(queue: SqliteQueue, tell: Callable[[str], None]) -> None:
    """Put instances, and tell of each that is acknowledged."""
    for number in count():
        uid = f"1.9.{os.getpid()}.{number}"
        keep(queue, uid, time.time())
        tell(f"kept {uid}")


def drain(queue: SqliteQueue, tell: Callable[[str], None]) -> None:
    """Lease entries; finish, put back and bury them in turn."""
    for number in count():
        now = time.time()
        lease = queue.lease(now)
        if lease is None:
            time.sleep(0.01)
        elif number % 3 == 0:
            tell(f"sent {lease.entry.sop_instance_uid}")
            stored = Attempt(now, Stored("/instance", duplicate=False), "json")
            queue.finish(lease.entry.sop_instance_uid, stored)
        elif number % 3 == 1:
            queue.put_back(lease, now + 500, Attempt(now, Unavailable("503"), "json"))
        else:
            queue.bury(lease, Attempt(now, Rejected("409"), "json"))


def start(work: Callable[[SqliteQueue, Callable[[str], None]], None], paths: list[Path]) -> int:
    """Let a process of its own work on the queue until it is killed; return its id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        queue, ledger = paths
        # One write to a file that is appended to is whole, whatever happens to the writer.
        told = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        work(SqliteQueue(queue, LIMITS), lambda line: assert_whole(told, f"{line}\n".encode()))
    finally:
        sys.excepthook(*sys.exc_info())
        os._exit(1)


def assert_whole(descriptor: int, line: bytes) -> None:
    assert os.write(descriptor, line) == len(line)


def lines(ledger: Path, word: str) -> set[str]:
    """Return the UIDs of which a word was told."""
    told = ledger.read_text().split("\n") if ledger.exists() else []
    return {line.split()[1] for line in told if line.startswith(word)}


def until_killed(paths: list[Path], goal: int) -> None:
    """Let all of them work until so many instances have been acknowledged in all; kill them."""
    pids = [start(work, paths) for work in [fill] * FILLING + [drain] * DRAINING]
    wait_until(lambda: len(lines(paths[1], "kept")) >= goal or _has_ended(pids))
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    statuses = [os.waitpid(pid, 0)[1] for pid in pids]
    assert statuses == [signal.SIGKILL] * len(pids), statuses


def _has_ended(pids: list[int]) -> bool:
    """Tell whether one has ended by itself; it is still waited for by its id."""
    ended = [os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) for pid in pids]
    return any(ended)


def main() -> None:
    paths = [Path(argument) for argument in sys.argv[1:3]]
    rounds, kept = map(int, sys.argv[3:])
    for number in range(1, rounds + 1):
        until_killed(paths, kept * number)


if __name__ == "__main__":
    main()
