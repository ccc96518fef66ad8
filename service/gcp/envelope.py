"""What Pub/Sub, Eventarc and Cloud Storage send, read as one message; and what a message means.

wrapped       {"message": {"data": "<base64>", "attributes": {...}, "messageId": "..."}, ...}
unwrapped     the data as the body; attributes and x-goog-pubsub-* as headers
CloudEvents   binary mode: ce-* headers; the object, or a wrapped message, as the body
"""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from pydicom.datadict import keyword_dict

from service.dicom import json_model
from service.errors import BadRequest

_FINALIZE: Final = "OBJECT_FINALIZE"
_FINALIZED: Final = "google.cloud.storage.object.v1.finalized"
_STORAGE: Final = "google.cloud.storage."
_URL: Final = re.compile(
    r"(?P<bucket>(?:gs|s3)://[a-z0-9][a-z0-9._-]{1,221})/(?P<name>[^\0\ud800-\udfff]{1,1024})"
)
_GENERATION: Final = re.compile(r"\d{0,20}", re.ASCII)

# As headers of an unwrapped push, in lower case.
_NOTIFICATION: Final = {
    name.lower(): name
    for name in ("eventType", "bucketId", "objectId", "objectGeneration", "template")
}
# What is a keyword and a field of HTTP too (RFC 9110, 9218, 9421); any client or proxy adds it.
_HTTP: Final = frozenset({"date", "location", "priority", "signature", "status"})


@dataclass(frozen=True, slots=True)
class Message:
    """What somebody published; `published` is RFC 3339, empty where it isn't told."""

    data: bytes
    attributes: Mapping[str, str]
    id: str = ""
    published: str = ""


@dataclass(frozen=True, slots=True)
class Reference:
    """An object in a bucket; an empty `generation` means the current one."""

    bucket: str
    name: str
    generation: str = ""

    @property
    def key(self) -> str:
        """One name for this very content."""
        return f"{self.bucket}/{self.name}#{self.generation}"


@dataclass(frozen=True, slots=True)
class Picture:
    """A JPEG, or what claims to be one, and what is said of it."""

    image: bytes
    said: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Pointer:
    """An object that holds the JPEG, and what the message itself says of it."""

    reference: Reference
    said: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Ignored:
    """Something that isn't a new picture."""

    why: str


Meaning = Picture | Pointer | Ignored


def read(body: bytes, headers: Mapping[str, str]) -> Message:
    """Read a push request, whatever form the subscription gives it.

    Parameters
    ----------
    headers
        With lower-case names.

    Raises
    ------
    BadRequest
        If it is an envelope that breaks its own rules.
    """
    event = headers.get("ce-type", "")
    if event.startswith(_STORAGE):
        return _event(body, headers)
    model = _object(body) if _is_json(headers) else None
    if model is not None and isinstance(model.get("message"), dict):
        return _wrapped(model["message"])
    return _unwrapped(body, headers)


def meaning(message: Message) -> Meaning:
    """Tell what a message asks for.

    Raises
    ------
    BadRequest
        If it is neither a picture nor an object's name.
    """
    attributes = message.attributes
    if "eventType" in attributes and "objectId" in attributes:
        return _notified(attributes)
    said = {name: value for name, value in attributes.items() if not _is_googles(name)}
    text = message.data.lstrip()
    if text[:1] == b"{":
        return _described(_object(message.data), said)
    if text[:5] in {b"gs://", b"s3://"}:
        return Pointer(_reference(text.decode("utf-8", "replace").strip()), said)
    if not message.data:
        raise BadRequest(
            "the message holds no picture",
            reason="no-image",
            where="message.data",
            mend="publish the JPEG, a JSON object with image, or gs://BUCKET/OBJECT",
        )
    return Picture(message.data, said)


def _notified(attributes: Mapping[str, str]) -> Meaning:
    """Read a notification of Cloud Storage."""
    if attributes["eventType"] != _FINALIZE:
        return Ignored("the event isn't of a new object")
    bucket = attributes.get("bucketId", "")
    bucket = bucket if "://" in bucket else f"gs://{bucket}"
    generation = attributes.get("objectGeneration", "")
    known = _keywords().values()
    said = {name: attributes[name] for name in attributes if name in known or name == "template"}
    return Pointer(_reference(f"{bucket}/{attributes['objectId']}", generation), said)


def _described(model: dict[str, Any] | None, said: dict[str, Any]) -> Meaning:
    """Read a JSON object: an image in base64, or an object's name, and metadata."""
    if model is None:
        raise BadRequest("the message isn't usable JSON", reason="not-json", where="message.data")
    metadata = model.get("metadata", {})
    if not isinstance(metadata, dict):
        raise BadRequest("metadata isn't an object", reason="metadata", where="metadata")
    joined = {**said, **metadata}
    if "template" in model:
        joined["template"] = model["template"]
    if isinstance(model.get("object"), str):
        return Pointer(_reference(model["object"], str(model.get("generation") or "")), joined)
    if isinstance(model.get("image"), str):
        return Picture(_decoded(model["image"], "image"), joined)
    raise BadRequest(
        "the object has neither image nor object",
        reason="no-image",
        where="message.data",
        mend='publish {"image": "<base64>", "metadata": {...}} or {"object": "gs://...", ...}',
    )


def _reference(url: str, generation: str = "") -> Reference:
    found = _URL.fullmatch(url)
    if not found or not _GENERATION.fullmatch(generation):
        raise BadRequest(
            "the object's name isn't gs://BUCKET/OBJECT with a number as its generation",
            reason="bad-reference",
            where="object",
        )
    return Reference(found["bucket"], found["name"], generation)


def _wrapped(message: Mapping[str, Any]) -> Message:
    attributes = message.get("attributes") or {}
    data = message.get("data") or ""
    if (
        not isinstance(attributes, dict)
        or not all(isinstance(value, str) for value in attributes.values())
        or not isinstance(data, str)
    ):
        raise BadRequest(
            "the message breaks Pub/Sub's own form", reason="envelope", where="message"
        )
    return Message(
        _decoded(data, "message.data"),
        attributes,
        str(message.get("messageId") or message.get("message_id") or ""),
        str(message.get("publishTime") or message.get("publish_time") or ""),
    )


def _unwrapped(body: bytes, headers: Mapping[str, str]) -> Message:
    """Read a message whose attributes, if the subscription writes them, are headers.

    A header's name has no case: only those of notifications and DICOM keywords can be told from
    whatever else a request carries.
    """
    known = _keywords() | _NOTIFICATION
    attributes = {known[name]: _text(value) for name, value in headers.items() if name in known}
    return Message(
        body,
        attributes,
        headers.get("x-goog-pubsub-message-id", ""),
        headers.get("x-goog-pubsub-publish-time", ""),
    )


@cache
def _keywords() -> dict[str, str]:
    known = {keyword.lower(): keyword for keyword in keyword_dict if keyword}
    return {name: keyword for name, keyword in known.items() if name not in _HTTP}


def _text(value: str) -> str:
    """Read a header as UTF-8, if it is; WSGI gives its bytes as Latin-1 (PEP 3333)."""
    try:
        return value.encode("latin-1").decode()
    except ValueError:
        return value


def _event(body: bytes, headers: Mapping[str, str]) -> Message:
    """Read a CloudEvent of Cloud Storage as the notification that it might have been."""
    if headers["ce-type"] != _FINALIZED:
        return Message(b"", {"eventType": "OTHER", "objectId": ""}, headers.get("ce-id", ""))
    model = _object(body)
    if (
        model is None
        or not isinstance(model.get("bucket"), str)
        or not isinstance(model.get("name"), str)
    ):
        raise BadRequest("the event names no object", reason="envelope", where="body")
    attributes = {
        "eventType": _FINALIZE,
        "bucketId": model["bucket"],
        "objectId": model["name"],
        "objectGeneration": str(model.get("generation") or ""),
    }
    return Message(b"", attributes, headers.get("ce-id", ""), headers.get("ce-time", ""))


def _decoded(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest("the data isn't base64", reason="not-base64", where=where) from error


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        model = json_model.loads(body)
    except ValueError:
        return None
    return model if isinstance(model, dict) else None


def _is_json(headers: Mapping[str, str]) -> bool:
    return "json" in headers.get("content-type", "json")


def _is_googles(name: str) -> bool:
    """Tell whether Google added an attribute: its libraries, Eventarc, or a dead-letter topic."""
    return name.startswith(("goog", "ce-", "CloudPubSub"))
