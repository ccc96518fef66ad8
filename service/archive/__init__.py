"""The embedded DICOM store: Part 10 files and an index that can always be rebuilt from them."""

from service.archive import fields
from service.archive.attributes import Description, describe, name_tokens
from service.archive.deletion import Operation
from service.archive.files import InstanceUids
from service.archive.query import SEARCHABLE, AnyPrefix, Between, Condition, Level, OneOf, Query
from service.archive.rebuilding import Rebuilt
from service.archive.search import Instance, Listed
from service.archive.store import (
    AlreadyStored,
    Archive,
    BeingDeleted,
    Conflict,
    Stored,
    StoreResult,
    rebuild,
)

__all__ = [
    "SEARCHABLE",
    "AlreadyStored",
    "AnyPrefix",
    "Archive",
    "BeingDeleted",
    "Between",
    "Condition",
    "Conflict",
    "Description",
    "Instance",
    "InstanceUids",
    "Level",
    "Listed",
    "OneOf",
    "Operation",
    "Query",
    "Rebuilt",
    "StoreResult",
    "Stored",
    "describe",
    "fields",
    "name_tokens",
    "rebuild",
]
