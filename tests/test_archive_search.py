"""The index: what it finds, and that it finds it without looking at everything."""

import sqlite3
from collections.abc import Iterator
from itertools import chain

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
from service.archive.query import page
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


ANYTHING: list[tuple[Condition, ...]] = [
    (),
    (OneOf("Modality", ("ES",)),),
    (OneOf("ReferringPhysicianName", ("R0",)),),
    (OneOf("Modality", ("XC",)), OneOf("PatientID", ("P1",))),
    (OneOf("ReferringPhysicianName", ("R1",)), OneOf("PatientID", ("P1",))),
    (OneOf("ReferringPhysicianName", ("R1",)), Between("StudyDate", "2023", "2025")),
    (Between("StudyDate", "", "20240102"),),
    (Between("StudyDate", "20240101", "20240103"), OneOf("Modality", ("XC",))),
    (OneOf("StudyDate", ("20240102",)), OneOf("ReferringPhysicianName", ("R1",))),
    (AnyPrefix(("jo", "m")),),
    (AnyPrefix(("jo",)), OneOf("StudyDate", ("20240102",))),
    (AnyPrefix(("jo",)), Between("StudyDate", "", "")),
    (AnyPrefix(("jo",)), AnyPrefix(("doe",))),
    (AnyPrefix(("jo", "doe")), OneOf("PatientName", ("Doe^John",))),
    (AnyPrefix(("jo",)), OneOf("Modality", ("ES",)), OneOf("StudyInstanceUID", ("1.1", "1.0"))),
    (AnyPrefix(()), OneOf("Modality", ("ES",))),
]


def meets(study: int, series: int, condition: Condition) -> bool:
    """Tell by the tests' own rule whether a condition holds for a series of a study."""
    values = {
        "StudyInstanceUID": f"1.{study}",
        "PatientName": PATIENTS[study],
        "PatientID": f"P{study}",
        "AccessionNumber": f"A{study}",
        "ReferringPhysicianName": f"R{study}",
        "StudyDate": f"2024010{study + 1}",
        "Modality": "ES" if series % 2 else "XC",
    }
    match condition:
        case OneOf(keyword, allowed):
            return values[keyword] in allowed
        case Between(keyword, first, last):
            return first <= values[keyword] <= (last or "~")
        case AnyPrefix(tokens):
            names = name_tokens(PATIENTS[study])
            return any(name.startswith(token) for name in names for token in tokens)


@pytest.mark.parametrize("conditions", ANYTHING)
@pytest.mark.parametrize("level", LEVELS)
def test_any_conditions_together_find_what_meets_all_of_them(
    archive: Archive, level: Level, conditions: tuple[Condition, ...]
) -> None:
    at_study = [c for c in conditions if getattr(c, "keyword", "") != "Modality"]
    conditions = tuple(at_study) if level == "study" else conditions
    wanted = {
        {"study": f"1.{number // 4}", "series": f"2.{number // 2}", "instance": f"3.{number}"}[
            level
        ]
        for number in range(12)
        if all(meets(number // 4, number // 2, condition) for condition in conditions)
    }
    whole = found(archive, level, *conditions)
    assert sorted(whole) == sorted(wanted)
    pages = [found_page(archive, level, conditions, offset) for offset in range(0, 14, 2)]
    assert list(chain.from_iterable(pages)) == whole


def found_page(
    archive: Archive, level: Level, conditions: tuple[Condition, ...], offset: int
) -> list[str]:
    tag = {"study": "0020000D", "series": "0020000E", "instance": "00080018"}[level]
    query = Query(level, conditions, limit=2, offset=offset)
    return [model[tag]["Value"][0] for model in archive.search(query)]


@pytest.mark.parametrize(
    ("conditions", "level"),
    [
        ((OneOf("Modality", ("ES",)),), "series"),
        ((OneOf("Modality", ("ES",)),), "instance"),
        ((OneOf("ReferringPhysicianName", ("R0",)),), "study"),
        ((Between("StudyDate", "1", "2"),), "study"),
    ],
)
def test_what_many_rows_meet_is_found_without_sorting_them(
    archive: Archive, level: Level, conditions: tuple[Condition, ...]
) -> None:
    assert [step for step in plan_of(archive, Query(level, conditions)) if "B-TREE" in step] == []


@pytest.mark.parametrize("weak", ["Modality", "ReferringPhysicianName", "StudyDate"])
@pytest.mark.parametrize(
    "key",
    [
        *("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"),
        *("PatientID", "AccessionNumber", "PatientName"),
    ],
)
def test_what_many_rows_meet_never_leads_where_a_key_is_given(
    archive: Archive, weak: str, key: str
) -> None:
    query = Query("instance", (OneOf(weak, ("1",)), OneOf(key, ("1",))))
    column = {"StudyDate": "study_date", "Modality": "modality"}.get(
        weak, "referring_physician_name"
    )
    assert [step for step in plan_of(archive, query) if f"({column}" in step] == []


@pytest.mark.parametrize(
    ("level", "keyword"), [(level, keyword) for level in LEVELS for keyword in SEARCHABLE[level]]
)
def test_a_search_never_scans_a_table(archive: Archive, level: Level, keyword: str) -> None:
    conditions: list[Condition] = [OneOf(keyword, ("1",))]
    conditions += [Between(keyword, "1", "2")] if keyword == "StudyDate" else []
    conditions += [AnyPrefix(("a", "b"))] if keyword == "PatientName" else []
    for condition in conditions:
        plan = plan_of(archive, Query(level, (condition,)))
        assert [step for step in plan if step.startswith("SCAN") and step != "SCAN named"] == []


def plan_of(archive: Archive, query: Query) -> list[str]:
    root = archive.path(archive.instances("1.0")[0].uids).parents[3]
    statement, parameters = page(query)
    index = sqlite3.connect(root / "index.sqlite")
    plan = index.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
    index.close()
    return [step for *_, step in plan]


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
