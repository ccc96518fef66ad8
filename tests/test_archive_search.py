"""The index: what it finds, and that it finds it without looking at everything."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.archive import (
    SEARCHABLE,
    AnyPrefix,
    Archive,
    Between,
    Condition,
    Level,
    OneOf,
    Query,
    name_tokens,
)
from service.archive.query import sql
from service.dicom import part10
from tests.archive_instances import dicom_file

PATIENTS = ("Müller^José", "Doe^John", "O'Neil^Mary Ann")
LEVELS: tuple[Level, ...] = ("study", "series", "instance")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """Hold three studies of two series each, and two instances in each series."""
    opened = Archive(tmp_path_factory.mktemp("archive"))
    for number in range(12):
        study, series = number // 4, number // 2
        file = dicom_file(
            StudyInstanceUID=f"1.{study}",
            SeriesInstanceUID=f"2.{series}",
            SOPInstanceUID=f"3.{number}",
            PatientName=PATIENTS[study],
            PatientID=f"P{study}",
            AccessionNumber=f"A{study}",
            ReferringPhysicianName=f"R{study}",
            StudyDate=f"2024010{study + 1}",
            Modality="ES" if series % 2 else "XC",
        )
        opened.store([file], part10.decode(file))
    yield opened
    opened.close()


def found(archive: Archive, level: Level, *conditions: Condition) -> list[str]:
    tag = {"study": "0020000D", "series": "0020000E", "instance": "00080018"}[level]
    return [model[tag]["Value"][0] for model in archive.search(Query(level, conditions))]


@pytest.mark.parametrize(
    ("condition", "studies"),
    [
        (OneOf("StudyInstanceUID", ("1.2", "1.0")), ["1.0", "1.2"]),
        (OneOf("PatientID", ("P1",)), ["1.1"]),
        (OneOf("PatientID", ("p1",)), []),
        (OneOf("PatientName", ("Doe^John",)), ["1.1"]),
        (OneOf("AccessionNumber", ("A2",)), ["1.2"]),
        (OneOf("ReferringPhysicianName", ("R0",)), ["1.0"]),
        (OneOf("StudyDate", ("20240102",)), ["1.1"]),
        (Between("StudyDate", "20240102", "20240103"), ["1.1", "1.2"]),
        (Between("StudyDate", "20240102", ""), ["1.1", "1.2"]),
        (Between("StudyDate", "", "20240102"), ["1.0", "1.1"]),
        (AnyPrefix(("jo",)), ["1.0", "1.1"]),
        (AnyPrefix(("muller",)), ["1.0"]),
        (AnyPrefix(("x", "ann")), ["1.2"]),
        (AnyPrefix(("ohn",)), []),
        (AnyPrefix(()), []),
    ],
)
def test_a_study_is_found_by_its_attributes(
    archive: Archive, condition: Condition, studies: list[str]
) -> None:
    assert found(archive, "study", condition) == studies


def test_series_and_instances_are_found_by_what_is_above_them(archive: Archive) -> None:
    patient = OneOf("PatientID", ("P1",))
    assert found(archive, "series", patient) == ["2.2", "2.3"]
    assert found(archive, "series", patient, OneOf("Modality", ("ES",))) == ["2.3"]
    assert found(archive, "instance", patient, OneOf("Modality", ("ES",))) == ["3.6", "3.7"]
    assert found(archive, "instance", OneOf("SOPInstanceUID", ("3.11",))) == ["3.11"]


@pytest.mark.parametrize(("level", "total"), [("study", 3), ("series", 6), ("instance", 12)])
def test_pages_join_to_the_whole(archive: Archive, level: Level, total: int) -> None:
    whole = found(archive, level)
    pages = [archive.search(Query(level, limit=2, offset=offset)) for offset in range(0, total, 2)]
    assert len(whole) == total
    assert sum(map(len, pages)) == total
    assert archive.search(Query(level, limit=2, offset=total)) == []


@pytest.mark.parametrize(
    ("level", "keyword"), [(level, keyword) for level in LEVELS for keyword in SEARCHABLE[level]]
)
def test_a_search_never_scans_a_table(archive: Archive, level: Level, keyword: str) -> None:
    root = archive.path(archive.instances("1.0")[0].uids).parents[3]
    conditions: list[Condition] = [OneOf(keyword, ("1",))]
    conditions += [Between(keyword, "1", "2")] if keyword == "StudyDate" else []
    conditions += [AnyPrefix(("a", "b"))] if keyword == "PatientName" else []
    for condition in conditions:
        assert scans(root, Query(level, (condition,))) == []


def scans(root: Path, query: Query) -> list[str]:
    statement, parameters = sql(query)
    index = sqlite3.connect(root / "index.sqlite")
    plan = index.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
    index.close()
    return [step for *_, step in plan if step.startswith("SCAN")]


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("Müller^José", {"muller", "jose"}),
        ("O'Neil^Mary Ann", {"o", "neil", "mary", "ann"}),
        ("Yamada^Tarou=山田^太郎", {"yamada", "tarou", "山田", "太郎"}),
        ("STRASSE^straße", {"strasse"}),
        ("^^_ ", set()),
    ],
)
def test_a_name_is_cut_into_tokens_without_case_and_accents(name: str, tokens: set[str]) -> None:
    assert name_tokens(name) == tokens
