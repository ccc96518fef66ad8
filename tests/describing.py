"""The line from a picture to a DICOM file, under settings as the environment would give them."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from service import assemble, settings
from service.dicom import attributes, part10
from service.dicom.normalise import Normalised
from service.ingest import (
    Described,
    Rules,
    Upload,
    describe_upload,
    digest_of,
    normalise_image,
)

PHOTOGRAPH, CAPTURE = "vl-photographic-image", "secondary-capture-image"
SAID: dict[str, Any] = {
    "PatientName": "Yamada^Tarou",
    "PatientID": "P-7",
    "PatientBirthDate": "19700101",
    "PatientSex": "F",
    "StudyDate": "20240305",
    "StudyTime": "140709",
    "AccessionNumber": "A-1",
    "SeriesNumber": 1,
    "InstanceNumber": 7,
}


@cache
def _rules(given: tuple[tuple[str, str], ...]) -> Rules:
    return assemble.rules(settings.load({"UID_NAMESPACE": "tests", **dict(given)}))


def rules(**environment: str) -> Rules:
    """Return the rules under settings, such as ``UPRIGHT="refuse"``."""
    return _rules(tuple(sorted(environment.items())))


def normalised(data: bytes, **environment: str) -> Normalised:
    return normalise_image(data, rules(**environment))


def described(
    data: bytes,
    template: str = PHOTOGRAPH,
    said: Mapping[str, Any] = SAID,
    **environment: str,
) -> Described:
    checked = attributes.parse(said)
    upload = Upload(data, digest_of(data), checked, template, "file", "request")
    return describe_upload(upload, rules(**environment))


def dicom_file(described: Described) -> bytes:
    """Return the bytes of the DICOM file (PS3.10)."""
    instance = described.instance
    pieces = part10.encode(instance.dataset, instance.codestream, instance.transfer_syntax)
    return b"".join(pieces)
