"""Backfilling: a message for every object, in order, none left out, no faster than allowed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import BadRequest
from service.gcp.backfill import Rate, backfill, notification, pictures, unhurried
from service.gcp.envelope import Message, Pointer, Reference, meaning
from service.gcp.objects import Listed


def listed(count: int) -> list[Listed]:
    return [Listed(f"{number:04}.jpg", "", 10) for number in range(count)]


@dataclass
class Slow:
    """A message that is confirmed only when somebody waits for it."""

    error: Exception | None = None
    confirmed: bool = False

    def done(self) -> bool:
        return self.confirmed

    def result(self) -> str:
        self.confirmed = True
        if self.error:
            raise self.error
        return "1"


class Topic:
    """What has been published, and the most that was on its way at once."""

    def __init__(
        self, *, at_once: bool = False, errors: Mapping[int, Exception] | None = None
    ) -> None:
        self.published: list[Slow] = []
        self.most = 0
        self._at_once = at_once
        self._errors = errors or {}

    def publish(self, _attributes: Mapping[str, str]) -> Slow:
        self.published.append(Slow(self._errors.get(len(self.published)), self._at_once))
        self.most = max(self.most, sum(not one.confirmed for one in self.published))
        return self.published[-1]


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("count", [0, 1, 6, 7, 8, 50])
def test_every_object_is_confirmed_in_order_and_few_are_on_their_way(
    *, count: int, at_once: bool
) -> None:
    topic = Topic(at_once=at_once)
    objects = listed(count)
    assert list(backfill("gs://b", objects, topic.publish, outstanding=7)) == objects
    assert len(topic.published) == count
    assert topic.most == (0 if at_once else min(count, 7))


def test_nothing_behind_a_failure_is_confirmed_and_its_text_is_not_told() -> None:
    topic = Topic(errors={20: RuntimeError("Zebedee")})
    confirmed: list[Listed] = []
    with pytest.raises(BadRequest) as caught:
        confirmed.extend(backfill("gs://b", listed(50), topic.publish, outstanding=7))
    assert confirmed == listed(20)
    assert "RuntimeError" in str(caught.value)
    assert "Zebedee" not in str(caught.value)


class Clock:
    """Time that passes only by sleeping, and by what `work` takes."""

    def __init__(self, work: Sequence[float] = ()) -> None:
        self.now = 1000.0
        self._work = list(work)

    def read(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def labour(self) -> None:
        self.now += self._work.pop() if self._work else 0.0


@pytest.mark.parametrize(("rate", "seconds"), [(0.5, 1998.0), (50.0, 19.9), (2000.0, 0.4)])
def test_a_thousand_objects_take_as_long_as_the_rate_says(rate: float, seconds: float) -> None:
    clock = Clock()
    through = list(unhurried(listed(1000), rate, clock.read, clock.sleep))
    assert through == listed(1000)
    assert clock.now - 1000.0 == pytest.approx(seconds)


@given(st.floats(0.5, 500.0), st.lists(st.floats(0.0, 3.0), max_size=60))
def test_no_pause_is_made_up_for_by_more_than_a_tenth_of_a_second(
    rate: float, work: list[float]
) -> None:
    clock = Clock(work)
    moments = []
    for _ in unhurried(listed(100), rate, clock.read, clock.sleep):
        moments.append(clock.now)
        clock.labour()
    most = max(1.0, 0.1 * rate)
    for first, begin in enumerate(moments):
        for number, end in enumerate(moments[first:], 1):
            assert number <= most + rate * (end - begin) + 1 + 1e-6


def test_what_was_not_used_is_not_saved_up() -> None:
    rate = Rate(10.0, now=0.0)
    assert [rate.take(0.0), rate.take(0.0)] == pytest.approx([0.0, 0.1])
    assert [rate.take(100.0), rate.take(100.0)] == pytest.approx([0.0, 0.1])


def test_objects_are_chosen_by_their_suffixes() -> None:
    names = ["a.jpg", "b.JPEG", "c.jpe", "d.jfif", "e.png", "f", "a.json", "g.JSON", "h.jpg/x"]
    objects = [Listed(name, "", 1) for name in names]
    assert [one.name for one in pictures(objects)] == names[:4]
    everything = [one.name for one in pictures(objects, whatever=True)]
    assert everything == [name for name in names if not name.lower().endswith(".json")]


@pytest.mark.parametrize(
    ("bucket", "generation", "meant"),
    [
        ("gs://pictures", "", ""),
        ("gs://pictures", "1700000000000001", "1700000000000001"),
        ("s3://pictures", '"5d41402abc4b2a76b9719d911017c592"', ""),
    ],
)
def test_a_notification_is_understood_as_the_object_that_it_is_of(
    bucket: str, generation: str, meant: str
) -> None:
    attributes = notification(bucket, Listed("Müller/1.jpg", generation, 10))
    pointer = Pointer(Reference(bucket, "Müller/1.jpg", meant), {})
    assert meaning(Message(b"", attributes)) == pointer


def test_a_notification_has_the_names_of_cloud_storages_own() -> None:
    assert notification("gs://pictures", Listed("a/1.jpg", "7", 10)) == {
        "eventType": "OBJECT_FINALIZE",
        "bucketId": "pictures",
        "objectId": "a/1.jpg",
        "objectGeneration": "7",
    }
