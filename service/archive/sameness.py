"""Whether two instances with the same UIDs say the same."""

from decimal import Decimal, InvalidOperation
from typing import Any

from pydicom import DataElement, Dataset
from pydicom.encaps import generate_frames

_PIXEL_DATA = 0x7FE00010
_TRAILING_PADDING = 0xFFFCFFFC


def same_content(one: Dataset, other: Dataset) -> bool:
    """Tell whether two data sets mean the same, with the same pixel bytes.

    Who wrote the file (group 0002), group lengths, padding, the basic offset table, and how a
    decimal number is spelt make no difference; the transfer syntax does.
    """
    syntaxes = [dataset.file_meta.TransferSyntaxUID for dataset in (one, other)]
    return syntaxes[0] == syntaxes[1] and _meaning(one) == _meaning(other)


def _meaning(dataset: Dataset) -> dict[int, Any]:
    meaning: dict[int, Any] = {}
    for element in dataset:
        if element.tag == _PIXEL_DATA:
            meaning[element.tag] = _pixel_bytes(dataset)
        elif element.tag.element != 0 and element.tag != _TRAILING_PADDING:
            meaning[element.tag] = _value(element)
    return meaning


def _value(element: DataElement) -> Any:
    if element.VR == "SQ":
        return [_meaning(item) for item in element.value or []]
    if isinstance(element.value, bytes):
        return element.value
    if element.value is None or element.value == "":
        return []
    values = element.value if element.VM > 1 else [element.value]
    decimal = element.VR in {"DS", "IS"}
    return [_number(str(value)) if decimal else str(value) for value in values]


def _number(text: str) -> Decimal | str:
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        return text
    return number if number.is_finite() else text


def _pixel_bytes(dataset: Dataset) -> Any:
    element = dataset["PixelData"]
    data = element.value or b""
    if not isinstance(data, bytes):  # with a VR that isn't one of Pixel Data's
        return _value(element)
    if not element.is_undefined_length:  # not encapsulated: PS3.5 A.4
        return bytes(data)
    try:
        frames = int(dataset.get("NumberOfFrames") or 1)
        return b"".join(generate_frames(data, number_of_frames=frames))
    except Exception:  # noqa: BLE001 - whatever isn't well encapsulated is compared as it is
        return bytes(data)
