"""What the index keeps of a data set: DICOM JSON without bulk data, at each level."""

import math
import re
import unicodedata
from dataclasses import dataclass
from typing import Any

from pydicom import DataElement, Dataset

from service.archive import fields
from service.archive.fields import part
from service.archive.files import InstanceUids
from service.dicom.json_model import BINARY, JsonObject, dumps, values_of
from service.dicom.uid import is_uid
from service.errors import BadRequest


@dataclass(frozen=True, slots=True)
class Description:
    """What the archive knows of an instance without its file.

    Parameters
    ----------
    study, series, instance
        The attributes at each level, as DICOM JSON text without bulk data.
    fields
        What a search for all instances answers by default: see `fields.result`.
    name_tokens
        What a fuzzy search for the PatientName finds.
    """

    uids: InstanceUids
    sop_class: str
    transfer_syntax: str
    study: str
    series: str
    instance: str
    fields: str
    name_tokens: frozenset[str]


def describe(dataset: Dataset) -> Description:
    """Describe a data set that was read from a file.

    Raises
    ------
    BadRequest
        If a UID is missing or malformed, or the data set can't be written as DICOM JSON.
    """
    uids = InstanceUids(
        _uid(dataset, "StudyInstanceUID"),
        _uid(dataset, "SeriesInstanceUID"),
        _uid(dataset, "SOPInstanceUID"),
    )
    sop_class = _uid(dataset, "SOPClassUID")
    transfer_syntax = _uid(dataset.file_meta, "TransferSyntaxUID")
    try:
        model = without_bulk_data(dataset)
        study, series, instance = (
            dumps(level).decode()
            for level in (part(model, fields.STUDY), part(model, fields.SERIES), model)
        )
        listed = fields.result(model)
    except (RecursionError, TypeError, ValueError) as error:
        raise BadRequest("the data set can't be put into DICOM JSON", reason="json") from error
    names = model.get("00100010", {}).get("Value", [])
    named = [name.values() for name in names if isinstance(name, dict)]
    groups = [group for groups in named for group in groups if isinstance(group, str)]
    tokens = name_tokens(" ".join(groups))
    return Description(uids, sop_class, transfer_syntax, study, series, instance, listed, tokens)


def name_tokens(name: str) -> frozenset[str]:
    """Split a person's name into tokens without case and accents (``DOE^JOSÉ``: doe, jose)."""
    plain = unicodedata.normalize("NFKD", name.casefold())
    letters = "".join(char for char in plain if not unicodedata.combining(char))
    return frozenset(re.findall(r"[^\W_]+", letters))


def _uid(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    if not is_uid(value):
        raise BadRequest(
            f"{keyword} is missing or isn't a UID",
            reason="bad-uid",
            where=keyword,
            mend="a UID is digits and dots, without leading zeros, 64 characters at most",
        )
    return str(value)


def without_bulk_data(dataset: Dataset, where: str = "") -> JsonObject:
    """Return DICOM JSON in which every binary value is a BulkDataURI relative to the instance.

    The URI is the tag, or the path to it: ``00880200/0/7FE00010`` is in the first item of the
    sequence (0088,0200).
    """
    return {
        f"{element.tag:08X}": _element(element, f"{where}{element.tag:08X}")
        for element in dataset
        if element.tag.element != 0
    }


def _element(element: DataElement, where: str) -> JsonObject:
    # pydicom names the VRs between which an implicit data set leaves the choice: "OB or OW".
    vr = element.VR.partition(" ")[0]
    model: JsonObject = {"vr": vr}
    if vr == "SQ":
        items = enumerate(element.value or [])
        values = [without_bulk_data(item, f"{where}/{number}/") for number, item in items]
    elif vr in BINARY or isinstance(element.value, bytes):
        return model | ({"BulkDataURI": where} if element.value else {})
    else:
        values = _values(element)
    return model | ({"Value": values} if values else {})


def _values(element: DataElement) -> list[Any]:
    """Return the values of an element; none if they break the rules of their VR.

    A binary store keeps whatever it gets, so a single bad value must not cost the whole instance.
    """
    try:
        values = values_of(element)
    except Exception:  # noqa: BLE001 - pydicom raises what it meets: type, value, overflow, decimal
        return []
    return [_finite(value) for value in values]


def _finite(value: Any) -> Any:
    """Replace what JSON has no number for by its name."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
