"""Stop a retry queue at each step of an action, the first, the second and so on, to its end.

python -m tests.queue_walk PREPARED HOW ACTION...

PREPARED is the queue's folder beforehand. Each time a copy of it is used by a process that is
stopped at the N-th time that it asks something of the system or of SQLite. A line of JSON for each:
the action, how it ended, what the queue showed then to the same process, what it shows to the next,
and the files that are left.
Nothing of the queue's own is replaced: Python tells a profiler of each call that is made in C.
"""

import errno
import json
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any, Final

from service.dicom.outcome import Stored
from service.errors import DamagedEntry, JpegstowError
from service.retry import Queue, SqliteQueue
from tests.queues import (
    NOW,
    REFUSED,
    ROOMY,
    attempt,
    leased,
    numbered,
    put,
    uid_of,
    uids,
)

MOST: Final = 500  # steps; no action has as many
STEPS: Final = {
    *("close", "execute", "executemany", "executescript", "flock", "fsync", "link", "mkdir"),
    *("open", "rename", "replace", "scandir", "unlink", "writelines"),
}
WAITING, DEAD, OTHER = (uid_of(numbered(number)) for number in range(3))
NEW, BETTER = numbered(5), numbered(6)

There = dict[str, str]
"""From the id of each entry to its state, or ``damaged``."""


def prepare(folder: Path) -> None:
    """Make the queue that every action begins with."""
    queue = SqliteQueue(folder, ROOMY)
    put(queue, numbered(0), attempt())
    put(queue, numbered(1), attempt(REFUSED))
    put(queue, numbered(2), attempt())
    queue.close()


def leave_half_done(folder: Path) -> None:
    """Make what dead processes leave: half a file, a lease, a drop, a file without its row."""
    prepare(folder)
    (folder / "incoming" / "tmp").write_bytes(b"half")
    index = sqlite3.connect(folder / "queue.sqlite")
    index.execute("UPDATE entry SET state = 'leased' WHERE sop_instance_uid = ?", (WAITING,))
    index.execute("UPDATE entry SET state = 'dropped' WHERE sop_instance_uid = ?", (DEAD,))
    index.execute("DELETE FROM entry WHERE sop_instance_uid = ?", (OTHER,))
    index.commit()
    index.close()


def _bury(queue: Queue) -> Callable[[], None]:
    lease = leased(queue)
    return lambda: queue.bury(lease, attempt(REFUSED))


ACTIONS: Final[dict[str, Callable[[SqliteQueue], Callable[[], object]]]] = {
    "put": lambda queue: lambda: put(queue, NEW, attempt()),
    "put again": lambda queue: lambda: put(queue, numbered(1), attempt()),
    "replace": lambda queue: lambda: queue.replace(DEAD, *BETTER, NOW),
    "drop": lambda queue: lambda: queue.drop(DEAD, NOW),
    "finish": lambda queue: lambda: queue.finish(WAITING, attempt(Stored())),
    "bury": _bury,
}


def die(_: str) -> None:
    """End this process as nothing else does."""
    os.kill(os.getpid(), signal.SIGKILL)


def fail(call: str) -> None:
    """Raise what a full disk does."""
    if call.startswith("execute"):
        raise sqlite3.OperationalError("database or disk is full")
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupt(_: str) -> None:
    """Raise what Ctrl-C does."""
    raise KeyboardInterrupt


# What happens, and when: before a step is made, in its place, or behind it.
HOWS: Final = {
    "dies": ("c_call", die),
    "fails": ("c_call", fail),
    "is interrupted": ("c_return", interrupt),
}


def stop_at(step: int, how: str) -> None:
    """Have something happen to this thread at its `step`-th step from now on."""
    when, happen = HOWS[how]
    left = [step]

    def profile(_: FrameType, event: str, called: Any) -> None:
        if event == when and called.__name__ in STEPS:
            left[0] -= 1
            if not left[0]:
                happen(called.__name__)

    sys.setprofile(profile)


def shown(queue: SqliteQueue) -> There:
    """Return what a queue shows."""
    return {name: _state(queue, name) for name in uids(queue)}


def _state(queue: SqliteQueue, name: str) -> str:
    try:
        assert queue.load(name).instance.sop_instance_uid == name
    except DamagedEntry:
        return "damaged"
    return queue.show(name).state


def act(action: str, how: str, step: int, folder: Path, pipe: int) -> None:
    """Do an action up to a step, and write how it ended and what the queue shows then."""
    if action == "open":
        stop_at(step, how)
        SqliteQueue(folder, ROOMY).close()
        sys.setprofile(None)
        os.write(pipe, json.dumps(["returned", None]).encode())
        return
    queue = SqliteQueue(folder, ROOMY)
    doing = ACTIONS[action](queue)
    ended = "returned"
    stop_at(step, how)
    try:
        doing()
    except (KeyboardInterrupt, JpegstowError) as error:
        ended = type(error).__name__
    finally:
        sys.setprofile(None)
    os.write(pipe, json.dumps([ended, shown(queue)]).encode())


def walked(action: str, how: str, step: int, folder: Path) -> tuple[str, There | None]:
    """Let a child do it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            act(action, how, step, folder, writer)
            status = 0
        finally:
            if status:
                sys.excepthook(*sys.exc_info())
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    assert status in {0, signal.SIGKILL}, f"step {step} ended with {status}"
    ended, then = json.loads(told) if told else ("died", None)
    return ended, then


def walk(prepared: Path, action: str, how: str) -> None:
    """Stop an action at each of its steps, and print what came of it."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as temporary:
        for step in range(1, MOST):
            folder = Path(temporary) / str(step)
            shutil.copytree(prepared, folder)
            ended, then = walked(action, how, step, folder)
            queue = SqliteQueue(folder, ROOMY)
            files = sorted(path.name for path in (folder / "entries").iterdir())
            print(json.dumps([action, ended, then, shown(queue), files]), flush=True)
            queue.close()
            if ended == "returned":
                return
    sys.exit(f"not at its end after {MOST} steps")


def main() -> None:
    prepared, how, *actions = sys.argv[1:]
    for action in actions:
        walk(Path(prepared), action, how)


if __name__ == "__main__":
    main()
