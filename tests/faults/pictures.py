"""Uploads without end, each distinct, and what the service must make of them."""

import hashlib
import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Any, Final

from service import assemble, settings
from service.dicom import attributes, json_model, part10
from service.dicom.codestream import Codestream
from service.dicom.dataset import Instance
from service.ingest import Rules, Upload, describe_upload, digest_of, request_name
from tests.jpegs import make_jpeg
from tests.serving import SECRET
from tests.streams import behind_soi, segment

TEMPLATE: Final = "vl-photographic-image"
COM: Final = 0xFE

# What takes each road through the normalising: as it is, recoded, turned, recoded and turned,
# turned by decoding since its size allows no other way, grey.
KINDS: Final[Sequence[dict[str, Any]]] = (
    {},
    {"progressive": True},
    {"orientation": 6},
    {"orientation": 8, "progressive": True},
    {"orientation": 3, "width": 61, "height": 45},
    {"mode": "L", "taken": "2024:03:05 14:07:09"},
)
SEEDS: Final = 40
ASYNCHRONOUS: Final = 0.12  # of all requests
SEVERAL: Final = 0.15  # of all requests
MOST: Final = 4  # pictures of one request


@dataclass(frozen=True)
class Request:
    """One upload: its pictures, what is said of them, and what they make.

    Attributes
    ----------
    made
        From the SOP Instance UID of each picture to its `file_digests`.
    """

    pictures: tuple[bytes, ...]
    fields: dict[str, str]
    asynchronous: bool
    made: dict[str, frozenset[str]]


def base_pictures() -> list[bytes]:
    """Return some hundreds of small pictures."""
    return [make_jpeg(seed=seed, **kind) for seed in range(SEEDS) for kind in KINDS]


def numbered(picture: bytes, serial: int) -> bytes:
    """Return a picture with a comment that no other has."""
    return behind_soi(picture, segment(COM, b"%07d" % serial))


def rules() -> Rules:
    """Return the rules of a service whose UID_NAMESPACE is SECRET."""
    return assemble.rules(settings.load({"UID_NAMESPACE": SECRET}))


def describe(
    pictures: Sequence[bytes], fields: dict[str, str], by: Rules
) -> dict[str, frozenset[str]]:
    """Return the SOP Instance UID of each picture of a request, and its `file_digests`."""
    said = attributes.parse(fields)
    digests = [digest_of(picture) for picture in pictures]
    name = request_name(digests, [said] * len(pictures), TEMPLATE, "")
    uploads = [
        Upload(picture, digest, said, TEMPLATE, "http", name)
        for picture, digest in zip(pictures, digests, strict=True)
    ]
    described = [describe_upload(upload, by).instance for upload in uploads]
    return {instance.sop_instance_uid: file_digests(instance) for instance in described}


def file_digests(instance: Instance) -> frozenset[str]:
    """Return the SHA-256 of the DICOM file as it is sent, and as a store makes it of DICOM JSON.

    A number that DICOM writes as text, such as 7, may come out as 7.0 there: PS3.18 Table F.2.3-1.
    """
    model = json.loads(json_model.dumps(json_model.to_json(instance.dataset)))
    return frozenset(
        hashlib.sha256(b"".join(part10.encode(dataset, *_pixels(instance)))).hexdigest()
        for dataset in (instance.dataset, json_model.from_json(model))
    )


def _pixels(instance: Instance) -> tuple[Codestream, str]:
    return instance.codestream, instance.transfer_syntax


class Requests:
    """Requests for several threads, until so many pictures are in them."""

    def __init__(self, pictures: int, seed: int = 0) -> None:
        self._wanted = pictures
        self._random = Random(seed)
        self._base = base_pictures()
        self._serials = count()
        self._rules = rules()
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[tuple[float, Request]]:
        """Yield requests, each with the share of all pictures that were taken before it."""
        while True:
            with self._lock:
                first, asynchronous = next(self._serials), self._chance(ASYNCHRONOUS)
                length = self._random.randint(2, MOST) if self._chance(SEVERAL) else 1
                serials = [first, *(next(self._serials) for _ in range(length - 1))]
            if first >= self._wanted:
                return
            yield first / self._wanted, self._request(serials, asynchronous=asynchronous)

    def _chance(self, of: float) -> bool:
        return self._random.random() < of

    def _request(self, serials: Sequence[int], *, asynchronous: bool) -> Request:
        pictures = [numbered(self._base[serial % len(self._base)], serial) for serial in serials]
        fields = {"PatientID": f"P-{serials[0] % 97}", "AccessionNumber": f"A-{serials[0] // 20}"}
        made = describe(pictures, fields, self._rules)
        return Request(tuple(pictures), fields, asynchronous, made)
