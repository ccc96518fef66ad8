"""The line itself: receive -> inspect -> normalise -> describe -> package -> store -> retry queue.

Upload --describe_upload--> Described --Store.store--> Outcome --RetryQueue.put--> Result
"""

import hashlib
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import NamedTuple, Protocol

from pydicom import Dataset

from service import counting
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
from service.dicom.outcome import Outcome, Rejected, Stored
from service.dicom.soundness import check_size
from service.dicom.template import Template
from service.errors import JpegstowError, UnknownTemplate


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
    """An instance, what it was made of, and what was changed in its JPEG to make it."""

    instance: Instance
    normalised: Normalised
    changes: tuple[str, ...]


class Attempt(NamedTuple):
    """One try to store an instance, at `at` seconds since 1970, in a wire format."""

    at: float
    outcome: Outcome
    wire: str

    @property
    def asked(self) -> bool:
        """Whether a store was asked."""
        return isinstance(self.outcome, Stored) or self.outcome.asked

    @property
    def reason(self) -> str:
        """Why the instance isn't stored; empty if it is."""
        return "" if isinstance(self.outcome, Stored) else self.outcome.reason


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one upload: an outcome, or the error that kept it from being described.

    `kept` tells that the retry queue has the instance: waiting for another try where the store is
    unavailable, for an operator where it was rejected.
    """

    upload: Upload
    described: Described | None
    outcome: Outcome | JpegstowError
    kept: bool = False


class Store(Protocol):
    """Where instances go."""

    @property
    def wire(self) -> str:
        """The wire format in use: ``json`` or ``part10``."""

    def store(
        self, instances: Sequence[Instance], within: float | None = None
    ) -> Mapping[str, Outcome]:
        """Send instances, each with a SOP Instance UID of its own; return what became of each.

        With `within`, all of it is over after so many seconds.
        """


class RetryQueue(Protocol):
    """Where instances are kept that the store has not taken."""

    def put(
        self, upload: Upload, described: Described | None, attempt: Attempt | None, now: float
    ) -> None:
        """Keep an instance, so that no crash loses it: for another try, or dead if rejected.

        What could not be described is kept dead, with its image.

        An attempt that asked no store isn't counted. Putting it again is harmless: one that waits
        already is sent as it was put first.

        Raises
        ------
        QueueFull, QueueUnusable
            If it isn't kept.
        """

    def finish(self, sop_instance_uid: str) -> None:
        """Let go of an instance that the store has, if it is here.

        Raises
        ------
        QueueUnusable
            If that can't be told.
        """


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
    _template(upload, rules)  # a wrong name is cheaper to find than a picture is to read
    with counting.step("normalise"):
        normalised = normalise_image(upload.image, rules)
    with counting.step("describe"):
        return describe_normalised(upload, normalised, rules)


def describe_normalised(upload: Upload, normalised: Normalised, rules: Rules) -> Described:
    """Turn what an upload says, and the codestream that its image became, into an instance."""
    template = _template(upload, rules)
    dermoscopic = template.sop_class == DERMOSCOPIC
    coloured = assume_srgb(normalised) if dermoscopic else normalised
    merged = merge(template, normalised.tags, upload.attributes)
    names = uid.Names(
        image_digest=upload.digest,
        template_digest=template.digest,
        request=upload.request,
        idempotency_key=upload.idempotency_key,
    )
    identity = uid.identify(rules.namespace, upload.attributes, merged, names)
    return Described(describe(coloured, merged, identity), normalised, coloured.changes)


def _template(upload: Upload, rules: Rules) -> Template:
    template = rules.templates.get(upload.template)
    if template is None:
        raise UnknownTemplate(
            "there is no such template",
            where="template",
            mend=f"use one of {', '.join(sorted(rules.templates))}",
        )
    return template


def normalise_image(image: bytes, rules: Rules) -> Normalised:
    """Read what an image is, and make of it a codestream that DICOM allows."""
    if is_jpeg2000(image):
        normalised = from_jpeg2000(image)
        check_size(normalised.encapsulation, rules.max_pixels)
        return normalised
    header = inspect(image)
    check_size(header, rules.max_pixels)
    return normalise(image, header, rules.policy)


def ingest(
    uploads: Sequence[Upload],
    rules: Rules,
    store: Store,
    queue: RetryQueue | None = None,
    clock: Callable[[], float] = time.time,
) -> list[Result]:
    """Take uploads through the line; each has a result of its own, in their order.

    What can be described is sent in one request. The same picture twice is one instance. What the
    store doesn't take goes into the queue, where there is one.
    """
    described = [_described(upload, rules) for upload in uploads]
    instances = {
        one.instance.sop_instance_uid: one.instance
        for one in described
        if isinstance(one, Described)
    }
    with counting.step("store") if instances else nullcontext():
        outcomes = store.store(list(instances.values())) if instances else {}
    now = clock()
    settled: dict[str, Result] = {}
    for upload, one in zip(uploads, described, strict=True):
        if isinstance(one, Described) and one.instance.sop_instance_uid not in settled:
            name = one.instance.sop_instance_uid
            attempt = Attempt(now, outcomes[name], store.wire)
            settled[name] = _settled(upload, one, attempt, queue)
    results = [
        replace(settled[one.instance.sop_instance_uid], upload=upload)
        if isinstance(one, Described)
        else Result(upload, None, one)
        for upload, one in zip(uploads, described, strict=True)
    ]
    for result in results:
        _count(result, rules)
    return results


def _described(upload: Upload, rules: Rules) -> Described | JpegstowError:
    try:
        return describe_upload(upload, rules)
    except JpegstowError as error:
        return error


def _settled(
    upload: Upload, described: Described, attempt: Attempt, queue: RetryQueue | None
) -> Result:
    """Keep what isn't stored; a queue that can't is what its uploader has to know."""
    outcome = attempt.outcome
    if queue is None:
        return Result(upload, described, outcome)
    if isinstance(outcome, Stored):
        # What the queue can't let go of is sent once more, and found to be there.
        with suppress(JpegstowError):
            queue.finish(described.instance.sop_instance_uid)
        return Result(upload, described, outcome)
    try:
        with counting.step("queue"):
            queue.put(upload, described, attempt, attempt.at)
    except JpegstowError as error:
        return Result(upload, described, error)
    return Result(upload, described, outcome, kept=True)


def _count(result: Result, rules: Rules) -> None:
    """Count what became of a picture; a template's name only if there is such a template."""
    upload, described = result.upload, result.described
    template = upload.template if upload.template in rules.templates else ""
    bytes_out = len(described.instance.codestream) if described else 0
    counting.uploaded(_named(result), template, len(upload.image), bytes_out)


def _named(result: Result) -> str:
    match result.outcome:
        case Stored(duplicate=duplicate):
            return "duplicate" if duplicate else "stored"
        case Rejected():
            return "rejected"
        case JpegstowError() as error if error.http_status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return "refused"
        case _:
            return "queued" if result.kept else "failed"
