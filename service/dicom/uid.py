"""Name-based UIDs: the same names always give the same UID (PS3.5 B.2, RFC 9562 version 5)."""

import hashlib
import json
import re
import uuid
from typing import Final, NamedTuple

from pydicom import Dataset

from service.dicom import json_model
from service.errors import BadAttribute

_UID: Final = re.compile(r"(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))*")

# What all instances of a series share (PS3.3 A.1.2.3): where one differs, so does the series.
_SERIES: Final = (
    "SOPClassUID",
    "Modality",
    "SeriesNumber",
    "SeriesDescription",
    "Laterality",
    "BodyPartExamined",
    "ProtocolName",
    "Manufacturer",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
    "FrameOfReferenceUID",
)


class Identity(NamedTuple):
    """Where an instance belongs: study, series, itself; and the series' frame of reference."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    frame_of_reference_uid: str


class Names(NamedTuple):
    """What the caller didn't say with attributes, but what makes an upload this upload.

    Attributes
    ----------
    image_digest
        SHA-256 of the JPEG as it came.
    template_digest
        SHA-256 of the template's content: another content makes another instance.
    request
        What all images of one request share, and repeat when the request is sent again.
    idempotency_key
        The caller's own name for the upload, or the generation of a bucket's object.
    """

    image_digest: str
    template_digest: str
    request: str
    idempotency_key: str = ""


def namespace(secret: str) -> uuid.UUID:
    """Return the namespace of a secret; who doesn't know it can't guess a patient's UIDs."""
    return uuid.UUID(bytes=hashlib.sha256(secret.encode()).digest()[:16], version=5)


def name_based(space: uuid.UUID, *names: str) -> str:
    """Return ``2.25.`` and the UUIDv5 over a JSON list of names, which no two lists share."""
    return f"2.25.{uuid.uuid5(space, json.dumps(names)).int}"


def digest(*names: str) -> str:
    """Return the SHA-256 over a JSON list of names, in hexadecimal."""
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()


def canonical(attributes: Dataset) -> str:
    """Return attributes in one form, however their caller spelled them."""
    return json_model.dumps(json_model.to_json(attributes)).decode()


def identify(space: uuid.UUID, attributes: Dataset, described: Dataset, names: Names) -> Identity:
    """Name an instance.

    Parameters
    ----------
    attributes
        What the caller said.
    described
        The template's and EXIF's attributes overridden by the caller's.

    Raises
    ------
    BadAttribute
        If a series is named, but nothing that names its study.
    """
    _check_series(attributes, described)
    study = attributes.get("StudyInstanceUID") or _study(space, described, names)
    series = attributes.get("SeriesInstanceUID") or name_based(
        space,
        "series",
        study,
        *_texts(described, *_SERIES),
    )
    instance = name_based(
        space,
        "instance",
        study,
        series,
        names.image_digest,
        canonical(attributes),
        names.template_digest,
        names.idempotency_key,
    )
    frame_of_reference = name_based(space, "frame of reference", str(series))
    return Identity(str(study), str(series), instance, frame_of_reference)


def _check_series(attributes: Dataset, described: Dataset) -> None:
    """Refuse a series that would stand in the study of each request anew."""
    named = attributes.get("StudyInstanceUID") or (
        described.get("PatientID")
        and (described.get("AccessionNumber") or described.get("StudyID"))
    )
    if attributes.get("SeriesInstanceUID") and not named:
        raise BadAttribute(
            "a series is given without its study",
            where="SeriesInstanceUID",
            mend="send StudyInstanceUID, or PatientID with AccessionNumber or StudyID",
        )


def _study(space: uuid.UUID, described: Dataset, names: Names) -> str:
    """Name a study by accession number, by study ID, or by the request, whichever is there."""
    issuer, patient, accession, study_id = _texts(
        described, "IssuerOfPatientID", "PatientID", "AccessionNumber", "StudyID"
    )
    if patient and accession:
        return name_based(space, "study", "accession", issuer, patient, accession)
    if patient and study_id:
        return name_based(space, "study", "id", issuer, patient, study_id)
    return name_based(space, "study", "request", names.request)


def _texts(dataset: Dataset, *keywords: str) -> list[str]:
    return [
        "" if dataset.get(keyword) is None else str(dataset.get(keyword)) for keyword in keywords
    ]


def is_uid(text: object) -> bool:
    """Tell whether a text has the strict form of a UID (PS3.5 9.1): no path can be hidden in it."""
    return isinstance(text, str) and len(text) <= 64 and _UID.fullmatch(text) is not None
