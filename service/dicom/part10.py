"""DICOM files (PS3.10) with one encapsulated frame, written and read."""

import struct
from io import BytesIO

from pydicom import DataElement, Dataset, dcmread, dcmwrite
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from service.dicom import json_model
from service.dicom.codestream import Buffer, Codestream
from service.errors import BadRequest

# Part of every file, so neither may ever change: the same instance must give the same bytes.
IMPLEMENTATION_CLASS_UID = UID("2.25.218998527620871074081579097138094456875")
IMPLEMENTATION_VERSION_NAME = "JPEGSTOW"

# Pixel Data (7FE0,0010) OB of undefined length, with an empty Basic Offset Table: PS3.5 A.4.
#   group elem  "OB" 0000  length    item tag  length 0
_PIXEL_DATA = bytes.fromhex("e07f1000 4f420000 ffffffff feff00e0 00000000")
_ITEM = struct.Struct("<HHI")
_META = 132  # bytes; where the file meta information begins, behind the preamble and DICM
_UNDEFINED = 0xFFFFFFFF
_END = bytes.fromhex("feffdde0 00000000")
_PIXELS = 0x7FE00010
_UNREADABLE = (
    *(ArithmeticError, AttributeError, LookupError, StopIteration, TypeError, ValueError),
    struct.error,
)


def encode(dataset: Dataset, codestream: Codestream, transfer_syntax: str) -> tuple[Buffer, ...]:
    """Return a DICOM file as pieces; those of the codestream are not copied.

    Parameters
    ----------
    dataset
        Everything but group 0002 and Pixel Data.
    transfer_syntax
        An encapsulated one; the data set is written as Explicit VR Little Endian (PS3.5 A.4).
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = UID(transfer_syntax)
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    headed = Dataset(dataset)  # shares the elements; only the file meta information is its own
    headed.file_meta = meta
    buffer = BytesIO()
    dcmwrite(buffer, headed, enforce_file_format=True)
    # An odd frame is padded with one zero byte behind its EOI marker.
    padding = b"\0" if len(codestream) % 2 else b""
    item = _ITEM.pack(0xFFFE, 0xE000, len(codestream) + len(padding))
    return (buffer.getvalue() + _PIXEL_DATA + item, *codestream, padding + _END)


def decode(data: Buffer) -> Dataset:
    """Read a DICOM file from memory, with its file meta information and pixel data.

    Raises
    ------
    BadRequest
        If the bytes aren't a DICOM file that pydicom can read whole, or are deflated: pydicom
        inflates without a bound.
    """
    file = BytesIO(data)
    try:
        deflated = _transfer_syntax(file) == DeflatedExplicitVRLittleEndian
        dataset = Dataset() if deflated else dcmread(file)
        whole = _is_whole(dataset, data)
        for _ in dataset.iterall():  # reads every deferred value, so that none fails later
            pass
    except (InvalidDicomError, EOFError) as error:
        raise BadRequest("the bytes aren't a whole DICOM file", reason="not-dicom") from error
    except Exception as error:  # pydicom raises whatever it meets: struct, Unicode, key errors
        raise BadRequest("the DICOM file is malformed", reason="not-dicom") from error
    if deflated:
        raise BadRequest("deflated DICOM files aren't taken", reason="deflated")
    if not whole:
        raise BadRequest("the bytes aren't a whole DICOM file", reason="not-dicom")
    return dataset


def _transfer_syntax(file: BytesIO) -> object:
    """Return the TransferSyntaxUID, without what stands behind the file meta information."""
    file.seek(_META)
    meta = read_dataset(
        file,
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=lambda tag, _vr, _length: tag >> 16 != 2,
    )
    file.seek(0)
    return meta.get("TransferSyntaxUID")


def _is_whole(dataset: Dataset, data: Buffer) -> bool:
    """Tell whether a data set, fresh from the file, ends where the file does.

    pydicom keeps a value that is too short, and drops an element without its delimiter.
    """
    tags = dataset.keys()
    elements: list[object] = [dataset.get_item(tag, keep_deferred=True) for tag in tags]
    ends = [_end(element) for element in elements if isinstance(element, RawDataElement)]
    last = max(ends, default=0)
    # Only sequences of undefined length are read already; reading them found their delimiter.
    closed = len(ends) < len(elements) and bytes(data[-len(_END) :]) == _END
    return last == len(data) or (closed and last < len(data))


def _end(element: RawDataElement) -> int:
    """Return the offset behind an element, its delimiter included."""
    if element.length == _UNDEFINED:
        return element.value_tell + len(element.value or b"") + len(_END)
    return element.value_tell + element.length


def holds(stored: Dataset, dataset: Dataset, codestream: Codestream) -> bool:
    """Tell whether a stored instance has this content; see `differences`."""
    try:
        same = frame(stored) == bytes(codestream)
    except _UNREADABLE:
        return False
    return same and not differences(stored, dataset)


def differences(stored: Dataset, dataset: Dataset) -> list[str]:
    """Name the attributes of `dataset` that a stored instance has not, or has with other values.

    Pixel Data is left out. A store may have added attributes; numbers are compared as numbers, and
    an empty one may be absent.
    """
    return [
        keyword_for_tag(tag) or str(Tag(tag))
        for tag in dataset.keys()  # noqa: SIM118 - the tags alone: to iterate decodes the values
        if tag != _PIXELS and not _same(stored, dataset, tag)
    ]


def _same(stored: Dataset, dataset: Dataset, tag: BaseTag) -> bool:
    return _same_model(stored, dataset, tag) or (tag in stored and _is(stored[tag], dataset[tag]))


def _is(one: DataElement, other: DataElement) -> bool:
    """Tell whether two elements are spelt alike, which NaN and what breaks its VR can be, too."""
    return one == other or (one.VR != "SQ" and str(one.value) == str(other.value))


def _same_model(stored: Dataset, dataset: Dataset, tag: BaseTag) -> bool:
    try:
        ours = json_model.to_json(Dataset({tag: dataset[tag]}))
        theirs = json_model.to_json(Dataset({tag: stored[tag]} if tag in stored else {}))
    except _UNREADABLE:
        return False  # what can't be read isn't ours
    name = f"{tag:08X}"
    return _content(theirs.get(name, {})) == _content(ours.get(name, {}))


def frames_of(dataset: Dataset) -> tuple[bytes, ...]:
    """Return the frames of an encapsulated Pixel Data; other pixels are one, and what is malformed.

    How a frame is cut into fragments, and with how many zeros it is padded, says nothing of it.
    """
    pixels = dataset.get("PixelData")
    if not isinstance(pixels, bytes) or not pixels:
        return ()
    try:
        if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
            count = int(dataset.get("NumberOfFrames") or 1)
            found = generate_frames(pixels, number_of_frames=count)
            return tuple(each.rstrip(b"\0") for each in found)
    except _UNREADABLE:
        pass
    return (pixels,)


def _content(element: json_model.JsonObject) -> object:
    return element.get("Value") or element.get("InlineBinary")


def frame(dataset: Dataset) -> bytes:
    """Return the first frame of an encapsulated Pixel Data, without its padding byte."""
    encapsulated = next(generate_frames(dataset.PixelData, number_of_frames=1))
    return encapsulated[:-1] if encapsulated.endswith(b"\xff\xd9\0") else encapsulated
