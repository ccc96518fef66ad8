"""The EXIF block of a JPEG: a TIFF structure in an APP1 segment (CIPA DC-008).

    "II" or "MM"   byte order        then per image file directory (IFD):
    2A 00          42                count   u16
    offset u32     of the first IFD  entries 12 bytes each: tag u16, type u16, count u32,
                                             value or its offset u32
                                     next    u32

Cameras get it wrong in every way there is, so nothing here raises: what can't be read is absent.
"""

import struct
from collections.abc import Iterator, Mapping
from typing import Final

Number = int | float
Rational = tuple[int, int]
Value = str | bytes | tuple[Number | Rational, ...]

IMAGE: Final = 0  # tags of the first IFD are keyed (IMAGE, tag)
PHOTO: Final = 1  # those of the Exif IFD (PHOTO, tag)
INTEROPERABILITY: Final = 2  # those of the Interoperability IFD

ORIENTATION: Final = (IMAGE, 0x0112)

_EXIF_IFD = 0x8769
_INTEROPERABILITY_IFD = 0xA005
_MAX_ENTRIES = 512
_MAX_VALUES = 64
_FORMATS = {1: "B", 2: "s", 3: "H", 4: "I", 5: "II", 6: "b", 7: "s", 8: "h", 9: "i", 10: "ii"}
_FORMATS |= {11: "f", 12: "d"}


def parse(block: bytes) -> Mapping[tuple[int, int], Value]:
    r"""Read the image's, the photo's and the interoperability directories of a TIFF block.

    Parameters
    ----------
    block
        What follows ``Exif\0\0`` in the segment.

    Returns
    -------
    Mapping
        From (`IMAGE`, `PHOTO` or `INTEROPERABILITY`, tag) to text, bytes (type UNDEFINED), or a
        tuple of numbers; a rational number is the pair (numerator, denominator). Empty for a
        broken block.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None or len(block) < 8:
        return {}
    (first,) = struct.unpack_from(order + "I", block, 4)
    found = {(IMAGE, tag): value for tag, value in _directory(block, order, first)}
    found |= _pointed_at(block, order, found.get((IMAGE, _EXIF_IFD)), PHOTO)
    pointer = found.get((PHOTO, _INTEROPERABILITY_IFD))
    return found | _pointed_at(block, order, pointer, INTEROPERABILITY)


def _pointed_at(
    block: bytes, order: str, pointer: Value | None, directory: int
) -> dict[tuple[int, int], Value]:
    """Read a directory whose offset is the value of a tag; nothing where that is no offset."""
    match pointer:
        case (int(offset), *_):
            return {(directory, tag): value for tag, value in _directory(block, order, offset)}
    return {}


def orientation(tags: Mapping[tuple[int, int], Value]) -> int:
    """Return the orientation, 1 to 8; 1 where it is absent or not one of these."""
    match tags.get(ORIENTATION):
        case (int(value), *_) if 1 <= value <= 8:
            return value
    return 1


def _directory(block: bytes, order: str, offset: int) -> Iterator[tuple[int, Value]]:
    if offset + 2 > len(block):
        return
    (count,) = struct.unpack_from(order + "H", block, offset)
    left = len(block)  # entries that share their bytes would unfold to more than there are
    for index in range(min(count, _MAX_ENTRIES)):
        entry = offset + 2 + 12 * index
        if entry + 12 > len(block):
            return
        tag, kind, length = struct.unpack_from(order + "HHI", block, entry)
        value = _value(block, order, entry + 8, kind, length)
        left -= 0 if value is None else len(value)
        if left < 0:
            return
        if value is not None:
            yield tag, value


def _value(block: bytes, order: str, position: int, kind: int, count: int) -> Value | None:
    code = _FORMATS.get(kind)
    if code is None or not 0 < count <= len(block):
        return None
    size = struct.calcsize(order + code) * count
    if size > 4:
        (position,) = struct.unpack_from(order + "I", block, position)
    if position + size > len(block):
        return None
    raw = block[position : position + size]
    if kind == 2:
        return raw.split(b"\0")[0].decode("utf-8", "replace").strip()
    if kind == 7:
        return raw
    if count > _MAX_VALUES:
        return None
    return (
        tuple(struct.iter_unpack(order + code, raw))
        if len(code) == 2
        else _numbers(order + code, raw)
    )


def _numbers(code: str, raw: bytes) -> tuple[Number, ...]:
    return tuple(number for (number,) in struct.iter_unpack(code, raw))
