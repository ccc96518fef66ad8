"""An HTTP request to uploads: multipart/form-data, or a bare JPEG with attributes in the query."""

import json
import re
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import IO, Any, Final

from flask import Request
from werkzeug.datastructures import MultiDict

from service.dicom import attributes, json_model
from service.errors import BadRequest, NotAJpeg, TooLarge
from service.ingest import Upload, digest_of, request_name

_OWN_FIELDS: Final = frozenset({"image", "metadata", "template"})
_MAX_METADATA: Final = 1_000_000  # bytes, as file; a field's text is bounded by Werkzeug
_RAW_TYPES: Final = ("image/", "application/octet-stream")


class UploadRequest(Request):
    """A request whose file parts stay in memory, bounded by MAX_UPLOAD_BYTES.

    Werkzeug's default writes what exceeds 500 kB to a temporary file, which is a copy that costs
    time on a disk, and on Cloud Run is memory all the same.
    """

    def _get_file_stream(
        self,
        total_content_length: int | None,  # noqa: ARG002 - the signature is Werkzeug's
        content_type: str | None,  # noqa: ARG002
        filename: str | None = None,  # noqa: ARG002
        content_length: int | None = None,  # noqa: ARG002
    ) -> IO[bytes]:
        return BytesIO()


def uploads(request: Request, default_template: str, max_images: int) -> list[Upload]:
    """Read the uploads of a request.

    Raises
    ------
    BadRequest
        If there is no image, metadata isn't a JSON object, or an attribute isn't acceptable.
    TooLarge
        If there are more than `max_images`, or too many attributes of theirs.
    NotAJpeg
        If the body is of a type that can't hold an image.
    """
    images = _images(request)
    fields = _fields(request)
    if not images:
        raise BadRequest(
            "the request holds no image",
            reason="no-image",
            mend="send multipart/form-data with a file field named image, or a JPEG as the body",
        )
    if len(images) > max_images:
        raise TooLarge(
            f"the request holds {len(images)} images, {max_images} are allowed",
            reason="too-many-images",
            mend="send several requests, or raise MAX_IMAGES",
        )
    template = _one(fields.pop("template", None), "template") or default_template
    said = _attributes(fields, len(images))
    key = _idempotency_key(request)
    digests = [digest_of(image) for image in images]
    name = request_name(digests, said, template, key)
    return [
        Upload(image, digest, dataset, template, "http", name, key)
        for image, digest, dataset in zip(images, digests, said, strict=True)
    ]


def _images(request: Request) -> list[bytes]:
    if request.mimetype == "multipart/form-data":
        unknown = set(request.files) - {"image", "metadata"}
        if unknown:
            detail = "a file stands in another field than image"
            raise BadRequest(detail, reason="unknown-field", mend="name the file field image")
        return [_bytes(file.stream) for file in request.files.getlist("image")]
    if request.mimetype.startswith(_RAW_TYPES) or not request.mimetype:
        image = request.get_data(cache=False)
        # Where no length was announced Werkzeug cuts at the limit, and tells only who reads on.
        request.stream.read(1)
        if request.content_length not in (None, len(image)):
            raise BadRequest(
                f"the body ends after {len(image)} of {request.content_length} bytes",
                reason="cut-off",
                mend="send it again",
            )
        return [image] if image else []
    raise NotAJpeg(
        f"a body of type {_shown_type(request.mimetype)} can't hold a JPEG",
        reason="media-type",
        mend="send multipart/form-data, or image/jpeg",
    )


def _shown_type(mimetype: str) -> str:
    return mimetype if re.fullmatch(r"[a-z0-9.+/-]{1,80}", mimetype) else "unknown"


def _bytes(stream: IO[bytes]) -> bytes:
    """Return a file part's bytes; a BytesIO hands out its own buffer without a copy."""
    return stream.getvalue() if isinstance(stream, BytesIO) else stream.read()


def _fields(request: Request) -> dict[str, list[str]]:
    """Join the query's and the form's fields, each with all of its values."""
    fields: dict[str, list[str]] = {}
    sources: Sequence[MultiDict[str, str]] = (request.args, request.form)
    for source in sources:
        for name, values in source.lists():
            fields.setdefault(name, []).extend(values)
    for file in request.files.getlist("metadata"):
        text = file.read(_MAX_METADATA + 1)
        if len(text) > _MAX_METADATA:
            raise TooLarge(f"metadata is longer than {_MAX_METADATA} bytes", where="metadata")
        fields.setdefault("metadata", []).append(text.decode("utf-8", "replace"))
    if "image" in fields:
        raise BadRequest(
            "the field image holds text, not a file",
            reason="no-image",
            mend="send the image as a file part (curl: -F image=@photo.jpg)",
        )
    return fields


def _attributes(fields: Mapping[str, list[str]], count: int) -> list[Any]:
    """Return the checked attributes of each of `count` images.

    Fields and a metadata object hold for all images; a metadata array has one object for each.
    """
    shared = {
        name: values[0] if len(values) == 1 else values
        for name, values in fields.items()
        if name not in _OWN_FIELDS
    }
    metadata = _metadata(_one(fields.get("metadata"), "metadata"))
    objects = metadata if isinstance(metadata, list) else [metadata]
    if isinstance(metadata, list) and len(metadata) != count:
        raise BadRequest(
            f"metadata holds {len(metadata)} objects for {count} images",
            reason="metadata",
            where="metadata",
            mend="send one object for all images, or an array of one for each",
        )
    if not all(isinstance(one, dict) for one in objects):
        raise BadRequest("metadata isn't a JSON object", reason="metadata", where="metadata")
    joined = [_joined(shared, one) for one in objects]
    _check_work(joined if isinstance(metadata, list) else joined * count)
    parsed = [attributes.parse(one) for one in joined]
    return parsed if isinstance(metadata, list) else parsed * count


def _check_work(said: Sequence[Mapping[str, Any]]) -> None:
    """Refuse what takes long to describe, as a few attributes of one image never do."""
    if len(said) > 1 and sum(map(attributes.count, said)) > attributes.MAX_SAID:
        raise TooLarge(
            f"there are more than {attributes.MAX_SAID} values in the attributes of all images",
            reason="too-many-values",
            where="metadata",
            mend="send fewer images at once",
        )


def _joined(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    for name in shared:
        if name in own:
            raise BadRequest(
                "an attribute is given in a field and in metadata", reason="metadata", where=name
            )
    return {**own, **shared}


def _one(values: list[str] | None, name: str) -> str:
    if values and len(values) > 1:
        raise BadRequest(f"{name} is given more than once", reason="bad-request", where=name)
    return values[0] if values else ""


def _metadata(text: str) -> Any:
    if not text.strip():
        return {}
    try:
        return json_model.loads(text)
    except json.JSONDecodeError as error:
        raise BadRequest(
            f"metadata isn't JSON: {error.msg}",
            reason="metadata",
            where=f"metadata, character {error.pos}",
            mend='send an object such as {"PatientID": "P-7"}',
        ) from error
    except ValueError as error:
        raise BadRequest(
            f"metadata isn't usable JSON: {error}", reason="metadata", where="metadata"
        ) from error


def _idempotency_key(request: Request) -> str:
    key = request.headers.get("Idempotency-Key", "")
    if not re.fullmatch(r"[!-~]{0,255}", key):
        raise BadRequest(
            "the Idempotency-Key isn't up to 255 printable ASCII characters without spaces",
            where="Idempotency-Key",
        )
    return key
