"""A QIDO-RS search (PS3.18 10.6) as a value, and its SQL."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Level = Literal["study", "series", "instance"]


class OneOf(NamedTuple):
    """An attribute that equals one of some values."""

    keyword: str
    values: tuple[str, ...]


class Between(NamedTuple):
    """An attribute in a range that includes both ends; an empty end is open."""

    keyword: str
    first: str
    last: str


class AnyPrefix(NamedTuple):
    """A PatientName one of whose tokens begins with one of some normalised tokens."""

    tokens: tuple[str, ...]


Condition = OneOf | Between | AnyPrefix


@dataclass(frozen=True, slots=True)
class Query:
    """A search at one level; at most `limit` results after the first `offset` ones."""

    level: Level
    conditions: tuple[Condition, ...] = ()
    limit: int = -1
    offset: int = 0


_STUDY = {
    "StudyInstanceUID": "study.study_instance_uid",
    "PatientName": "study.patient_name",
    "PatientID": "study.patient_id",
    "AccessionNumber": "study.accession_number",
    "ReferringPhysicianName": "study.referring_physician_name",
    "StudyDate": "study.study_date",
}
_SERIES = _STUDY | {
    "SeriesInstanceUID": "series.series_instance_uid",
    "Modality": "series.modality",
}
_INSTANCE = _SERIES | {"SOPInstanceUID": "instance.sop_instance_uid"}

SEARCHABLE: dict[Level, dict[str, str]] = {
    "study": _STUDY,
    "series": _SERIES,
    "instance": _INSTANCE,
}

_COUNTS = (
    "(SELECT json_group_array(DISTINCT modality) FROM series AS s"
    " WHERE s.study = study.id AND modality IS NOT NULL),"
    " (SELECT count(*) FROM series AS s WHERE s.study = study.id),"
    " (SELECT sum(instances) FROM series AS s WHERE s.study = study.id)"
)
_COLUMNS: dict[Level, str] = {
    "study": f"study.attributes, {_COUNTS}",
    "series": f"study.attributes, {_COUNTS}, series.attributes, series.instances",
    "instance": "instance.attributes",
}
_TABLES: dict[Level, str] = {
    "study": "study",
    "series": "series JOIN study ON study.id = series.study",
    "instance": (
        "instance JOIN series ON series.id = instance.series JOIN study ON study.id = series.study"
    ),
}


def sql(query: Query) -> tuple[str, list[Any]]:
    """Return the statement and its parameters; results come in the order of their arrival.

    The page is cut out of ids alone, so that what is skipped or sorted is never read.
    """
    tables, row = _TABLES[query.level], f"{query.level}.id"
    clauses = [_clause(condition) for condition in query.conditions]
    where = " AND ".join(clause for clause, _ in clauses) or "TRUE"
    # The plus keeps SQLite from walking through all rows in their order to save itself a sort.
    order = f"+{row}" if clauses else row
    page = f"SELECT {row} FROM {tables} WHERE {where} ORDER BY {order} LIMIT ? OFFSET ?"  # noqa: S608
    statement = (
        f"SELECT {_COLUMNS[query.level]} FROM {tables} WHERE {row} IN ({page}) ORDER BY {row}"  # noqa: S608
    )
    parameters = [value for _, values in clauses for value in values]
    return statement, [*parameters, query.limit, query.offset]


def _clause(condition: Condition) -> tuple[str, list[str]]:
    match condition:
        case OneOf(keyword, values):
            return f"{_INSTANCE[keyword]} IN ({_marks(len(values))})", list(values)
        case Between(keyword, first, last):
            return f"{_INSTANCE[keyword]} BETWEEN ? AND ?", [first, last or "~"]
        case AnyPrefix(tokens):
            ranges = " OR ".join(["token BETWEEN ? AND ?"] * len(tokens)) or "FALSE"
            ends = [end for token in tokens for end in (token, token + "\U0010ffff")]
            return f"study.id IN (SELECT study FROM patient_name_token WHERE {ranges})", ends  # noqa: S608


def _marks(count: int) -> str:
    return ", ".join("?" * count)
