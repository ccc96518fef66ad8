"""A data set as the rows of a table for people: tag, name, VR, value; items are set in."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from pydicom.datadict import dictionary_description, keyword_for_tag

from service.dicom.json_model import JsonObject

_DEEPEST: Final = 8  # levels of items that are shown
_PRIVATE: Final = "Private"


class Row(NamedTuple):
    """One attribute.

    Attributes
    ----------
    value
        As text, several values with a backslash between them; empty of a sequence.
    depth
        0 of the data set's own attributes, 1 of those of its sequences' items, and so on.
    items
        Of a sequence.
    is_bulk
        Whether the value is left out, since it is large or no text.
    """

    tag: str
    keyword: str
    name: str
    vr: str
    value: str
    depth: int = 0
    items: int = 0
    is_bulk: bool = False


def rows(model: JsonObject, depth: int = 0) -> Iterator[Row]:
    """Yield the attributes of a data set in the DICOM JSON model (PS3.18 Annex F), by tag.

    What isn't as the model has it is left out: it is a store's answer.
    """
    for tag, element in sorted(model.items()):
        if not isinstance(element, dict) or not _is_tag(tag):
            continue
        values = element.get("Value")
        several = values if isinstance(values, list) else []
        yield _row(tag, element, several, depth)
        if element.get("vr") == "SQ" and depth < _DEEPEST:
            for item in several:
                yield from rows(item, depth + 1) if isinstance(item, dict) else ()


def _row(tag: str, element: Mapping[str, Any], values: list[Any], depth: int) -> Row:
    number, vr = int(tag, 16), str(element.get("vr", ""))
    is_sequence = vr == "SQ"
    return Row(
        tag=f"({tag[:4]},{tag[4:]})",
        keyword=keyword_for_tag(number),
        name=_name(number),
        vr=vr,
        value="" if is_sequence else "\\".join(map(text_of, values)),
        depth=depth,
        items=len(values) if is_sequence else 0,
        is_bulk="BulkDataURI" in element or "InlineBinary" in element,
    )


def _is_tag(tag: str) -> bool:
    return len(tag) == 8 and all(digit in "0123456789ABCDEFabcdef" for digit in tag)


def _name(tag: int) -> str:
    try:
        return dictionary_description(tag)
    except KeyError:
        return _PRIVATE if tag >> 16 & 1 else ""


def text_of(value: object) -> str:
    """Return one value as people read it; of a name its alphabetic group first."""
    if isinstance(value, dict):
        return " = ".join(str(group) for group in value.values())
    return "" if value is None else str(value)


def texts(model: JsonObject) -> dict[str, str]:
    """Return the data set's own attributes that are texts, by keyword."""
    return {row.keyword: row.value for row in rows(model) if not row.depth and row.keyword}
