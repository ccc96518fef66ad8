"""Deleting: an intent on the disk first, so that no crash brings anything back."""

import json
import os
import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from service.archive import (
    Archive,
    BeingDeleted,
    InstanceUids,
    Query,
    Rebuilt,
    Stored,
    deletion,
)
from tests.archive_instances import INSTANCE, SERIES, STUDY, dicom_file, put
from tests.test_retry_full_disk import mounted, write_all

UIDS = InstanceUids(STUDY, SERIES, INSTANCE)
NAMES = {"parent": "projects/p"}


def filled(root: Path) -> Archive:
    """Open an archive of three instances in two series of one study, and one of another study."""
    archive = Archive(root)
    put(archive, dicom_file())
    put(archive, dicom_file(SOPInstanceUID="7.1"))
    put(archive, dicom_file(SOPInstanceUID="7.2", SeriesInstanceUID="8.2"))
    put(archive, dicom_file(StudyInstanceUID="9.9"))
    return archive


def files(root: Path) -> set[str]:
    return {path.stem for path in (root / "instances").rglob("*.dcm")}


def assert_clean(root: Path) -> None:
    for folder in ("deleting", "outgoing", "incoming"):
        assert list((root / folder).iterdir()) == []


def begin(archive: Archive, study: str = STUDY, series: str | None = None) -> str:
    operation = archive.begin_delete(study, series, NAMES)
    assert operation
    return operation


@pytest.mark.parametrize(("series", "count"), [(None, 3), (SERIES, 2)])
def test_what_is_being_deleted_is_gone_for_readers_at_once(
    tmp_path: Path, series: str | None, count: int
) -> None:
    archive = filled(tmp_path)
    operation = begin(archive, series=series)
    assert len(archive.search(Query("instance"))) == 4 - count
    assert not archive.path(UIDS).exists()
    running = archive.operation(operation)
    assert running
    assert (running.names, running.instances, running.finished) == (NAMES, count, "")
    assert archive.begin_delete(STUDY, series, NAMES) is None
    assert put(archive, dicom_file()) == BeingDeleted(UIDS)
    assert isinstance(put(archive, dicom_file(StudyInstanceUID="9.8")), Stored)
    archive.finish_delete(operation)
    archive.finish_delete(operation)
    finished = archive.operation(operation)
    assert finished
    assert finished.created < finished.finished
    assert_clean(tmp_path)
    assert put(archive, dicom_file()) == Stored(UIDS)
    archive.close()


def test_another_series_of_a_study_can_be_stored_while_one_is_being_deleted(
    tmp_path: Path,
) -> None:
    archive = filled(tmp_path)
    begin(archive, series=SERIES)
    assert isinstance(put(archive, dicom_file(SeriesInstanceUID="8.3")), Stored)
    archive.close()


def test_a_deletion_that_a_death_interrupted_is_finished_at_the_next_start(tmp_path: Path) -> None:
    archive = filled(tmp_path)
    operation = begin(archive)
    archive.close()
    again = Archive(tmp_path)
    found = again.operation(operation)
    assert found
    assert found.finished
    assert found.instances == 3
    assert files(tmp_path) == {INSTANCE}
    assert_clean(tmp_path)
    again.close()


@pytest.mark.parametrize("index", ["kept", "lost"])
@pytest.mark.parametrize("instance", [None, INSTANCE])
def test_an_intent_is_carried_out_even_if_nothing_else_was_done(
    tmp_path: Path, index: str, instance: str | None
) -> None:
    archive = filled(tmp_path)
    operation = begin(archive, "9.9")
    archive.close()
    # As if the process had died right behind the intent: everything is in its place still.
    intent = json.loads((tmp_path / "deleting" / f"{operation}.json").read_bytes())
    intent |= {"study": STUDY, "series": instance and SERIES, "instance": instance}
    (tmp_path / "deleting" / f"{operation}.json").write_text(json.dumps(intent))
    for file in tmp_path.glob("index.sqlite*") if index == "lost" else ():
        file.unlink()
    again = Archive(tmp_path)
    left = {"7.1", "7.2"} if instance else set()
    assert files(tmp_path) == left
    assert {row.uids.instance for row in again.instances(STUDY)} == left
    assert_clean(tmp_path)
    assert (again.operation(operation) is None) == bool(instance)
    assert put(again, dicom_file()) == Stored(UIDS)
    again.close()


def test_a_rebuild_does_not_bring_back_what_is_being_deleted(tmp_path: Path) -> None:
    archive = filled(tmp_path)
    begin(archive)
    assert archive.rebuild() == Rebuilt(indexed=1, skipped=0)
    archive.close()


def test_a_finished_operation_outlives_the_index_and_a_repeated_intent(tmp_path: Path) -> None:
    archive = filled(tmp_path)
    operation = begin(archive)
    intent = (tmp_path / "deleting" / f"{operation}.json").read_bytes()
    archive.finish_delete(operation)
    put(archive, dicom_file())
    archive.close()
    # A loss of power may bring back an intent whose removal wasn't flushed yet.
    (tmp_path / "deleting" / f"{operation}.json").write_bytes(intent)
    for file in tmp_path.glob("index.sqlite*"):
        file.unlink()
    again = Archive(tmp_path)
    assert again.instances(*UIDS)
    found = again.operation(operation)
    assert found
    assert found.finished
    assert_clean(tmp_path)
    again.close()


def test_operations_are_forgotten_after_a_month(tmp_path: Path) -> None:
    archive = filled(tmp_path)
    old, recent = begin(archive, series=SERIES), begin(archive, series="8.2")
    archive.finish_delete(old)
    record = tmp_path / "operations" / f"{old}.json"
    long_ago = record.stat().st_mtime - deletion.KEPT_FOR - 1
    os.utime(record, (long_ago, long_ago))
    archive.finish_delete(recent)
    assert archive.operation(old) is None
    assert archive.operation(recent)
    archive.close()


@pytest.mark.parametrize("number", ["", "x", "..", "../index", "1" * 300, "1"])
def test_an_operation_is_named_by_digits_only(tmp_path: Path, number: str) -> None:
    archive = Archive(tmp_path)
    assert archive.operation(number) is None
    archive.close()


def test_an_instance_is_gone_with_the_folders_that_it_leaves_empty(tmp_path: Path) -> None:
    archive = filled(tmp_path)
    assert archive.delete(STUDY, "8.2", "7.2") == 1
    assert not (tmp_path / "instances" / STUDY / "8.2").exists()
    assert_clean(tmp_path)
    assert list((tmp_path / "operations").iterdir()) == []
    archive.close()


def left_by_a_death(root: Path, file: bytes) -> Path:
    """Publish a file as a store does that dies before its row is there."""
    leftover = root / "incoming" / "tmp1"
    leftover.write_bytes(file)
    target = UIDS.path(root / "instances")
    target.parent.mkdir(parents=True)
    os.link(leftover, target)
    return leftover


def test_a_published_file_gets_its_row_at_the_next_start(tmp_path: Path) -> None:
    Archive(tmp_path).close()
    left_by_a_death(tmp_path, dicom_file())
    archive = Archive(tmp_path)
    (row,) = archive.instances(*UIDS)
    assert row.size == len(dicom_file())
    assert archive.path(UIDS).read_bytes() == dicom_file()
    assert_clean(tmp_path)
    assert archive.search(Query("study"))[0]["00201208"]["Value"] == [1]
    archive.close()


def test_a_second_name_whose_target_is_another_file_gives_no_row(tmp_path: Path) -> None:
    Archive(tmp_path).close()
    left_by_a_death(tmp_path, dicom_file())
    UIDS.path(tmp_path / "instances").rename(tmp_path / "elsewhere.dcm")
    archive = Archive(tmp_path)
    assert archive.instances(*UIDS) == []
    assert_clean(tmp_path)
    archive.close()


@pytest.mark.parametrize("left", [0, 4096, 32768])
@pytest.mark.parametrize("what", [(STUDY,), (STUDY, SERIES, INSTANCE)], ids=["study", "instance"])
def test_what_fills_the_disk_can_be_deleted(
    tmp_path: Path, left: int, what: tuple[str, ...]
) -> None:
    """An intent needs a block, and the log of the index more, before anything is given back."""
    with ExitStack() as stack:
        if not mounted(stack, tmp_path):
            pytest.skip("a small disk can't be mounted")
        root = tmp_path / "archive"
        filled(root).close()
        write_all(tmp_path / "filler")
        os.truncate(tmp_path / "filler", (tmp_path / "filler").stat().st_size - left)
        archive = Archive(root)  # with a log that is to be made, and to grow
        stack.callback(archive.close)
        assert len(archive.instances(STUDY)) == 3
        assert archive.delete(*what) == (3 if len(what) == 1 else 1)
        assert archive.instances(*what) == []
        assert archive.delete(*what) == 0
        (tmp_path / "filler").unlink()
        assert isinstance(put(archive, dicom_file()), Stored)
        assert_clean(root)


def test_a_deletion_that_fails_is_not_one_that_waits_for_the_next_start(tmp_path: Path) -> None:
    archive = filled(tmp_path)
    with closing(sqlite3.connect(tmp_path / "index.sqlite")) as other:
        other.execute(
            "CREATE TRIGGER no BEFORE DELETE ON instance BEGIN SELECT raise(ABORT, 'no'); END"
        )
        with pytest.raises(sqlite3.Error):
            archive.delete(STUDY)
        assert_clean(tmp_path)
        assert isinstance(put(archive, dicom_file(SOPInstanceUID="7.3")), Stored)
        other.execute("DROP TRIGGER no")
    assert archive.delete(STUDY) == 4
    archive.close()
