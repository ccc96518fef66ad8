"""The line's last step: what the store doesn't take is kept, and what it has is let go of."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.dicom.outcome import Outcome, Stored, Unavailable
from service.errors import NotAJpeg, QueueFull, QueueUnusable
from service.ingest import Result, Upload, ingest
from service.retry import Breaker, GuardedStore, Limits, SqliteQueue, UnaskedStore
from service.retry.breaker import Permit
from tests.describing import rules
from tests.queues import (
    DOWN,
    NOW,
    REFUSED,
    ROOMY,
    Shelf,
    attempt,
    bodies,
    leased,
    numbered,
    put,
    sqlite_queue,
    uid_of,
    uids,
)

RULES = rules()
UPLOAD = numbered().upload
NAME = uid_of(numbered())


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[SqliteQueue]:
    with sqlite_queue(tmp_path / "queue") as opened:
        yield opened


def take(queue: SqliteQueue, answer: Outcome, *uploads: Upload) -> list[Result]:
    return ingest(uploads or [UPLOAD], RULES, Shelf(answer), queue, lambda: NOW)


def test_what_is_stored_is_not_kept(queue: SqliteQueue) -> None:
    (result,) = take(queue, Stored())
    assert (result.outcome, result.kept) == (Stored(), False)
    assert uids(queue) == []


def test_what_is_stored_is_let_go_of(queue: SqliteQueue) -> None:
    put(queue, numbered(0), attempt(REFUSED))
    other = put(queue, numbered(1), attempt())
    take(queue, Stored(duplicate=True))
    assert uids(queue) == [other]


def test_what_is_stored_is_let_go_of_though_it_is_being_sent(queue: SqliteQueue) -> None:
    put(queue, numbered())
    lease = leased(queue)
    take(queue, Stored())
    queue.put_back(lease, NOW, attempt())
    assert uids(queue) == []


def test_what_the_store_cannot_take_now_waits(queue: SqliteQueue) -> None:
    (result,) = take(queue, DOWN)
    assert (result.outcome, result.kept) == (DOWN, True)
    entry = queue.show(NAME)
    assert (entry.state, entry.attempts, entry.reason) == ("pending", 1, DOWN.reason)
    assert (entry.first_seen, entry.wire, entry.history[0].at) == (NOW, "json", NOW)
    expected = bodies(numbered().described.instance)
    assert bodies(queue.load(NAME).instance) == expected


@pytest.mark.parametrize("guarded", [False, True])
def test_what_nobody_has_asked_the_store_for_has_not_been_tried(
    queue: SqliteQueue,
    guarded: bool,  # noqa: FBT001
) -> None:
    breaker = Breaker()
    breaker.record(Unavailable("busy", retry_after=60.0), 0.0, Permit())
    shelf = Shelf()
    store = GuardedStore(shelf, breaker, None, lambda: 1.0) if guarded else UnaskedStore()
    (result,) = ingest([UPLOAD], RULES, store, queue, lambda: NOW)
    assert isinstance(result.outcome, Unavailable)
    assert result.kept
    assert shelf.asked == []
    entry = queue.show(NAME)
    assert (entry.state, entry.attempts, entry.next_attempt) == ("pending", 0, NOW)
    assert queue.totals().outcomes == {}


def test_what_the_store_refuses_is_kept_for_the_operator(queue: SqliteQueue) -> None:
    (result,) = take(queue, REFUSED)
    assert (result.outcome, result.kept) == (REFUSED, True)
    entry = queue.show(NAME)
    assert (entry.state, entry.reason, entry.next_attempt) == ("dead", REFUSED.reason, None)


@pytest.mark.parametrize("answer", [DOWN, REFUSED, Unavailable("later", asked=False)])
def test_what_a_full_queue_does_not_take_is_told(tmp_path: Path, answer: Outcome) -> None:
    with sqlite_queue(tmp_path / "queue", Limits(1, ROOMY.size)) as queue:
        put(queue, numbered(1))
        (result,) = take(queue, answer)
        assert isinstance(result.outcome, QueueFull)
        assert not result.kept
        assert result.described
        assert uids(queue) == [uid_of(numbered(1))]
        (stored,) = take(queue, Stored())
        assert stored.outcome == Stored()


def test_what_a_broken_queue_does_not_take_is_told(queue: SqliteQueue, tmp_path: Path) -> None:
    (tmp_path / "queue" / "incoming").rmdir()
    (result,) = take(queue, DOWN)
    assert isinstance(result.outcome, QueueUnusable)
    assert not result.kept


def test_what_is_stored_is_stored_though_the_queue_is_broken(
    queue: SqliteQueue, tmp_path: Path
) -> None:
    put(queue, numbered())
    lock = tmp_path / "queue" / "write.lock"
    lock.unlink()
    lock.mkdir()
    (result,) = take(queue, Stored())
    assert (result.outcome, result.kept) == (Stored(), False)


def test_the_same_picture_twice_is_asked_for_once_and_kept_once(queue: SqliteQueue) -> None:
    shelf = Shelf(DOWN)
    results = ingest([UPLOAD, UPLOAD], RULES, shelf, queue, lambda: NOW)
    assert [result.kept for result in results] == [True, True]
    assert shelf.asked == [NAME]
    assert uids(queue) == [NAME]


def test_one_try_is_counted_once_for_the_same_picture_twice(queue: SqliteQueue) -> None:
    take(queue, DOWN, UPLOAD, UPLOAD)
    assert queue.show(NAME).attempts == 1
    assert queue.totals().outcomes == {"unavailable": 1}


def test_each_picture_of_a_request_has_a_fate_of_its_own(queue: SqliteQueue) -> None:
    junk = Upload(b"%PDF", "0" * 64, UPLOAD.attributes, UPLOAD.template, "http", "request")
    results = take(queue, DOWN, UPLOAD, junk, numbered(1).upload)
    assert [result.kept for result in results] == [True, False, True]
    assert isinstance(results[1].outcome, NotAJpeg)
    assert uids(queue) == [NAME, uid_of(numbered(1))]


def test_without_a_queue_nothing_is_kept() -> None:
    (result,) = ingest([UPLOAD], RULES, Shelf(DOWN))
    assert (result.outcome, result.kept) == (DOWN, False)
