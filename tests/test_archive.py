"""The embedded store: whole, durable, and the same for every thread and process."""

import sqlite3
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import DataElement, Dataset, dcmread

from service.archive import (
    AlreadyStored,
    Archive,
    Conflict,
    InstanceUids,
    Query,
    Rebuilt,
    Stored,
    rebuild,
)
from service.archive.sameness import same_content
from service.dicom import part10
from service.dicom.uid import is_uid
from service.durable import incoming
from service.errors import ArchiveInUse, BadRequest
from tests.archive_instances import (
    BASELINE,
    INSTANCE,
    SERIES,
    STUDY,
    VL_PHOTOGRAPHIC,
    attributes,
    dicom_file,
    put,
)
from tests.judges import require_tool

UIDS = InstanceUids(STUDY, SERIES, INSTANCE)


def count(archive: Archive) -> int:
    return len(archive.search(Query("instance")))


def rows(root: Path) -> list[Any]:
    index = sqlite3.connect(root / "index.sqlite")
    columns = {
        "study": "study_instance_uid, series, instances, modalities, attributes, patient_id,"
        " patient_name, study_date",
        "series": "series_instance_uid, instances, attributes, modality",
        "instance": "sop_instance_uid, transfer_syntax_uid, size, sha256, storage_class",
        "instance_attributes": "fields, attributes",
        "patient_name_token": "token",
    }
    found = [sorted(index.execute(f"SELECT {c} FROM {t}").fetchall()) for t, c in columns.items()]
    index.close()
    return found


def test_a_stored_file_has_the_very_bytes_that_came(archive: Archive, tmp_path: Path) -> None:
    file = dicom_file()
    assert archive.store([file[:500], memoryview(file)[500:]], part10.decode(file)) == Stored(UIDS)
    root = tmp_path / "archive"
    assert (root / "instances" / STUDY / SERIES / f"{INSTANCE}.dcm").read_bytes() == file
    assert list((root / "incoming").iterdir()) == []
    (row,) = archive.instances(*UIDS)
    assert (row.uids, row.sop_class, row.size) == (UIDS, VL_PHOTOGRAPHIC, len(file))


@pytest.mark.parametrize("tool", ["dcmdump", "dcmftest", "gdcminfo"])
def test_other_programs_read_a_stored_file(archive: Archive, tool: str) -> None:
    put(archive, dicom_file())
    program = require_tool(tool)
    subprocess.run([program, str(archive.path(UIDS))], check=True, capture_output=True, timeout=30)


def test_pydicom_reads_a_stored_file(archive: Archive) -> None:
    put(archive, dicom_file())
    assert dcmread(archive.path(UIDS)).SOPInstanceUID == INSTANCE


def test_the_same_file_again_is_already_stored(archive: Archive) -> None:
    put(archive, dicom_file())
    assert put(archive, dicom_file()) == AlreadyStored(UIDS)
    assert count(archive) == 1


def test_what_means_the_same_is_already_stored(archive: Archive) -> None:
    put(archive, dicom_file(PatientWeight="71.5", InstanceNumber="1"))
    other = dicom_file(PatientWeight="71.50", InstanceNumber="01").replace(b"JPEGSTOW", b"SOMEBODY")
    assert put(archive, other) == AlreadyStored(UIDS)


@pytest.mark.parametrize(
    "other",
    [
        dicom_file(PatientID="P2"),
        dicom_file(PatientWeight="71"),
        dicom_file(PatientName=None),
        dicom_file(seed=1),
        dicom_file(syntax="1.2.840.10008.1.2.4.51"),
        dicom_file(ReferencedStudySequence=[attributes(PatientID="P1")]),
    ],
    ids=["value", "more", "less", "pixels", "syntax", "sequence"],
)
def test_other_content_under_the_same_uids_is_a_conflict(archive: Archive, other: bytes) -> None:
    put(archive, dicom_file())
    assert put(archive, other) == Conflict(UIDS)
    assert archive.path(UIDS).read_bytes() == dicom_file()


def test_under_an_index_of_an_older_backup_no_file_is_overwritten(tmp_path: Path) -> None:
    other = InstanceUids(STUDY, SERIES, "1.9")
    archive = Archive(tmp_path)
    put(archive, dicom_file(SOPInstanceUID="1.9"))
    archive.close()
    before = (tmp_path / "index.sqlite").read_bytes()
    archive = Archive(tmp_path)
    put(archive, dicom_file())
    archive.close()
    (tmp_path / "index.sqlite").write_bytes(before)
    archive = Archive(tmp_path)
    assert [row.uids for row in archive.instances(STUDY)] == [other]
    assert put(archive, dicom_file(seed=1)) == Conflict(UIDS)
    assert archive.path(UIDS).read_bytes() == dicom_file()
    assert put(archive, dicom_file()) == AlreadyStored(UIDS)
    assert count(archive) == 2
    archive.close()


def flipped(file: bytes) -> bytes:
    return file[:-99] + bytes([file[-99] ^ 1]) + file[-98:]


DAMAGES: list[Callable[[bytes], bytes]] = [flipped, lambda file: file[:-1], lambda _: b""]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_has_suffered_on_the_disk_is_not_already_stored_but_stored_anew(
    archive: Archive, damage: Callable[[bytes], bytes]
) -> None:
    put(archive, dicom_file())
    path = archive.path(UIDS)
    path.write_bytes(damage(dicom_file()))
    other = damage(dicom_file())
    for another in (dicom_file(PatientID="P2"), dicom_file(seed=1)):
        assert put(archive, another) == Conflict(UIDS)
        assert path.read_bytes() == other
    assert put(archive, dicom_file()) == Stored(UIDS)
    assert path.read_bytes() == dicom_file()
    assert put(archive, dicom_file()) == AlreadyStored(UIDS)
    assert count(archive) == 1


def test_a_transfer_syntax_that_nobody_knows_is_compared_too(archive: Archive) -> None:
    def unknown(file: bytes) -> bytes:
        return file.replace(BASELINE.encode(), b"1.2.840.10008.1.2.4.59")

    put(archive, unknown(dicom_file()))
    assert put(archive, unknown(dicom_file(PatientID="P2"))) == Conflict(UIDS)
    other_writer = unknown(dicom_file()).replace(b"JPEGSTOW", b"SOMEBODY")
    assert put(archive, other_writer) == AlreadyStored(UIDS)


@pytest.mark.parametrize("bad", ["..", "1/2", "01.2", "1..2", "1.2.", "1." * 40, "", "٣.1"])
@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_a_malformed_uid_is_refused_and_nothing_is_written(
    archive: Archive, tmp_path: Path, keyword: str, bad: str
) -> None:
    dataset = part10.decode(dicom_file())
    setattr(dataset, keyword, bad)
    with pytest.raises(BadRequest) as refusal:
        archive.store([b"x"], dataset)
    assert refusal.value.where == keyword
    assert list((tmp_path / "archive" / "instances").iterdir()) == []
    assert archive.delete(bad) == 0


@given(st.text("0123456789./\\\n", max_size=70))
def test_no_uid_can_leave_its_folder(text: str) -> None:
    parts = text.split(".")
    strict = all(part.isdigit() and (part == "0" or part[0] != "0") for part in parts)
    assert is_uid(text) == (strict and len(text) <= 64)


def test_a_path_is_made_of_uids_only() -> None:
    with pytest.raises(ValueError, match="not a UID"):
        InstanceUids("1.2", "..", "1.3").path(Path("/archive"))


def test_counts_and_modalities_follow_stores_and_deletes(archive: Archive) -> None:
    for number in range(4):
        file = dicom_file(
            SOPInstanceUID=f"1.{number}",
            SeriesInstanceUID=f"2.{number // 3}",
            Modality="XC" if number < 3 else "ES",
        )
        put(archive, file)
    (study,) = archive.search(Query("study"))
    assert [study[tag]["Value"] for tag in ("00080061", "00201206", "00201208")] == [
        ["ES", "XC"],
        [2],
        [4],
    ]
    assert archive.delete(STUDY, "2.1", "1.3") == 1
    (study,) = archive.search(Query("study"))
    assert [study[tag]["Value"] for tag in ("00080061", "00201206", "00201208")] == [
        ["XC"],
        [1],
        [3],
    ]
    (series,) = archive.search(Query("series"))
    assert series["00201209"]["Value"] == [3]


def test_deleting_the_last_instance_leaves_no_row_and_no_folder(
    archive: Archive, tmp_path: Path
) -> None:
    put(archive, dicom_file())
    put(archive, dicom_file(StudyInstanceUID="9.9"))
    assert archive.delete(*UIDS) == 1
    assert [path.name for path in (tmp_path / "archive" / "instances").iterdir()] == ["9.9"]
    assert archive.delete("9.9") == 1
    assert list((tmp_path / "archive" / "instances").iterdir()) == []
    assert rows(tmp_path / "archive") == [[], [], [], [], []]
    assert archive.delete("9.9") == 0


def test_the_same_series_uid_in_two_studies_is_two_series(archive: Archive) -> None:
    put(archive, dicom_file())
    put(archive, dicom_file(StudyInstanceUID="9.9"))
    assert archive.delete("9.9", SERIES) == 1
    assert [instance.uids for instance in archive.instances(STUDY)] == [UIDS]


def test_a_rebuilt_index_is_the_same_as_the_lost_one(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    for number in range(5):
        put(archive, dicom_file(SOPInstanceUID=f"1.{number}", StudyInstanceUID=f"2.{number // 2}"))
    before = rows(tmp_path)
    assert archive.rebuild() == Rebuilt(indexed=5, skipped=0)
    assert rows(tmp_path) == before
    archive.close()
    for file in tmp_path.glob("index.sqlite*"):
        file.unlink()
    reopened = Archive(tmp_path)
    assert rows(tmp_path) == before
    reopened.close()


def test_a_storage_class_outlives_the_index_and_goes_with_the_instance(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    file = dicom_file()
    put(archive, file, "NEARLINE")
    assert put(archive, file, "ARCHIVE") == AlreadyStored(UIDS)
    archive.rebuild()
    assert archive.instances(*UIDS)[0].storage_class == "NEARLINE"
    archive.delete(*UIDS)
    assert list((tmp_path / "instances").iterdir()) == []
    put(archive, file)
    assert archive.instances(*UIDS)[0].storage_class == "STANDARD"
    archive.close()


def test_a_storage_class_that_a_crash_left_is_not_that_of_the_next_store(archive: Archive) -> None:
    path = archive.path(UIDS)
    path.parent.mkdir(parents=True)
    path.with_suffix(".class").write_text("ARCHIVE")
    put(archive, dicom_file())
    archive.rebuild()
    assert archive.instances(*UIDS)[0].storage_class == "STANDARD"


def test_a_damaged_index_is_told_and_made_anew_by_a_rebuild(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    put(archive, dicom_file())
    with pytest.raises(ArchiveInUse):
        rebuild(tmp_path)
    archive.close()
    before = rows(tmp_path)
    (tmp_path / "index.sqlite").write_bytes(b"not SQLite at all" * 999)
    with pytest.raises(RuntimeError, match="--rebuild"):
        Archive(tmp_path)
    told: list[Rebuilt] = []
    assert rebuild(tmp_path, told.append) == Rebuilt(indexed=1, skipped=0)
    assert told == []
    assert rows(tmp_path) == before
    assert [path.name for path in tmp_path.glob("index*")] == ["index.sqlite"]
    assert (tmp_path / "index.sqlite").stat().st_mode & 0o777 == 0o600


def test_a_rebuild_that_died_leaves_nothing_behind(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    put(archive, dicom_file())
    archive.close()
    for name in ("index.sqlite.new", "index.sqlite.new-journal", "index.sqlite.new-wal"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "index.sqlite").unlink()
    archive = Archive(tmp_path)
    assert count(archive) == 1
    archive.close()
    assert [path.name for path in tmp_path.glob("index*")] == ["index.sqlite"]


def test_an_old_index_that_another_process_uses_is_left_alone(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    index = sqlite3.connect(tmp_path / "index.sqlite")
    index.execute("PRAGMA user_version = 1")
    index.close()
    with pytest.raises(RuntimeError, match="end what uses it"):
        Archive(tmp_path)
    archive.close()


def test_a_rebuild_leaves_out_what_is_not_what_its_name_says(
    archive: Archive, tmp_path: Path
) -> None:
    put(archive, dicom_file())
    folder = tmp_path / "archive" / "instances" / STUDY / SERIES
    (folder / "1.7.dcm").write_bytes(b"not DICOM")
    (folder / "1.8.dcm").write_bytes(dicom_file(SOPInstanceUID="1.9"))
    (folder / "notes.txt").write_text("an operator's")
    assert archive.rebuild() == Rebuilt(indexed=1, skipped=2)


def test_a_file_without_a_row_is_absent_and_is_replaced_by_a_store(archive: Archive) -> None:
    path = archive.path(UIDS)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"left by a crash")
    assert archive.instances(*UIDS) == []
    assert put(archive, dicom_file()) == Stored(UIDS)
    assert path.read_bytes() == dicom_file()


@pytest.mark.parametrize("moment", ["insert", "commit"])
def test_a_file_whose_row_cannot_be_committed_is_taken_back(tmp_path: Path, moment: str) -> None:
    archive = Archive(tmp_path)
    with sqlite3.connect(tmp_path / "index.sqlite") as connection:
        if moment == "insert":
            connection.execute(
                "CREATE TRIGGER full BEFORE INSERT ON instance_attributes"
                " BEGIN SELECT RAISE(FAIL, 'disk full'); END"
            )
        else:
            connection.execute(
                "CREATE TABLE never (id INTEGER PRIMARY KEY, row INTEGER REFERENCES never"
                " DEFERRABLE INITIALLY DEFERRED)"
            )
            connection.execute(
                "CREATE TRIGGER full AFTER INSERT ON instance BEGIN"
                " INSERT INTO never (row) VALUES (-1); END"
            )
    connection.close()
    file = dicom_file()
    with pytest.raises(sqlite3.DatabaseError):
        put(archive, file)
    assert list(tmp_path.glob("instances/**/*.dcm")) == []
    assert list((tmp_path / "incoming").iterdir()) == []
    archive.close()
    assert rebuild(tmp_path) == (0, 0)


def test_a_file_that_somebody_removed_is_stored_anew(archive: Archive) -> None:
    put(archive, dicom_file())
    archive.path(UIDS).unlink()
    assert put(archive, dicom_file(PatientID="P2")) == Stored(UIDS)
    assert archive.path(UIDS).read_bytes() == dicom_file(PatientID="P2")
    assert count(archive) == 1


def test_leftovers_are_removed_at_start_unless_another_process_is_at_work(tmp_path: Path) -> None:
    first = Archive(tmp_path)
    leftover = tmp_path / "incoming" / "tmp1"
    leftover.write_bytes(b"half a file")
    Archive(tmp_path).close()
    assert leftover.exists()
    first.close()
    Archive(tmp_path).close()
    assert not leftover.exists()


def test_an_incoming_file_that_nobody_keeps_is_removed(tmp_path: Path) -> None:
    with incoming(tmp_path, [b"half", memoryview(b"whole")]) as path:
        assert path.read_bytes() == b"halfwhole"
    assert list(tmp_path.iterdir()) == []


def test_an_index_of_an_older_version_is_made_anew_from_the_files(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    put(archive, dicom_file())
    archive.close()
    before = rows(tmp_path)
    index = sqlite3.connect(tmp_path / "index.sqlite")
    index.executescript("UPDATE instance SET sha256 = 'old'; PRAGMA user_version = 1")
    index.close()
    Archive(tmp_path).close()
    assert rows(tmp_path) == before


def test_an_index_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    Archive(tmp_path).close()
    index = sqlite3.connect(tmp_path / "index.sqlite")
    index.execute("PRAGMA user_version = 99")
    index.close()
    with pytest.raises(RuntimeError, match="index version 99"):
        Archive(tmp_path)


def test_of_many_threads_that_store_one_instance_exactly_one_stores_it(archive: Archive) -> None:
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: put(archive, dicom_file()), range(24)))
    assert [type(result) for result in results].count(Stored) == 1
    assert set(results) == {Stored(UIDS), AlreadyStored(UIDS)}


def test_stores_and_deletes_of_one_instance_by_many_threads_leave_row_and_file_together(
    archive: Archive,
) -> None:
    def step(number: int) -> None:
        if number % 3:
            put(archive, dicom_file())
        else:
            archive.delete(*UIDS)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(step, range(60)))
    assert archive.path(UIDS).exists() == bool(archive.instances(*UIDS))
    put(archive, dicom_file())
    assert archive.path(UIDS).read_bytes() == dicom_file()


def test_binary_values_are_kept_as_paths_and_never_as_bytes(archive: Archive) -> None:
    icon = Dataset()
    icon.add_new(0x7FE00010, "OB", b"icon")
    put(archive, dicom_file(IconImageSequence=[icon], EncapsulatedDocument=b"%PDF"))
    (model,) = archive.search(Query("instance"))
    assert model["7FE00010"] == {"vr": "OB", "BulkDataURI": "7FE00010"}
    assert model["00420011"] == {"vr": "OB", "BulkDataURI": "00420011"}
    (item,) = model["00880200"]["Value"]
    assert item["7FE00010"] == {"vr": "OB", "BulkDataURI": "00880200/0/7FE00010"}


def test_numbers_that_json_does_not_have_are_kept_by_name(archive: Archive) -> None:
    put(archive, dicom_file(EventTimeOffset=[float("nan"), float("-inf"), 1.5]))
    (model,) = archive.search(Query("instance"))
    assert model["00082134"] == {"vr": "FD", "Value": ["nan", "-inf", 1.5]}


def test_one_bad_value_does_not_cost_the_instance(archive: Archive) -> None:
    weight = dicom_file(PatientWeight="71.5").replace(b"71.5", b"heav")
    assert put(archive, weight) == Stored(UIDS)
    (model,) = archive.search(Query("instance"))
    assert model["00101030"] == {"vr": "DS"}


def test_only_the_owner_can_read_what_holds_names(tmp_path: Path) -> None:
    Archive(tmp_path / "archive").close()
    Archive(tmp_path).close()
    assert (tmp_path / "archive").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "instances").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "index.sqlite").stat().st_mode & 0o777 == 0o600


def test_pixel_data_of_another_vr_is_compared_like_any_value() -> None:
    one, other = (part10.decode(dicom_file()) for _ in range(2))
    one[0x7FE00010] = DataElement(0x7FE00010, "LO", "one")
    other[0x7FE00010] = DataElement(0x7FE00010, "LO", "other")
    assert same_content(one, one)
    assert not same_content(one, other)
