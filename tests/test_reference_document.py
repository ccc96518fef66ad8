"""Each REST example of the document that describes Google's store, against the archive.

The document is Google's page "Use the DICOMweb standard" (here as its Spanish translation). A row
of `EXAMPLES` has the line where the example stands and words of that line, which are compared with
the document where JPEGSTOW_REFERENCE names it; what the tool of the example sends by itself; and
what the document says of the answer. The address apart nothing is changed.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread

from service.archive import InstanceUids
from tests.archive_instances import BASELINE, VL_PHOTOGRAPHIC, dicom_file, jpeg
from tests.archive_server import Answer, ArchiveServer, ask
from tests.decoding import furthest, image
from tests.processes import wait_until

DATASET = "projects/my-project/locations/us-central1/datasets/my-dataset"
STORE = f"{DATASET}/dicomStores/my-store/dicomWeb"
# Where the same store is found: as the document has it, and in short.
BASES = {"v1": f"/v1/{STORE}", "v1beta1": f"/v1beta1/{STORE}", "plain": "/dicomWeb"}
LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
PROFILE, ICONS = b"a profile of colours", (b"\0\1", b"\2\3", b"\4\5")
SALLY = "Sally Zhang"


@dataclass(frozen=True)
class Subject:
    """The instances that an example is about, the first of them by its UIDs, and their store."""

    origin: str
    base: str
    files: Mapping[InstanceUids, bytes]

    @property
    def uids(self) -> InstanceUids:
        return next(iter(self.files))

    @property
    def file(self) -> bytes:
        return self.files[self.uids]

    def url(self, *, study: bool = False) -> str:
        uids = self.uids
        url = f"{self.origin}{self.base}/studies/{uids.study}"
        return url if study else f"{url}/series/{uids.series}/instances/{uids.instance}"


Check = Callable[[Answer, Subject], None]


class Tool(NamedTuple):
    """What a tool sends by itself."""

    headers: dict[str, str]
    query: str = ""


CURL = Tool({"User-Agent": "curl/8.5.0", "Accept": "*/*"})
POWERSHELL = Tool({"User-Agent": "Mozilla/5.0 (Windows NT 10.0) PowerShell/7.4.6"})
GO = Tool(
    {
        "User-Agent": "google-api-go-client/0.5",
        "X-Goog-Api-Client": "gl-go/1.22.0 gdcl/0.180.0",
        "Accept-Encoding": "gzip",
    },
    "alt=json&prettyPrint=false",
)
APACHE = Tool({"User-Agent": "Apache-HttpClient/4.5.14 (Java/17.0.9)"}, "access_token=ya29.a0")
# The Java samples make headers that they never attach; this is what Java then says by itself.
JAVA = Tool(
    {
        "User-Agent": "your-application-name Google-API-Java-Client/2.2.0 (gzip)",
        "Accept": "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2",
        "Accept-Encoding": "gzip",
    }
)
NODE = Tool({"User-Agent": "google-api-nodejs-client/7.0.0 (gzip)", "Accept-Encoding": "gzip"})
PYTHON = Tool(
    {"User-Agent": "python-requests/2.31.0", "Accept": "*/*", "Accept-Encoding": "gzip, deflate"}
)
DCMWEB = PYTHON


@dataclass(frozen=True)
class Example:
    """One example: where it stands, what is sent, and what is to come back."""

    line: int
    says: str
    tool: Tool
    request: str  # the method, and the path behind the store's
    check: Check
    headers: Mapping[str, str] = field(default_factory=dict)
    query: str = ""
    body: Callable[[Subject], bytes] | None = None
    chunked: bool = False


# --- the bodies -----------------------------------------------------------------------------


def as_file(subject: Subject) -> bytes:
    return subject.file


# As the document has it, with the names of what is to be replaced.
INSTANCE_JSON = """[{
 "00020010":{"vr":"UI","Value":["1.2.840.10008.1.2.4.50"]},
 "00080005":{"vr":"CS","Value":["ISO_IR 192"]},
 "00080016":{"vr":"UI","Value":["SOP_CLASS_UID"]},
 "00080018":{"vr":"UI","Value":["SOP_INSTANCE_UID"]},
 "0020000D":{"vr":"UI","Value":["STUDY_INSTANCE_UID"]},
 "0020000E":{"vr":"UI","Value":["SERIES_INSTANCE_UID"]},
 "00280002":{"vr":"US","Value":[3]},
 "00280004":{"vr":"CS","Value":["YBR_FULL_422"]},
 "00280006":{"vr":"US","Value":[0]},
 "00280008":{"vr":"IS","Value":[1]},
 "00280010":{"vr":"US","Value":[Rows]},
 "00280011":{"vr":"US","Value":[Columns]},
 "00280100":{"vr":"US","Value":[8]},
 "00280101":{"vr":"US","Value":[8]},
 "00280102":{"vr":"US","Value":[7]},
 "00280103":{"vr":"US","Value":[0]},
 "7FE00010":{"vr":"OB","BulkDataURI":"jpeg-image"}
}]
"""
OPENING = "--DICOMwebBoundary\r\nContent-Type: application/dicom+json\r\n\r\n"
MIDDLE = (
    "\r\n--DICOMwebBoundary\r\nContent-Location: jpeg-image\r\n"
    "Content-Type: image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.50\r\n\r\n"
)
CLOSING = "\r\n--DICOMwebBoundary--"
MULTIPART = 'multipart/related; type="application/dicom+json"; boundary=DICOMwebBoundary'


def as_json_and_jpeg(subject: Subject) -> bytes:
    """Join opening.file instance.json middle.file image.jpg closing.file."""
    uids, (columns, rows) = subject.uids, Image.open(BytesIO(jpeg())).size
    text = INSTANCE_JSON
    for name, value in {
        "SOP_CLASS_UID": VL_PHOTOGRAPHIC,
        "SOP_INSTANCE_UID": uids.instance,
        "STUDY_INSTANCE_UID": uids.study,
        "SERIES_INSTANCE_UID": uids.series,
        "Rows": str(rows),
        "Columns": str(columns),
    }.items():
        text = text.replace(name, value)
    return (OPENING + text + MIDDLE).encode() + jpeg() + CLOSING.encode()


# --- what the document says of the answers -----------------------------------------------------


def answers_xml(answer: Answer, subject: Subject) -> None:
    """The form of lines 348 to 365, whatever the namespace."""
    assert (answer.status, answer.media_type) == (200, "application/dicom+xml")
    root = ET.fromstring(answer.body)
    assert local(root) == "NativeDicomModel"
    assert [names(child) for child in root] == [
        ("00081190", "UR", "RetrieveURL"),
        ("00081199", "SQ", "ReferencedSOPSequence"),
    ]
    assert value(root[0]) == subject.url(study=True)
    (item,) = root[1]
    assert (local(item), item.get("number")) == ("Item", "1")
    assert [(*names(child), value(child)) for child in item] == [
        ("00081150", "UI", "ReferencedSOPClassUID", VL_PHOTOGRAPHIC),
        ("00081155", "UI", "ReferencedSOPInstanceUID", subject.uids.instance),
        ("00081190", "UR", "RetrieveURL", subject.url()),
    ]
    is_stored(subject)


def local(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def names(element: ET.Element) -> tuple[str | None, ...]:
    assert local(element) == "DicomAttribute"
    return tuple(element.get(name) for name in ("tag", "vr", "keyword"))


def value(element: ET.Element) -> str | None:
    (only,) = element
    assert (local(only), only.get("number")) == ("Value", "1")
    return only.text


def answers_json(answer: Answer, subject: Subject) -> None:
    assert (answer.status, answer.media_type) == (200, "application/dicom+json")
    model = answer.json()
    assert model["00081190"] == {"vr": "UR", "Value": [subject.url(study=True)]}
    (item,) = model["00081199"]["Value"]
    assert item["00081150"] == {"vr": "UI", "Value": [VL_PHOTOGRAPHIC]}
    assert item["00081155"] == {"vr": "UI", "Value": [subject.uids.instance]}
    assert item["00081190"] == {"vr": "UR", "Value": [subject.url()]}
    is_stored(subject)


def is_stored(subject: Subject) -> None:
    answer = ask("GET", subject.url(), {"Accept": "application/dicom; transfer-syntax=*"})
    assert answer.status == 200
    stored, sent = dcmread(BytesIO(answer.body)), dcmread(BytesIO(subject.file))
    assert stored.SOPInstanceUID == sent.SOPInstanceUID
    assert stored.PixelData == sent.PixelData


def finds_instances(answer: Answer, subject: Subject) -> None:
    assert (answer.status, answer.media_type) == (200, "application/dicom+json")
    found = {model["00080018"]["Value"][0]: model for model in answer.json()}
    for uids in subject.files:
        assert found[uids.instance]["0020000D"]["Value"] == [uids.study]
        assert found[uids.instance]["0020000E"]["Value"] == [uids.series]


def finds_sally(answer: Answer, subject: Subject) -> None:
    assert (answer.status, answer.media_type) == (200, "application/dicom+json")
    studies = answer.json()
    assert [study["0020000D"]["Value"] for study in studies] == [[subject.uids.study]]
    assert studies[0]["00100010"] == {"vr": "PN", "Value": [{"Alphabetic": SALLY}]}


def finds_something(answer: Answer, _: Subject) -> None:
    """What dcmweb asks first, to see whether the store is there."""
    assert (answer.status, answer.media_type) == (200, "application/dicom+json")
    assert len(answer.json()) == 1


def gives_the_files_as_parts(answer: Answer, subject: Subject) -> None:
    parts = dicom_parts(answer)
    assert sorted(body for _, body in parts) == sorted(subject.files.values())
    assert {kind for kind, _ in parts} == {f"application/dicom; transfer-syntax={BASELINE}"}


def dicom_parts(answer: Answer) -> list[tuple[str, bytes]]:
    assert (answer.status, answer.media_type) == (200, "multipart/related")
    assert 'type="application/dicom"' in answer.headers["content-type"]
    return answer.parts()


def gives_decoded_files_as_parts(answer: Answer, subject: Subject) -> None:
    """Without transfer-syntax=* what is compressed is decompressed (lines 1335 to 1341)."""
    datasets = [dcmread(BytesIO(body)) for _, body in dicom_parts(answer)]
    uids = {dataset.SOPInstanceUID for dataset in datasets}
    assert uids == {uids.instance for uids in subject.files}
    for dataset in datasets:
        is_decoded(dataset)


def is_decoded(dataset: Dataset) -> None:
    assert dataset.file_meta.TransferSyntaxUID == LITTLE_ENDIAN
    assert dataset.PhotometricInterpretation == "RGB"
    samples = np.frombuffer(dataset.PixelData, np.uint8).astype(np.int16)
    shape = dataset.Rows, dataset.Columns, 3
    assert furthest(samples.reshape(shape), image(jpeg())) <= 1


def gives_the_file(answer: Answer, subject: Subject) -> None:
    assert (answer.status, answer.media_type) == (200, "application/dicom")
    assert answer.body == subject.file


def gives_one_decoded_file_as_part(answer: Answer, _: Subject) -> None:
    (part,) = dicom_parts(answer)
    is_decoded(dcmread(BytesIO(part[1])))


def gives_a_decoded_file(answer: Answer, _: Subject) -> None:
    assert (answer.status, answer.media_type) == (200, "application/dicom")
    is_decoded(dcmread(BytesIO(answer.body)))


def gives_a_png(answer: Answer, _: Subject) -> None:
    assert (answer.status, answer.media_type) == (200, "image/png")
    assert answer.body.startswith(b"\x89PNG\r\n")
    assert furthest(image(answer.body), image(jpeg())) <= 1


def gives_a_jpeg(answer: Answer, _: Subject) -> None:
    assert (answer.status, answer.media_type) == (200, "image/jpeg")
    assert furthest(image(answer.body), image(jpeg())) <= 1


def gives_metadata(answer: Answer, subject: Subject) -> None:
    """Exactly the fields of a search with includefield=all, and what only a search computes."""
    assert (answer.status, answer.media_type) == (200, "application/dicom+json")
    query = f"SOPInstanceUID={subject.uids.instance}&includefield=all"
    (found,) = ask("GET", f"{subject.origin}{subject.base}/instances?{query}").json()
    given = {model["00080018"]["Value"][0]: model for model in answer.json()}
    counted = {"00080061", "00201206", "00201208", "00201209"}
    computed = {"00081190", "00080056"} | counted
    expected = {tag: element for tag, element in found.items() if tag not in computed}
    assert given[subject.uids.instance] == expected
    assert expected["7FE00010"]["BulkDataURI"] == f"{subject.url()}/bulkdata/7FE00010"


def gives_metadata_of_all(answer: Answer, subject: Subject) -> None:
    gives_metadata(answer, subject)
    given = {model["00080018"]["Value"][0] for model in answer.json()}
    assert given == {uids.instance for uids in subject.files}


def gives_xml_metadata(answer: Answer, subject: Subject) -> None:
    assert (answer.status, answer.media_type) == (200, "multipart/related")
    ((kind, document),) = answer.parts()
    assert kind == "application/dicom+xml"
    texts = {names(child)[0]: child for child in ET.fromstring(document)}
    assert value(texts["00080018"]) == subject.uids.instance


def gives_the_profile(answer: Answer, _: Subject) -> None:
    assert (answer.status, answer.media_type) == (200, "application/octet-stream")
    assert answer.body == PROFILE


def gives_the_frame(answer: Answer, _: Subject) -> None:
    """Pixel Data is bulk data as any other."""
    assert (answer.status, answer.media_type) == (200, "application/octet-stream")
    assert answer.body.startswith(jpeg())


def gives_icon(index: int) -> Check:
    def check(answer: Answer, _: Subject) -> None:
        assert (answer.status, answer.media_type) == (200, "application/octet-stream")
        assert answer.body == ICONS[index]

    check.__name__ = f"gives_icon_{index}"
    return check


def deletes_the_instance(answer: Answer, subject: Subject) -> None:
    assert (answer.status, answer.json()) == (200, {})
    assert ask("GET", f"{subject.url()}/metadata").status == 404


def deletes_the_series(answer: Answer, subject: Subject) -> None:
    finished(subject, answer.json()["name"])
    query = f"StudyInstanceUID={subject.uids.study}"
    left = ask("GET", f"{subject.origin}{subject.base}/instances?{query}").json()
    others = set(subject.files) - {subject.uids}
    assert {model["00080018"]["Value"][0] for model in left} == {each.instance for each in others}


def deletes_the_study(answer: Answer, subject: Subject) -> None:
    """Line 2229: a long-running operation; once it is done, all instances are deleted."""
    assert (answer.status, list(answer.json())) == (200, ["name"])
    finished(subject, answer.json()["name"])
    assert ask("GET", f"{subject.url()}/metadata").status == 404
    query = f"StudyInstanceUID={subject.uids.study}"
    assert ask("GET", f"{subject.origin}{subject.base}/instances?{query}").json() == []


def finished(subject: Subject, name: str) -> dict[str, Any]:
    """Poll an operation until it is done."""
    url = operation_url(subject, name)
    wait_until(lambda: "done" in ask("GET", url).json())
    state: dict[str, Any] = ask("GET", url).json()
    return state


def operation_url(subject: Subject, name: str) -> str:
    version = "v1beta1" if subject.base.startswith("/v1beta1/") else "v1"
    return f"{subject.origin}/{version}/{name}"


def tells_the_operation(answer: Answer, subject: Subject) -> None:
    """A google.longrunning.Operation; `done` is absent until it is."""
    assert (answer.status, answer.media_type) == (200, "application/json")
    name = answer.json()["name"]
    parent = "projects/local/locations/local/datasets/local"
    parent = DATASET if DATASET in subject.base else parent
    assert re.fullmatch(rf"{parent}/operations/[0-9A-Za-z_-]+", name)
    state = finished(subject, name)
    assert (state["name"], state["done"]) == (name, True)
    assert "error" not in state
    assert state["response"] == {"@type": "type.googleapis.com/google.protobuf.Empty"}
    metadata = state["metadata"]
    assert re.fullmatch(
        r"type.googleapis.com/google.cloud.healthcare.v1(beta1)?.OperationMetadata",
        metadata["@type"],
    )
    assert metadata["counter"] == {"success": str(len(subject.files))}
    for moment in ("createTime", "endTime"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", metadata[moment])


# --- the table ----------------------------------------------------------------------------------

DICOM = {"Content-Type": "application/dicom"}
JSON = {"Accept": "application/dicom+json"}
PARTS = {"Accept": "multipart/related; type=application/dicom; transfer-syntax=*"}
FILE = {"Accept": "application/dicom; transfer-syntax=*"}
PNG = {"Accept": "image/png"}
OCTETS = {"Accept": "application/octet-stream; transfer-syntax=*"}
SENT_AS_JSON = {"Content-Type": "application/dicom+json; charset=utf-8"}

POST = "POST /studies"
INSTANCES = "GET /instances"
STUDIES = "GET /studies"
STUDY = "GET /studies/{study}"
SERIES = STUDY + "/series/{series}"
INSTANCE = SERIES + "/instances/{instance}"
RENDERED = f"{INSTANCE}/rendered"
METADATA = f"{INSTANCE}/metadata"
BULK = f"{INSTANCE}/bulkdata"
DELETE = "DELETE /studies/{study}"
DELETE_INSTANCE = "DELETE /studies/{study}/series/{series}/instances/{instance}"
OPERATION = "GET {operation}"
NESTED = '"AAAAAAAA/i/'
GO_STORE = 'call.Header().Set("Content-Type", "application/dicom")'
XML_ACCEPT = {"Accept": 'multipart/related; type="application/dicom+xml"'}
JAVA_PARTS = 'headers.setAccept("multipart/related; type=application/dicom; transfer-syntax=*");'

EXAMPLES = [
    Example(58, "curl -X POST", CURL, POST, answers_xml, DICOM, body=as_file),
    # The command names no media type; line 29 and all other samples do.
    Example(74, "-InFile DICOM_INSTANCE_FILE", POWERSHELL, POST, answers_xml, DICOM, body=as_file),
    Example(109, GO_STORE, GO, POST, answers_xml, DICOM, body=as_file),
    Example(
        180, '"Content-Type", "application/dicom"', APACHE, POST, answers_xml, DICOM, body=as_file
    ),
    Example(
        262,
        "Accept: 'application/dicom+json'",
        NODE,
        POST,
        answers_json,
        DICOM | JSON,
        body=as_file,
        chunked=True,
    ),
    Example(316, "session.post(", PYTHON, POST, answers_xml, DICOM, body=as_file),
    Example(
        29,
        "un encabezado de aceptación application/dicom",
        CURL,
        POST,
        answers_xml,
        DICOM | {"Accept": "application/dicom"},
        body=as_file,
    ),
    Example(
        29,
        "un encabezado de aceptación application/dicom",
        CURL,
        POST,
        answers_xml,
        {"Content-Type": MULTIPART, "Accept": "application/dicom"},
        body=as_json_and_jpeg,
    ),
    *(
        Example(
            342,
            "Storage-Class: STORAGE_CLASS",
            CURL,
            POST,
            answers_xml,
            DICOM | {"Storage-Class": name},
            body=as_file,
        )
        for name in ("STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE")
    ),
    Example(
        386,
        '-ContentType: "application/dicom"',
        POWERSHELL,
        POST,
        answers_xml,
        DICOM | {"Storage-Class": "NEARLINE"},
        body=as_file,
    ),
    Example(
        491,
        "curl -X POST",
        CURL,
        POST,
        answers_xml,
        {"Content-Type": MULTIPART},
        body=as_json_and_jpeg,
    ),
    Example(526, "store DCM_FILE", DCMWEB, POST, answers_xml, DICOM, body=as_file),
    Example(539, 'store "./**.dcm"', DCMWEB, POST, answers_xml, DICOM, body=as_file),
    Example(570, "curl -X GET", CURL, INSTANCES, finds_instances),
    Example(579, "$headers = @{", POWERSHELL, INSTANCES, finds_instances),
    Example(620, 'SearchForInstances(parent, "instances").Do()', GO, INSTANCES, finds_instances),
    Example(
        676, '.searchForInstances(dicomStoreName, "instances")', JAVA, INSTANCES, finds_instances
    ),
    Example(
        729,
        "'application/dicom+json,multipart/related'",
        NODE,
        INSTANCES,
        finds_instances,
        {"Accept": "application/dicom+json,multipart/related"},
    ),
    Example(
        779,
        "session.get(dicomweb_path, headers=headers)",
        PYTHON,
        INSTANCES,
        finds_instances,
        SENT_AS_JSON,
    ),
    Example(825, "curl -X GET", CURL, STUDIES, finds_sally, query="PatientName=Sally%20Zhang"),
    Example(
        836,
        "Invoke-WebRequest",
        POWERSHELL,
        STUDIES,
        finds_sally,
        query="PatientName=Sally%20Zhang",
    ),
    Example(
        884,
        "SearchForStudies(name, dicomWebPath)",
        GO,
        STUDIES,
        finds_sally,
        query="PatientName=Sally+Zhang",
    ),
    Example(
        948,
        '.searchForStudies(dicomStoreName, "studies")',
        JAVA,
        STUDIES,
        finds_sally,
        query="PatientName=Sally%20Zhang",
    ),
    Example(
        1009,
        "Accept: 'application/dicom+json'",
        NODE,
        STUDIES,
        finds_sally,
        JSON,
        query="PatientName=Sally%20Zhang",
    ),
    Example(
        1063,
        "session.get(dicomweb_path, params=params)",
        PYTHON,
        STUDIES,
        finds_sally,
        query="PatientName=Sally+Zhang",
    ),
    Example(1080, "dcmweb", DCMWEB, STUDIES, finds_something, query="limit=1"),
    Example(1082, "search instances", DCMWEB, INSTANCES, finds_instances, query="limit=5000"),
    Example(1170, "curl -X GET", CURL, STUDY, gives_the_files_as_parts, PARTS),
    Example(1191, "transfer-syntax=*", POWERSHELL, STUDY, gives_the_files_as_parts, PARTS),
    Example(
        1232, "RetrieveStudy(parent, dicomWebPath).Do()", GO, STUDY, gives_decoded_files_as_parts
    ),
    Example(1302, ".retrieveStudy(dicomStoreName", JAVA, STUDY, gives_decoded_files_as_parts),
    Example(1341, JAVA_PARTS, JAVA, STUDY, gives_the_files_as_parts, PARTS),
    Example(
        1391,
        "'multipart/related; type=application/dicom; transfer-syntax=*'",
        NODE,
        STUDY,
        gives_the_files_as_parts,
        PARTS,
    ),
    Example(1453, "session.get(dicomweb_path)", PYTHON, STUDY, gives_decoded_files_as_parts),
    Example(
        1467,
        "Accept: application/dicom",
        CURL,
        INSTANCE,
        gives_a_decoded_file,
        {"Accept": "application/dicom"},
    ),
    Example(1484, "curl -X GET", CURL, INSTANCE, gives_the_file, FILE),
    Example(
        1507, "application/dicom; transfer-syntax=*", POWERSHELL, INSTANCE, gives_the_file, FILE
    ),
    Example(1548, "application/dicom; transfer-syntax=*", GO, INSTANCE, gives_the_file, FILE),
    Example(
        1620,
        ".retrieveInstance(dicomStoreName, dicomWebPath)",
        JAVA,
        INSTANCE,
        gives_one_decoded_file_as_part,
    ),
    Example(1653, "application/dicom; transfer-syntax=*", JAVA, INSTANCE, gives_the_file, FILE),
    Example(1700, "application/dicom; transfer-syntax=*", NODE, INSTANCE, gives_the_file, FILE),
    Example(1770, "application/dicom; transfer-syntax=*", PYTHON, INSTANCE, gives_the_file, FILE),
    Example(1804, "curl -X GET", CURL, RENDERED, gives_a_png, PNG),
    Example(1827, "image/png", POWERSHELL, RENDERED, gives_a_png, PNG),
    Example(1868, 'call.Header().Set("Accept", "image/png")', GO, RENDERED, gives_a_png, PNG),
    Example(1940, ".retrieveRendered(dicomStoreName, dicomWebPath)", JAVA, RENDERED, gives_a_jpeg),
    Example(
        1972,
        'headers.setAccept("image/png")',
        JAVA,
        RENDERED,
        gives_a_png,
        PNG | {"X-GFE-SSL": "yes"},
    ),
    Example(2019, "Accept: 'image/png'", NODE, RENDERED, gives_a_png, PNG),
    Example(2089, '"Accept": "image/png"', PYTHON, RENDERED, gives_a_png, PNG),
    Example(
        2105, "todas las instancias de un estudio", CURL, f"{STUDY}/metadata", gives_metadata_of_all
    ),
    Example(2105, "o una serie", CURL, f"{SERIES}/metadata", gives_metadata),
    Example(
        2111,
        'multipart/related; type="application/dicom+xml"',
        CURL,
        METADATA,
        gives_xml_metadata,
        XML_ACCEPT,
    ),
    Example(2131, "curl -X GET", CURL, METADATA, gives_metadata),
    Example(2142, "Invoke-WebRequest", POWERSHELL, METADATA, gives_metadata),
    Example(2177, "curl -X GET", CURL, f"{BULK}/00282000", gives_the_profile, OCTETS),
    Example(2170, "etiqueta de datos masivos", CURL, f"{BULK}/7FE00010", gives_the_frame, OCTETS),
    *(
        Example(2171, NESTED, CURL, f"{BULK}/00880200/{index}/7FE00010", gives_icon(index), OCTETS)
        for index in range(3)
    ),
    Example(2195, NESTED, POWERSHELL, f"{BULK}/00880200/1/7FE00010", gives_icon(1), OCTETS),
    Example(2204, "Invoke-RestMethod", POWERSHELL, f"{BULK}/00282000", gives_the_profile, OCTETS),
    Example(
        2218,
        "retrieve",
        DCMWEB,
        INSTANCES,
        finds_instances,
        query="includefield=0020000D&includefield=0020000E&limit=5000&offset=0",
    ),
    Example(2218, "retrieve", DCMWEB, INSTANCE, gives_the_file, FILE),
    Example(
        2231,
        "para instancias no muestran una operación",
        CURL,
        DELETE_INSTANCE,
        deletes_the_instance,
    ),
    Example(
        2229,
        "para estudios y series muestran una operación",
        CURL,
        "DELETE /studies/{study}/series/{series}",
        deletes_the_series,
    ),
    Example(2255, "curl -X DELETE", CURL, DELETE, deletes_the_study),
    Example(2266, "Invoke-WebRequest", POWERSHELL, DELETE, deletes_the_study),
    Example(2292, "curl -X GET", CURL, OPERATION, tells_the_operation),
    Example(2303, "Invoke-WebRequest", POWERSHELL, OPERATION, tells_the_operation),
    Example(2337, "Delete(parent, dicomWebPath).Do()", GO, DELETE, deletes_the_study),
    Example(2381, ".delete(dicomStoreName", JAVA, DELETE, deletes_the_study),
    Example(2431, "studies.delete(", NODE, DELETE, deletes_the_study),
    Example(
        2482,
        "session.delete(dicomweb_path, headers=headers)",
        PYTHON,
        DELETE,
        deletes_the_study,
        SENT_AS_JSON,
    ),
    Example(2495, "delete studies/STUDY_INSTANCE_UID", DCMWEB, DELETE, deletes_the_study),
]


def title(example: Example) -> str:
    return f"{example.line} {example.request.partition(' ')[0]} {example.check.__name__}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArchiveServer]:
    with ArchiveServer(tmp_path_factory.mktemp("reference") / "data") as running:
        yield running


NUMBERS = count(1)


def made(server: ArchiveServer, base: str, name: str) -> Subject:
    """Return two instances of a study, in two series, that nobody has seen yet."""
    study = f"1.2.{next(NUMBERS)}"
    files = {}
    for uids in (InstanceUids(study, f"{study}.{n}", f"{study}.{n}.0") for n in (1, 2)):
        files[uids] = dicom_file(
            StudyInstanceUID=uids.study,
            SeriesInstanceUID=uids.series,
            SOPInstanceUID=uids.instance,
            PatientName=name,
            ICCProfile=PROFILE,
            IconImageSequence=[icon(data) for data in ICONS],
        )
    return Subject(server.url, BASES[base], files)


def icon(data: bytes) -> Dataset:
    item = Dataset()
    item.add_new(0x7FE00010, "OB", data)
    return item


def put(subject: Subject) -> Subject:
    for file in subject.files.values():
        assert ask("POST", f"{subject.origin}/dicomWeb/studies", DICOM, file).status == 200
    return subject


@pytest.fixture(scope="module")
def kept(server: ArchiveServer) -> Subject:
    """Return instances that are stored once for all examples that only read, and others' beside."""
    put(made(server, "plain", "Zhang^Sally"))
    return put(made(server, "plain", SALLY))


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("example", EXAMPLES, ids=title)
def test_an_example_of_the_document_does_what_the_document_says(
    server: ArchiveServer, kept: Subject, example: Example, base: str
) -> None:
    subject = subject_of(server, kept, example, base)
    method, _, path = example.request.partition(" ")
    url = subject.origin + subject.base + path.format(**subject.uids._asdict(), operation="")
    if example.request == OPERATION:
        url = operation_url(subject, ask("DELETE", subject.url(study=True)).json()["name"])
    query = "&".join(filter(None, (example.query, example.tool.query)))
    headers = {"Authorization": "Bearer ya29.a0", **example.tool.headers, **example.headers}
    body = example.body(subject) if example.body else None
    answer = ask(method, url + f"?{query}" * bool(query), headers, body, chunked=example.chunked)
    example.check(answer, subject)


def subject_of(server: ArchiveServer, kept: Subject, example: Example, base: str) -> Subject:
    if example.request == POST:
        new = made(server, base, "Nobody")
        return Subject(new.origin, new.base, {new.uids: new.file})
    if example.request == OPERATION or example.request.startswith("DELETE"):
        return put(made(server, base, "Nobody"))
    return Subject(kept.origin, BASES[base], kept.files)


def test_a_command_that_names_no_media_type_is_told_which_there_are(server: ArchiveServer) -> None:
    """As line 70 is printed, PowerShell sends a form's media type; line 29 asks for another."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = ask("POST", f"{server.url}/dicomWeb/studies", POWERSHELL.headers | form, dicom_file())
    assert answer.status == 415
    assert "application/dicom" in answer.json()["error"]["message"]


def test_the_document_has_these_examples_on_these_lines() -> None:
    name = os.environ.get("JPEGSTOW_REFERENCE")
    if not name:
        pytest.skip("JPEGSTOW_REFERENCE doesn't name the document")
    lines = Path(name).read_text().splitlines()
    missing = [each.line for each in EXAMPLES if each.says not in lines[each.line - 1]]
    assert missing == []
