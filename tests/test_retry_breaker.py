"""The circuit breaker: when a store is left alone, and who may ask whether it is back."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.dicom.dataset import Instance
from service.dicom.outcome import Outcome, Rejected, Stored, Unavailable
from service.ingest import Store
from service.retry import Breaker, GuardedStore, UnaskedStore
from service.retry.breaker import Permit
from tests.queues import DOWN, NOW, REFUSED, Shelf, numbered

ASKING = Unavailable("busy", retry_after=120.0, status=429)
OF_ONE = [Unavailable("busy with it", status=status) for status in (200, 202, 409)]
ANY = Permit()  # as everybody has while it is closed
INSTANCE = numbered().described.instance
NAME = INSTANCE.sop_instance_uid


def opened(now: float = 0.0) -> Breaker:
    """Return a breaker that has just opened; its first rest lasts for a second."""
    breaker = Breaker()
    for _ in range(3):
        assert breaker.allows(now)
        breaker.record(DOWN, now, ANY)
    assert breaker.is_open
    return breaker


def test_three_failures_in_a_row_open_it() -> None:
    breaker = Breaker()
    for outcome in (DOWN, DOWN, Stored(), DOWN, DOWN, REFUSED, DOWN, DOWN):
        assert breaker.allows(0.0)
        breaker.record(outcome, 0.0, ANY)
        assert not breaker.is_open
    breaker.record(DOWN, 0.0, ANY)
    assert breaker.is_open
    assert not breaker.allows(0.5)
    assert breaker.opens_in(0.25) == 0.75


def test_a_store_that_names_a_time_is_left_alone_at_once_until_then() -> None:
    breaker = Breaker()
    breaker.record(ASKING, 0.0, ANY)
    assert not breaker.allows(119.9)
    assert breaker.opens_in(20.0) == 100.0
    assert breaker.allows(120.0)


def test_no_store_can_ask_for_more_than_ten_minutes() -> None:
    breaker = Breaker()
    breaker.record(Unavailable("gone", retry_after=1e9), 0.0, ANY)
    assert breaker.opens_in(0.0) == 600.0
    assert breaker.allows(600.0)


def test_one_probe_at_a_time_asks_whether_it_is_back() -> None:
    breaker = opened()
    assert breaker.opens_in(1.0) == 0.0
    probe = breaker.allows(1.0)
    assert probe
    assert not breaker.allows(1.0)
    assert not breaker.allows(200.0)
    breaker.record(DOWN, 200.0, probe)
    assert not breaker.allows(201.9)
    assert breaker.allows(202.0)


def test_of_eight_threads_one_is_the_probe() -> None:
    breaker = opened()
    start = threading.Barrier(8)

    def ask(_: int) -> int:
        start.wait()
        return sum(breaker.allows(2.0) is not None for _ in range(50))

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(ask, range(8))) == 1


def test_rests_double_up_to_half_a_minute() -> None:
    breaker, now = opened(), 0.0
    rests = []
    for _ in range(8):
        rests.append(breaker.opens_in(now))
        now += rests[-1]
        probe = breaker.allows(now)
        assert probe
        breaker.record(DOWN, now, probe)
    assert rests == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


@pytest.mark.parametrize("outcome", [Stored(), REFUSED, Rejected("no", status=400), *OF_ONE])
def test_any_answer_about_an_instance_closes_it(outcome: Outcome) -> None:
    breaker = opened()
    assert breaker.allows(1.0)
    breaker.record(outcome, 1.0, ANY)
    assert not breaker.is_open
    assert all(breaker.allows(1.0) for _ in range(9))
    breaker.record(DOWN, 1.0, ANY)
    assert not breaker.is_open


def test_a_probe_that_asked_nothing_leaves_it_to_the_next() -> None:
    breaker = opened()
    probe = breaker.allows(1.0)
    assert probe
    breaker.cancel(probe)
    assert breaker.is_open
    assert breaker.allows(1.0)


def test_only_the_probe_itself_gives_its_turn_back() -> None:
    breaker = opened()
    assert breaker.allows(1.0)
    breaker.cancel(ANY)
    assert not breaker.allows(1.0)


def test_a_probe_that_nobody_tells_of_is_given_up() -> None:
    breaker = opened()
    assert breaker.allows(1.0)
    assert not breaker.allows(300.9)
    assert breaker.opens_in(300.0) == 1.0
    assert breaker.allows(301.0)


def test_a_probe_that_was_given_up_and_tells_at_last_gives_nobodys_turn_back() -> None:
    breaker = opened()
    late = breaker.allows(1.0)
    assert late
    assert breaker.allows(301.0)
    breaker.cancel(late)
    assert not breaker.allows(302.0)
    breaker.record(DOWN, 302.0, late)
    assert not breaker.allows(303.0)


def test_late_failures_of_the_same_outage_lengthen_no_rest() -> None:
    breaker = opened()
    for late in (0.1, 0.5, 0.9):
        breaker.record(DOWN, late, ANY)
    assert breaker.opens_in(0.9) == pytest.approx(0.1)
    breaker.record(ASKING, 0.95, ANY)
    assert breaker.opens_in(0.95) == 120.0
    breaker.record(Unavailable("busy", retry_after=5.0), 0.99, ANY)
    assert breaker.opens_in(0.95) == 120.0


def test_a_late_failure_of_the_same_outage_lets_no_second_probe_through() -> None:
    breaker = opened()
    assert breaker.allows(1.0)
    breaker.record(DOWN, 1.1, ANY)  # not the probe's, but of a request that began before the rest
    assert not breaker.allows(60.0)


@given(st.floats(0, NOW - 601))
def test_a_clock_that_was_set_back_keeps_it_open_for_no_longer(then: float) -> None:
    breaker = opened(NOW)
    breaker.record(ASKING, NOW, ANY)
    assert breaker.opens_in(then) == 0.0
    probe = breaker.allows(then)
    assert probe
    assert not breaker.allows(then)
    breaker.record(DOWN, then, probe)
    assert 0.0 < breaker.opens_in(then) < 2.1


def test_a_probe_that_fails_begins_a_rest_anew_after_whatever_opened_it() -> None:
    breaker = Breaker()
    breaker.record(Unavailable("busy", retry_after=1.0), 0.0, ANY)
    probe = breaker.allows(1.0)
    assert probe
    breaker.record(DOWN, 1.0, probe)
    assert breaker.is_open
    assert not breaker.allows(1.0)


def guarded(store: Store, clock: Callable[[], float] = lambda: 0.0) -> tuple[GuardedStore, Breaker]:
    breaker = Breaker()
    return GuardedStore(store, breaker, 5.0, clock), breaker


def test_a_guarded_store_is_not_asked_while_it_is_left_alone() -> None:
    now = [0.0]
    shelf = Shelf(DOWN)
    store, breaker = guarded(shelf, lambda: now[0])
    assert [store.store([INSTANCE])[NAME] for _ in range(3)] == [DOWN] * 3
    (outcome,) = store.store([INSTANCE]).values()
    assert isinstance(outcome, Unavailable)
    assert (outcome.asked, shelf.asked) == (False, [NAME] * 3)
    now[0], shelf.answer = 1.0, Stored()
    assert store.store([INSTANCE]) == {NAME: Stored()}
    assert not breaker.is_open


def test_a_store_that_raises_is_a_store_that_fails() -> None:
    now = [0.0]
    shelf = Shelf(ValueError("boom"))
    store, breaker = guarded(shelf, lambda: now[0])
    for _ in range(3):
        with pytest.raises(ValueError, match="boom"):
            store.store([INSTANCE])
    assert breaker.is_open
    assert store.store([INSTANCE]).keys() == {NAME}
    now[0] = 1.0
    with pytest.raises(ValueError, match="boom"):
        store.store([INSTANCE])  # the probe
    assert breaker.opens_in(1.0) == 2.0


def test_one_request_that_fails_is_one_failure_however_many_instances_it_has() -> None:
    store, breaker = guarded(Shelf(DOWN))
    store.store([numbered(n).described.instance for n in range(5)])
    assert not breaker.is_open


class Half(Shelf):
    """A store that takes the first instance of a request, and fails with all others."""

    def store(
        self, instances: Sequence[Instance], within: float | None = None
    ) -> dict[str, Outcome]:
        return super().store(instances, within) | {instances[0].sop_instance_uid: Stored()}


def test_a_store_that_answers_for_one_instance_of_a_request_is_there() -> None:
    store, breaker = guarded(Half(DOWN))
    for _ in range(3):
        outcomes = store.store([numbered(n).described.instance for n in range(2)])
        assert list(outcomes.values()) == [Stored(), DOWN]
    assert not breaker.is_open


def test_a_guarded_store_has_the_wire_of_its_own() -> None:
    assert guarded(Shelf(wire="part10"))[0].wire == "part10"


def test_the_deadline_is_the_callers_or_the_guards() -> None:
    shelf = Shelf()
    store, _ = guarded(shelf)
    store.store([INSTANCE])
    store.store([INSTANCE], 2.0)
    assert shelf.deadlines == [5.0, 2.0]


def test_a_store_that_is_not_to_be_asked_isnt() -> None:
    store = UnaskedStore()
    (outcome,) = store.store([INSTANCE]).values()
    assert isinstance(outcome, Unavailable)
    assert (outcome.asked, outcome.operator, store.wire) == (False, False, "")
