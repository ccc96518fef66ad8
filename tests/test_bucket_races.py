"""The retry queue in a bucket under several who use it at once, and who die on the way.

What they do is answered in an order that the test chooses, request by request (`peers.turns`).
"""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import BeingSent, JpegstowError, NoSuchEntry
from service.gcp.objects import Buckets
from service.gcp.queue import BucketQueue, Records
from service.retry import Filter, Lease
from tests.peers.buckets import Bucket, BucketServer
from tests.peers.turns import Turns
from tests.queues import (
    NOW,
    REFUSED,
    ROOMY,
    Bell,
    attempt,
    bodies,
    everything,
    numbered,
    put,
    uid_of,
    uids,
)

NAME: Final = uid_of(numbered(0))
OTHER: Final = uid_of(numbered(3))
MENDED: Final = (numbered(3).upload, numbered(3).described)
UNHEARD: Final = 1 << 30  # requests: all that one may ever send

Act = Callable[[BucketQueue], object]


class Began(NamedTuple):
    """Somebody's part in a race, and how many requests he lives for."""

    act: str
    lives: int


def over(server: BucketServer) -> BucketQueue:
    return BucketQueue(Records(Buckets(server.url), "gs://pictures", "a/queue"), Bell(), ROOMY)


def much_later() -> float:
    """Return a moment at which no upload of the test can be under way any more."""
    return time.time() + 7200


def sending(settle: Callable[[BucketQueue, Lease], object]) -> Act:
    def act(queue: BucketQueue) -> object:
        lease = queue.lease_entry(NAME, NOW + 1)
        if lease:
            settle(queue, lease)
        return lease

    return act


ACTS: Final[dict[str, Act]] = {
    "put": lambda queue: put(queue, numbered(0), attempt()),
    "put what is refused": lambda queue: put(queue, numbered(0), attempt(REFUSED)),
    "lease": lambda queue: queue.lease_entry(NAME, NOW + 1),
    "finish": sending(lambda queue, _: queue.finish(NAME)),
    "put back": sending(lambda queue, lease: queue.put_back(lease, NOW, attempt())),
    "bury": sending(lambda queue, lease: queue.bury(lease, attempt(REFUSED))),
    "drop": lambda queue: queue.drop(NAME, NOW),
    "replace": lambda queue: queue.replace(NAME, *MENDED, NOW),
    "revive": lambda queue: queue.revive(Filter(), NOW),
    "sweep": lambda queue: queue.sweep(much_later(), 60.0),
}
REMOVING: Final = {"finish", "drop", "replace"}
STARTS: Final[dict[str, Act]] = {
    "nothing": lambda _: None,
    "pending": lambda queue: put(queue, numbered(0), attempt()),
    "dead": lambda queue: put(queue, numbered(0), attempt(REFUSED)),
}


def started(start: str) -> Bucket:
    bucket = Bucket()
    with BucketServer(bucket) as server:
        STARTS[start](over(server))
    return bucket


@pytest.fixture(scope="module")
def turns() -> Iterator[Turns]:
    with Turns(3) as turns:
        yield turns


def check_at_rest(queue: BucketQueue) -> set[str]:
    """Return the ids of what is there: each once, to be found by its id, and whole."""
    there = uids(queue)
    assert len(set(there)) == len(there)
    for name, made in ((NAME, numbered(0)), (OTHER, numbered(3))):
        if name in there:
            assert bodies(queue.load(name).instance) == bodies(made.described.instance)
        else:
            with pytest.raises(NoSuchEntry):
                queue.show(name)
    return set(there)


def check_nothing_is_left_over(bucket: Bucket) -> None:
    """Hold the bucket to one payload and one record for each instance."""
    records = {name.split("/")[3] for name in bucket.objects if "/records/" in name}
    both = [name.split("/", 3)[3] for name in bucket.objects]
    assert len(both) == 2 * len(set(both)) == 2 * len(records)


@settings(max_examples=120, deadline=None)
@given(
    start=st.sampled_from(sorted(STARTS)),
    began=st.lists(
        st.builds(
            Began,
            st.sampled_from(sorted(ACTS)),
            st.one_of(st.just(UNHEARD), st.integers(1, 11)),
        ),
        min_size=2,
        max_size=3,
    ),
    order=st.lists(st.integers(0, 5), max_size=40),
)
def test_whoever_meets_or_dies_nothing_is_lost_doubled_or_brought_back(
    turns: Turns, start: str, began: list[Began], order: list[int]
) -> None:
    bucket = started(start)
    acts = [partial(ACTS[one.act], over(turns.servers[at])) for at, one in enumerate(began)]
    results = turns.run(bucket, acts, order, [one.lives for one in began])
    done = {one.act for one, got in zip(began, results, strict=True) if not _failed(got)}
    tried = {one.act for one in began}
    is_kept = start != "nothing" or bool(done & {"put", "put what is refused"})
    with BucketServer(bucket) as server:
        queue = over(server)
        there = check_at_rest(queue)
        if is_kept and not tried & REMOVING:
            assert NAME in there
        if is_kept and not tried & {"finish", "drop"}:
            assert there
        if done & {"drop", "replace"} and not tried & {"put", "put what is refused"}:
            assert NAME not in there
        for _ in range(3):  # what one marks, the next clears away
            queue.sweep(much_later(), 60.0)
            now_there = check_at_rest(queue)
            assert there <= now_there
            if not tried & {"finish", "put", "put what is refused"}:
                assert NAME in there or NAME not in now_there
            there = now_there
    check_nothing_is_left_over(bucket)


def _failed(result: object) -> bool:
    if isinstance(result, Exception):
        assert isinstance(result, JpegstowError), result
        return True
    return False


@pytest.mark.parametrize("lives", range(9))
def test_an_entry_whose_dropper_died_is_not_taken_for_an_upload_that_was_cut_off(
    turns: Turns, lives: int
) -> None:
    """A payload without a record is taken in, and so nothing that was dropped may be one."""
    bucket = started("dead")
    turns.run(bucket, [partial(ACTS["drop"], over(turns.servers[0]))], [], [lives])
    with BucketServer(bucket) as server:
        queue = over(server)
        before = uids(queue)
        assert queue.sweep(much_later(), 60.0).adopted == 0
        assert uids(queue) == before


@pytest.mark.parametrize("stalled", range(5))
@pytest.mark.parametrize("swept", [*range(1, 8), 40])
def test_a_sweep_beside_who_finishes_leaves_no_entry_without_its_payload(
    turns: Turns, capsys: pytest.CaptureFixture[str], stalled: int, swept: int
) -> None:
    """It takes a payload whose record is just gone for an upload's that was cut off."""
    bucket = started("pending")
    acts: list[Callable[[], object]] = [
        partial(over(turns.servers[0]).finish, NAME),
        partial(ACTS["sweep"], over(turns.servers[1])),
    ]
    finished, _ = turns.run(bucket, acts, [0] * stalled + [1] * swept + [0] * 40)
    assert finished is None
    assert bucket.objects == {}
    assert capsys.readouterr().out == ""  # what is gone is not damaged


@pytest.mark.parametrize("first", range(20))
def test_of_two_who_mend_the_same_entry_at_once_neither_drops_what_the_other_has_made(
    turns: Turns, first: int
) -> None:
    bucket = started("dead")
    both = [partial(ACTS["replace"], over(turns.servers[at])) for at in (0, 1)]
    results = turns.run(bucket, both, [0] * first + [1] * 40)
    assert None in results
    assert all(one is None or isinstance(one, BeingSent | NoSuchEntry) for one in results)
    with BucketServer(bucket) as server:
        assert check_at_rest(over(server)) == {OTHER}
    check_nothing_is_left_over(bucket)


@pytest.mark.parametrize("first", range(12))
def test_an_entry_is_not_sent_while_it_is_being_replaced(turns: Turns, first: int) -> None:
    """Else the store has it under both of its names."""
    bucket = started("pending")
    acts = [
        partial(ACTS["replace"], over(turns.servers[0])),
        partial(ACTS["lease"], over(turns.servers[1])),
    ]
    replaced, leased = turns.run(bucket, acts, [0] * first + [1] * 40)
    assert (replaced is None) == (leased is None)
    with BucketServer(bucket) as server:
        assert check_at_rest(over(server)) == ({NAME} if leased else {OTHER})


@pytest.mark.parametrize("trouble", [JpegstowError("no alarm"), KeyboardInterrupt("no alarm")])
def test_an_entry_that_could_not_be_replaced_is_as_it_was(trouble: BaseException) -> None:
    class Silent(Bell):
        def set(self, _: object) -> None:
            raise trouble

    for start in ("dead", "pending"):
        bucket = started(start)
        with BucketServer(bucket) as server:
            before = everything(over(server))
            records = Records(Buckets(server.url), "gs://pictures", "a/queue")
            with pytest.raises(type(trouble), match="no alarm"):
                BucketQueue(records, Silent(), ROOMY).replace(NAME, *MENDED, NOW)
            assert everything(over(server), Filter(instance=NAME)) == before


@pytest.mark.parametrize("lives", range(1, 12))
def test_sweeping_leaves_one_place_of_an_instance_wherever_its_superseder_died(
    turns: Turns, lives: int
) -> None:
    bucket = started("dead")
    turns.run(bucket, [partial(ACTS["put"], over(turns.servers[0]))], [], [lives])
    with BucketServer(bucket) as server:
        queue = over(server)
        for _ in range(2):
            queue.sweep(much_later(), 60.0)
        assert check_at_rest(queue) == {NAME}
        check_nothing_is_left_over(bucket)
        with suppress(BeingSent):
            queue.drop(NAME, NOW)
        assert queue.sweep(much_later(), 60.0).adopted == 0
    assert bucket.objects == {}


@pytest.mark.parametrize("behind", [0.001, 5.0, 29.0])
def test_a_machine_whose_clock_is_behind_knows_a_lease_of_another(behind: float) -> None:
    with BucketServer(started("pending")) as server:
        queue = over(server)
        assert queue.lease_entry(NAME, NOW + 1)
        with pytest.raises(BeingSent):
            queue.drop(NAME, NOW + 1 - behind)
        with pytest.raises(BeingSent):
            queue.replace(NAME, *MENDED, NOW + 1 - behind)
        assert queue.revive(Filter(), NOW + 1 - behind) == 0
