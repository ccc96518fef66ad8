"""The contract of every retry queue that several share: threads, processes, and sudden deaths."""

import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from service.errors import NoSuchEntry
from service.retry import LEASE, Queue
from tests import queue_process
from tests.peers import BOUND
from tests.queues import (
    NOW,
    OPENERS,
    ROOMY,
    bodies,
    leased,
    numbered,
    put,
    sqlite_queue,
    uid_of,
    uids,
)

every_queue = pytest.mark.parametrize("kind", OPENERS)


@every_queue
def test_threads_share_entries_without_taking_one_twice(kind: str, tmp_path: Path) -> None:
    names = sorted(uid_of(numbered(n)) for n in range(40))
    start = threading.Barrier(4)

    def work(queue: Queue, thread: int) -> list[str]:
        start.wait()
        for n in range(10):
            put(queue, numbered(10 * thread + n))
        taken = []
        while lease := queue.lease(NOW):
            taken.append(lease.entry.sop_instance_uid)
            queue.load(taken[-1])
            queue.finish(taken[-1])
        return taken

    with OPENERS[kind](tmp_path, ROOMY) as queue, ThreadPoolExecutor(4) as threads:
        shares = list(threads.map(work, [queue] * 4, range(4)))
        assert sorted(name for share in shares for name in share) == names
        assert uids(queue) == []


@every_queue
def test_one_entry_put_by_many_threads_is_one(kind: str, tmp_path: Path) -> None:
    start = threading.Barrier(6)

    def work(queue: Queue) -> None:
        start.wait()
        put(queue, numbered())

    with OPENERS[kind](tmp_path, ROOMY) as queue, ThreadPoolExecutor(6) as threads:
        list(threads.map(work, [queue] * 6))
        assert uids(queue) == [uid_of(numbered())]
        assert queue.totals().size == queue.show(uid_of(numbered())).size


@every_queue
def test_who_finishes_takes_nothing_from_who_puts_meanwhile(kind: str, tmp_path: Path) -> None:
    name = uid_of(numbered())
    done = threading.Event()

    def finish(queue: Queue) -> None:
        while not done.is_set():
            queue.finish(name)

    with OPENERS[kind](tmp_path, ROOMY) as queue, ThreadPoolExecutor(1) as threads:
        finishing = threads.submit(finish, queue)
        try:
            for _ in range(60):
                put(queue, numbered())
                with suppress(NoSuchEntry):  # but never a DamagedEntry
                    queue.load(name)
        finally:
            done.set()
        finishing.result()


def acknowledged(process: subprocess.Popen[str]) -> list[str]:
    output, _ = process.communicate(timeout=BOUND)
    assert process.returncode == 0
    return output.split()


@every_queue
def test_processes_share_entries_without_taking_one_twice(kind: str, tmp_path: Path) -> None:
    with OPENERS[kind](tmp_path, ROOMY) as queue:
        names = [put(queue, numbered(n)) for n in range(40)]
        processes = [queue_process.start(kind, tmp_path, "lease", NOW) for _ in range(2)]
        for process in processes:
            queue_process.begin(process)
        one, other = (acknowledged(process) for process in processes)
        assert sorted(one + other) == sorted(names)
        assert queue.totals().entries["leased"] == 40


@every_queue
def test_processes_put_the_same_without_harm(kind: str, tmp_path: Path) -> None:
    processes = [queue_process.start(kind, tmp_path, "put", 0, 8) for _ in range(2)]
    for process in processes:
        queue_process.begin(process)
    names = [uid_of(numbered(n)) for n in range(8)]
    assert [acknowledged(process) for process in processes] == [names, names]
    with OPENERS[kind](tmp_path, ROOMY) as queue:
        assert sorted(uids(queue)) == sorted(names)


@every_queue
@pytest.mark.parametrize("wait_for", [1, 4, 9])
def test_what_was_acknowledged_before_a_kill_is_there_and_whole(
    kind: str, tmp_path: Path, wait_for: int
) -> None:
    process = queue_process.start(kind, tmp_path, "put", 0, 10_000)
    queue_process.begin(process)
    assert process.stdout
    lines = [process.stdout.readline() for _ in range(wait_for)]
    process.send_signal(signal.SIGKILL)
    lines += process.stdout.readlines()
    process.stdout.close()
    assert process.wait(BOUND) == -signal.SIGKILL
    known = [line.strip() for line in lines if line.endswith("\n")]
    assert len(known) >= wait_for
    with OPENERS[kind](tmp_path, ROOMY) as queue:
        there = uids(queue)
        assert there[: len(known)] == known
        for n, name in enumerate(there):
            expected = bodies(numbered(n).described.instance)
            assert bodies(queue.load(name).instance) == expected
        assert [leased(queue).entry.sop_instance_uid for _ in there] == there


@every_queue
def test_entries_that_a_dead_process_held_come_back(kind: str, tmp_path: Path) -> None:
    with OPENERS[kind](tmp_path, ROOMY) as queue:
        name = put(queue, numbered())
    process = queue_process.start(kind, tmp_path, "lease", NOW)
    queue_process.begin(process)
    assert acknowledged(process) == [name]
    with OPENERS[kind](tmp_path, ROOMY) as queue:
        assert leased(queue, NOW + LEASE).entry.attempts == 0


def test_entries_that_a_dead_process_held_are_there_at_once_for_who_comes_alone(
    tmp_path: Path,
) -> None:
    with sqlite_queue(tmp_path) as queue:
        name = put(queue, numbered())
    process = queue_process.start("sqlite", tmp_path, "lease", NOW)
    queue_process.begin(process)
    assert acknowledged(process) == [name]
    with sqlite_queue(tmp_path) as queue:
        assert leased(queue).entry.attempts == 0
