"""The contract of every retry queue that is read: filters, and pages without gaps."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from service.dicom.outcome import Unavailable
from service.errors import BadRequest
from service.retry import Filter, Queue, schema
from tests.queues import (
    NOW,
    OPENERS,
    REFUSED,
    ROOMY,
    attempt,
    everything,
    leased,
    numbered,
    put,
    sqlite_queue,
    uids,
)


@pytest.fixture(params=OPENERS)
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Queue]:
    with OPENERS[request.param](tmp_path / "queue", ROOMY) as opened:
        yield opened


def fill(queue: Queue, count: int) -> list[str]:
    return [put(queue, numbered(n), now=NOW + n) for n in range(count)]


def test_a_list_holds_what_is_asked_for(queue: Queue) -> None:
    waiting = put(queue, numbered(0), attempt(Unavailable("Connection REFUSED")))
    other_study = put(queue, numbered(100), None)
    dead = put(queue, numbered(1), attempt(REFUSED))
    for chosen, expected in {
        Filter(): [waiting, other_study, dead],
        Filter(state="pending"): [waiting, other_study],
        Filter(state="dead"): [dead],
        Filter(state="leased"): [],
        Filter(state="dropped"): [],
        Filter(reason="refused"): [waiting],
        Filter(reason="Says NO"): [dead],
        Filter(reason="%"): [],
        Filter(study="1.2.0"): [waiting, dead],
        Filter(study="1.2"): [],
        Filter(instance=dead): [dead],
        Filter(state="pending", study="1.2.0"): [waiting],
    }.items():
        assert uids(queue, chosen) == expected, chosen
    assert leased(queue).entry.sop_instance_uid == waiting
    assert uids(queue, Filter(state="leased")) == [waiting]


def pages(queue: Queue, limit: int, meanwhile: Callable[[], object]) -> list[str]:
    found: list[str] = []
    after = ""
    while True:
        page = queue.list(Filter(), limit, after)
        assert len(page.entries) <= limit
        found += [entry.sop_instance_uid for entry in page.entries]
        after = page.after
        if not after:
            return found
        meanwhile()


@pytest.mark.parametrize("limit", [1, 3, 4, 12, 13])
def test_pages_together_are_the_whole_list(queue: Queue, limit: int) -> None:
    names = fill(queue, 12)
    assert pages(queue, limit, lambda: None) == names


def test_pages_have_no_gap_while_entries_come_and_go(queue: Queue) -> None:
    names = fill(queue, 12)
    going = iter([names[i] for i in (0, 1, 4, 5, 10)])
    coming = iter(range(12, 40))

    def change() -> None:
        queue.finish(next(going, "1.2.3"))
        put(queue, numbered(next(coming)))

    found = pages(queue, 2, change)
    stayed = [name for name in names if name in uids(queue)]
    assert len(set(found)) == len(found)
    assert [name for name in found if name in stayed] == stayed


def test_what_comes_while_a_list_is_read_is_at_its_end(queue: Queue) -> None:
    names = fill(queue, 4)
    page = queue.list(Filter(), 2)
    for name in names[1:]:
        queue.finish(name)
    newest = put(queue, numbered(50))
    (found,) = queue.list(Filter(), 2, page.after).entries
    assert found.sop_instance_uid == newest


@pytest.mark.parametrize("after", ["x", "-1", "1.5", "9" * 40, "٣"])
def test_a_place_that_no_list_has_is_refused(queue: Queue, after: str) -> None:
    with pytest.raises(BadRequest):
        queue.list(Filter(), 1, after)


def test_behind_two_thousand_that_wait_for_their_time_whichever_is_due_longest_is_taken(
    tmp_path: Path,
) -> None:
    with sqlite_queue(tmp_path / "queue") as queue:
        put(queue, numbered())
        (entry,) = everything(queue)
        with queue._database.writing() as connection:
            schema.save(connection, replace(entry, next_attempt=NOW + 60))
            for n in range(2002):
                due = {2000: NOW - 1, 2001: NOW - 2}.get(n, NOW + 60)
                schema.save(connection, replace(entry, sop_instance_uid=f"1.{n}", next_attempt=due))
        assert [leased(queue).entry.sop_instance_uid for _ in range(2)] == ["1.2001", "1.2000"]
        assert queue.lease(NOW) is None
