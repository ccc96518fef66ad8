"""A second process of a retry queue, which tells on standard output what it has done.

python -m tests.queue_process KIND FOLDER put FIRST COUNT    puts, and names what is acknowledged
python -m tests.queue_process KIND FOLDER lease NOW          leases until nothing is due

It says "ready" once the queue is open, and begins when its standard input has a line or ends.
"""

import subprocess
import sys
from pathlib import Path

from service.retry import Queue
from tests.queues import OPENERS, ROOMY, numbered, put, shared_bucket

ROOT = Path(__file__).parents[1]


def start(kind: str, folder: Path, *work: object) -> subprocess.Popen[str]:
    """Start such a process, and return once it is ready."""
    shared_bucket()  # where its queue is too, if it is of that kind
    command = [sys.executable, "-m", "tests.queue_process", kind, folder, *work]
    process = subprocess.Popen(
        list(map(str, command)),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


def begin(process: subprocess.Popen[str]) -> None:
    """Let it go."""
    assert process.stdin
    process.stdin.close()
    process.stdin = None


def put_all(queue: Queue, first: int, count: int) -> None:
    for number in range(first, first + count):
        print(put(queue, numbered(number)), flush=True)


def lease_all(queue: Queue, now: float) -> None:
    while lease := queue.lease(now):
        print(lease.entry.sop_instance_uid, flush=True)


def main() -> None:
    kind, folder, verb, *numbers = sys.argv[1:]
    with OPENERS[kind](Path(folder), ROOMY) as queue:
        print("ready", flush=True)
        sys.stdin.readline()
        if verb == "put":
            put_all(queue, *map(int, numbers))
        else:
            lease_all(queue, *map(float, numbers))


if __name__ == "__main__":
    main()
