"""Answers to a STOW-RS request (PS3.18 10.5.3): the true, the false and the useless."""

import json
from collections.abc import Sequence
from email import message_from_bytes, policy
from io import BytesIO
from typing import Any

from pydicom import dcmread

from tests.peers.scripted import Received
from tests.peers.steps import Respond

Instance = tuple[str, str]
"""SOPClassUID and SOPInstanceUID."""

_JSON = {"Content-Type": "application/dicom+json"}
_ALREADY_EXISTS = 272  # 0x0110, "processing failure": what Cloud Healthcare gives for a known UID


def parts_of(request: Received) -> list[tuple[str, bytes]]:
    """Split a body into media types and bytes, as the standard library's `email` reads it."""
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode("latin-1")
    message = message_from_bytes(head + request.body, policy=policy.HTTP)
    payloads = [(part.get_content_type(), part.get_payload(decode=True)) for part in message.walk()]
    return [(media_type, body) for media_type, body in payloads if isinstance(body, bytes)]


def instances_in(request: Received) -> list[Instance]:
    """Name the instances in a body of dicom+json with bulk data, or of DICOM files."""
    return [
        instance
        for media_type, body in parts_of(request)
        for instance in _instances(media_type, body)
    ]


def _instances(media_type: str, body: bytes) -> list[Instance]:
    if media_type == "application/dicom+json":
        return [(_value(item, "00080016"), _value(item, "00080018")) for item in json.loads(body)]
    if media_type == "application/dicom":
        dataset = dcmread(BytesIO(body), stop_before_pixels=True)
        return [(str(dataset.SOPClassUID), str(dataset.SOPInstanceUID))]
    return []


def _value(item: Any, tag: str) -> str:
    return str(item[tag]["Value"][0])


def _ui(value: str) -> dict[str, Any]:
    return {"vr": "UI", "Value": [value]}


def _reference(instance: Instance) -> dict[str, Any]:
    return {"00081150": _ui(instance[0]), "00081155": _ui(instance[1])}


def _answer(
    good: Sequence[Instance] = (),
    bad: Sequence[Instance] = (),
    reason: int = 0,
    detail: str = "",
    warning: int = 0,
) -> bytes:
    """Write Referenced and Failed SOP Sequence (PS3.18 Table I.2-1), `detail` as Google does."""
    model: dict[str, Any] = {}
    if good:
        warned = {"00081196": {"vr": "US", "Value": [warning]}} if warning else {}
        model["00081199"] = {"vr": "SQ", "Value": [_reference(each) | warned for each in good]}
    if bad:
        failure: dict[str, Any] = {"00081197": {"vr": "US", "Value": [reason]}}
        if detail:
            failure["00091097"] = {"vr": "LT", "Value": [detail]}
        model["00081198"] = {"vr": "SQ", "Value": [_reference(each) | failure for each in bad]}
    return json.dumps(model).encode()


def stored(warning: int = 0) -> Respond:
    """Store everything, and name it; with a Warning Reason if there is one, as dcm4chee does."""
    status = 202 if warning else 200
    return Respond(
        status, _JSON, lambda request: _answer(good=instances_in(request), warning=warning)
    )


def stored_xml() -> Respond:
    """Store everything, and name it in the Native DICOM Model (PS3.19 A.1)."""
    return Respond(200, {"Content-Type": "application/dicom+xml"}, _stored_in_xml)


def _stored_in_xml(request: Received) -> bytes:
    items = "".join(
        f'<Item number="{number}">'
        f'<DicomAttribute tag="00081150" vr="UI" keyword="ReferencedSOPClassUID">'
        f'<Value number="1">{sop_class}</Value></DicomAttribute>'
        f'<DicomAttribute tag="00081155" vr="UI" keyword="ReferencedSOPInstanceUID">'
        f'<Value number="1">{instance}</Value></DicomAttribute></Item>'
        for number, (sop_class, instance) in enumerate(instances_in(request), 1)
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM">'
        '<DicomAttribute tag="00081199" vr="SQ" keyword="ReferencedSOPSequence">'
        f"{items}</DicomAttribute></NativeDicomModel>"
    ).encode()


def failed(reason: int = 0xA900, detail: str = "", status: int = 409) -> Respond:
    """Refuse every instance with a Failure Reason (PS3.18 Table I.2-2)."""
    return Respond(
        status,
        _JSON,
        lambda request: _answer(bad=instances_in(request), reason=reason, detail=detail),
    )


def already_exists_409() -> Respond:
    """Refuse as Cloud Healthcare does an instance that it has with other content."""
    return failed(_ALREADY_EXISTS, "already exists")


def partial_202(reason: int = 0xA700, failing: int = 1) -> Respond:
    """Store all but the last `failing` instances."""

    def body(request: Received) -> bytes:
        instances = instances_in(request)
        kept = len(instances) - failing
        return _answer(instances[:kept], instances[kept:], reason)

    return Respond(202, _JSON, body)


def names_another_uid() -> Respond:
    """Report success for an instance that nobody sent."""
    return Respond(200, _JSON, _answer(good=[("1.2.840.10008.5.1.4.1.1.77.1.4", "2.25.1")]))


def empty_200() -> Respond:
    """Report success without saying of what."""
    return Respond(200)


def unauthorized() -> Respond:
    """Ask for credentials."""
    return Respond(401, {"WWW-Authenticate": 'Bearer realm="store"'})


def throttled(retry_after: float | str = 1) -> Respond:
    """Ask to come again later: seconds, or an HTTP date."""
    return Respond(429, {"Retry-After": str(retry_after)})


def unavailable() -> Respond:
    """Be down for maintenance."""
    return Respond(503, {"Content-Type": "text/plain"}, b"down for maintenance")


def unsupported_media_type() -> Respond:
    """Refuse the wire format, as Orthanc does dicom+json: without a Content-Type."""
    return Respond(415)


def no_studies() -> Respond:
    """Answer a search with an empty list."""
    return Respond(200, _JSON, b"[]")
