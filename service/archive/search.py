"""What the index finds, and how it becomes DICOM JSON."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from service.archive.files import InstanceUids
from service.archive.query import Level, Query, page
from service.database import Database
from service.dicom.json_model import JsonObject

_CHUNK = 500  # rows


class Instance(NamedTuple):
    """The row of a stored instance; `attributes` is DICOM JSON text, `size` is in bytes."""

    uids: InstanceUids
    sop_class: str
    transfer_syntax: str
    size: int
    sha256: str
    storage_class: str
    attributes: str


class Listed(NamedTuple):
    """What a search answers of an instance by default: see `fields.result`."""

    uids: InstanceUids
    fields: str


_STUDY = "study.attributes, study.modalities, study.series, study.instances"
_MODELS: dict[Level, str] = {
    "study": f"SELECT study.id, {_STUDY} FROM study WHERE study.id",  # noqa: S608
    "series": (
        f"SELECT series.id, {_STUDY}, series.attributes, series.instances"  # noqa: S608
        " FROM series CROSS JOIN study ON study.id = series.study WHERE series.id"
    ),
    "instance": "SELECT instance, attributes FROM instance_attributes WHERE instance",
}
_LISTED = (
    "SELECT instance.id, study_instance_uid, series_instance_uid, sop_instance_uid, fields"
    " FROM instance CROSS JOIN series ON series.id = instance.series"
    " CROSS JOIN study ON study.id = series.study"
    " CROSS JOIN instance_attributes ON instance_attributes.instance = instance.id"
    " WHERE instance.id"
)


def models(index: Database, query: Query) -> Iterator[JsonObject]:
    """Yield the attributes of what matches, with ModalitiesInStudy and the counts."""
    for row in _rows(index, query, _MODELS[query.level]):
        yield _model(*row)


def listed(index: Database, query: Query) -> Iterator[Listed]:
    """Yield of each instance that matches what a search answers by default."""
    for *uids, fields in _rows(index, query, _LISTED):
        yield Listed(InstanceUids(*uids), fields)


def _rows(index: Database, query: Query, statement: str) -> Iterator[Sequence[Any]]:
    """Yield the rows of a page without their ids.

    The ids are found at once. Their rows are read some hundreds at a time, and no connection is
    held while somebody takes them; what has been deleted by then is left out.
    """
    with index.reading() as connection:
        ids = [number for (number,) in connection.execute(*page(query))]
    for start in range(0, len(ids), _CHUNK):
        chunk = ids[start : start + _CHUNK]
        marks = ", ".join("?" * len(chunk))
        with index.reading() as connection:
            found = connection.execute(f"{statement} IN ({marks})", chunk).fetchall()
        rows = {number: row for number, *row in found}
        yield from (rows[number] for number in chunk if number in rows)


def find(
    connection: sqlite3.Connection, study: str, series: str | None, instance: str | None
) -> list[Instance]:
    """Look up by UIDs, each of which narrows the search through its own index."""
    statement = (
        "SELECT study_instance_uid, series_instance_uid, sop_instance_uid, sop_class_uid,"
        " transfer_syntax_uid, size, sha256, storage_class, instance_attributes.attributes"
        " FROM study JOIN series ON series.study = study.id"
        " JOIN instance ON instance.series = series.id"
        " JOIN instance_attributes ON instance_attributes.instance = instance.id"
        " WHERE study_instance_uid = ?"
    )
    parameters = [study]
    for column, uid in (("series_instance_uid", series), ("sop_instance_uid", instance)):
        if uid is not None:
            statement += f" AND {column} = ?"
            parameters.append(uid)
    found = connection.execute(statement + " ORDER BY +instance.id", parameters)
    return [Instance(InstanceUids(*row[:3]), *row[3:]) for row in found]


def _model(
    attributes: str,
    modalities: str | None = None,
    study_series: int = 0,
    study_instances: int = 0,
    *series: str | int,
) -> JsonObject:
    """Merge the columns of one search result into one DICOM JSON object."""
    model: JsonObject = json.loads(attributes)
    if modalities is None:
        return model
    # A Modality that is a sequence is an object here.
    if found := sorted(name for name in json.loads(modalities) if isinstance(name, str)):
        model["00080061"] = {"vr": "CS", "Value": found}
    model["00201206"] = {"vr": "IS", "Value": [study_series]}
    model["00201208"] = {"vr": "IS", "Value": [study_instances]}
    if series:
        text, count = series
        model |= json.loads(str(text))
        model["00201209"] = {"vr": "IS", "Value": [count]}
    return model
