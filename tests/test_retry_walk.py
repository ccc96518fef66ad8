"""Whatever step of a change to the queue is the last, nothing is lost and nothing comes back."""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import pytest

from tests.queue_walk import (
    ACTIONS,
    BETTER,
    DEAD,
    NEW,
    OTHER,
    WAITING,
    There,
    leave_half_done,
    prepare,
)
from tests.queues import NOW, REFUSED, attempt, numbered, put, sqlite_queue, uid_of

ROOT = Path(__file__).parents[1]
BEFORE = {WAITING: "pending", DEAD: "dead", OTHER: "pending"}
ADDED, MENDED = uid_of(NEW), uid_of(BETTER)
REPLACED = {WAITING: "pending", OTHER: "pending", MENDED: "pending"}


class Step(NamedTuple):
    """How an action ended, what the queue showed then and after a new start, and what is left."""

    ended: str
    then: There | None
    later: There
    files: list[str]


def without(name: str) -> There:
    return {each: state for each, state in BEFORE.items() if each != name}


# What may be there when an action is over, and what must be once it was acknowledged.
ALLOWED = {
    "put": [BEFORE, BEFORE | {ADDED: "pending"}],
    "put again": [BEFORE, BEFORE | {DEAD: "pending"}],
    # Who dies before the row is written leaves both: the dead one stays dead.
    "replace": [BEFORE, BEFORE | {MENDED: "pending"}, REPLACED],
    "drop": [BEFORE, without(DEAD)],
    "finish": [BEFORE, without(WAITING)],
    "bury": [BEFORE, BEFORE | {WAITING: "leased"}, BEFORE | {WAITING: "dead"}],
}


@cache
def walks(folder: Path, how: str, *actions: str) -> dict[str, list[Step]]:
    """Stop actions at each of their steps; the last one came to its end."""
    command = [sys.executable, "-m", "tests.queue_walk", str(folder), how, *actions]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[Step]] = {action: [] for action in actions}
    for line in filter(lambda line: line.startswith("["), done.stdout.splitlines()):
        action, *step = json.loads(line)
        found[action].append(Step(*step))
    return found


def check(action: str, steps: list[Step]) -> None:
    """Hold each step of an action to what may be there, and the last to what must be."""
    assert len(steps) > 5
    wanted = ALLOWED[action][-1]
    for step in steps:
        assert step.later in ALLOWED[action]
        assert step.then in (None, *ALLOWED[action])
        assert step.files == sorted(step.later)
        assert step.later == wanted or step.ended != "returned"
        assert step.later == wanted or step.then != wanted  # what was seen done is done
    assert steps[-1].then == steps[-1].later == wanted


@pytest.mark.parametrize(
    ("how", "actions"),
    [
        ("dies", tuple(ACTIONS)),
        ("fails", ("put", "replace", "drop")),
        ("is interrupted", ("put", "replace", "drop")),
    ],
)
def test_a_change_that_does_not_come_to_its_end_loses_no_picture(
    tmp_path: Path, how: str, actions: tuple[str, ...]
) -> None:
    prepare(tmp_path / "queue")
    for action, steps in walks(tmp_path / "queue", how, *actions).items():
        check(action, steps)


def test_a_start_that_is_killed_while_it_cleans_up_is_followed_by_one_that_does(
    tmp_path: Path,
) -> None:
    leave_half_done(tmp_path / "queue")
    steps = walks(tmp_path / "queue", "dies", "open")["open"]
    assert len(steps) > 20
    for step in steps:
        assert (step.later, step.files) == (
            {WAITING: "pending", OTHER: "pending"},
            sorted([WAITING, OTHER]),
        )


def calls(act: Callable[[], object]) -> list[tuple[str, str]]:
    """Return what is called in C, by which function, while something is done."""
    made: list[tuple[str, str]] = []

    def note(frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call":
            made.append((frame.f_code.co_name, called.__name__))

    sys.setprofile(note)
    try:
        act()
    finally:
        sys.setprofile(None)
    return made


def test_what_was_dropped_is_gone_from_the_disk_before_its_mark_is(tmp_path: Path) -> None:
    """Without the mark a file that a loss of power brings back would be taken in, and sent."""
    with sqlite_queue(tmp_path / "queue") as queue:
        put(queue, numbered(1), attempt(REFUSED))
        made = calls(lambda: queue.drop(DEAD, NOW))
    gone = made.index(("unlink", "unlink"))
    flushed = made.index(("flush_folder", "fsync"), gone)
    assert ("delete", "execute") in made[flushed:]
    assert ("delete", "execute") not in made[:flushed]


def test_every_change_of_the_walk_has_its_rule() -> None:
    assert set(ACTIONS) == set(ALLOWED)
