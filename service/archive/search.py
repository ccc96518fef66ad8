"""What the index finds, and how it becomes DICOM JSON."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from service.archive import fields
from service.archive.files import InstanceUids
from service.archive.query import Level, Query, page
from service.database import Database
from service.dicom.json_model import JsonObject, dumps

_CHUNK = 500  # rows
_NUMBERS = (fields.STUDY_SERIES, fields.STUDY_INSTANCES, fields.SERIES_INSTANCES)
_COUNTED = '"%s":{"vr":"IS","Value":[%d]}'


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
    """What a search answers of an instance by default: see `fields.result`, and what is counted."""

    uids: InstanceUids
    fields: str
    modalities: str
    counted: str


_COUNTS = "study.modalities, study.series, study.instances"
_WHOLE = (
    " FROM instance CROSS JOIN series ON series.id = instance.series"
    " CROSS JOIN study ON study.id = series.study"
    " CROSS JOIN instance_attributes ON instance_attributes.instance = instance.id"
    " WHERE instance.id"
)
_MODELS: dict[Level, str] = {
    "study": (
        f"SELECT study.id, {_COUNTS}, NULL, study.attributes FROM study WHERE study.id"  # noqa: S608
    ),
    "series": (
        f"SELECT series.id, {_COUNTS}, series.instances, study.attributes, series.attributes"  # noqa: S608
        " FROM series CROSS JOIN study ON study.id = series.study WHERE series.id"
    ),
    "instance": (
        f"SELECT instance.id, {_COUNTS}, series.instances, instance_attributes.attributes{_WHOLE}"
    ),
}
_LISTED = (
    "SELECT instance.id, study_instance_uid, series_instance_uid, sop_instance_uid, fields,"
    f" {_COUNTS}, series.instances{_WHOLE}"
)


def models(index: Database, query: Query) -> Iterator[JsonObject]:
    """Yield the attributes of what matches, with ModalitiesInStudy and the counts."""
    for row in _rows(index, query, _MODELS[query.level]):
        yield _model(*row)


def listed(index: Database, query: Query) -> Iterator[Listed]:
    """Yield of each instance that matches what a search answers by default."""
    for study, series, instance, text, modalities, *numbers in _rows(index, query, _LISTED):
        counted = ",".join(map(_COUNTED.__mod__, zip(_NUMBERS, numbers, strict=True)))
        uids = InstanceUids(study, series, instance)
        yield Listed(uids, text, _modalities(modalities), counted)


@lru_cache(64)
def _modalities(found: str) -> str:
    """Return ModalitiesInStudy as the inside of a JSON object; empty without any."""
    return dumps(_modalities_in_study(found)).decode()[1:-1]


def _modalities_in_study(found: str) -> JsonObject:
    # A Modality that is a sequence is an object here.
    names = sorted(name for name in json.loads(found) if isinstance(name, str))
    return {fields.MODALITIES: {"vr": "CS", "Value": names}} if names else {}


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


def _model(modalities: str, *columns: Any) -> JsonObject:
    """Merge the columns of one search result into one DICOM JSON object."""
    numbers, attributes = columns[: len(_NUMBERS)], columns[len(_NUMBERS) :]
    model: JsonObject = {}
    for text in attributes:
        model |= json.loads(text)
    model |= _modalities_in_study(modalities)
    for tag, number in zip(_NUMBERS, numbers, strict=True):
        if number is not None:
            model[tag] = {"vr": "IS", "Value": [number]}
    return model
