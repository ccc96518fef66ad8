"""Store: what is accepted, what is refused and why, and that the answer tells the truth."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from werkzeug.test import TestResponse

from service.archive import Archive, InstanceUids
from service.dicom import multipart, part10
from service.dicom.codestream import Codestream
from service.dicom.json_model import JsonObject, dumps
from service.dicom.multipart import Part, Payload
from service.dicomweb import create_app
from tests.archive_instances import (
    BASELINE,
    INSTANCE,
    SERIES,
    STUDY,
    VL_PHOTOGRAPHIC,
    dicom_file,
    file_request,
    image_part,
    jpeg,
    json_request,
    metadata,
)

UIDS = InstanceUids(STUDY, SERIES, INSTANCE)
JSON = {"Accept": "application/dicom+json"}
GOOGLE = "/v1/projects/p/locations/l/datasets/d/dicomStores/s/dicomWeb"
SECRET = "Geheim"


def post(
    client: FlaskClient,
    payload: Payload,
    path: str = "/dicomWeb/studies",
    accept: str = JSON["Accept"],
) -> TestResponse:
    return client.post(
        path,
        data=b"".join(payload),
        content_type=payload.content_type,
        headers={"Accept": accept},
    )


def detail(response: TestResponse) -> str:
    """Return the FailureDetail of the only instance that failed."""
    assert response.status_code == 409
    (item,) = response.get_json(force=True)["00081198"]["Value"]
    assert item["00081197"] == {"vr": "US", "Value": [272]}
    assert item["00090010"] == {"vr": "LO", "Value": ["GOOGLE"]}
    return str(item["00091097"]["Value"][0])


def error(response: TestResponse) -> tuple[int, str]:
    envelope = response.get_json()["error"]
    assert envelope["code"] == response.status_code
    assert envelope["status"]
    return response.status_code, envelope["message"]


def test_json_and_jpeg_are_stored_as_a_file_with_the_very_codestream(
    client: FlaskClient, archive: Archive
) -> None:
    response = post(client, json_request([metadata()], image_part()))
    base = f"http://localhost/dicomWeb/studies/{STUDY}"
    assert response.status_code == 200
    assert response.content_type == "application/dicom+json"
    assert response.get_json(force=True) == {
        "00081190": {"vr": "UR", "Value": [base]},
        "00081199": {
            "vr": "SQ",
            "Value": [
                {
                    "00081150": {"vr": "UI", "Value": [VL_PHOTOGRAPHIC]},
                    "00081155": {"vr": "UI", "Value": [INSTANCE]},
                    "00081190": {
                        "vr": "UR",
                        "Value": [f"{base}/series/{SERIES}/instances/{INSTANCE}"],
                    },
                }
            ],
        },
    }
    stored = dcmread(archive.path(UIDS))
    assert part10.frame(stored) == jpeg()
    assert stored.file_meta.TransferSyntaxUID == BASELINE
    assert stored.PatientName == "Müller^José"


def test_the_answer_is_xml_unless_json_is_preferred(client: FlaskClient) -> None:
    response = post(client, json_request([metadata()], image_part()), accept="*/*")
    assert response.content_type == "application/dicom+xml"
    root = ET.fromstring(response.data)
    name = "{http://dicom.nema.org/PS3.19/models/NativeDICOM}"
    assert root.tag == f"{name}NativeDicomModel"
    assert [child.get("keyword") for child in root] == ["RetrieveURL", "ReferencedSOPSequence"]
    (uid,) = root.findall(
        f".//{name}DicomAttribute[@keyword='ReferencedSOPInstanceUID']/{name}Value"
    )
    assert uid.text == INSTANCE


def test_private_attributes_are_named_by_their_creator_in_xml(client: FlaskClient) -> None:
    post(client, file_request(dicom_file()))
    again = post(client, file_request(dicom_file()), accept="application/dicom+xml").text
    assert '<DicomAttribute tag="00090001" vr="LO" privateCreator="JPEGSTOW">' in again
    other = post(client, file_request(dicom_file(seed=1)), accept="application/dicom+xml").text
    assert (
        '<DicomAttribute tag="00090097" vr="LT" privateCreator="GOOGLE" keyword="FailureDetail">'
        '<Value number="1">already exists</Value>' in other
    )
    assert "00090010" not in again + other


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("application/dicom+xml;q=0.5, application/dicom+json", "application/dicom+json"),
        ("application/dicom+json;q=0.1, */*", "application/dicom+xml"),
        ("application/*", "application/dicom+xml"),
        ("application/json", "application/dicom+json"),
        ("application/dicom+xml;q=0, */*;q=0.1", "application/dicom+json"),
        ("application/dicom", "application/dicom+xml"),
        ("application/dicom+json;q=.5, application/dicom+xml;q=.2", "application/dicom+json"),
        ("application/dicom+json;q=0.0, *;q=.2", "application/dicom+xml"),
        ("application/dicom+json;q=1.0000, */*;q=0.9", "application/dicom+json"),
        ("application/dicom+json;q=x", "application/dicom+json"),
    ],
)
def test_the_accept_header_is_read_with_its_weights(
    client: FlaskClient, accept: str, media_type: str
) -> None:
    response = post(client, file_request(dicom_file()), accept=accept)
    assert response.content_type == media_type


@pytest.mark.parametrize("accept", ["text/html", "*/*;q=0", "*;q=.0", "garbage"])
def test_an_accept_header_that_cannot_be_met_stores_nothing(
    client: FlaskClient, archive: Archive, accept: str
) -> None:
    response = post(client, file_request(dicom_file()), accept=accept)
    assert error(response)[0] == 406
    assert archive.instances(STUDY) == []


def test_several_instances_are_stored_in_one_request(client: FlaskClient, archive: Archive) -> None:
    models = [metadata(f"image-{n}", SOPInstanceUID=f"1.{n}") for n in range(3)]
    images = [image_part(f"image-{n}", seed=n) for n in range(3)]
    response = post(client, json_request(models, *reversed(images)))
    assert response.status_code == 200
    for number in range(3):
        stored = dcmread(archive.path(InstanceUids(STUDY, SERIES, f"1.{number}")))
        assert part10.frame(stored) == jpeg(number)


@pytest.mark.parametrize("path", ["/dicomWeb", GOOGLE, GOOGLE.replace("v1", "v1beta1")])
def test_every_base_is_the_same_store_and_stays_in_its_urls(client: FlaskClient, path: str) -> None:
    post(client, file_request(dicom_file(SOPInstanceUID="9.9")))
    response = client.post(
        f"{path}/studies/{STUDY}",
        data=dicom_file(),
        content_type="application/dicom",
        headers={"Accept": "application/dicom+json", "Host": "archive.test:8042"},
    )
    url = response.get_json(force=True)["00081190"]["Value"][0]
    assert url == f"http://archive.test:8042{path}/studies/{STUDY}"
    found = client.get(f"{path}/studies/{STUDY}/instances").get_json(force=True)
    assert len(found) == 2


def test_a_file_is_stored_byte_for_byte(client: FlaskClient, archive: Archive) -> None:
    response = client.post(
        "/dicomWeb/studies", data=dicom_file(), content_type="application/dicom", headers=JSON
    )
    assert response.status_code == 200
    assert archive.path(UIDS).read_bytes() == dicom_file()


def test_the_same_again_is_stored_and_says_that_it_was(client: FlaskClient) -> None:
    payload = json_request([metadata()], image_part())
    first = post(client, payload).get_json(force=True)
    response = post(client, payload)
    assert response.status_code == 200
    second = response.get_json(force=True)
    (item,) = second["00081199"]["Value"]
    assert item.pop("00090010") == {"vr": "LO", "Value": ["JPEGSTOW"]}
    assert item.pop("00091001") == {"vr": "LO", "Value": ["already stored"]}
    assert second == first


def test_other_content_already_exists_and_its_sibling_is_stored(client: FlaskClient) -> None:
    post(client, file_request(dicom_file()))
    response = post(client, file_request(dicom_file(seed=1), dicom_file(SOPInstanceUID="9.9")))
    assert detail(response) == "already exists"
    model = response.get_json(force=True)
    (failed,) = model["00081198"]["Value"]
    (stored,) = model["00081199"]["Value"]
    assert failed["00081155"]["Value"] == [INSTANCE]
    assert stored["00081155"]["Value"] == ["9.9"]
    assert model["00081190"]["Value"] == [f"http://localhost/dicomWeb/studies/{STUDY}"]


def test_an_instance_of_another_study_than_the_url_fails(
    client: FlaskClient, archive: Archive
) -> None:
    response = post(client, file_request(dicom_file()), "/dicomWeb/studies/9.9")
    assert "isn't the study of the URL" in detail(response)
    assert archive.instances(STUDY) == []


def without(tag: str) -> JsonObject:
    return {key: value for key, value in metadata().items() if key != tag}


def with_(tag: str, vr: str, *values: Any, **more: Any) -> JsonObject:
    return metadata() | {tag: {"vr": vr, "Value": list(values)} | more}


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (without("00080005"), "SpecificCharacterSet"),
        (with_("00080005", "CS", "ISO_IR 100"), "SpecificCharacterSet"),
        (without("00020010"), "TransferSyntaxUID"),
        (without("00080016"), "SOPClassUID (0008,0016)"),
        (without("00080018"), "SOPInstanceUID (0008,0018)"),
        (without("0020000D"), "StudyInstanceUID (0020,000d)"),
        (without("0020000E"), "SeriesInstanceUID (0020,000e)"),
        (with_("0020000D", "LO", "1.2"), "VR UI"),
        (with_("0020000D", "UI", "1.02"), "StudyInstanceUID"),
        (with_("0020000D", "UI", "../../x"), "StudyInstanceUID"),
        (with_("0020000D", "UI", "1.2", "1.3"), "one UID"),
        (with_("00020010", "UI", "1.2.840.10008.1.2.2"), "Big Endian"),
        (with_("00020010", "UI", "1.2.840.10008.1.2.1.99"), "Deflated"),
        (with_("00020010", "UI", "1.2.840.10008.1.2.4.102"), "isn't accepted"),
        (with_("00020010", "UI", "1.2.840.10008.1.2.4.51"), "transfer-syntax"),
        (with_("00020010", "UI", "1.2.840.10008.1.2.4.90"), "image/jp2"),
        (with_("00020010", "UI", "1.2.840.10008.1.2.1"), "application/octet-stream"),
        (without("00280002"), "SamplesPerPixel"),
        (without("00280004"), "PhotometricInterpretation"),
        (without("00280010"), "Rows"),
        (without("00280011"), "Columns"),
        (without("00280100"), "BitsAllocated"),
        (without("00280101"), "BitsStored"),
        (without("00280102"), "HighBit"),
        (without("00280103"), "PixelRepresentation"),
        (with_("00280008", "IS", 2), "one frame"),
        (metadata("image-2"), "no part has"),
        (metadata() | {"00420011": {"vr": "OB", "BulkDataURI": "x"}}, "one BulkDataURI only"),
        (with_("00100010", "QQ", "x"), "VR"),
        (with_("00100030", "US", SECRET), "00100030"),
        (with_("00081140", "SQ", "x"), "00081140"),
        (metadata() | {"0010001G": {"vr": "LO"}}, "hexadecimal"),
        (metadata() | {"00100020": {"Value": [SECRET]}}, "00100020"),
        (metadata() | {"00100020": SECRET}, "00100020"),
        (metadata() | {"00420011": {"vr": "OB", "InlineBinary": "@@@"}}, "base64 (00420011)"),
        (metadata() | {"00420011": {"vr": "OB", "InlineBinary": 7}}, "base64 (00420011)"),
        (
            with_("00880200", "SQ", {"00420011": {"vr": "OB", "InlineBinary": "@@@"}}),
            "base64 (00420011)",
        ),
        (metadata() | {"FFFCFFFC": {"vr": "OB", "InlineBinary": "AAAA"}}, "behind Pixel Data"),
    ],
)
def test_metadata_that_the_store_would_refuse_is_refused_with_the_reason(
    client: FlaskClient, archive: Archive, model: JsonObject, text: str
) -> None:
    # A sibling that is sound keeps the image referred to, whatever is wrong with the other.
    sound = metadata("image-3", SOPInstanceUID="9.9")
    uris = {"image-1", "x"} & {
        element["BulkDataURI"]
        for element in model.values()
        if isinstance(element, dict) and "BulkDataURI" in element
    }
    images = [image_part(uri) for uri in ("image-3", *sorted(uris))]
    response = post(client, json_request([model, sound], *images))
    assert text in detail(response)
    assert SECRET not in response.text
    assert [row.uids.instance for row in archive.instances(STUDY)] == ["9.9"]


def test_pixel_data_is_never_inline(client: FlaskClient) -> None:
    model = metadata() | {"7FE00010": {"vr": "OB", "InlineBinary": "AAAA"}}
    assert "must be given by a BulkDataURI" in detail(post(client, json_request([model])))


def test_a_bulk_data_uri_belongs_to_one_instance(client: FlaskClient) -> None:
    models = [metadata(), metadata(SOPInstanceUID="9.9")]
    response = post(client, json_request(models, image_part()))
    failures = response.get_json(force=True)["00081198"]["Value"]
    assert ["more than once" in item["00091097"]["Value"][0] for item in failures] == [True, True]


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (image_part(kind="image/jpeg"), "transfer-syntax parameter is missing"),
        (image_part(kind="image/png"), "bulk data of type image/jpeg"),
        (
            Part(image_part().headers, Codestream((b"\x89PNG\r\n",))),
            "doesn't begin like image/jpeg",
        ),
        (Part(image_part().headers, Codestream((b"",))), "doesn't begin like image/jpeg"),
    ],
)
def test_bulk_data_that_is_not_what_it_says_is_refused(
    client: FlaskClient, image: Part, text: str
) -> None:
    assert text in detail(post(client, json_request([metadata()], image)))


def test_uncompressed_pixels_and_documents_are_stored_from_json(
    client: FlaskClient, archive: Archive
) -> None:
    explicit = {"00020010": {"vr": "UI", "Value": ["1.2.840.10008.1.2.1"]}}
    pixels = metadata("pixels", SOPInstanceUID="1.1") | explicit
    document = metadata("document", SOPInstanceUID="1.2") | explicit
    del document["7FE00010"]
    document["00420011"] = {"vr": "OB", "BulkDataURI": "document"}
    report = metadata(SOPInstanceUID="1.3") | explicit
    del report["7FE00010"]
    headers = {"Content-Type": "application/octet-stream"}
    parts = [
        Part(headers | {"Content-Location": "pixels"}, Codestream((bytes(64 * 48 * 3),))),
        Part(headers | {"Content-Location": "document"}, Codestream((b"%PDF",))),
    ]
    response = post(client, json_request([pixels, document, report], *parts))
    assert response.status_code == 200
    files = [dcmread(archive.path(InstanceUids(STUDY, SERIES, f"1.{n}"))) for n in (1, 2, 3)]
    assert len(files[0].PixelData) == 64 * 48 * 3
    assert files[1].EncapsulatedDocument == b"%PDF"
    assert "PixelData" not in files[2]


def raw(body: bytes, content_type: str) -> Payload:
    return Payload(content_type, (body,))


_BOUNDED = 'multipart/related; type="application/dicom+json"; boundary=B'


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        (raw(b"x", "text/plain"), 415),
        (raw(b"x", ""), 415),
        (raw(b"x", "multipart/form-data; boundary=B"), 415),
        (raw(b"x", 'multipart/related; type="application/dicom+xml"; boundary=B'), 415),
        (raw(b"x", "multipart/related; boundary=B"), 415),
        (raw(b"x", 'multipart/related; type="application/dicom"'), 400),
        (raw(b"x", _BOUNDED), 400),
        (raw(b"", _BOUNDED), 400),
        (raw(b"", "application/dicom"), 400),
        (raw(b"--B--\r\n", _BOUNDED), 400),
        (raw(b"--B--\r\n", 'multipart/related; type="application/dicom"; boundary=B'), 400),
        (json_request([]), 400),
        (json_request({}), 400),
        (json_request(metadata(), image_part()), 400),
        (json_request(["x"]), 400),
        (json_request([metadata()], image_part(), image_part()), 400),
        (json_request([metadata()], image_part(), image_part("image-2")), 400),
        (multipart.encode([image_part()], "application/dicom+json"), 400),
        (multipart.encode([image_part()], "application/dicom"), 400),
        (raw(b"--B\r\nContent-Type: application/dicom+json\r\n\r\n[{]\r\n--B--", _BOUNDED), 400),
        (raw(b"--B\r\nContent-Type: application/dicom+json\r\n\r\n[NaN]\r\n--B--", _BOUNDED), 400),
        (raw(b"--B\r\nContent-Type: application/dicom+json\r\n\r\n\xff\r\n--B--", _BOUNDED), 400),
        (
            raw(
                b"--B\r\nContent-Type: application/dicom+json\r\n\r\n"
                + b"[" * 100_000
                + b"\r\n--B--",
                _BOUNDED,
            ),
            400,
        ),
    ],
)
def test_a_request_that_cannot_be_understood_stores_nothing(
    client: FlaskClient, archive: Archive, payload: Payload, status: int
) -> None:
    assert error(post(client, payload))[0] == status
    assert archive.instances(STUDY) == []


def test_a_part_without_bulk_data_location_is_refused(client: FlaskClient) -> None:
    image = Part({"Content-Type": "image/jpeg"}, Codestream((jpeg(),)))
    status, message = error(post(client, json_request([metadata()], image)))
    assert (status, message) == (400, "Content-Location is missing (part 2)")


def test_too_long_a_request_is_refused(archive: Archive) -> None:
    client = create_app(archive, max_request_bytes=1000).test_client()
    assert error(post(client, file_request(dicom_file())))[0] == 413
    assert archive.instances(STUDY) == []


@pytest.mark.parametrize("file", [b"", b"not DICOM", dicom_file()[:100], dicom_file()[:-2000]])
def test_a_file_that_is_not_whole_fails_without_uids(client: FlaskClient, file: bytes) -> None:
    response = post(client, file_request(file))
    assert "DICOM file" in detail(response)
    (item,) = response.get_json(force=True)["00081198"]["Value"]
    assert item["00081155"] == {"vr": "UI"}


def test_deeply_nested_sequences_are_refused(client: FlaskClient) -> None:
    nested = b'{"00081140":{"vr":"SQ","Value":[' * 400 + b"{}" + b"]}}" * 400
    body = dumps(metadata())[:-1] + b"," + nested[1:]
    parts = [Part({"Content-Type": "application/dicom+json"}, Codestream((b"[" + body + b"]",)))]
    response = post(client, multipart.encode([*parts, image_part()], "application/dicom+json"))
    assert response.status_code in {400, 409}


_JSON_BODY = json_request([metadata()], image_part())
_FILE_BODY = file_request(dicom_file())


@pytest.mark.parametrize("payload", [_JSON_BODY, _FILE_BODY], ids=["json", "part10"])
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_damaged_body_is_refused_or_stored_but_never_breaks_the_archive(
    client: FlaskClient, tmp_path: Path, payload: Payload, data: st.DataObject
) -> None:
    body = bytearray(b"".join(payload))
    head = st.integers(0, 3000)  # where the structure is; the rest is image
    if data.draw(st.booleans(), label="cut"):
        del body[data.draw(head | st.integers(0, len(body))) :]
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(head | st.integers(0, len(body)))
        if position < len(body):
            body[position] = data.draw(st.integers(0, 255))
    response = post(client, raw(bytes(body), payload.content_type))
    assert response.status_code in {200, 400, 409}
    for path in tmp_path.glob("archive/instances/*/*/*.dcm"):
        assert dcmread(path).StudyInstanceUID == path.parts[-3]


@pytest.mark.parametrize("payload", [_FILE_BODY, raw(dicom_file(), "application/dicom")])
def test_a_body_shorter_than_its_length_stores_nothing(
    client: FlaskClient, archive: Archive, payload: Payload
) -> None:
    body = b"".join(payload)
    response = client.post(
        "/dicomWeb/studies",
        data=body,
        content_type=payload.content_type,
        environ_overrides={"CONTENT_LENGTH": str(len(body) + 1), "wsgi.input_terminated": True},
    )
    assert error(response) == (
        400,
        f"the body ends at byte {len(body)} of {len(body) + 1}; send the whole body",
    )
    assert archive.instances(STUDY) == []


def test_a_name_that_is_a_sequence_is_stored(client: FlaskClient) -> None:
    named = with_("00100010", "SQ", {"00100020": {"vr": "LO", "Value": ["P2"]}})
    assert post(client, json_request([named], image_part())).status_code == 200


def test_a_private_creator_that_is_a_name_does_not_break_xml(client: FlaskClient) -> None:
    creator = {"00090010": {"vr": "PN", "Value": [{"Alphabetic": "X"}]}}
    private = {"00091001": {"vr": "LO", "Value": ["kept"]}}
    post(client, json_request([metadata() | creator | private], image_part()))
    accept = {"Accept": 'multipart/related; type="application/dicom+xml"'}
    response = client.get("/dicomWeb/instances?includefield=all", headers=accept)
    assert response.status_code == 200
    assert b'<DicomAttribute tag="00091001" vr="LO">' in response.data


def test_a_modality_that_is_a_sequence_does_not_break_searches(client: FlaskClient) -> None:
    post(client, file_request(dicom_file(SOPInstanceUID="9.9", SeriesInstanceUID="9")))
    nested = with_("00080060", "SQ", {"00080060": {"vr": "CS", "Value": ["ES"]}})
    assert post(client, json_request([nested], image_part())).status_code == 200
    (study,) = client.get("/dicomWeb/studies").get_json(force=True)
    assert study["00080061"] == {"vr": "CS", "Value": ["XC"]}


@pytest.mark.parametrize("storage_class", [None, "STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE"])
def test_the_storage_class_of_a_request_can_be_asked_for(
    client: FlaskClient, storage_class: str | None
) -> None:
    base = "projects/p/locations/l/datasets/d/dicomStores/s/dicomWeb"
    headers = {"Storage-Class": storage_class} if storage_class else {}
    file = dicom_file()
    kind = "application/dicom"
    client.post(f"/v1beta1/{base}/studies", data=file, content_type=kind, headers=headers)
    path = f"studies/{STUDY}/series/{SERIES}/instances/{INSTANCE}"
    answer = client.get(f"/v1beta1/{base}/{path}:getStorageInfo").get_json()
    assert answer["blobStorageInfo"].pop("storageClassUpdateTime").endswith("Z")
    assert answer == {
        "referencedResource": f"{base}/{path}",
        "blobStorageInfo": {
            "sizeBytes": str(len(file)),
            "storageClass": storage_class or "STANDARD",
        },
        "structuredStorageInfo": {"sizeBytes": str(len(file))},
    }
    assert client.get(f"/v1/{base}/{path}.9:getStorageInfo").status_code == 404


@pytest.mark.parametrize("storage_class", ["FOO", "", "standard", "STANDARD, NEARLINE"])
def test_a_storage_class_that_is_none_stores_nothing(
    client: FlaskClient, archive: Archive, storage_class: str
) -> None:
    response = client.post(
        "/dicomWeb/studies",
        data=dicom_file(),
        content_type="application/dicom",
        headers={"Storage-Class": storage_class},
    )
    status, message = error(response)
    assert status == 400
    assert "NEARLINE" in message
    assert archive.instances(STUDY) == []
