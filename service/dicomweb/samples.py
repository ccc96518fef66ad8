"""Native samples as a picture that can be shown: 8 bits of grey, or of red, green and blue.

Grey of more bits is windowed by the first window that the data set has (PS3.3 C.11.2.1.2), or from
its least to its greatest value. Lookup tables other than a palette are passed over.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from pydicom import Dataset

if TYPE_CHECKING:
    from PIL.Image import Image

_MODES: Final = {"RGB": "RGB", "YBR_FULL": "YCbCr"}
_GREY: Final = frozenset({"MONOCHROME1", "MONOCHROME2"})
_PALETTE: Final = ("Red", "Green", "Blue")


def picture(dataset: Dataset, data: bytes, photometric: str, planar: int = 0) -> "Image":
    """Return the picture that the samples of one frame are, in little endian.

    Parameters
    ----------
    photometric, planar
        Photometric Interpretation and Planar Configuration of these samples.

    Raises
    ------
    ValueError, KeyError, AttributeError, TypeError
        If they are of another kind, or fewer than the data set says.
    """
    from PIL import Image  # noqa: PLC0415 - costs 60 ms that only rendering pays

    size, bits = (dataset.Columns, dataset.Rows), dataset.BitsAllocated
    if photometric in _GREY and bits == 16:
        words = Image.frombytes("I;16", size, data).convert("I")
        return words.point(_grey(dataset, data[: 2 * size[0] * size[1]], photometric), "L")
    if bits != 8:
        raise ValueError("not 8 bits, or 16 of grey")
    if photometric in _GREY:
        return _inverted(Image.frombytes("L", size, data), photometric)
    if photometric == "PALETTE COLOR":
        indices = Image.frombytes("L", size, data)
        return Image.merge("RGB", [indices.point(_colours(dataset, name)) for name in _PALETTE])
    if photometric == "YBR_FULL_422":
        return _subsampled(data, size)
    mode = _MODES[photometric]
    if not planar:
        return Image.frombytes(mode, size, data)
    length = size[0] * size[1]
    planes = [data[number * length : (number + 1) * length] for number in range(3)]
    return Image.merge(mode, [Image.frombytes("L", size, plane) for plane in planes])


def _inverted(image: "Image", photometric: str) -> "Image":
    return image.point([255 - level for level in range(256)]) if photometric[-1] == "1" else image


def _subsampled(data: bytes, size: tuple[int, int]) -> "Image":
    """Read ``Y1 Y2 Cb Cr`` for every two pixels of a row (PS3.3 C.7.6.3.1.2)."""
    from PIL import Image  # noqa: PLC0415

    columns, rows = size
    if columns % 2 or len(data) < 2 * columns * rows:
        raise ValueError("not half as much of the colours")
    length = 2 * columns * rows
    light = bytearray(columns * rows)
    light[0::2], light[1::2] = data[0:length:4], data[1:length:4]
    half = (columns // 2, rows)
    colours = [Image.frombytes("L", half, data[at:length:4]) for at in (2, 3)]
    planes = [colour.resize(size, Image.Resampling.NEAREST) for colour in colours]
    return Image.merge("YCbCr", [Image.frombytes("L", size, bytes(light)), *planes])


def _colours(dataset: Dataset, name: str) -> list[int]:
    """Return the levels of one colour for all indices of 8 bits (PS3.3 C.7.6.3.1.5, C.7.6.3.1.6).

    What is before the first index that has an entry has the first, what is behind the last the
    last.
    """
    count, first, bits = dataset[f"{name}PaletteColorLookupTableDescriptor"].value
    table = dataset[f"{name}PaletteColorLookupTableData"].value
    width = 2 if bits == 16 and len(table) >= 2 * (count or 65536) else 1
    entries = table[width - 1 :: width]  # of 16 bits the upper 8
    last = min(count or 65536, len(entries)) - 1
    return [entries[min(max(index - first, 0), last)] for index in range(256)]


def _grey(dataset: Dataset, data: bytes, photometric: str) -> list[int]:
    """Return the level of grey for every word of 16 bits."""
    stored, signed = dataset.BitsStored, dataset.get("PixelRepresentation") == 1
    if not 1 <= stored <= 16 or dataset.get("HighBit", stored - 1) != stored - 1:
        raise ValueError("the stored bits aren't the lowest ones")
    slope = float(dataset.get("RescaleSlope") or 1)
    intercept = float(dataset.get("RescaleIntercept") or 0)
    sign = 1 << (stored - 1) if signed else 0
    mask = (1 << stored) - 1
    values = [(((word & mask) ^ sign) - sign) * slope + intercept for word in range(65536)]
    level = _window(dataset) or _whole(memoryview(data).cast("h" if signed else "H"), values)
    levels = [min(max(round(255 * level(value)), 0), 255) for value in values]
    return [255 - grey for grey in levels] if photometric == "MONOCHROME1" else levels


def _whole(words: Sequence[int], values: Sequence[float]) -> Callable[[float], float]:
    """Return the function from the least value of a picture to its greatest."""
    ends = values[min(words)], values[max(words)]  # a word below zero counts from the end
    least, greatest = min(ends), max(ends)
    return lambda value: (value - least) / ((greatest - least) or 1)


def _window(dataset: Dataset) -> Callable[[float], float] | None:
    """Return the function of the first window, from values to 0 to 1; None without one."""
    centers, widths = dataset.get("WindowCenter"), dataset.get("WindowWidth")
    if centers in (None, "", []) or widths in (None, "", []):
        return None
    center, width = (float(v if isinstance(v, int | float) else v[0]) for v in (centers, widths))
    match str(dataset.get("VOILUTFunction") or "LINEAR"):
        case "SIGMOID":
            return lambda value: 1 / (1 + math.exp(min(-4 * (value - center) / width, 700)))
        case "LINEAR_EXACT":
            return lambda value: (value - center) / width + 0.5
    span = (width - 1) or 1e-9  # a width of 1 is a threshold
    return lambda value: (value - (center - 0.5)) / span + 0.5
