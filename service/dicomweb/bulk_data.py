"""The bulk data of an instance that comes as DICOM JSON, and the file that it becomes."""

from dataclasses import dataclass
from io import BytesIO

from pydicom import DataElement, Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID

from service.dicom import part10
from service.dicom.codestream import Buffer, Codestream
from service.dicom.json_model import JsonObject, from_json
from service.dicom.multipart import parse_media_type
from service.errors import BadRequest

# The compressed bulk data that the Cloud Healthcare API accepts, and how each begins: an SOI
# marker, an SOC and a SIZ marker. RLE has a count of segments instead (PS3.5 G.5).
_COMPRESSED = {
    "1.2.840.10008.1.2.4.50": ("image/jpeg", b"\xff\xd8\xff"),
    "1.2.840.10008.1.2.4.51": ("image/jpeg", b"\xff\xd8\xff"),
    "1.2.840.10008.1.2.4.57": ("image/jpeg", b"\xff\xd8\xff"),
    "1.2.840.10008.1.2.4.70": ("image/jpeg", b"\xff\xd8\xff"),
    "1.2.840.10008.1.2.4.80": ("image/jls", b"\xff\xd8\xff"),
    "1.2.840.10008.1.2.4.81": ("image/jls", b"\xff\xd8\xff"),
    "1.2.840.10008.1.2.4.90": ("image/jp2", b"\xff\x4f\xff\x51"),
    "1.2.840.10008.1.2.4.91": ("image/jp2", b"\xff\x4f\xff\x51"),
    "1.2.840.10008.1.2.4.92": ("image/jpx", b"\xff\x4f\xff\x51"),
    "1.2.840.10008.1.2.4.93": ("image/jpx", b"\xff\x4f\xff\x51"),
    "1.2.840.10008.1.2.5": ("image/dicom-rle", b""),
}
_UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")
_PIXEL_DATA = "7FE00010"


@dataclass(frozen=True, slots=True)
class BulkData:
    """The value of one attribute, as it came in a part of its own."""

    tag: str
    vr: str
    content_type: str
    body: Codestream


def check(data: BulkData | None, transfer_syntax: str) -> None:
    """Check that bulk data is what its media type says and its instance's transfer syntax allows.

    Raises
    ------
    BadRequest
        With the reason, for the FailureDetail.
    """
    compressed = transfer_syntax in _COMPRESSED
    if not compressed and transfer_syntax not in _UNCOMPRESSED:
        raise BadRequest("the transfer syntax isn't accepted with JSON", where="TransferSyntaxUID")
    if compressed and (data is None or data.tag != _PIXEL_DATA):
        raise BadRequest("the transfer syntax needs Pixel Data (7FE0,0010) with a BulkDataURI")
    if data is None:
        return
    media_type, parameters = parse_media_type(data.content_type)
    expected, magic = _COMPRESSED.get(transfer_syntax, ("application/octet-stream", b""))
    if media_type != expected:
        raise BadRequest(f"the transfer syntax needs bulk data of type {expected}", where=data.tag)
    if compressed and parameters.get("transfer-syntax") != transfer_syntax:
        raise BadRequest(
            "the bulk data's transfer-syntax parameter is missing or isn't TransferSyntaxUID",
            where=data.tag,
            mend=f"send Content-Type: {expected}; transfer-syntax={transfer_syntax}",
        )
    if not _begins(data.body, magic):
        raise BadRequest(f"the bulk data doesn't begin like {expected}", where=data.tag)


def _begins(body: Codestream, magic: bytes) -> bool:
    start = b"".join(bytes(piece[:4]) for piece in body)[: len(magic)]
    return len(body) > 0 and start == magic


def write(model: JsonObject, data: BulkData | None, transfer_syntax: str) -> tuple[Buffer, ...]:
    """Return the file of an instance as pieces.

    Raises
    ------
    BadRequest
        If the metadata isn't DICOM JSON, or can't be encoded.
    """
    bulk_tag = data.tag if data else ""
    metadata = {
        tag: element
        for tag, element in model.items()
        if tag != bulk_tag and not tag.startswith("0002") and not tag.endswith("0000")
    }
    try:
        dataset = from_json(metadata)
        if data and transfer_syntax in _COMPRESSED:
            return part10.encode(dataset, data.body, transfer_syntax)
        if data:
            dataset.add(DataElement(int(data.tag, 16), data.vr, bytes(data.body)))
        return (_uncompressed(dataset, transfer_syntax),)
    except ValueError as error:
        raise BadRequest(str(error) if "DICOM JSON" in str(error) else _NOT_ENCODED) from error
    except Exception as error:  # pydicom raises what it meets: type, attribute, struct, recursion
        raise BadRequest(_NOT_ENCODED) from error


_NOT_ENCODED = "an attribute's value can't be encoded in its VR"


def _uncompressed(dataset: Dataset, transfer_syntax: str) -> bytes:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(transfer_syntax)
    dataset.file_meta.ImplementationClassUID = part10.IMPLEMENTATION_CLASS_UID
    dataset.file_meta.ImplementationVersionName = part10.IMPLEMENTATION_VERSION_NAME
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()
