"""A QIDO-RS search (PS3.18 10.6) as a value, and its SQL."""

from collections.abc import Sequence
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

_JOINS = {
    "series": "series ON series.study = study.id",
    "instance": "instance ON instance.series = series.id",
}
_TABLES = ("study", "series", "instance")
# What few rows share. All else is looked at only where a condition on one of these leads.
_KEYS = frozenset(
    {
        *("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"),
        *("PatientID", "AccessionNumber", "PatientName"),
    }
)

Sql = tuple[str, list[Any]]


def page(query: Query) -> Sql:
    """Return the statement that finds the ids of one page, and its parameters.

    SQLite has no statistics here and would take any index for as good as another. So one condition
    leads, through its own index and in the order of that index, which saves the sort; the others
    are kept from leading by a plus before their column. The order is total, so that pages join;
    what is asked for decides which it is.
    """
    found, values = _found(query)
    return f"{found} LIMIT ? OFFSET ?", [*values, query.limit, query.offset]


def _found(query: Query) -> Sql:
    match min(query.conditions, key=_rank, default=None):
        case None:
            return f"SELECT id FROM {query.level} ORDER BY id", []  # noqa: S608
        case AnyPrefix() as leader:
            return _by_name(query, leader)
        case OneOf(keyword) if keyword in _KEYS:
            return _by_keys(query)
        case leader:
            return _by_one(query, leader)


def _rank(condition: Condition) -> int:
    """Tell how well a condition leads: the lower, the fewer rows it should leave."""
    match condition:
        case OneOf(keyword):
            return {"StudyDate": 1, "ReferringPhysicianName": 3, "Modality": 5}.get(keyword, 0)
        case Between(_, first, last):
            return 1 if _is_narrow(first, last) else 4
        case AnyPrefix():
            return 2


def _is_narrow(first: str, last: str) -> bool:
    """Tell whether a range of dates is no longer than a month or so."""
    return first.isdigit() and last.isdigit() and int(last) - int(first) <= 100


def _by_keys(query: Query) -> Sql:
    """Find by what is nearly unique, whichever of several keys SQLite thinks best."""
    clauses = [_clause(condition, leads=_rank(condition) == 0) for condition in query.conditions]
    tables = _needed(query.level, query.conditions)
    joined = " JOIN ".join([tables[0], *(_JOINS[table] for table in tables[1:])])
    # The plus keeps SQLite from walking through all rows in their order to save itself a sort.
    return _select(query.level, joined, clauses, [f"+{query.level}.id"])


def _by_one(query: Query, leader: OneOf | Between) -> Sql:
    """Find by a condition that many rows may meet, in the order of its index."""
    clauses = [_clause(condition, leads=condition is leader) for condition in query.conditions]
    tables = _needed(query.level, query.conditions)
    joined = " CROSS JOIN ".join([tables[0], *(_JOINS[table] for table in tables[1:])])
    dated = ["study.study_date"] if leader.keyword == "StudyDate" else []
    return _select(query.level, joined, clauses, dated + [f"{table}.id" for table in tables])


def _by_name(query: Query, leader: AnyPrefix) -> Sql:
    """Find by the tokens of names, in the order of the studies.

    The inner query puts them in order, and the joins of the outer one keep to it. To ask for that
    order again would have SQLite sort everything before it gives the first row.
    """
    others = [condition for condition in query.conditions if condition is not leader]
    clauses = [_clause(condition, leads=False) for condition in others]
    studies, ends = _named(leader)
    if query.level == "study" and not others:
        return studies, ends
    tables = [f"({studies}) AS named", "study ON study.id = named.study"]
    tables += [_JOINS[table] for table in _TABLES[1 : _TABLES.index(query.level) + 1]]
    found, values = _select(query.level, " CROSS JOIN ".join(tables), clauses)
    return found, ends + values


def _named(condition: AnyPrefix) -> Sql:
    arms = ["SELECT study FROM patient_name_token WHERE token BETWEEN ? AND ?"]
    arms = arms * len(condition.tokens) or ["SELECT study FROM patient_name_token WHERE FALSE"]
    first = arms[0].replace("SELECT", "SELECT DISTINCT", 1) if len(arms) == 1 else arms[0]
    return " UNION ".join([first, *arms[1:]]) + " ORDER BY study", _ends(condition)


def _needed(level: Level, conditions: Sequence[Condition]) -> list[str]:
    """Return the tables from the topmost that a condition looks at down to the level's own."""
    bottom = _TABLES.index(level)
    tops = [_TABLES.index(_column(condition).partition(".")[0]) for condition in conditions]
    return list(_TABLES[min([bottom, *tops]) : bottom + 1])


def _column(condition: Condition) -> str:
    return "study.id" if isinstance(condition, AnyPrefix) else _INSTANCE[condition.keyword]


def _select(level: Level, tables: str, clauses: Sequence[Sql], order: Sequence[str] = ()) -> Sql:
    where = " AND ".join(clause for clause, _ in clauses) or "TRUE"
    ordered = f" ORDER BY {', '.join(order)}" if order else ""
    statement = f"SELECT {level}.id FROM {tables} WHERE {where}{ordered}"  # noqa: S608
    return statement, [value for _, values in clauses for value in values]


def _clause(condition: Condition, *, leads: bool) -> Sql:
    column = _column(condition) if leads else f"+{_column(condition)}"
    match condition:
        case OneOf(_, (value,)):
            return f"{column} = ?", [value]
        case OneOf(_, values):
            return f"{column} IN ({', '.join('?' * len(values))})", list(values)
        case Between(_, first, last):
            return f"{column} BETWEEN ? AND ?", [first, last or "~"]
        case AnyPrefix(tokens):
            ranges = " OR ".join(["token BETWEEN ? AND ?"] * len(tokens)) or "FALSE"
            having = f"SELECT 1 FROM patient_name_token WHERE study = study.id AND ({ranges})"  # noqa: S608
            return f"EXISTS ({having})", _ends(condition)


def _ends(condition: AnyPrefix) -> list[str]:
    return [end for token in condition.tokens for end in (token, token + "\U0010ffff")]
