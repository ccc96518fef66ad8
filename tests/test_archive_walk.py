"""Whatever step of a store or a delete is the last one, index and files agree afterwards."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from service.archive import AlreadyStored, Archive, Stored
from tests.archive_content import Row, Uids, content
from tests.archive_walk import ACTIONS, BESIDE, NEW, PREPARED, STUDY, copy, file_of, prepare, put

ROOT = Path(__file__).parents[1]


class Step(NamedTuple):
    """What is left after a step, and what had been acknowledged by then."""

    folder: Path
    acknowledged: set[str]


def walk(folder: Path, action: str) -> list[Step]:
    """Kill an action at each of its steps; the last one came to its end."""
    command = [sys.executable, "-m", "tests.archive_walk", str(folder), action]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    return [Step(folder / number, set(acknowledged)) for number, *acknowledged in lines]


def expected(uids: Uids, storage_class: str) -> Row:
    return Row(hashlib.sha256(file_of(uids)).hexdigest(), storage_class)


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    prepare(tmp_path / "prepared")
    return tmp_path


BEFORE = {uids: expected(uids, storage_class) for uids, storage_class in PREPARED.items()}


@pytest.mark.parametrize("where", NEW)
def test_a_store_that_is_killed_has_stored_all_or_nothing(prepared: Path, where: str) -> None:
    steps = walk(prepared, f"store {where}")
    assert len(steps) > 10
    with_it = BEFORE | {NEW[where]: expected(NEW[where], "ARCHIVE")}
    found = [content(step.folder) for step in steps]
    assert all(each in (BEFORE, with_it) for each in found)
    assert found[0] == BEFORE
    assert found[-1] == with_it
    for step, each in zip(steps, found, strict=True):
        assert each == with_it or "stored" not in step.acknowledged
    for step in steps[:: len(steps) // 4]:
        again = Archive(step.folder)
        assert isinstance(put(again, NEW[where], "ARCHIVE"), Stored | AlreadyStored)
        again.close()
        assert content(step.folder) == with_it


def without(*gone: str) -> dict[Uids, Row]:
    return {uids: row for uids, row in BEFORE.items() if not set(gone) & set(uids)}


@pytest.mark.parametrize(
    ("action", "gone"),
    [
        ("delete an instance", next(iter(PREPARED))[2]),
        ("delete a series", "1.2.1.1"),
        ("delete a study", STUDY),
    ],
)
def test_a_delete_that_is_killed_has_deleted_all_or_nothing(
    prepared: Path, action: str, gone: str
) -> None:
    steps = walk(prepared, action)
    assert len(steps) > 10
    found = [content(step.folder) for step in steps]
    assert all(each in (BEFORE, without(gone)) for each in found)
    assert found[0] == BEFORE
    assert found[-1] == without(gone)
    for step, each in zip(steps, found, strict=True):
        assert each == without(gone) or "deleted" not in step.acknowledged


def test_what_was_deleted_by_a_killed_process_does_not_come_back_with_a_lost_index(
    prepared: Path,
) -> None:
    steps = walk(prepared, "delete a study")
    begun = [step for step in steps if "deleted" in step.acknowledged]
    assert len(begun) > 3
    for step in begun:
        for path in step.folder.glob("index.sqlite*"):
            path.unlink()
        assert content(step.folder) == without(STUDY)


@pytest.mark.parametrize("action", ["rebuild", "rebuild while nobody uses it"])
def test_a_rebuild_that_is_killed_loses_nothing(prepared: Path, action: str) -> None:
    for step in walk(prepared, action):
        assert content(step.folder) == BEFORE


@pytest.mark.parametrize("action", ["delete a study", "store into a series"])
def test_a_start_that_is_killed_while_it_cleans_up_is_followed_by_one_that_does(
    prepared: Path, action: str, tmp_path: Path
) -> None:
    steps = walk(prepared, action)
    for number, half in enumerate((len(steps) // 3, 2 * len(steps) // 3)):
        folder = tmp_path / f"again {number}"
        folder.mkdir()
        copy(steps[half].folder, folder / "prepared")
        after = content(steps[half].folder)
        opened = walk(folder, "open")
        assert [content(step.folder) for step in opened] == [after] * len(opened)


def test_every_action_of_the_walk_is_walked() -> None:
    assert set(ACTIONS) == {
        *(f"store {where}" for where in NEW),
        "delete an instance",
        "delete a series",
        "delete a study",
        "rebuild",
        "rebuild while nobody uses it",
        "open",
    }
    assert BESIDE in {study for study, _, _ in without(STUDY)}
