"""When to try again, as pure functions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.dicom.outcome import Outcome, Rejected, Stored, Unavailable
from service.retry.timing import (
    LONGEST_WAIT,
    Again,
    Decision,
    Finish,
    GiveUp,
    Waiting,
    decide,
    wait,
)

NOW = 1_700_000_000.0
WEEK = 604_800.0
YOUNG, OLD = Waiting(1, NOW), Waiting(99, NOW - WEEK)
attempts = st.integers(1, 10_000)
chances = st.floats(0, 1)
asked_for = st.none() | st.floats(0, 1e12)


@given(attempts, asked_for, chances)
def test_a_wait_is_what_the_store_asks_for_at_least_and_ten_minutes_at_most(
    count: int, retry_after: float | None, chance: float
) -> None:
    assert min(retry_after or 0.0, 600.0) <= wait(count, retry_after, chance) <= 600.0


@given(attempts, asked_for, chances, chances)
def test_chance_spreads_waits(
    count: int, retry_after: float | None, one: float, two: float
) -> None:
    less, more = sorted([one, two])
    assert wait(count, retry_after, less) <= wait(count, retry_after, more)
    assert wait(count, None, 0.0) == 0.0


def test_the_longest_wait_doubles_with_every_failure() -> None:
    bounds = [wait(count, None, 1.0) for count in range(1, 12)]
    assert bounds == [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 600.0, 600.0]
    assert wait(10_000, None, 1.0) == LONGEST_WAIT == 600.0


@given(attempts, chances)
def test_chance_is_added_to_what_the_store_asks_for(count: int, chance: float) -> None:
    assert wait(count, 30.0, chance) == min(600.0, 30.0 + wait(count, None, chance))


@pytest.mark.parametrize(
    ("outcome", "waiting", "expected"),
    [
        (Stored(), YOUNG, Finish()),
        (Stored(duplicate=True), OLD, Finish()),
        (Rejected("no"), YOUNG, GiveUp()),
        (Rejected("no"), OLD, GiveUp()),
        (Unavailable("busy"), YOUNG, Again(NOW + 2.0)),
        (Unavailable("busy"), Waiting(3, NOW - 9), Again(NOW + 8.0)),
        (Unavailable("busy", retry_after=30.0), YOUNG, Again(NOW + 32.0)),
        (Unavailable("busy", retry_after=1e9), YOUNG, Again(NOW + 600.0)),
        (Unavailable("busy"), Waiting(9, NOW - WEEK + 1), Again(NOW + 512.0)),
        (Unavailable("busy"), Waiting(9, NOW - WEEK), Again(NOW + 512.0)),
        (Unavailable("busy"), OLD, GiveUp()),
        (Unavailable("busy", retry_after=30.0), OLD, GiveUp()),
        (Unavailable("wrong password", operator=True), OLD, Again(NOW + 600.0)),
    ],
)
def test_what_is_done_after_an_attempt(
    outcome: Outcome, waiting: Waiting, expected: Decision
) -> None:
    assert decide(outcome, waiting, NOW, 1.0, WEEK) == expected


@given(attempts, asked_for, chances, st.floats(0, WEEK - 1))
def test_what_is_young_is_never_given_up(
    count: int, retry_after: float | None, chance: float, age: float
) -> None:
    outcome = Unavailable("busy", retry_after)
    decision = decide(outcome, Waiting(count, NOW - age), NOW, chance, WEEK)
    assert isinstance(decision, Again)
    assert NOW <= decision.not_before <= NOW + 600


def test_a_clock_that_was_set_back_gives_nothing_up() -> None:
    assert isinstance(decide(Unavailable("x"), Waiting(5, NOW + WEEK), NOW, 0.5, WEEK), Again)
