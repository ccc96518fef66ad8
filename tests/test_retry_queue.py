"""The contract of every retry queue: what it is given it keeps, and gives to one at a time."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from service.dicom.outcome import Stored, Unavailable
from service.errors import BeingSent, EntryChanged, NoSuchEntry, QueueFull
from service.ingest import Attempt
from service.retry import LEASE, Filter, Limits, Past, Queue
from tests.queues import (
    DOWN,
    NOW,
    OPENERS,
    REFUSED,
    ROOMY,
    attempt,
    bodies,
    everything,
    fetched,
    leased,
    numbered,
    put,
    uid_of,
    uids,
)

DAY = 86_400.0
UNKNOWN = ["1.2.3", "../x", "../queue.sqlite", "", ".", "a" * 300, "x\0y", "1.2.3' OR '1'='1"]

Open = Callable[..., Queue]


@pytest.fixture(params=OPENERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def open_queue(kind: str, tmp_path: Path) -> Iterator[Open]:
    """Open the same queue as often as wanted; all are closed at the end."""
    with ExitStack() as opened:
        yield lambda limits=ROOMY: opened.enter_context(OPENERS[kind](tmp_path / "queue", limits))


@pytest.fixture
def queue(open_queue: Open) -> Queue:
    return open_queue()


def fill(queue: Queue, count: int) -> list[str]:
    """Put entries in, one a second."""
    return [put(queue, numbered(n), now=NOW + n) for n in range(count)]


def test_what_is_put_in_is_shown_listed_and_loaded(queue: Queue) -> None:
    kept = numbered()
    name = put(queue, kept, attempt())
    shown = queue.show(name)
    instance = kept.described.instance
    assert (shown.sop_instance_uid, shown.sop_class_uid) == (name, instance.sop_class_uid)
    assert shown.study_instance_uid == instance.study_instance_uid
    assert shown.series_instance_uid == instance.series_instance_uid
    assert shown.transfer_syntax == instance.transfer_syntax
    assert (shown.template, shown.source) == (kept.upload.template, "file")
    assert (shown.wire, shown.state, shown.attempts) == ("json", "pending", 1)
    assert (shown.first_seen, shown.since, shown.next_attempt) == (NOW, NOW, NOW)
    assert shown.reason == DOWN.reason
    assert shown.history == (Past(NOW, "unavailable", 503, DOWN.reason, "json"),)
    assert shown.size > len(b"".join(instance.codestream))
    assert everything(queue) == [shown]
    loaded = fetched(queue, name)
    assert bodies(loaded.described.instance) == bodies(instance)
    assert loaded.described.changes == kept.described.changes
    assert (loaded.upload.attributes, loaded.upload.digest) == (
        kept.upload.attributes,
        kept.upload.digest,
    )


def test_what_was_not_tried_has_no_history(queue: Queue) -> None:
    shown = queue.show(put(queue, numbered()))
    assert (shown.attempts, shown.reason, shown.wire, shown.history) == (0, "", "", ())


def test_the_same_instance_twice_is_one_entry_in_its_place(queue: Queue) -> None:
    first, second = fill(queue, 2)
    put(queue, numbered(0), attempt(at=NOW + 9), NOW + 9)
    assert uids(queue) == [first, second]
    shown = queue.show(first)
    assert (shown.attempts, shown.first_seen, shown.since) == (1, NOW, NOW)
    assert queue.totals().entries["pending"] == 2


def test_a_refusal_kills_and_another_try_revives(queue: Queue) -> None:
    name = put(queue, numbered(), attempt())
    put(queue, numbered(), attempt(REFUSED), NOW + 1)
    dead = queue.show(name)
    assert (dead.state, dead.next_attempt, dead.reason) == ("dead", None, REFUSED.reason)
    assert queue.lease(NOW + DAY) is None
    put(queue, numbered(), attempt(), NOW + 2)
    again = queue.show(name)
    assert (again.state, again.next_attempt, again.since) == ("pending", NOW + 2, NOW + 2)
    assert [past.outcome for past in again.history] == ["unavailable", "rejected", "unavailable"]


def test_a_dead_one_waits_again_where_nobody_has_asked(queue: Queue) -> None:
    name = put(queue, numbered(), attempt(REFUSED))
    assert queue.show(name).state == "dead"
    put(queue, numbered(), None, NOW + 5)
    shown = queue.show(name)
    assert (shown.state, shown.next_attempt, shown.attempts) == ("pending", NOW + 5, 1)


@pytest.mark.parametrize("tried", [attempt(), attempt(REFUSED), None])
def test_what_is_being_sent_is_left_alone(queue: Queue, tried: Attempt | None) -> None:
    put(queue, numbered())
    lease = leased(queue)
    put(queue, numbered(), tried, NOW + 1)
    assert queue.show(uid_of(numbered())) == lease.entry
    queue.put_back(lease, NOW + 7, None)
    assert queue.show(uid_of(numbered())).next_attempt == NOW + 7


def test_the_oldest_of_those_whose_time_has_come_is_leased_first(queue: Queue) -> None:
    names = fill(queue, 4)
    first = leased(queue, NOW + 9)
    queue.put_back(first, NOW + 60, attempt())
    assert [leased(queue, NOW + 10).entry.sop_instance_uid for _ in range(3)] == names[1:]
    assert queue.lease(NOW + 10) is None


def test_nothing_is_leased_before_its_time(queue: Queue) -> None:
    name = put(queue, numbered(), attempt(Unavailable("busy", retry_after=30.0, status=429)))
    assert queue.show(name).next_attempt == NOW + 30
    assert queue.lease(NOW + 29.9) is None
    assert leased(queue, NOW + 30).entry.sop_instance_uid == name


def test_a_store_can_keep_nobody_waiting_for_longer_than_ten_minutes(queue: Queue) -> None:
    name = put(queue, numbered(), attempt(Unavailable("gone fishing", retry_after=1e9)))
    assert queue.show(name).next_attempt == NOW + 600


def test_a_leased_entry_comes_back_by_itself_to_another_holder(queue: Queue) -> None:
    put(queue, numbered())
    first = leased(queue)
    assert (first.entry.state, first.entry.next_attempt) == ("leased", NOW + LEASE)
    assert queue.lease(NOW + LEASE - 0.1) is None
    second = leased(queue, NOW + LEASE)
    assert second.entry.sop_instance_uid == first.entry.sop_instance_uid
    assert second.token != first.token


def test_a_lease_that_is_renewed_lasts(queue: Queue) -> None:
    fill(queue, 2)
    leases = [leased(queue, NOW + 2) for _ in range(2)]
    for moment in (NOW + 20, NOW + 45, NOW + 70):
        queue.renew(leases, moment)
        assert queue.lease(moment + LEASE - 1) is None
    queue.put_back(leases[0], NOW + 99, attempt())
    assert queue.show(leases[0].entry.sop_instance_uid).attempts == 1


def test_a_lease_that_somebody_else_has_taken_changes_nothing(queue: Queue) -> None:
    name = put(queue, numbered())
    stale = leased(queue)
    current = leased(queue, NOW + LEASE)
    queue.put_back(stale, NOW, attempt())
    queue.bury(stale, attempt(REFUSED))
    queue.renew([stale], NOW + DAY)
    assert queue.show(name) == current.entry


def test_a_lease_of_what_is_gone_changes_nothing(queue: Queue) -> None:
    name = put(queue, numbered())
    lease = leased(queue)
    queue.finish(name)
    queue.put_back(lease, NOW, attempt())
    queue.bury(lease, attempt(REFUSED))
    queue.renew([lease], NOW)
    assert uids(queue) == []
    put(queue, numbered(), None, NOW + 1)
    queue.bury(lease, attempt(REFUSED))
    assert queue.show(name).state == "pending"


def test_a_lease_that_ran_out_and_nobody_took_still_settles(queue: Queue) -> None:
    name = put(queue, numbered())
    lease = leased(queue)
    queue.bury(lease, attempt(REFUSED, NOW + 99))
    assert queue.show(name).state == "dead"


def test_who_put_an_entry_back_without_an_attempt_has_never_had_it(queue: Queue) -> None:
    name = put(queue, numbered())
    before = queue.show(name)
    queue.put_back(leased(queue), NOW, None)
    assert queue.show(name) == before


def test_anybody_may_finish_an_entry(queue: Queue) -> None:
    names = fill(queue, 3)
    leased(queue, NOW + 3)
    for name in names:
        queue.finish(name)
        queue.finish(name)
    assert uids(queue) == []
    assert queue.totals().size == 0


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_there_is_told(queue: Queue, name: str) -> None:
    put(queue, numbered())
    before = everything(queue)
    for act in (queue.show, queue.load, partial(queue.drop, now=NOW)):
        with pytest.raises(NoSuchEntry, match="no such entry"):
            act(name)
    queue.finish(name)
    assert queue.revive(Filter(instance=name or "none"), NOW) == 0
    assert everything(queue) == before
    assert bodies(queue.load(uid_of(numbered())).instance)


def test_a_dropped_entry_is_gone(queue: Queue) -> None:
    one, other = fill(queue, 2)
    queue.drop(one, NOW)
    with pytest.raises(NoSuchEntry):
        queue.show(one)
    assert uids(queue) == [other]
    assert put(queue, numbered(0), None, NOW + 5) == one
    assert bodies(queue.load(one).instance) == bodies(numbered(0).described.instance)


def test_what_is_being_sent_is_not_dropped_until_its_lease_has_run_out(queue: Queue) -> None:
    name = put(queue, numbered())
    lease = leased(queue)
    for moment in (NOW, NOW + LEASE - 0.1):
        with pytest.raises(BeingSent):
            queue.drop(name, moment)
    queue.drop(name, NOW + LEASE)
    queue.put_back(lease, NOW, attempt())
    assert uids(queue) == []


def test_what_has_changed_its_state_is_not_dropped(queue: Queue) -> None:
    name = put(queue, numbered(), attempt(REFUSED))
    queue.revive(Filter(), NOW)
    before = queue.show(name)
    with pytest.raises(EntryChanged, match="was dead, and is pending now"):
        queue.drop(name, NOW, "dead")
    assert queue.show(name) == before
    queue.drop(name, NOW, "pending")
    assert uids(queue) == []


@pytest.mark.parametrize("shift", [-DAY, DAY])
def test_a_clock_that_was_set_loses_nothing(queue: Queue, shift: float) -> None:
    names = fill(queue, 4)
    leased(queue, NOW + 4)
    queue.put_back(leased(queue, NOW + 4), NOW + 500, attempt())
    then = NOW + shift
    queue.drop(names[3], then)
    assert [leased(queue, then).entry.sop_instance_uid for _ in range(3)] == names[:3]
    assert queue.lease(then) is None
    assert leased(queue, then + LEASE).entry.sop_instance_uid == names[0]


def test_a_clock_that_was_set_back_keeps_no_lease_from_being_dropped(queue: Queue) -> None:
    name = put(queue, numbered())
    leased(queue)
    queue.drop(name, NOW - DAY)
    assert uids(queue) == []


def test_what_is_revived_is_tried_at_once_and_is_young_again(queue: Queue) -> None:
    dead = put(queue, numbered(0), attempt(REFUSED))
    waiting = put(queue, numbered(1), attempt(Unavailable("busy", retry_after=500.0)))
    sending = put(queue, numbered(2))
    leased(queue)
    assert queue.revive(Filter(state="dead"), NOW + 5) == 1
    assert queue.revive(Filter(), NOW + 7) == 2
    shown = queue.show(dead)
    assert (shown.state, shown.since, shown.next_attempt) == ("pending", NOW + 7, NOW + 7)
    assert (shown.first_seen, shown.attempts) == (NOW, 1)
    assert queue.show(sending).state == "leased"
    assert [leased(queue, NOW + 7).entry.sop_instance_uid for _ in range(2)] == [dead, waiting]


def test_totals_count_entries_bytes_and_outcomes(queue: Queue) -> None:
    assert queue.totals().oldest is None
    fill(queue, 3)
    put(queue, numbered(3), attempt(REFUSED), NOW - 9)
    first = leased(queue, NOW + 3)
    totals = queue.totals()
    assert totals.entries == {"pending": 2, "leased": 1, "dead": 1}
    assert totals.size == sum(entry.size for entry in everything(queue))
    assert totals.oldest == NOW
    queue.put_back(first, NOW, attempt())
    again = leased(queue, NOW + 3)
    queue.finish(again.entry.sop_instance_uid, attempt(Stored()))
    totals = queue.totals()
    assert totals.outcomes == {"rejected": 1, "unavailable": 1, "stored": 1}
    assert totals.oldest == NOW + 1


def test_the_last_ten_attempts_are_remembered(queue: Queue) -> None:
    name = put(queue, numbered())
    for n in range(12):
        failed = attempt(Unavailable(f"no {n}", status=500 + n), NOW + n)
        queue.put_back(leased(queue, NOW + n), NOW + n, failed)
    shown = queue.show(name)
    assert [past.reason for past in shown.history] == [f"no {n}" for n in range(2, 12)]
    assert (shown.attempts, shown.reason, shown.history[-1].status) == (12, "no 11", 511)


@pytest.mark.parametrize("by", ["entries", "size"])
def test_a_full_queue_takes_only_what_it_has(open_queue: Open, by: str) -> None:
    roomy = open_queue()
    names = fill(roomy, 3)
    sizes = roomy.totals().size
    full = open_queue(Limits(3, ROOMY.size) if by == "entries" else Limits(99, sizes))
    with pytest.raises(QueueFull, match=f"QUEUE_MAX_{'BYTES' if by == 'size' else 'ENTRIES'}"):
        put(full, numbered(3))
    assert uids(full) == names
    put(full, numbered(1), attempt(), NOW + 9)
    assert full.show(names[1]).attempts == 1
    full.drop(names[0], NOW)
    put(full, numbered(0))
    assert len(uids(full)) == 3
