"""The line itself: receive -> inspect -> normalise -> describe -> package -> store.

Upload --describe_upload--> Described --Store.store--> Outcome
"""

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pydicom import Dataset

from service.dicom import uid
from service.dicom.consistency import DERMOSCOPIC
from service.dicom.dataset import Instance, describe, merge
from service.dicom.jpeg import inspect
from service.dicom.jpeg2000 import is_jpeg2000
from service.dicom.normalise import (
    Normalised,
    Policy,
    assume_srgb,
    from_jpeg2000,
    normalise,
)
from service.dicom.outcome import Outcome
from service.dicom.soundness import check_size
from service.dicom.template import Template
from service.errors import JpegstowError, UnknownTemplate


class Store(Protocol):
    """Where instances go."""

    def store(self, instances: Sequence[Instance]) -> Mapping[str, Outcome]:
        """Send instances, each with a SOP Instance UID of its own; return what became of each."""


@dataclass(frozen=True, slots=True)
class Upload:
    """One JPEG as it came, and what its sender said of it.

    Attributes
    ----------
    digest
        SHA-256 of the image, in hexadecimal (`digest_of`).
    attributes
        The caller's own, checked.
    template
        A template's name.
    source
        Where it came from: ``http``, ``file``.
    request
        What all images of one request share (`request_name`).
    """

    image: bytes
    digest: str
    attributes: Dataset
    template: str
    source: str
    request: str
    idempotency_key: str = ""


@dataclass(frozen=True, slots=True)
class Described:
    """An instance, and what was changed in its JPEG to make it."""

    instance: Instance
    changes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one upload: an outcome, or the error that kept it from being described."""

    upload: Upload
    described: Described | None
    outcome: Outcome | JpegstowError


@dataclass(frozen=True, slots=True)
class Rules:
    """What decides how an upload is described, besides the upload."""

    templates: Mapping[str, Template]
    namespace: uuid.UUID
    max_pixels: int
    policy: Policy


def digest_of(image: bytes) -> str:
    """Return the SHA-256 of a JPEG as it came, in hexadecimal."""
    return hashlib.sha256(image).hexdigest()


def request_name(
    digests: Sequence[str], attributes: Sequence[Dataset], template: str, idempotency_key: str
) -> str:
    """Name a request by all that it holds: the same request again has the same name."""
    said = [uid.canonical(dataset) for dataset in attributes]
    return uid.digest(idempotency_key, template, *said, *digests)


def describe_upload(upload: Upload, rules: Rules) -> Described:
    """Turn an upload into an instance. The same upload always gives the same bytes.

    Raises
    ------
    JpegstowError
        Whatever is wrong with the JPEG, the attributes or the template's name.
    """
    template = rules.templates.get(upload.template)
    if template is None:
        raise UnknownTemplate(
            "there is no such template",
            where="template",
            mend=f"use one of {', '.join(sorted(rules.templates))}",
        )
    normalised = normalise_image(upload.image, rules)
    if template.sop_class == DERMOSCOPIC:
        normalised = assume_srgb(normalised)
    merged = merge(template, normalised.tags, upload.attributes)
    names = uid.Names(
        image_digest=upload.digest,
        template_digest=template.digest,
        request=upload.request,
        idempotency_key=upload.idempotency_key,
    )
    identity = uid.identify(rules.namespace, upload.attributes, merged, names)
    return Described(describe(normalised, merged, identity), normalised.changes)


def normalise_image(image: bytes, rules: Rules) -> Normalised:
    """Read what an image is, and make of it a codestream that DICOM allows."""
    if is_jpeg2000(image):
        normalised = from_jpeg2000(image)
        check_size(normalised.encapsulation, rules.max_pixels)
        return normalised
    header = inspect(image)
    check_size(header, rules.max_pixels)
    return normalise(image, header, rules.policy)


def ingest(uploads: Sequence[Upload], rules: Rules, store: Store) -> list[Result]:
    """Take uploads through the line; each has a result of its own, in their order.

    What can be described is sent in one request. The same picture twice is one instance.
    """
    described = [_described(upload, rules) for upload in uploads]
    instances = {
        one.instance.sop_instance_uid: one.instance
        for one in described
        if isinstance(one, Described)
    }
    outcomes = store.store(list(instances.values())) if instances else {}
    return [
        Result(upload, one, outcomes[one.instance.sop_instance_uid])
        if isinstance(one, Described)
        else Result(upload, None, one)
        for upload, one in zip(uploads, described, strict=True)
    ]


def _described(upload: Upload, rules: Rules) -> Described | JpegstowError:
    try:
        return describe_upload(upload, rules)
    except JpegstowError as error:
        return error
