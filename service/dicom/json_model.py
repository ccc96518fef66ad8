"""The DICOM JSON model (PS3.18 Annex F) to and from pydicom data sets."""

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from pydicom import DataElement, Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import STANDARD_VR

JsonObject = dict[str, Any]

# What pydicom raises for a model that isn't one.
_BROKEN = (AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError)

_TEXTS = frozenset({"DS", "IS"})
_ONE_BY_ONE = _TEXTS | {"PN"}  # pydicom fails at several of them if one is empty

BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})


def to_json(dataset: Dataset) -> JsonObject:
    """Return a data set as a DICOM JSON object: keys ascending, empty values left out.

    An attribute without a value has neither Value nor InlineBinary (PS3.18 F.2.5), which
    pydicom doesn't observe for sequences.
    """
    return _without_empty({f"{tag:08X}": _model(dataset[tag]) for tag in dataset.keys()})  # noqa: SIM118


def _model(element: DataElement) -> JsonObject:
    if element.VR == "SQ":
        return {"vr": "SQ", "Value": [to_json(item) for item in element.value or []]}
    if element.VR in _ONE_BY_ONE and element.VM > 1 and not all(map(str, element.value)):
        return {"vr": element.VR, "Value": [_single(element, value) for value in element.value]}
    return element.to_json_dict(None, 0)


def _single(element: DataElement, value: Any) -> Any:
    if not str(value):
        return None
    return DataElement(element.tag, element.VR, value).to_json_dict(None, 0)["Value"][0]


def values_of(element: DataElement) -> list[Any]:
    """Return the values of an element that isn't binary; null for an empty one among several.

    PS3.18 F.2.5. pydicom raises what it meets if a value breaks the rules of its VR.
    """
    values = _model(element).get("Value", [])
    if element.VR == "PN":
        values = map(_without_empty_groups, values)
    return [None if value == "" else value for value in values]


def to_exact_json(dataset: Dataset) -> JsonObject:
    """Return a data set as `to_json` does, with numbers that are text in DICOM left as they are.

    PS3.18 Table F.2.3-1 allows text for DS and IS. As numbers, 3 and 3.0 would become the same,
    and the file written from them another.
    """
    return _with_texts(to_json(dataset), dataset)


def _with_texts(model: JsonObject, dataset: Dataset) -> JsonObject:
    for tag, element in model.items():
        if "Value" not in element:
            continue
        value = dataset[int(tag, 16)].value
        if element["vr"] in _TEXTS:
            several = value if isinstance(value, MultiValue) else [value]
            element["Value"] = [None if one in (None, "") else str(one) for one in several]
        if element["vr"] == "SQ":
            pairs = zip(element["Value"], value, strict=True)
            element["Value"] = [_with_texts(item, nested) for item, nested in pairs]
    return model


def dumps(model: JsonObject | list[JsonObject]) -> bytes:
    """Serialise a DICOM JSON object or array as compact UTF-8; the same model, the same bytes."""
    return json.dumps(model, ensure_ascii=False, separators=(",", ":")).encode()


def loads(text: bytes | str) -> Any:
    """Read JSON strictly: no name twice in an object, no NaN and no Infinity.

    Raises
    ------
    ValueError
        If it isn't JSON of that kind; its text quotes no value.
    """
    try:
        return json.loads(
            text, object_pairs_hook=once, parse_constant=_no_constant, parse_float=_finite
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its members; ValueError if a name is there twice, since one would hide."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has a name twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("it holds a number that is too large")
    return number


def _no_constant(_name: str) -> None:
    raise ValueError("it holds NaN or Infinity")


def from_json(model: JsonObject) -> Dataset:
    """Read a DICOM JSON object without bulk data.

    Raises
    ------
    ValueError
        If the object breaks PS3.18 F.2; the text names the attribute, never its value.
    """
    dataset = Dataset()
    for tag, element in model.items():
        try:
            dataset.add(_element(tag, element))
        except _BROKEN as error:
            detail = f"attribute {tag[:8]!r} isn't in the DICOM JSON model: its VR or its values"
            raise ValueError(detail) from error
    return dataset


def _element(tag: str, element: JsonObject) -> DataElement:
    vr = element["vr"]
    values = element.get("Value")
    if vr == "SQ":
        items = [from_json(item or {}) for item in values or []]
        return DataElement(int(tag, 16), "SQ", items)
    if len(tag) != 8 or vr not in STANDARD_VR or not _is_sound(vr, values or []):
        raise ValueError(tag)
    # pydicom would write the name None for null.
    if vr in _TEXTS and any(value is None or isinstance(value, str) for value in values or []):
        texts = ["" if value is None else str(value) for value in values or []]
        return DataElement(int(tag, 16), vr, texts if len(texts) > 1 else texts[0])
    key = next((key for key in ("Value", "InlineBinary") if key in element), None)
    return DataElement.from_json(Dataset, tag, vr, element.get(key) if key else "", key)


def _is_sound(vr: str, values: list[Any]) -> bool:
    """Check what pydicom would only warn of, quoting the values."""
    given = [value for value in values if value is not None]
    if vr == "AT":
        return all(re.fullmatch(r"[0-9A-Fa-f]{8}", value) for value in given)
    return vr != "PN" or all(isinstance(value, dict) for value in given)


def _without_empty_groups(name: JsonObject | None) -> JsonObject | None:
    return name and {group: text for group, text in name.items() if text}


def _without_empty(model: JsonObject) -> JsonObject:
    for element in model.values():
        if element["vr"] == "SQ":
            element["Value"] = [_without_empty(item) for item in element.get("Value", [])]
        if element["vr"] == "PN":
            element["Value"] = [_without_empty_groups(name) for name in element.get("Value", [])]
        if "Value" in element and not element["Value"]:
            del element["Value"]
    return dict(sorted(model.items()))
