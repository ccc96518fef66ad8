"""The real process `jpegstow retry`, in front of a scripted store."""

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.retry import LEASE, SqliteQueue
from tests.peers import BOUND, Hang, ScriptedServer, instances_in, stored, unavailable
from tests.processes import clean, start, wait_until
from tests.queues import numbered, put, sqlite_queue, uids
from tests.serving import COMMAND, SECRET

GRACE = 8.0  # seconds that the end may take beyond that of a process which sends nothing


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[SqliteQueue]:
    with sqlite_queue(tmp_path / "queue") as opened:
        yield opened


@contextmanager
def retrying(folder: Path, store: ScriptedServer) -> Iterator[subprocess.Popen[bytes]]:
    """Run the process until the block ends."""
    environment = clean(
        DATA_DIR=str(folder),
        DICOMWEB_URL=store.dicomweb_url,
        UID_NAMESPACE=SECRET,
        READ_BACK="never",
    )
    process = start([COMMAND, "retry", "--concurrency", "2"], folder / "log", environment)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(BOUND)


def fill(queue: SqliteQueue, count: int) -> list[str]:
    return [put(queue, numbered(n), None, time.time()) for n in range(count)]


def sent(store: ScriptedServer) -> list[str]:
    return [name for request in store.requests for _, name in instances_in(request)]


def test_the_queue_is_drained_and_what_comes_later_too(queue: SqliteQueue, tmp_path: Path) -> None:
    names = fill(queue, 5)
    with (
        ScriptedServer(unavailable(), stored()) as store,
        retrying(tmp_path, store) as process,
    ):
        wait_until(lambda: not uids(queue))
        assert set(sent(store)) == set(names)
        assert len(store.requests) == 6
        late = put(queue, numbered(9), None, time.time())
        wait_until(lambda: not uids(queue))
        assert sent(store)[-1] == late
        process.send_signal(signal.SIGTERM)
        assert process.wait(BOUND) == 0
    assert queue.totals().outcomes == {"unavailable": 1, "stored": 6}
    assert "Yamada" not in (tmp_path / "log").read_text()


def test_a_process_that_is_told_to_stop_puts_back_what_hangs(
    queue: SqliteQueue, tmp_path: Path
) -> None:
    (name,) = fill(queue, 1)
    with ScriptedServer(Hang()) as store, retrying(tmp_path, store) as process:
        wait_until(lambda: queue.show(name).state == "leased")
        took = stopping(process)
    entry = queue.show(name)
    assert (entry.state, entry.attempts, entry.history) == ("pending", 0, ())
    assert queue.lease(time.time())
    idle = stopping_idle(tmp_path / "idle")
    assert idle < took < GRACE + idle


def stopping(process: subprocess.Popen[bytes]) -> float:
    """Return the seconds that a process takes to end, which a busy machine adds to."""
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(BOUND) == 0
    return time.monotonic() - started


def stopping_idle(folder: Path) -> float:
    """Return the seconds that a process takes to end once it has drained its queue."""
    folder.mkdir()
    with sqlite_queue(folder / "queue") as queue, ScriptedServer(stored()) as store:
        fill(queue, 1)
        with retrying(folder, store) as process:
            wait_until(lambda: not uids(queue))
            return stopping(process)


def test_a_process_that_is_told_to_stop_finishes_what_it_can(
    queue: SqliteQueue, tmp_path: Path
) -> None:
    (name, other) = fill(queue, 2)
    with ScriptedServer(Hang(stored())) as store, retrying(tmp_path, store) as process:
        wait_until(lambda: queue.show(name).state == "leased")
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: "told to stop" in (tmp_path / "log").read_text())
        store.released.set()
        assert process.wait(BOUND) == 0
    assert uids(queue) == [other]
    assert queue.show(other).attempts == 0


def test_what_a_killed_process_was_sending_comes_back(queue: SqliteQueue, tmp_path: Path) -> None:
    (name,) = fill(queue, 1)
    with ScriptedServer(Hang(stored())) as store, retrying(tmp_path, store) as process:
        wait_until(lambda: queue.show(name).state == "leased")
        process.kill()
        process.wait(BOUND)
    entry = queue.show(name)
    assert entry.next_attempt
    assert 0 < entry.next_attempt - time.time() <= LEASE
    assert queue.lease(entry.next_attempt - 1) is None
    lease = queue.lease(entry.next_attempt)
    assert lease
    assert (lease.entry.sop_instance_uid, lease.entry.attempts) == (name, 0)
