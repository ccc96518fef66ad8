"""Instances for the archive: as a file, and as the request that makes one."""

from functools import cache
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from pydicom import Dataset

from service.archive import Archive, StoreResult
from service.dicom import multipart, part10
from service.dicom.codestream import Codestream
from service.dicom.json_model import JsonObject, dumps, to_json
from service.dicom.multipart import Part, Payload
from service.dicomweb import create_app
from tests.jpegs import make_jpeg

BASELINE = "1.2.840.10008.1.2.4.50"
VL_PHOTOGRAPHIC = "1.2.840.10008.5.1.4.1.1.77.1.4"
STUDY, SERIES, INSTANCE = "1.2.3", "1.2.3.4", "1.2.3.4.5"


@cache
def jpeg(seed: int = 0) -> bytes:
    return make_jpeg(seed=seed)


def attributes(**changes: Any) -> Dataset:
    """Describe a photograph; a change to None removes the attribute."""
    dataset = Dataset()
    values = {
        "SpecificCharacterSet": "ISO_IR 192",
        "SOPClassUID": VL_PHOTOGRAPHIC,
        "SOPInstanceUID": INSTANCE,
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": SERIES,
        "StudyDate": "20240305",
        "AccessionNumber": "A1",
        "Modality": "XC",
        "ReferringPhysicianName": "Wolf^Ada",
        "PatientName": "Müller^José",
        "PatientID": "P1",
        "SamplesPerPixel": 3,
        "PhotometricInterpretation": "YBR_FULL_422",
        "PlanarConfiguration": 0,
        "Rows": 48,
        "Columns": 64,
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
    }
    for keyword, value in (values | changes).items():
        if value is not None:
            setattr(dataset, keyword, value)
    return dataset


def dicom_file(seed: int = 0, syntax: str = BASELINE, **changes: Any) -> bytes:
    pieces = part10.encode(attributes(**changes), Codestream((jpeg(seed),)), syntax)
    return b"".join(pieces)


def metadata(uri: str = "image-1", **changes: Any) -> JsonObject:
    """Return the DICOM JSON of a photograph, as the Cloud Healthcare API wants it."""
    model = to_json(attributes(**changes))
    model["00020010"] = {"vr": "UI", "Value": [BASELINE]}
    model["7FE00010"] = {"vr": "OB", "BulkDataURI": uri}
    return model


def json_part(models: Any) -> Part:
    return Part({"Content-Type": "application/dicom+json"}, Codestream((dumps(models),)))


def image_part(
    uri: str = "image-1", seed: int = 0, kind: str = f"image/jpeg; transfer-syntax={BASELINE}"
) -> Part:
    headers = {"Content-Location": uri, "Content-Type": kind}
    return Part(headers, Codestream((jpeg(seed),)))


def json_request(models: Any, *images: Part) -> Payload:
    return multipart.encode([json_part(models), *images], "application/dicom+json")


def file_request(*files: bytes) -> Payload:
    headers = {"Content-Type": "application/dicom"}
    parts = [Part(headers, Codestream((file,))) for file in files]
    return multipart.encode(parts, "application/dicom")


def put(archive: Archive, file: bytes, storage_class: str = "STANDARD") -> StoreResult:
    """Store a file as it is."""
    return archive.store([file], part10.decode(file), storage_class)


_APPLICATIONS: list[Flask] = []


def client_of(archive: Archive) -> FlaskClient:
    """Serve an archive by the one application of this process.

    To make an application takes longer than most tests do.
    """
    if not _APPLICATIONS:
        _APPLICATIONS.append(create_app(archive))
    _APPLICATIONS[0].extensions["archive"] = archive
    return _APPLICATIONS[0].test_client()
