"""What once broke the retry queue, each as it was found."""

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest

from service.dicom.dataset import Instance
from service.dicom.outcome import Outcome, Rejected, Stored, Unavailable
from service.errors import DamagedEntry, QueueUnusable
from service.retry import LEASE, Drain, Filter, Pace, Queue, SqliteQueue
from service.store import DicomwebStore
from tests.peers import (
    BOUND,
    Hang,
    Respond,
    ScriptedServer,
    Step,
    empty_200,
    parts_of,
    stored,
    unsupported_media_type,
)
from tests.processes import wait_until
from tests.queues import (
    DOWN,
    NOW,
    REFUSED,
    WEEK,
    Shelf,
    attempt,
    copies,
    drain_of,
    leased,
    numbered,
    put,
    sqlite_queue,
    uids,
)
from tests.serving import COMMAND, SECRET, client_for, settings_for
from tests.test_read_back import made
from tests.users import of_a_user

HOUR = 3600.0
DENIED = Unavailable("the store doesn't accept the credentials (401)", status=401, operator=True)
BROKEN = Unavailable("the store answered 500", status=500)
LOGIN_PAGE = Respond(200, {"Content-Type": "text/html"}, b"<!DOCTYPE html><form>log in</form>")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Yield a folder for a queue, where flushing costs nothing if there is such a place."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name) / "queue"


@pytest.fixture
def queue(folder: Path) -> Iterator[SqliteQueue]:
    with sqlite_queue(folder) as opened:
        yield opened


def drain_all(drain: Drain, now: float) -> None:
    """Send whatever may be sent at a moment, one after the other."""
    while lease := drain.take(now):
        drain.settle(lease, drain.send(lease), now)


# A few instances that the store can't digest


@dataclass
class Choosy:
    """A store that has an answer of its own to some instances, and stores all others."""

    answers: Mapping[str, Outcome]
    wire: str = "json"
    stored: set[str] = field(default_factory=set)

    def store(
        self,
        instances: Sequence[Instance],
        within: float | None = None,  # noqa: ARG002
    ) -> dict[str, Outcome]:
        (name,) = [instance.sop_instance_uid for instance in instances]
        outcome = self.answers.get(name, Stored())
        if outcome == Stored():
            self.stored.add(name)
        return {name: outcome}


def test_what_always_fails_does_not_keep_the_others_from_a_store_that_is_there(
    queue: Queue,
) -> None:
    names = [put(queue, kept) for kept in copies(60)]
    store = Choosy(dict.fromkeys(names[:20], BROKEN))
    drain = Drain(queue, store, Pace(4, WEEK), Random(0).random)
    for second in range(int(HOUR)):
        drain_all(drain, NOW + second)
        if len(store.stored) == 40:
            break
    assert store.stored == set(names[20:])
    assert set(uids(queue, Filter(state="pending"))) == set(names[:20])


def test_a_probe_takes_what_was_tried_least_of_what_is_due(queue: Queue) -> None:
    tries = [(2, NOW), (1, NOW), (0, NOW + 600), (0, NOW), (0, NOW)]
    for kept, (count, due) in zip(copies(5), tries, strict=True):
        put(queue, kept, None, due)
        for _ in range(count):
            put(queue, kept, attempt(), NOW)
    twice, once, _, never, fresh = uids(queue)
    leases = [queue.lease(NOW, probe=True) for _ in range(5)]
    probed = [lease.entry.sop_instance_uid for lease in leases if lease]
    assert probed == [never, fresh, once, twice]


# Those who do not answer


def test_a_store_that_hangs_does_not_hold_whoever_asks_for_readiness() -> None:
    with ScriptedServer(Hang()) as store:
        client = client_for(store.dicomweb_url, STORE_READ_TIMEOUT="20")
        started = time.monotonic()
        response = client.get("/readyz")
        took = time.monotonic() - started
    assert took < 8.0
    assert (response.status_code, response.get_json()["status"]) == (200, "degraded")


@contextmanager
def locked_by_another(lock: Path) -> Iterator[None]:
    """Have a process hold a lock that does nothing with it, for the block or for two minutes."""
    with lock.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        holder = subprocess.Popen(["sleep", f"{BOUND:g}"], pass_fds=[file.fileno()])
    try:
        yield
    finally:
        holder.kill()
        holder.wait(BOUND)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less long for a lock than in earnest: a test has no fifteen seconds."""
    monkeypatch.setattr("service.durable._PATIENCE", 0.2)


@pytest.mark.usefixtures("impatient")
def test_a_lock_that_is_never_released_makes_the_queue_unusable_and_is_named(
    queue: SqliteQueue, folder: Path
) -> None:
    name = put(queue, numbered())
    lease = leased(queue)
    changes: list[Callable[[], object]] = [
        lambda: put(queue, numbered(1)),
        lambda: queue.lease(NOW + LEASE),
        lambda: queue.put_back(lease, NOW, attempt()),
        lambda: queue.drop(name, NOW + LEASE),
    ]
    with locked_by_another(folder / "write.lock"):
        for change in changes:
            with pytest.raises(QueueUnusable, match=r"held write\.lock") as caught:
                change()
            assert "fuser" in caught.value.mend
    queue.put_back(lease, NOW, attempt())
    assert uids(queue) == [name]


@pytest.mark.usefixtures("impatient")
def test_a_process_that_stopped_while_it_opened_the_queue_is_not_waited_for(folder: Path) -> None:
    with sqlite_queue(folder):
        pass
    with (
        locked_by_another(folder / "alive.lock"),
        pytest.raises(QueueUnusable, match=r"held alive\.lock"),
        sqlite_queue(folder),
    ):
        pass


@pytest.mark.usefixtures("impatient")
def test_a_look_at_the_queue_waits_for_no_lock(folder: Path) -> None:
    with sqlite_queue(folder) as queue:
        name = put(queue, numbered())
        with locked_by_another(folder / "write.lock"), sqlite_queue(folder) as second:
            assert uids(second) == [name]
    with locked_by_another(folder / "write.lock"), sqlite_queue(folder) as alone:
        assert (uids(alone), alone.totals().entries["pending"]) == ([name], 1)


# Files that can't be read


def test_what_has_a_name_of_an_entry_and_cannot_be_read_keeps_no_queue_from_opening() -> None:
    with of_a_user() as home:
        folder = home / "queue"
        with sqlite_queue(folder) as queue:
            name = put(queue, numbered())
        (folder / "entries" / "1.2.3").mkdir()
        unreadable = folder / "entries" / "1.2.4"
        unreadable.write_bytes(b"not this user's")
        unreadable.chmod(0)
        with sqlite_queue(folder) as queue:
            assert uids(queue) == [name]
        assert unreadable.exists()  # for whoever may read it


def test_an_entry_whose_file_cannot_be_read_is_dead_at_the_first_try(
    queue: SqliteQueue, folder: Path
) -> None:
    name, other = put(queue, numbered()), put(queue, numbered(1))
    (folder / "entries" / name).unlink()
    (folder / "entries" / name).mkdir()
    with pytest.raises(DamagedEntry, match=f"entries/{name}"):
        queue.load(name)
    shelf = Shelf()
    drain_all(drain_of(queue, shelf), NOW)
    assert (queue.show(name).state, shelf.asked, uids(queue)) == ("dead", [other], [name])


# What is given up


def test_trouble_that_an_operator_has_mended_does_not_count_as_age(queue: Queue) -> None:
    name = put(queue, numbered())
    shelf = Shelf(DENIED)
    drain = drain_of(queue, shelf)
    days = 8
    for half_day in range(2 * days + 1):
        drain_all(drain, NOW + 12 * HOUR * half_day)
    shelf.answer = DOWN
    drain_all(drain, NOW + 24 * HOUR * days + HOUR)
    entry = queue.show(name)
    assert (entry.state, entry.attempts, entry.reason) == ("pending", 18, DOWN.reason)
    drain_all(drain, NOW + 24 * HOUR * days + WEEK)
    assert queue.show(name).state == "dead"


def test_one_failure_is_no_reason_to_give_up_what_nobody_could_send_for_long(queue: Queue) -> None:
    name = put(queue, numbered())
    drain = drain_of(queue, Shelf(DOWN))
    for hour in range(9):
        drain_all(drain, NOW + 2 * WEEK + HOUR * hour)
        assert queue.show(name).state == "pending"
    drain_all(drain, NOW + 2 * WEEK + HOUR * 9)
    assert (queue.show(name).state, queue.show(name).attempts) == ("dead", 10)


# Answers that are no store's


@pytest.mark.parametrize("answer", [LOGIN_PAGE, empty_200()], ids=["login page", "nothing"])
def test_an_answer_that_is_no_store_s_opens_the_breaker(queue: Queue, answer: Step) -> None:
    names = [put(queue, numbered(n)) for n in range(6)]
    with ScriptedServer(answer) as server:
        store = DicomwebStore(settings_for(server.dicomweb_url))
        drain_all(drain_of(queue, store), NOW)
        assert len(server.requests) == 3
    assert uids(queue, Filter(state="pending")) == names


def test_a_moment_in_which_nothing_is_supported_does_not_change_the_wire_format() -> None:
    instance = made(1)
    nothing = unsupported_media_type()
    with ScriptedServer(nothing, nothing, stored()) as server:
        store = DicomwebStore(settings_for(server.dicomweb_url))
        (refused,) = store.store([instance]).values()
        assert isinstance(refused, Rejected)
        assert (refused.status, store.wire) == (415, "json")
        (taken,) = store.store([instance]).values()
        assert isinstance(taken, Stored)
        assert store.wire == "json"
    kinds = [parts_of(request)[0][0] for request in server.requests]
    assert kinds == ["application/dicom+json", "application/dicom", "application/dicom+json"]


# Operators, and where nobody listens


def environment(folder: Path, store_url: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "RETRY_QUEUE": str(folder),
        "DATA_DIR": str(folder.parent),
        "DICOMWEB_URL": store_url,
        "UID_NAMESPACE": SECRET,
        "READ_BACK": "never",
    }


def test_what_came_to_life_again_while_the_question_stood_is_not_dropped(
    queue: SqliteQueue, folder: Path
) -> None:
    revived, dead = (put(queue, numbered(n), attempt(REFUSED)) for n in range(2))
    command = subprocess.Popen(
        [COMMAND, "queue", "drop", "--state", "dead"],
        env=environment(folder, "http://127.0.0.1:9"),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    with command:
        assert command.stderr
        asked = b""
        while b"Go on?" not in asked:
            asked += (piece := os.read(command.stderr.fileno(), 4096))
            assert piece, asked
        queue.revive(Filter(instance=revived), NOW)
        _, said = command.communicate(b"y\n", BOUND)
    assert command.returncode == 1
    assert f"{revived}: the entry was dead, and is pending now" in said.decode()
    assert dead not in uids(queue)
    assert queue.show(revived).state == "pending"
    assert queue.load(revived)


def test_a_standard_output_that_takes_nothing_keeps_nothing_from_being_sent(
    queue: SqliteQueue, folder: Path
) -> None:
    for n in range(3):
        put(queue, numbered(n))
    with ScriptedServer(stored()) as store, Path("/dev/full").open("wb") as full:
        process = subprocess.Popen(
            [COMMAND, "retry"],
            env=environment(folder, store.dicomweb_url),
            stdout=full,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until(lambda: process.poll() is not None or not uids(queue))
            process.send_signal(signal.SIGTERM)
            assert process.wait(BOUND) in {0, 120}  # Python's own when its last flush fails
        finally:
            process.kill()
            process.wait(BOUND)
    assert (uids(queue), queue.totals().outcomes) == ([], {"stored": 3})
