"""STOW-RS: instances to one request body (PS3.18 10.5); `stow_answer` reads what comes back.

Google's deviation is that of its DICOM conformance statement: metadata carries the transfer syntax
as (0002,0010).
"""

from collections.abc import Sequence
from typing import Final, Literal

from service.dicom import json_model, part10
from service.dicom.codestream import Codestream
from service.dicom.dataset import Instance
from service.dicom.encapsulation import JPEG_LS_LOSSLESS, JPEG_LS_NEAR_LOSSLESS
from service.dicom.jpeg2000 import JPEG_2000, JPEG_2000_LOSSLESS
from service.dicom.multipart import Part, Payload, encode

Wire = Literal["json", "part10"]

_MEDIA_TYPES = {
    JPEG_LS_LOSSLESS: "image/jls",
    JPEG_LS_NEAR_LOSSLESS: "image/jls",
    JPEG_2000_LOSSLESS: "image/jp2",
    JPEG_2000: "image/jp2",
}
_EXPLICIT_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1"


def package(instances: Sequence[Instance], wire: Wire) -> Payload:
    """Assemble the body of one store request; the same instances give the same bytes."""
    if wire == "part10":
        parts = [_part10_part(instance) for instance in instances]
        return encode(parts, "application/dicom")
    metadata = [_metadata(instance) for instance in instances]
    content = "application/dicom+json"
    if any("InlineBinary" in element for model in metadata for element in model.values()):
        # The syntax of inline binary values must be named where there are any.
        content += f"; transfer-syntax={_EXPLICIT_LITTLE_ENDIAN}"
    head = Part({"Content-Type": content}, Codestream((json_model.dumps(metadata),)))
    return encode([head, *map(_bulk_part, instances)], "application/dicom+json")


def package_files(files: Sequence[bytes]) -> Payload:
    """Assemble the body of one store request of ready DICOM files."""
    content = {"Content-Type": "application/dicom"}
    return encode([Part(content, Codestream((data,))) for data in files], "application/dicom")


def _part10_part(instance: Instance) -> Part:
    pieces = part10.encode(instance.dataset, instance.codestream, instance.transfer_syntax)
    # Without a transfer-syntax parameter, which the file says itself: Orthanc passes over a part
    # that has one, and answers 200 all the same.
    return Part({"Content-Type": "application/dicom"}, Codestream(pieces))


def _metadata(instance: Instance) -> json_model.JsonObject:
    """Return the data set with (0002,0010), which Google demands, and where its pixels are."""
    return {
        "00020010": {"vr": "UI", "Value": [instance.transfer_syntax]},
        **json_model.to_json(instance.dataset),
        "7FE00010": {"vr": "OB", "BulkDataURI": instance.sop_instance_uid},
    }


def _bulk_part(instance: Instance) -> Part:
    headers = {
        "Content-Type": media_type(instance.transfer_syntax),
        "Content-Location": instance.sop_instance_uid,
    }
    return Part(headers, instance.codestream)


def media_type(transfer_syntax: str) -> str:
    """Return the media type of a codestream, with its transfer syntax as parameter.

    Without the parameter image/jpeg would mean .70, lossless: PS3.18 Table 8.7.3-5.
    """
    name = _MEDIA_TYPES.get(transfer_syntax, "image/jpeg")
    return f"{name}; transfer-syntax={transfer_syntax}"
