"""Asking again, several at once, and what others' texts may do to a terminal."""

import threading
from collections.abc import Iterator

import pytest

from service.dicom.outcome import Rejected, Unavailable
from service.parallel import at_once
from service.patience import ATTEMPTS, LONGEST, patiently
from service.terminal import table

BUSY = Unavailable("busy", status=503)


def asked(*answers: object) -> tuple[object, list[float]]:
    """Ask who gives these answers; return the last one, and what was waited."""
    waits: list[float] = []
    coming = iter(answers)
    return patiently(lambda: next(coming), waits.append), waits


def test_what_is_unavailable_is_asked_for_again() -> None:
    answer, waits = asked(BUSY, BUSY, "there")
    assert answer == "there"
    assert [wait <= bound for wait, bound in zip(waits, (0.5, 1), strict=True)] == [True, True]


def test_the_store_s_own_time_is_waited_for_up_to_a_minute() -> None:
    _, waits = asked(Unavailable("busy", 7.0), Unavailable("busy", 3600.0), "there")
    assert 7.0 <= waits[0] <= 7.5
    assert LONGEST <= waits[1] <= LONGEST + 1


def test_it_ends_with_the_last_answer() -> None:
    answer, waits = asked(*[BUSY] * ATTEMPTS)
    assert answer == BUSY
    assert len(waits) == ATTEMPTS - 1


@pytest.mark.parametrize("answer", [Rejected("no"), Unavailable("no rights", operator=True)])
def test_what_waiting_doesn_t_mend_is_not_waited_for(answer: object) -> None:
    assert asked(answer) == (answer, [])


def test_many_are_done_at_once_and_told_in_order() -> None:
    meeting = threading.Barrier(3, timeout=30)

    def meet(number: int) -> int:
        meeting.wait()
        return number

    assert list(at_once(meet, range(9), 3)) == list(range(9))


def test_items_are_taken_only_as_they_are_needed() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1_000_000):
            taken.append(number)
            yield number

    results = at_once(str, items(), 2)
    assert [next(results) for _ in range(3)] == ["0", "1", "2"]
    results.close()  # type: ignore[attr-defined] # it is a generator
    assert len(taken) < 20


def test_an_error_of_one_ends_all() -> None:
    def fail(number: int) -> float:
        return 1 / number

    with pytest.raises(ZeroDivisionError):
        list(at_once(fail, [1, 0, 2], 1))


def test_a_table_is_cut_and_does_nothing_to_a_terminal() -> None:
    rows = [["\x1b[2Jred", "a\nb"], ["x" * 50, "1"]]
    shown = table(["one", "two"], rows, 16, 12).splitlines()
    assert shown == [
        "one           t…",
        "\N{REPLACEMENT CHARACTER}[2Jred       a…",
        "xxxxxxxxxxx…  1",
    ]
