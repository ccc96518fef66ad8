"""Store (PS3.18 10.5): from a request body to an answer that tells the truth of each instance."""

from collections.abc import Iterator

from flask import Response, g, request
from werkzeug.exceptions import UnsupportedMediaType

from service.archive import AlreadyStored, BeingDeleted, Conflict, describe
from service.dicom import multipart, part10
from service.dicom.codestream import Buffer
from service.dicomweb import body, stow_json
from service.dicomweb.accept import Offer
from service.dicomweb.answers import JSON, XML
from service.dicomweb.context import archive, negotiated
from service.dicomweb.stow_answer import OUT_OF_RESOURCES, Failed, Referenced, answer
from service.errors import BadRequest
from service.settings import STORAGE_CLASSES

_DICOM = "application/dicom"
_DICOM_JSON = "application/dicom+json"

# Google's documentation has store requests accept what they send, and be answered in XML.
_AS_TOLD = Offer(_DICOM)

Instance = tuple[Buffer, ...] | Failed


def store(study: str | None = None) -> Response:
    """Store the instances of a request; 200 if all are stored, 409 if any isn't.

    Raises
    ------
    BadRequest
        If the header Storage-Class or the body can't be understood; nothing is stored then.
    UnsupportedMediaType
        If the body is of another media type than the three that are known.
    """
    offer = negotiated((XML, JSON, _AS_TOLD))
    offer = XML if offer == _AS_TOLD else offer
    storage_class = _storage_class()
    results = [_store(instance, study, storage_class) for instance in _instances()]
    stored = [result.uids for result in results if isinstance(result, Referenced)]
    g.audited = {
        "StudyInstanceUID": sorted({uids.study for uids in stored}),
        "SOPInstanceUID": [uids.instance for uids in stored],
    }
    return answer(results, offer)


def _storage_class() -> str:
    """Return what the Storage-Class header says; STANDARD without one."""
    given = request.headers.get("Storage-Class", STORAGE_CLASSES[0])
    if given not in STORAGE_CLASSES:
        raise BadRequest(
            "the header Storage-Class names no storage class",
            where="Storage-Class",
            mend=f"it is one of {', '.join(STORAGE_CLASSES)}",
        )
    return given


def _instances() -> Iterator[Instance]:
    """Read the request body as files, or as what is wrong with those that can't become one."""
    content_type = request.headers.get("Content-Type", "")
    media_type, parameters = multipart.parse_media_type(content_type)
    kind = parameters.get("type", "").lower()
    if media_type == _DICOM:
        whole = body.read()
        if not whole:
            raise BadRequest("the request has no body")
        return iter([(whole,)])
    if media_type != "multipart/related" or kind not in (_DICOM, _DICOM_JSON):
        raise UnsupportedMediaType(
            f'only {_DICOM}, multipart/related; type="{_DICOM}" and multipart/related;'
            f' type="{_DICOM_JSON}" can be stored'
        )
    parts = multipart.decode(body.read(), content_type)
    if not parts:
        raise BadRequest("the multipart body has no part", reason="multipart")
    return stow_json.read(parts) if kind == _DICOM_JSON else _files(parts)


def _files(parts: list[multipart.Part]) -> Iterator[Instance]:
    for number, part in enumerate(parts, 1):
        media_type, _ = multipart.parse_media_type(part.headers.get("content-type", _DICOM))
        if media_type != _DICOM:
            raise BadRequest(f"the part isn't {_DICOM}", where=f"part {number}")
    return (part.body.pieces for part in parts)


def _store(instance: Instance, study: str | None, storage_class: str) -> Referenced | Failed:
    if isinstance(instance, Failed):
        return instance
    try:
        dataset = part10.decode(instance[0] if len(instance) == 1 else b"".join(instance))
        description = describe(dataset)
    except BadRequest as error:
        return Failed(str(error))
    uids, sop_class = description.uids, description.sop_class
    if study is not None and uids.study != study:
        detail = "StudyInstanceUID isn't the study of the URL"
        return Failed(detail, sop_class, uids.instance)
    result = archive().store(instance, dataset, storage_class)
    if isinstance(result, BeingDeleted):
        detail = "it is being deleted; send it again when the operation is done"
        return Failed(detail, sop_class, uids.instance, reason=OUT_OF_RESOURCES)
    if isinstance(result, Conflict):
        return Failed("already exists", sop_class, uids.instance, uids.study)
    return Referenced(sop_class, uids, already=isinstance(result, AlreadyStored))
