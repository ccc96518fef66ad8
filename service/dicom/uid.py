"""Name-based UIDs: the same names always give the same UID (PS3.5 B.2, RFC 9562 version 5)."""

import hashlib
import json
import uuid
from dataclasses import dataclass

from pydicom import Dataset

from service.dicom import json_model


@dataclass(frozen=True, slots=True)
class Identity:
    """Where an instance belongs: study, series, and itself."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Names:
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
        The template's attributes overridden by the caller's.
    """
    study = attributes.get("StudyInstanceUID") or _study(space, described, names)
    series = attributes.get("SeriesInstanceUID") or name_based(
        space,
        "series",
        study,
        *_texts(described, "SOPClassUID", "Modality", "SeriesNumber", "SeriesDescription"),
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
    return Identity(str(study), str(series), instance)


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
