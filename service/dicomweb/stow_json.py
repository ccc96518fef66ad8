"""The JSON flavour of a store request: DICOM JSON in the first part, bulk data in the others.

The rules are those of the Cloud Healthcare API's conformance statement, and a few that it leaves
to the client's care: it would store an image without Rows, this archive says so.
"""

import base64
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.datadict import tag_for_keyword

from service.dicom.codestream import Buffer
from service.dicom.json_model import JsonObject
from service.dicom.multipart import Part, parse_media_type
from service.dicom.uid import is_uid
from service.dicomweb.bulk_data import BulkData, check, write
from service.dicomweb.stow_answer import Failed
from service.errors import BadRequest

_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_DIGITS = frozenset("0123456789ABCDEF")
_REFUSED_SYNTAXES = {
    "1.2.840.10008.1.2.2": "Explicit VR Big Endian",
    "1.2.840.10008.1.2.1.99": "Deflated Explicit VR Little Endian",
}
_IMAGE_PIXEL = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
)


@dataclass(frozen=True, slots=True)
class _Bulk:
    """The bulk data of a request, and how often its metadata refers to each URI."""

    parts: dict[str, Part]
    uses: Counter[str]


def read(parts: Sequence[Part]) -> Iterator[tuple[Buffer, ...] | Failed]:
    """Make files of the instances of a request, one at a time.

    Raises
    ------
    BadRequest
        At once, if the request as a whole can't be understood.
    """
    models = _models(parts[0])
    located = _located(parts[1:])
    uses = Counter(uri for model in models for _, uri in _uris(model))
    if located.keys() - uses.keys():
        raise BadRequest(
            "a bulk data part's Content-Location is the BulkDataURI of no instance",
            where=f"part {2 + [uri in uses for uri in located].index(False)}",
        )
    bulk = _Bulk(located, uses)
    return (_file(model, bulk) for model in models)


def _models(part: Part) -> list[JsonObject]:
    media_type, _ = parse_media_type(part.headers.get("content-type", ""))
    if media_type != "application/dicom+json":
        raise BadRequest("the part isn't application/dicom+json", where="part 1")
    try:
        models = json.loads(bytes(part.body).decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        where = f"part 1, byte {error.start}" if isinstance(error, UnicodeDecodeError) else "part 1"
        raise BadRequest("the metadata isn't JSON in UTF-8", where=where) from error
    if not isinstance(models, list) or not all(isinstance(model, dict) for model in models):
        raise BadRequest("the metadata isn't an array of DICOM JSON objects", where="part 1")
    if not models:
        raise BadRequest("the metadata has no instance", where="part 1")
    return models


def _no_constant(_: str) -> None:
    raise ValueError("NaN and Infinity aren't JSON")


def _located(parts: Sequence[Part]) -> dict[str, Part]:
    located: dict[str, Part] = {}
    for number, part in enumerate(parts, 2):
        location = part.headers.get("content-location", "")
        if not location or location in located:
            problem = "occurs twice" if location else "is missing"
            raise BadRequest(f"Content-Location {problem}", where=f"part {number}")
        located[location] = part
    return located


def _uris(model: JsonObject) -> list[tuple[str, str]]:
    """Return the tags of an instance that have bulk data, with their URIs."""
    return [
        (tag, str(element["BulkDataURI"]))
        for tag, element in model.items()
        if isinstance(element, dict) and "BulkDataURI" in element
    ]


def _file(model: JsonObject, bulk: _Bulk) -> tuple[Buffer, ...] | Failed:
    try:
        _check_names(model)
        _check_inline(model)
        syntax = _required(model)
        data = _bulk_data(model, bulk)
        check(data, syntax)
        return write(model, data, syntax)
    except BadRequest as error:
        return Failed(str(error), _uid(model, "SOPClassUID"), _uid(model, "SOPInstanceUID"))


def _check_names(model: JsonObject) -> None:
    """Check that every name is a tag, and that Pixel Data is the last of them."""
    for number, tag in enumerate(model, 1):
        if len(tag) != 8 or not set(tag) <= _DIGITS:
            raise BadRequest(
                "an attribute isn't named by its tag in eight upper-case hexadecimal digits",
                where=f"attribute {number}",
            )
        if tag > "7FE00010":
            raise BadRequest("nothing can be stored behind Pixel Data (7FE0,0010)", where=tag)


def _check_inline(model: JsonObject) -> None:
    """Check the InlineBinary at every depth: pydicom skips whatever isn't base64."""
    pending = [model]
    while pending:
        for tag, element in pending.pop().items():
            if not isinstance(element, dict):
                continue
            if not _is_base64(element.get("InlineBinary", "")):
                raise BadRequest("InlineBinary isn't base64", where=tag[:8])
            values = element.get("Value")
            items = values if isinstance(values, list) else []
            pending += [item for item in items if isinstance(item, dict)]


def _is_base64(text: Any) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except (TypeError, ValueError):
        return False
    return True


def _required(model: JsonObject) -> str:
    """Check the six attributes that every instance must have; return the transfer syntax."""
    if _strings(model, "SpecificCharacterSet", "CS") != ["ISO_IR 192"]:
        raise BadRequest("SpecificCharacterSet (0008,0005) must be ISO_IR 192")
    for keyword in _UIDS:
        if not _uid(model, keyword):
            raise BadRequest(f"{keyword} {_tag(keyword)} must be one UID, with VR UI")
    syntax = _uid(model, "TransferSyntaxUID")
    if not syntax:
        raise BadRequest("TransferSyntaxUID (0002,0010) must be one UID, with VR UI")
    if syntax in _REFUSED_SYNTAXES:
        raise BadRequest(f"{_REFUSED_SYNTAXES[syntax]} isn't accepted", where="TransferSyntaxUID")
    return syntax


def _tag(keyword: str) -> str:
    digits = f"{tag_for_keyword(keyword):08x}"
    return f"({digits[:4]},{digits[4:]})"


def _strings(model: JsonObject, keyword: str, vr: str) -> list[Any]:
    element = model.get(f"{tag_for_keyword(keyword):08X}")
    if not isinstance(element, dict) or element.get("vr") != vr:
        return []
    values = element.get("Value")
    return values if isinstance(values, list) else []


def _uid(model: JsonObject, keyword: str) -> str:
    values = _strings(model, keyword, "UI")
    return str(values[0]) if len(values) == 1 and is_uid(values[0]) else ""


def _bulk_data(model: JsonObject, bulk: _Bulk) -> BulkData | None:
    """Return the bulk data of an instance, if it has any."""
    pixel_data = model.get("7FE00010")
    if pixel_data is not None:
        _check_image(model, pixel_data)
    uris = _uris(model)
    if not uris:
        return None
    (tag, uri), *more = uris
    if more:
        raise BadRequest("an instance can have one BulkDataURI only", where=more[0][0])
    if bulk.uses[uri] > 1:
        raise BadRequest("the BulkDataURI is used more than once in the request", where=tag)
    if uri not in bulk.parts:
        raise BadRequest("no part has the BulkDataURI as its Content-Location", where=tag)
    if model[tag].get("vr") not in ("OB", "OW", "UN"):
        raise BadRequest("a BulkDataURI is for OB, OW and UN only", where=tag)
    part = bulk.parts[uri]
    return BulkData(tag, model[tag]["vr"], part.headers.get("content-type", ""), part.body)


def _check_image(model: JsonObject, pixel_data: Any) -> None:
    if not isinstance(pixel_data, dict) or "BulkDataURI" not in pixel_data:
        raise BadRequest("Pixel Data (7FE0,0010) must be given by a BulkDataURI")
    for keyword in _IMAGE_PIXEL:
        element = model.get(f"{tag_for_keyword(keyword):08X}")
        if not isinstance(element, dict) or not element.get("Value"):
            raise BadRequest(
                f"{keyword} {_tag(keyword)} is missing",
                mend="the store doesn't derive it from the image",
            )
    frames = model.get("00280008")
    if isinstance(frames, dict) and frames.get("Value") not in (None, [1], ["1"]):
        raise BadRequest("one BulkDataURI is one frame", where="NumberOfFrames")
