"""What drains the queue, and what becomes of an entry that is sent: stored, put back, given up."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.dicom.outcome import Outcome, Stored, Unavailable
from service.errors import JpegstowError, QueueUnusable
from service.retry import LEASE, Drain, Lease, Limits, Queue
from tests.queues import (
    DOWN,
    NOW,
    REFUSED,
    WEEK,
    Shelf,
    attempt,
    drain_of,
    everything,
    numbered,
    put,
    sqlite_queue,
    uids,
)


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    with sqlite_queue(tmp_path / "queue") as opened:
        yield opened


def once(drain: Drain, now: float) -> Outcome:
    """Send one entry, and settle it."""
    lease = taken(drain, now)
    outcome = drain.send(lease)
    drain.settle(lease, outcome, now)
    return outcome


def taken(drain: Drain, now: float) -> Lease:
    lease = drain.take(now)
    assert lease
    return lease


def logged(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_wrong_credentials_are_never_given_up_and_are_loud(
    queue: Queue, capsys: pytest.CaptureFixture[str]
) -> None:
    name = put(queue, numbered())
    denied = Unavailable("the store doesn't accept them (401)", status=401, operator=True)
    drain = drain_of(queue, Shelf(denied))
    for day in range(30):
        assert once(drain, NOW + 86_400 * day) == denied
    entry = queue.show(name)
    assert (entry.state, entry.attempts) == ("pending", 30)
    lines = logged(capsys)
    assert [line["severity"] for line in lines] == ["ERROR"] * 30
    assert lines[-1] | {"time": ""} == {
        "severity": "ERROR",
        "message": "retry",
        "time": "",
        "SOPInstanceUID": name,
        "outcome": "unavailable",
        "reason": "status 401",
        "attempts": 30,
    }


def test_what_has_waited_for_too_long_is_given_up(queue: Queue) -> None:
    name = put(queue, numbered())
    drain = drain_of(queue, Shelf(DOWN), max_age=86_400.0)
    for hour in range(1, 24):
        once(drain, NOW + 3600 * hour)
    assert queue.show(name).state == "pending"
    once(drain, NOW + 86_400)
    entry = queue.show(name)
    assert (entry.state, entry.attempts, entry.reason) == ("dead", 24, DOWN.reason)


def test_what_nobody_could_try_for_long_is_tried_some_times_before_it_is_given_up(
    queue: Queue,
) -> None:
    name = put(queue, numbered())
    drain = drain_of(queue, Shelf(DOWN))
    for hour in range(9):
        once(drain, NOW + WEEK + 3600 * hour)
    assert queue.show(name).state == "pending"
    once(drain, NOW + WEEK + 3600 * 9)
    assert queue.show(name).state == "dead"


def test_a_refusal_is_for_the_operator(queue: Queue, capsys: pytest.CaptureFixture[str]) -> None:
    name = put(queue, numbered())
    once(drain_of(queue, Shelf(REFUSED)), NOW)
    assert (queue.show(name).state, queue.show(name).reason) == ("dead", REFUSED.reason)
    (line,) = logged(capsys)
    assert (line["severity"], line["reason"]) == ("ERROR", "status 409, failure reason 0110H")


def damage(folder: Path, name: str) -> None:
    (folder / "entries" / name).write_bytes(b"not what was written")


def test_a_damaged_entry_is_dead_and_says_why(queue: Queue, tmp_path: Path) -> None:
    name = put(queue, numbered())
    damage(tmp_path / "queue", name)
    shelf = Shelf()
    once(drain_of(queue, shelf), NOW)
    assert shelf.asked == []
    entry = queue.show(name)
    assert (entry.state, entry.attempts, entry.history) == ("dead", 0, ())
    assert "damaged or gone" in entry.reason
    assert queue.totals().outcomes == {}


def test_what_cannot_be_read_now_says_why_and_is_never_given_up_for_it(
    queue: Queue, tmp_path: Path
) -> None:
    name = put(queue, numbered())
    shelf = Shelf()
    drain = drain_of(queue, shelf, max_age=100.0)
    entries = tmp_path / "queue" / "entries"
    entries.rename(tmp_path / "elsewhere")
    for day in range(3):
        outcome = once(drain, NOW + 86_400 * day)
        assert isinstance(outcome, Unavailable)
        entry = queue.show(name)
        assert (entry.state, entry.attempts, entry.history) == ("pending", 0, ())
        assert entry.reason == outcome.reason
    assert "can't be read" in queue.show(name).reason
    assert (shelf.asked, queue.totals().outcomes) == ([], {})
    (tmp_path / "elsewhere").rename(entries)
    assert once(drain, NOW + 86_400 * 3) == Stored()


def test_a_damaged_entry_says_nothing_of_the_store(queue: Queue, tmp_path: Path) -> None:
    names = [put(queue, numbered(n)) for n in range(6)]
    damage(tmp_path / "queue", names[3])
    shelf = Shelf(DOWN)
    drain = drain_of(queue, shelf)
    for _ in range(3):
        once(drain, NOW)
    assert drain.take(NOW) is None
    lease = taken(drain, NOW + 1)
    assert lease.entry.sop_instance_uid == names[3]
    drain.settle(lease, drain.send(lease), NOW + 1)
    taken(drain, NOW + 1)
    assert drain.take(NOW + 1) is None  # nobody has said that the store is back


def test_an_unforeseen_error_is_an_attempt_that_failed(
    queue: Queue, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [put(queue, numbered(n)) for n in range(4)]
    shelf = Shelf(ZeroDivisionError("Yamada^Tarou"))
    drain = drain_of(queue, shelf)
    for _ in range(3):
        once(drain, NOW)
    assert drain.take(NOW) is None
    assert [entry.attempts for entry in everything(queue)] == [1, 1, 1, 0]
    assert queue.show(names[0]).reason == "the service failed (ZeroDivisionError)"
    text = capsys.readouterr().out
    assert "ZeroDivisionError" in text
    assert "Yamada" not in text
    shelf.answer = Stored()
    for second in range(10, 14):
        once(drain, NOW + second)
    assert uids(queue) == []


def test_an_entry_that_is_gone_is_no_attempt(queue: Queue) -> None:
    put(queue, numbered())
    shelf = Shelf(DOWN)
    drain = drain_of(queue, shelf)
    lease = taken(drain, NOW)
    queue.finish(lease.entry.sop_instance_uid)
    outcome = drain.send(lease)
    drain.settle(lease, outcome, NOW)
    assert (shelf.asked, uids(queue), queue.totals().outcomes) == ([], [], {})


def test_what_cannot_be_settled_comes_back_when_its_lease_runs_out(
    queue: Queue, tmp_path: Path
) -> None:
    put(queue, numbered())
    drain = drain_of(queue, Shelf())
    lease = taken(drain, NOW)
    outcome = drain.send(lease)
    lock = tmp_path / "queue" / "write.lock"
    lock.unlink()
    lock.mkdir()
    with pytest.raises(QueueUnusable):
        drain.settle(lease, outcome, NOW)
    lock.rmdir()
    assert drain.held == []
    assert drain.take(NOW + LEASE - 1) is None
    assert once(drain, NOW + LEASE) == Stored()
    assert uids(queue) == []


def test_a_queue_that_cannot_be_read_costs_no_probe(queue: Queue, tmp_path: Path) -> None:
    for n in range(4):
        put(queue, numbered(n))
    drain = drain_of(queue, Shelf(DOWN))
    for _ in range(3):
        once(drain, NOW)
    lock = tmp_path / "queue" / "write.lock"
    lock.unlink()
    lock.mkdir()
    with pytest.raises(JpegstowError):
        drain.take(NOW + 1)
    lock.rmdir()
    assert once(drain, NOW + 1) == DOWN


def test_a_failure_halves_how_many_are_sent_at_once(queue: Queue) -> None:
    for n in range(10):
        put(queue, numbered(n))
    drain = drain_of(queue, Shelf(Stored()))
    for _ in range(3):
        once(drain, NOW)
    first, second, *_ = [taken(drain, NOW) for _ in range(4)]
    assert drain.take(NOW) is None
    drain.settle(first, DOWN, NOW)
    drain.settle(second, Unavailable("it could not be read", asked=False), NOW)
    assert len(drain.held) == 2
    assert drain.take(NOW) is None


def test_what_is_put_back_was_never_taken(queue: Queue) -> None:
    before = [queue.show(put(queue, numbered(n))) for n in range(3)]
    drain = drain_of(queue, Shelf())
    for _ in range(2):
        once(drain, NOW)
    drain.put_back_all(NOW)
    taken(drain, NOW)
    assert len(drain.held) == 1
    drain.put_back_all(NOW)
    assert drain.held == []
    assert everything(queue) == before[2:]


def test_a_full_queue_drains(tmp_path: Path) -> None:
    with sqlite_queue(tmp_path / "full", Limits(3, 1 << 30)) as full:
        for n in range(3):
            put(full, numbered(n), attempt())
        drain = drain_of(full, Shelf())
        for _ in range(3):
            once(drain, NOW)
        assert uids(full) == []
