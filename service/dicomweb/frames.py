"""The frames of Pixel Data as they lie in the file."""

from collections.abc import Sequence
from itertools import islice

from pydicom import Dataset
from pydicom.encaps import generate_frames
from werkzeug.exceptions import NotFound

from service.dicom.decoding import number_of_frames

# PS3.18 Table 8.7.3-5, by transfer syntax.
_MEDIA_TYPES = {
    "1.2.840.10008.1.2.4.50": "image/jpeg",
    "1.2.840.10008.1.2.4.51": "image/jpeg",
    "1.2.840.10008.1.2.4.57": "image/jpeg",
    "1.2.840.10008.1.2.4.70": "image/jpeg",
    "1.2.840.10008.1.2.4.80": "image/jls",
    "1.2.840.10008.1.2.4.81": "image/jls",
    "1.2.840.10008.1.2.4.90": "image/jp2",
    "1.2.840.10008.1.2.4.91": "image/jp2",
    "1.2.840.10008.1.2.4.92": "image/jpx",
    "1.2.840.10008.1.2.4.93": "image/jpx",
    "1.2.840.10008.1.2.5": "image/dicom-rle",
}


def media_type(transfer_syntax: str) -> str:
    """Return the media type of a frame in a transfer syntax."""
    return _MEDIA_TYPES.get(transfer_syntax, "application/octet-stream")


def is_encapsulated(dataset: Dataset) -> bool:
    """Tell whether Pixel Data is encapsulated, even in a transfer syntax that nobody knows.

    PS3.5 A.4: it then has an undefined length, and only then.
    """
    return dataset["PixelData"].is_undefined_length


def frames(dataset: Dataset, numbers: Sequence[int]) -> list[bytes]:
    """Return frames, counted from 1, without the byte that pads them to an even length.

    Raises
    ------
    NotFound
        If Pixel Data doesn't have the structure that its transfer syntax asks for.
    """
    data = dataset.PixelData
    count = number_of_frames(dataset)
    if not is_encapsulated(dataset):
        length = _native_length(dataset, len(data) // count)
        return [bytes(data[(number - 1) * length : number * length]) for number in numbers]
    wanted = frozenset(numbers)
    try:
        every = enumerate(islice(generate_frames(data, number_of_frames=count), max(numbers)), 1)
        found = {number: _unpadded(frame) for number, frame in every if number in wanted}
        return [found[number] for number in numbers]
    except Exception as error:
        raise NotFound("the frame can't be found in Pixel Data (7FE0,0010)") from error


def _native_length(dataset: Dataset, share: int) -> int:
    """Return how many bytes a native frame has; its share of all, if that can't be right.

    In big endian the byte that pads a frame may stand before its last sample.
    """
    if not dataset.file_meta.TransferSyntaxUID.is_little_endian:
        return share
    try:
        bits = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel * dataset.BitsAllocated
        if dataset.get("PhotometricInterpretation") == "YBR_FULL_422":
            bits = bits * 2 // 3
    except (AttributeError, TypeError):
        return share
    return bits // 8 if bits % 8 == 0 and 0 < bits // 8 <= share else share


def _unpadded(frame: bytes) -> bytes:
    return frame[:-1] if frame.endswith(b"\xff\xd9\0") else frame
