"""The retry queue in a bucket: what its contract leaves open, and what crashes leave behind."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import pytest

from service.errors import DamagedEntry, QueueUnusable
from service.gcp.objects import Buckets
from service.gcp.queue import BucketQueue, Records
from service.retry import LEASE, Filter, Limits
from tests.peers import Respond, refused_port
from tests.peers.buckets import Bucket, BucketServer
from tests.peers.scripted import Step, Wire
from tests.queues import (
    NOW,
    REFUSED,
    ROOMY,
    Bell,
    attempt,
    bodies,
    everything,
    leased,
    numbered,
    put,
    uid_of,
    uids,
)

DAY = 86_400.0
BUCKET = "gs://pictures"


@dataclass
class Interrupted:
    """A bucket that does something once, just before or just after it answers a chosen request.

    Requests are counted from 1. What is done may ask the bucket itself.
    """

    bucket: Bucket
    moment: int
    act: Callable[[], object]
    method: str = ""
    lose_answer: bool = False
    seen: int = field(default=0)

    def play(self, wire: Wire) -> None:
        """Answer."""
        if self.method in ("", wire.command):
            self.seen += 1
            if self.seen == self.moment:
                self.act()
                if self.lose_answer:
                    Silenced(self.bucket).play(wire)
                    return
        self.bucket.play(wire)


@dataclass
class Silenced:
    """A bucket that does what it is asked and answers 503, as one whose answer is lost."""

    bucket: Bucket

    def play(self, wire: Wire) -> None:
        """Do it."""
        request = wire.receive()
        name = request.path.removeprefix("/pictures/")
        wanted = request.headers.get("x-goog-if-generation-match")
        current = self.bucket.objects[name].generation if name in self.bucket.objects else "0"
        if request.method == "PUT" and wanted in (None, current):
            self.bucket.add(name, request.body)
        wire.head(503, {}, 0)


@dataclass
class Dying:
    """A bucket that answers so many requests, and then nobody asks any more."""

    bucket: Bucket
    requests: int

    def play(self, wire: Wire) -> None:
        """Answer, or have the client give up."""
        if self.requests > 0:
            self.requests -= 1
            self.bucket.play(wire)
        else:
            Respond(403).play(wire)


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
def server(bucket: Bucket) -> Iterator[BucketServer]:
    with BucketServer(bucket) as server:
        yield server


@pytest.fixture
def queue(server: BucketServer) -> BucketQueue:
    return over(server)


def over(server: BucketServer, limits: Limits = ROOMY, bell: Bell | None = None) -> BucketQueue:
    records = Records(Buckets(server.url), BUCKET, "a/queue")
    return BucketQueue(records, bell or Bell(), limits)


@contextmanager
def through(step: Step) -> Iterator[BucketQueue]:
    """Open a queue of its own in front of a step."""
    with BucketServer(step) as server:
        yield over(server)


def names(bucket: Bucket, folder: str) -> list[str]:
    return [name for name in bucket.objects if name.startswith(f"a/queue/{folder}/")]


def test_nothing_is_outside_the_prefix_and_nothing_is_left(
    bucket: Bucket, queue: BucketQueue
) -> None:
    put(queue, numbered(0), attempt())
    queue.finish(put(queue, numbered(1)))
    queue.drop(put(queue, numbered(2)), NOW)
    assert queue.unusable() == ""
    assert sorted(name.split("/")[:3] for name in bucket.objects) == [
        ["a", "queue", "entries"],
        ["a", "queue", "records"],
    ]


def test_the_alarm_is_set_for_what_waits_and_for_nothing_else(server: BucketServer) -> None:
    bell = Bell()
    queue = over(server, bell=bell)
    waiting, dead = put(queue, numbered(0), attempt()), put(queue, numbered(1), attempt(REFUSED))
    assert bell.rung == [waiting]
    put(queue, numbered(0), attempt())
    assert bell.rung == [waiting] * 2  # the first may have been lost on the way
    assert queue.revive(Filter(state="dead"), NOW) == 1
    assert bell.rung[2:] == [dead]


def test_an_upload_of_what_is_leased_sets_an_alarm_too(server: BucketServer) -> None:
    """Who holds it may have died, after an alarm that was acknowledged or had been lost."""
    bell = Bell()
    queue = over(server, bell=bell)
    name = put(queue, numbered(0), attempt())
    assert queue.lease_entry(name, NOW)
    put(queue, numbered(0), attempt(), NOW + 2 * LEASE)
    assert bell.rung == [name] * 2


@pytest.mark.parametrize("moment", range(16))
def test_what_was_revived_before_the_bucket_failed_has_its_alarm(
    bucket: Bucket, moment: int
) -> None:
    with BucketServer(bucket) as server:
        for number in range(4):
            put(over(server), numbered(number), attempt(REFUSED))
        bell = Bell()
        with BucketServer(Dying(bucket, moment)) as failing, pytest.raises(QueueUnusable):
            over(failing, bell=bell).revive(Filter(), NOW)
        assert sorted(bell.rung) == sorted(uids(over(server), Filter(state="pending")))


class Broken(Bell):
    """An alarm clock that can't be set."""

    def set(self, _: object) -> None:
        raise QueueUnusable("the alarm of a retry can't be set")


def test_what_has_no_alarm_is_not_acknowledged_and_not_lost(server: BucketServer) -> None:
    with pytest.raises(QueueUnusable, match="alarm"):
        put(over(server, bell=Broken()), numbered())
    bell = Bell()
    again = over(server, bell=bell)
    assert put(again, numbered()) == uid_of(numbered())
    assert len(everything(again)) == 1
    assert bell.rung == [uid_of(numbered())]


def test_what_is_stored_needs_no_alarm_clock(server: BucketServer) -> None:
    name = put(over(server), numbered())
    over(server, bell=Broken()).finish(name)
    assert uids(over(server)) == []


def count_of(bucket: Bucket, act: Callable[[BucketQueue], object]) -> int:
    """Return how many requests an act makes."""
    with BucketServer(bucket) as server:
        act(over(server))
        return len(server.requests)


def filled() -> Bucket:
    bucket = Bucket()
    with BucketServer(bucket) as server:
        put(over(server), numbered(0), attempt())
        put(over(server), numbered(1), attempt(REFUSED))
    return bucket


ACTS: dict[str, Callable[[BucketQueue], object]] = {
    "put": lambda queue: put(queue, numbered(2), attempt()),
    "put again": lambda queue: put(queue, numbered(0), attempt()),
    "put what is dead": lambda queue: put(queue, numbered(1), attempt()),
    "finish": lambda queue: queue.finish(uid_of(numbered(0))),
    "drop": lambda queue: queue.drop(uid_of(numbered(1)), NOW),
    "lease": leased,
    "bury": lambda queue: queue.bury(leased(queue), attempt(REFUSED)),
    "put back": lambda queue: queue.put_back(leased(queue), NOW + 5, attempt()),
    "revive": lambda queue: queue.revive(Filter(), NOW),
    "replace": lambda queue: queue.replace(uid_of(numbered(1)), *numbered(3), NOW),
}


@pytest.mark.parametrize("act", ACTS)
def test_who_dies_at_any_request_loses_nothing_and_brings_nothing_back(act: str) -> None:
    """Whatever was acknowledged before is there afterwards, whole, and once."""
    moments = count_of(filled(), ACTS[act])
    assert moments > 1
    kept = {uid_of(numbered(0)), uid_of(numbered(1))}
    gone = {"finish": uid_of(numbered(0)), "drop": uid_of(numbered(1))}.get(act)
    for moment in range(moments):
        bucket = filled()
        with through(Dying(bucket, moment)) as dying, suppress(QueueUnusable, AssertionError):
            ACTS[act](dying)
        with BucketServer(bucket) as server:
            queue = over(server)
            queue.sweep(NOW + 2 * LEASE, 60.0)
            there = uids(queue)
            assert len(set(there)) == len(there)
            assert kept - {gone} - ({uid_of(numbered(1))} if act == "replace" else set()) <= set(
                there
            )
            for name in there:
                number = next(n for n in range(4) if uid_of(numbered(n)) == name)
                expected = bodies(numbered(number).described.instance)
                assert bodies(queue.load(name).instance) == expected
            if act == "replace":
                assert {uid_of(numbered(1)), uid_of(numbered(3))} & set(there)


def test_what_was_dropped_stays_dropped_wherever_its_dropper_died() -> None:
    name = uid_of(numbered(1))
    moments = count_of(filled(), ACTS["drop"])
    seen = []
    for moment in range(moments):
        bucket = filled()
        with through(Dying(bucket, moment)) as dying, suppress(QueueUnusable):
            ACTS["drop"](dying)
        with BucketServer(bucket) as server:
            queue = over(server)
            before = name in uids(queue)
            swept = queue.sweep(NOW + DAY, 60.0)
            assert (name in uids(queue)) == before
            seen.append((before, swept.removed))
    assert [one for one in seen if one[0]] + [one for one in seen if not one[0]] == seen
    assert (False, 1) in seen  # its record was marked, and is cleared away


def test_what_is_marked_as_dropped_keeps_no_upload_away() -> None:
    for moment in range(count_of(filled(), ACTS["drop"])):
        bucket = filled()
        with through(Dying(bucket, moment)) as dying, suppress(QueueUnusable):
            ACTS["drop"](dying)
        with BucketServer(bucket) as server:
            name = put(over(server), numbered(1), attempt())
            assert over(server).show(name).state == "pending"
            over(server).sweep(NOW + 1, DAY)
            assert over(server).show(name).state == "pending"


@pytest.mark.parametrize("moment", range(1, 9))
def test_two_who_put_the_same_at_once_make_one_entry(bucket: Bucket, moment: int) -> None:
    with BucketServer(bucket) as server:
        other = over(server)
        step = Interrupted(bucket, moment, lambda: put(other, numbered(), attempt()))
        with through(step) as queue:
            put(queue, numbered(), attempt())
            assert uids(queue) == [uid_of(numbered())]
            entry = queue.show(uid_of(numbered()))
            assert entry.attempts in (1, 2)
            assert bodies(queue.load(uid_of(numbered())).instance) == bodies(
                numbered().described.instance
            )
        assert len(names(bucket, "entries")) == len(names(bucket, "records")) == 1


@pytest.mark.parametrize("moment", range(1, 8))
def test_who_drops_an_entry_that_is_put_again_takes_nothing_that_came_later(
    bucket: Bucket, moment: int
) -> None:
    """Put again, it has a new record by the fourth request: only after that it can be meant."""
    with BucketServer(bucket) as server:
        other = over(server)
        name = put(other, numbered(), attempt(REFUSED))
        with through(Interrupted(bucket, moment, lambda: other.drop(name, NOW))) as queue:
            put(queue, numbered(), attempt())
            if moment > 4:
                assert bucket.objects == {}
            else:
                assert uids(queue) == [name]
                assert bodies(queue.load(name).instance) == bodies(numbered().described.instance)


@pytest.mark.parametrize("moment", range(1, 5))
def test_of_two_who_lease_the_same_entry_one_has_it(bucket: Bucket, moment: int) -> None:
    with BucketServer(bucket) as server:
        other = over(server)
        name = put(other, numbered())
        got = []
        step = Interrupted(bucket, moment, lambda: got.append(other.lease_entry(name, NOW)))
        with through(step) as queue:
            mine = queue.lease_entry(name, NOW)
            assert [lease is not None for lease in [mine, *got]].count(True) == 1
            holder = mine or got[0]
            assert holder
            queue.put_back(holder, NOW + 5, attempt())
            assert (queue.show(name).state, queue.show(name).attempts) == ("pending", 1)


def test_a_write_whose_answer_was_lost_is_known_as_ones_own(bucket: Bucket) -> None:
    with BucketServer(bucket) as server:
        name = put(over(server), numbered())
    step = Interrupted(bucket, 1, lambda: None, method="PUT", lose_answer=True)
    with through(step) as queue:
        lease = queue.lease_entry(name, NOW)
        assert lease
        assert queue.show(name) == lease.entry


def test_a_bucket_that_cannot_be_reached_is_told_as_the_queue_it_is() -> None:
    with refused_port() as port:
        queue = BucketQueue(Records(Buckets(f"http://127.0.0.1:{port}"), BUCKET, ""), Bell(), ROOMY)
        for act in (lambda: put(queue, numbered()), lambda: queue.lease(NOW), queue.totals):
            with pytest.raises(QueueUnusable, match="RETRY_QUEUE"):
                act()
        assert "RETRY_QUEUE" in queue.unusable()


def test_a_bucket_that_is_forbidden_tells_the_role_that_a_queue_needs() -> None:
    """Objects are written and deleted here, not only read; a list is refused with other words."""
    with BucketServer(Respond(403)) as server:
        queue = over(server)
        for act in (lambda: put(queue, numbered()), lambda: queue.finish(uid_of(numbered()))):
            with pytest.raises(QueueUnusable, match=r"forbidden to us.*storage\.objectUser"):
                act()
        assert "storage.objectUser" in queue.unusable()


def test_a_bucket_that_keeps_all_by_a_policy_is_no_matter_of_roles() -> None:
    """A queue writes records over and deletes; the rights are there, and don't help."""
    said = b"<Details>Object 'a' is subject to bucket's retention policy</Details>"
    with BucketServer(Respond(403, body=b"<Error>" + said + b"</Error>")) as server:
        queue = over(server)
        with pytest.raises(QueueUnusable, match="retention policy") as caught:
            queue.finish(uid_of(numbered()))
        assert "role" not in str(caught.value)
        assert "retention policy" in queue.unusable()


def test_what_was_revived_without_an_alarm_is_swept_as_what_has_none(server: BucketServer) -> None:
    """As where the topic is missing: it is no longer dead, and so no second revival finds it."""
    name = put(over(server), numbered(), attempt(REFUSED))
    with pytest.raises(QueueUnusable, match="alarm"):
        over(server, bell=Broken()).revive(Filter(), NOW + DAY)
    bell = Bell()
    assert over(server, bell=bell).sweep(NOW + DAY + 1, 60.0).rearmed == 1
    assert bell.rung == [name]


def test_a_payload_that_is_damaged_is_told_and_mended_by_an_upload(
    bucket: Bucket, queue: BucketQueue
) -> None:
    name = put(queue, numbered())
    (payload,) = names(bucket, "entries")
    bucket.add(payload, b"{}")
    with pytest.raises(DamagedEntry):
        queue.load(name)
    put(queue, numbered(), attempt())
    assert bodies(queue.load(name).instance) == bodies(numbered().described.instance)
    assert len(names(bucket, "entries")) == 1


def test_a_record_that_cannot_be_read_stops_nobody(
    bucket: Bucket, queue: BucketQueue, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, sound = put(queue, numbered(0)), put(queue, numbered(1))
    bucket.add(next(name for name in names(bucket, "records") if broken in name), b"{}")
    assert uids(queue) == [sound]
    assert leased(queue).entry.sop_instance_uid == sound
    assert "can't be read" in capsys.readouterr().out
    put(queue, numbered(0))
    assert sorted(uids(queue)) == sorted([broken, sound])


def test_sweeping_wakes_what_nobody_has_heard_of_and_leaves_the_rest(server: BucketServer) -> None:
    bell = Bell()
    queue = over(server, bell=bell)
    silent, tried, dead = (
        put(queue, numbered(0), attempt()),
        put(queue, numbered(1), attempt()),
        put(queue, numbered(2), attempt(REFUSED)),
    )
    lease = queue.lease_entry(tried, NOW)
    assert lease
    queue.put_back(lease, NOW + DAY, attempt(at=NOW + DAY - 10))
    bell.rung.clear()
    assert queue.sweep(NOW + DAY, DAY).rearmed == 1
    assert bell.rung == [silent]
    assert queue.sweep(NOW + DAY + 1, DAY).rearmed == 0
    assert queue.sweep(NOW + 2 * DAY, DAY).rearmed == 2
    assert dead not in bell.rung


def test_sweeping_takes_in_payloads_whose_record_was_never_written(
    bucket: Bucket, server: BucketServer
) -> None:
    bell = Bell()
    queue = over(server, bell=bell)
    name = put(queue, numbered(), attempt())
    (record,) = names(bucket, "records")
    del bucket.objects[record]
    arrival = int(record.rpartition("/")[2][:20]) / 1e9
    assert queue.sweep(arrival + 3500, DAY).adopted == 0  # its upload may be under way
    assert uids(queue) == []
    assert queue.sweep(arrival + 3700, DAY).adopted == 1
    assert (uids(queue), bell.rung[-1]) == ([name], name)
    assert bodies(queue.load(name).instance) == bodies(numbered().described.instance)


def test_a_list_reads_no_record_twice(server: BucketServer) -> None:
    queue = over(server)
    for number in range(5):
        put(queue, numbered(number))
    queue.totals()
    before = len(server.requests)
    queue.totals()
    assert len(server.requests) == before + 1
    queue.lease_entry(uid_of(numbered(3)), NOW)
    before = len(server.requests)
    assert queue.totals().entries["leased"] == 1
    assert len(server.requests) == before + 2


def test_room_is_counted_anew_where_it_seems_full(server: BucketServer) -> None:
    """Others drain the queue too; who believes it full looks again before it says so."""
    queue = over(server, Limits(1, ROOMY.size))
    assert queue.unusable() == ""
    over(server).finish(put(queue, numbered(0)))
    assert "full: 1 entries" in queue.unusable()  # it has looked a moment ago
    assert uids(queue) == []


def test_records_share_the_texts_that_are_the_same_in_all(queue: BucketQueue) -> None:
    """What is read is kept, of each entry that there is: 440 MB for a hundred thousand."""
    for number in range(2):
        put(queue, numbered(number), attempt())
    one, other = (entry.history[0] for entry in everything(queue))
    assert one.reason is other.reason
    assert one.outcome is other.outcome
