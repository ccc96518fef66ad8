"""One instance in the place of another: uploaded again with other content, or described anew."""

import dataclasses
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cache
from pathlib import Path

import pytest

from service.dicom.outcome import Rejected, Unavailable
from service.errors import BeingSent, DamagedEntry, NoSuchEntry, QueueFull
from service.ingest import Attempt, Upload, describe_upload, digest_of
from service.retry import LEASE, Filter, Limits, SqliteQueue
from tests.describing import PHOTOGRAPH, rules
from tests.jpegs import make_jpeg
from tests.queues import (
    DOWN,
    NOW,
    REFUSED,
    ROOMY,
    Made,
    attempt,
    bodies,
    everything,
    fetched,
    leased,
    numbered,
    put,
    sqlite_queue,
    uid_of,
    uids,
)


@cache
def under(policy: str) -> Made:
    """Describe a picture on its side: the same UIDs under each policy, and another codestream."""
    image = make_jpeg(63, 47, orientation=6)
    said = numbered().upload.attributes
    upload = Upload(image, digest_of(image), said, PHOTOGRAPH, "http", "request")
    return Made(upload, describe_upload(upload, rules(UPRIGHT=policy)))


TURNED, LYING = under("reencode"), under("lossless-or-keep")
NAME = uid_of(TURNED)
UNASKED = Unavailable("left alone", asked=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "queue"


@pytest.fixture
def queue(folder: Path) -> Iterator[SqliteQueue]:
    with sqlite_queue(folder) as opened:
        yield opened


def check_is(queue: SqliteQueue, folder: Path, expected: Made) -> None:
    """Hold the only entry, its file and the totals to one instance."""
    (entry,) = everything(queue)
    loaded = fetched(queue, entry.sop_instance_uid)
    assert bodies(loaded.described.instance) == bodies(expected.described.instance)
    assert loaded.described.changes == expected.described.changes
    check_sizes(queue, folder)


def check_sizes(queue: SqliteQueue, folder: Path) -> None:
    """Hold rows and totals to the files that are there, and leave no other."""
    files = {path.name: path.stat().st_size for path in (folder / "entries").iterdir()}
    assert {entry.sop_instance_uid: entry.size for entry in everything(queue)} == files
    assert queue.totals().size == sum(files.values())
    assert list((folder / "incoming").iterdir()) == []


def test_the_two_have_one_name_and_other_bytes() -> None:
    assert uid_of(LYING) == NAME
    assert bodies(LYING.described.instance) != bodies(TURNED.described.instance)


@pytest.mark.parametrize("tried", [None, attempt(at=NOW + 9), attempt(REFUSED, NOW + 9)])
def test_what_waits_stays_what_was_accepted(
    queue: SqliteQueue, folder: Path, tried: Attempt | None
) -> None:
    put(queue, TURNED, attempt())
    put(queue, LYING, tried, NOW + 9)
    check_is(queue, folder, TURNED)
    assert queue.show(NAME).attempts == (2 if tried else 1)


def test_what_is_being_sent_stays_what_was_accepted(queue: SqliteQueue, folder: Path) -> None:
    put(queue, TURNED)
    lease = leased(queue)
    put(queue, LYING, attempt(at=NOW + 9), NOW + 9)
    assert queue.show(NAME) == lease.entry
    check_is(queue, folder, TURNED)
    queue.put_back(lease, NOW + 10, attempt())
    check_is(queue, folder, TURNED)


@pytest.mark.parametrize("tried", [None, attempt(at=NOW + 9), attempt(REFUSED, NOW + 9)])
def test_a_dead_one_is_what_came_last(
    queue: SqliteQueue, folder: Path, tried: Attempt | None
) -> None:
    put(queue, TURNED, attempt(REFUSED))
    put(queue, LYING, tried, NOW + 9)
    check_is(queue, folder, LYING)
    assert queue.show(NAME).first_seen == NOW


DAMAGES: list[Callable[[Path], object]] = [lambda path: path.write_bytes(b"half"), Path.unlink]


@pytest.mark.parametrize("damage", DAMAGES, ids=["damaged", "gone"])
@pytest.mark.parametrize("tried", [None, attempt(), attempt(REFUSED)])
def test_a_damaged_one_is_what_came_last(
    queue: SqliteQueue, folder: Path, tried: Attempt | None, damage: Callable[[Path], object]
) -> None:
    put(queue, TURNED, tried)
    damage(folder / "entries" / NAME)
    put(queue, LYING, attempt(at=NOW + 9), NOW + 9)
    check_is(queue, folder, LYING)


def test_what_is_found_damaged_while_it_is_being_sent_is_mended_too(
    queue: SqliteQueue, folder: Path
) -> None:
    put(queue, TURNED)
    lease = leased(queue)
    (folder / "entries" / NAME).unlink()
    put(queue, LYING, None, NOW + 9)
    shown = queue.show(NAME)
    assert shown == dataclasses.replace(lease.entry, size=shown.size)
    assert shown.size != lease.entry.size
    queue.put_back(lease, NOW + 10, attempt())
    assert (queue.show(NAME).size, queue.totals().size) == (shown.size, shown.size)
    assert bodies(queue.load(NAME).instance) == bodies(LYING.described.instance)


def replace(queue: SqliteQueue, name: str, kept: Made, now: float = NOW + 5) -> None:
    queue.replace(name, kept.upload, kept.described, now)


@pytest.mark.parametrize("tried", [None, attempt(), attempt(REFUSED)])
def test_another_takes_the_place_of_an_entry(
    queue: SqliteQueue, folder: Path, tried: Attempt | None
) -> None:
    old = put(queue, numbered(), tried)
    replace(queue, old, TURNED)
    check_is(queue, folder, TURNED)
    entry = queue.show(NAME)
    assert (entry.state, entry.next_attempt, entry.history) == ("pending", NOW + 5, ())
    assert leased(queue, NOW + 5).entry.sop_instance_uid == NAME


@pytest.mark.parametrize("limits", [Limits(2, ROOMY.size), Limits(99, 1)], ids=["entries", "size"])
def test_a_full_queue_lets_one_take_anothers_place(folder: Path, limits: Limits) -> None:
    with sqlite_queue(folder) as roomy:
        names = [put(roomy, numbered(n)) for n in range(2)]
    with sqlite_queue(folder, limits) as full:
        with pytest.raises(QueueFull):
            put(full, TURNED)
        replace(full, names[0], TURNED)
        assert uids(full) == [names[1], NAME]
        check_sizes(full, folder)


def test_what_is_being_sent_is_not_replaced(queue: SqliteQueue, folder: Path) -> None:
    name = put(queue, numbered())
    lease = leased(queue)
    with pytest.raises(BeingSent):
        replace(queue, name, TURNED, NOW + LEASE - 0.1)
    assert everything(queue) == [lease.entry]
    check_is(queue, folder, numbered())
    replace(queue, name, TURNED, NOW + LEASE)
    queue.put_back(lease, NOW, attempt())
    check_is(queue, folder, TURNED)


@pytest.mark.parametrize("name", ["1.2.3", "../queue.sqlite", ""])
def test_what_is_not_there_is_not_replaced(queue: SqliteQueue, folder: Path, name: str) -> None:
    other = put(queue, numbered())
    with pytest.raises(NoSuchEntry):
        replace(queue, name, TURNED)
    assert uids(queue) == [other]
    check_sizes(queue, folder)


def test_what_is_not_there_costs_no_entry_that_would_have_taken_its_place(
    queue: SqliteQueue, folder: Path
) -> None:
    put(queue, TURNED, attempt(REFUSED))
    before = queue.show(NAME)
    with pytest.raises(NoSuchEntry):
        replace(queue, "1.2.3", LYING)
    assert queue.show(NAME) == before
    check_is(queue, folder, TURNED)


def test_what_takes_a_place_joins_an_entry_of_its_name(queue: SqliteQueue, folder: Path) -> None:
    old = put(queue, numbered())
    put(queue, TURNED, attempt(REFUSED))
    replace(queue, old, LYING)
    check_is(queue, folder, LYING)
    entry = queue.show(NAME)
    assert (entry.state, entry.attempts, entry.reason) == ("pending", 1, REFUSED.reason)


def test_one_who_dies_between_the_two_leaves_the_new_one_only(folder: Path) -> None:
    with sqlite_queue(folder) as queue:
        old = put(queue, numbered(), attempt(REFUSED))
        put(queue, TURNED)
        mark_dropped(folder, old)  # what the one transaction has left, with its file still there
        assert uids(queue) == [NAME]
        with pytest.raises(NoSuchEntry):
            queue.load(old)
        assert queue.revive(Filter(), NOW) == 1
    assert (folder / "entries" / old).exists()
    with sqlite_queue(folder) as queue:
        check_is(queue, folder, TURNED)


def mark_dropped(folder: Path, name: str) -> None:
    """Do to a row, behind the queue's back, what is done before its file goes."""
    with closing(sqlite3.connect(folder / "queue.sqlite")) as index, index:
        index.execute(
            "UPDATE entry SET state = 'dropped', due = NULL, token = NULL"
            " WHERE sop_instance_uid = ?",
            (name,),
        )


def test_a_file_whose_row_was_never_written_is_taken_in_and_the_old_one_stays(
    folder: Path,
) -> None:
    """Whoever replaces dies before the transaction ends."""
    with sqlite_queue(folder) as queue:
        old = put(queue, numbered())
        put(queue, TURNED)
    with closing(sqlite3.connect(folder / "queue.sqlite")) as index, index:
        index.execute("DELETE FROM entry WHERE sop_instance_uid = ?", (NAME,))
    with sqlite_queue(folder) as queue:
        assert uids(queue) == [old, NAME]
        check_sizes(queue, folder)


def test_a_damaged_entry_can_be_replaced(queue: SqliteQueue, folder: Path) -> None:
    name = put(queue, numbered())
    (folder / "entries" / name).unlink()
    with pytest.raises(DamagedEntry):
        queue.load(name)
    replace(queue, name, TURNED)
    check_is(queue, folder, TURNED)


@pytest.mark.parametrize("state", ["pending", "dead"])
def test_an_attempt_that_asked_no_store_leaves_its_reason_and_no_count(
    queue: SqliteQueue, state: str
) -> None:
    name = put(queue, numbered(), attempt(REFUSED if state == "dead" else DOWN))
    before = queue.show(name)
    put(queue, numbered(), attempt(UNASKED, NOW + 9), NOW + 9)
    entry = queue.show(name)
    assert (entry.state, entry.reason) == ("pending", UNASKED.reason)
    assert (entry.attempts, entry.history, entry.wire) == (1, before.history, before.wire)
    assert sum(queue.totals().outcomes.values()) == 1


def test_who_puts_back_without_having_asked_leaves_the_reason(queue: SqliteQueue) -> None:
    name = put(queue, numbered())
    queue.put_back(leased(queue), NOW + 9, attempt(UNASKED))
    entry = queue.show(name)
    assert (entry.reason, entry.attempts, entry.history) == (UNASKED.reason, 0, ())
    assert (entry.wire, entry.next_attempt, queue.totals().outcomes) == ("", NOW + 9, {})


def test_who_buries_without_having_asked_leaves_the_reason(queue: SqliteQueue) -> None:
    name = put(queue, numbered())
    queue.bury(leased(queue), attempt(Rejected("damaged", asked=False)))
    entry = queue.show(name)
    assert (entry.state, entry.reason, entry.attempts) == ("dead", "damaged", 0)
    assert queue.totals().outcomes == {}
