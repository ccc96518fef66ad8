"""Uploads in every form that a client may send them."""

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import requests
from flask.testing import FlaskClient
from pydicom import Dataset

from tests.jpegs import make_jpeg
from tests.peers import ScriptedServer, parts_of, stored
from tests.serving import client_for, form, only, post, upload

JPEG = make_jpeg()
JANE = {"PatientID": "P-7", "PatientName": "Doe^Jane"}


@pytest.fixture
def store() -> Iterator[ScriptedServer]:
    with ScriptedServer(stored()) as server:
        yield server


@pytest.fixture
def client(store: ScriptedServer) -> FlaskClient:
    return client_for(store.dicomweb_url)


def sent(store: ScriptedServer) -> list[Dataset]:
    """Return the data sets of the last request, without what stands in group 0002."""
    models = json.loads(parts_of(store.requests[-1])[0][1])
    for model in models:
        del model["00020010"], model["7FE00010"]
    return [Dataset.from_json(model) for model in models]


def test_attributes_come_as_fields_named_by_keyword(
    client: FlaskClient, store: ScriptedServer
) -> None:
    assert post(client, JPEG, **JANE, StudyDate="20240305").status_code == 201
    (dataset,) = sent(store)
    assert (dataset.PatientID, dataset.PatientName, dataset.StudyDate) == (
        "P-7",
        "Doe^Jane",
        "20240305",
    )


METADATA = {
    "an object of keywords": json.dumps(JANE),
    "an object of the DICOM JSON model": json.dumps(
        {
            "00100020": {"vr": "LO", "Value": ["P-7"]},
            "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Doe^Jane"}]},
        }
    ),
    "both at once": '{"PatientID": "P-7", "00100010": {"vr": "PN", "Value": ["Doe^Jane"]}}',
    "an array of one": json.dumps([JANE]),
    "keywords with lists": '{"PatientID": ["P-7"], "PatientName": [{"Alphabetic": "Doe^Jane"}]}',
}


@pytest.mark.parametrize("as_file", [False, True], ids=["as text", "as a file"])
@pytest.mark.parametrize("metadata", METADATA.values(), ids=METADATA)
def test_attributes_come_as_metadata(
    *, metadata: str, as_file: bool, client: FlaskClient, store: ScriptedServer
) -> None:
    value: Any = (BytesIO(metadata.encode()), "m.json", "application/json") if as_file else metadata
    assert post(client, JPEG, metadata=value).status_code == 201
    (dataset,) = sent(store)
    assert (dataset.PatientID, dataset.PatientName) == ("P-7", "Doe^Jane")


def test_metadata_and_fields_are_joined(client: FlaskClient, store: ScriptedServer) -> None:
    metadata = json.dumps({"AnatomicRegionSequence": [{"CodeMeaning": "Skin"}]})
    assert post(client, JPEG, metadata=metadata, PatientID="P-7").status_code == 201
    (dataset,) = sent(store)
    assert dataset.AnatomicRegionSequence[0].CodeMeaning == "Skin"
    assert dataset.PatientID == "P-7"


def test_a_repeated_field_has_several_values(client: FlaskClient, store: ScriptedServer) -> None:
    names = ["Doe^Jane", "Roe^Richard"]
    assert post(client, JPEG, OtherPatientNames=names).status_code == 201
    assert list(sent(store)[0].OtherPatientNames) == names


def test_text_of_all_scripts_arrives(client: FlaskClient, store: ScriptedServer) -> None:
    names = ["Müller^Jürg", "山田^太郎", "Даниленко^Ольга", "😀"]
    assert post(client, JPEG, OtherPatientNames=names).status_code == 201
    assert list(map(str, sent(store)[0].OtherPatientNames)) == names
    assert sent(store)[0].SpecificCharacterSet == "ISO_IR 192"


def test_an_array_has_one_object_for_each_image(client: FlaskClient, store: ScriptedServer) -> None:
    metadata = json.dumps([{"InstanceNumber": 1}, {"InstanceNumber": 2}])
    response = post(client, JPEG, make_jpeg(seed=1), metadata=metadata, PatientID="P-7")
    assert response.status_code == 201
    assert [(d.InstanceNumber, d.PatientID) for d in sent(store)] == [(1, "P-7"), (2, "P-7")]


def test_many_small_things_said_of_many_images_are_refused_before_any_is_described(
    client: FlaskClient, store: ScriptedServer
) -> None:
    pictures = [make_jpeg(seed=number) for number in range(10)]
    metadata = json.dumps({"AnatomicRegionSequence": [{}] * 5_000})
    answer = post(client, *pictures, metadata=metadata)
    assert (answer.status_code, answer.get_json()["type"]) == (413, "urn:jpegstow:too-many-values")
    metadata = json.dumps([json.loads(metadata)] * 10)
    assert post(client, *pictures, metadata=metadata).status_code == 413
    answer = post(client, JPEG, metadata=json.dumps({"AnatomicRegionSequence": [{}] * 50_000}))
    assert (answer.status_code, answer.get_json()["type"]) == (400, "urn:jpegstow:too-many-values")
    assert store.requests == []
    assert post(client, JPEG, metadata='{"AnatomicRegionSequence": [{}, {}]}').status_code == 201


def test_images_of_one_request_share_study_and_series(client: FlaskClient) -> None:
    instances = post(client, JPEG, make_jpeg(seed=1)).get_json()["instances"]
    uids = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    assert [len({one[uid] for one in instances}) for uid in uids] == [1, 1, 2]


def test_the_same_image_twice_in_one_request_is_one_instance(
    client: FlaskClient, store: ScriptedServer
) -> None:
    instances = post(client, JPEG, JPEG).get_json()["instances"]
    assert instances[0]["SOPInstanceUID"] == instances[1]["SOPInstanceUID"]
    assert len(sent(store)) == 1


def test_the_template_is_chosen_by_a_field(client: FlaskClient, store: ScriptedServer) -> None:
    response = post(client, JPEG, template="secondary-capture-image")
    assert only(response)["SOPClassUID"] == "1.2.840.10008.5.1.4.1.1.7"
    assert sent(store)[0].Modality == "OT"
    assert only(post(client, JPEG))["SOPClassUID"] == "1.2.840.10008.5.1.4.1.1.77.1.4"


RAW_TYPES = ["image/jpeg", "image/jpg", "image/png", "application/octet-stream", None]


@pytest.mark.parametrize("content_type", RAW_TYPES)
def test_a_bare_jpeg_is_taken_whatever_it_is_called(
    content_type: str | None, client: FlaskClient, store: ScriptedServer
) -> None:
    query = {**JANE, "template": "secondary-capture-image"}
    response = upload(client, data=JPEG, content_type=content_type, query_string=query)
    assert response.status_code == 201
    (dataset,) = sent(store)
    assert (dataset.PatientID, dataset.PatientName) == ("P-7", "Doe^Jane")
    assert only(response)["SOPClassUID"] == "1.2.840.10008.5.1.4.1.1.7"


def test_a_query_goes_with_a_form_too(client: FlaskClient, store: ScriptedServer) -> None:
    response = upload(client, **form(JPEG, PatientID="P-7"), query_string={"StudyID": "S"})
    assert response.status_code == 201
    assert (sent(store)[0].PatientID, sent(store)[0].StudyID) == ("P-7", "S")


def test_a_boundary_string_inside_a_value_is_only_a_value(
    client: FlaskClient, store: ScriptedServer
) -> None:
    post(client, JPEG)
    boundary = store.requests[-1].headers["content-type"].partition("boundary=")[2]
    for text in (f"--{boundary}--", f"--{boundary}", "Content-Type: image/jpeg"):
        assert post(client, JPEG, ImageComments=f"a\r\n{text}\r\n\r\nb").status_code == 201
        assert [kind for kind, _ in parts_of(store.requests[-1])] == [
            "application/dicom+json",
            "image/jpeg",
        ]
        assert text in sent(store)[0].ImageComments


def test_an_upload_of_any_size_stays_in_memory(
    client: FlaskClient,
    store: ScriptedServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    comments = (b"\xff\xfe\xff\xff" + bytes(65_533)) * 12
    image = JPEG[:2] + comments + JPEG[2:]
    request = requests.Request("POST", store.url, data=JANE, files={"image": image}).prepare()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    response = upload(client, data=request.body, headers=dict(request.headers))
    assert response.status_code == 201
    assert f"removed comment ({len(comments)} bytes)" in only(response)["normalised"]
    assert store.requests[-1].length < 10_000


IDENTITIES = {
    "the same": ({}, 1),
    "another picture": ({"image": make_jpeg(seed=1)}, 2),
    "another attribute": ({"PatientID": "P-8"}, 2),
    "another template": ({"template": "secondary-capture-image"}, 2),
    "another idempotency key": ({"key": "again"}, 2),
}


@pytest.mark.parametrize(("other", "instances"), IDENTITIES.values(), ids=IDENTITIES)
def test_what_names_an_instance(other: dict[str, Any], instances: int, client: FlaskClient) -> None:
    def uid(image: bytes = JPEG, key: str = "", **fields: str) -> str:
        response = upload(
            client,
            **form(image, **{"PatientID": "P-7", "AccessionNumber": "A-1"} | fields),
            headers={"Idempotency-Key": key},
        )
        assert response.status_code == 201
        return str(only(response)["SOPInstanceUID"])

    assert len({uid(), uid(**other)}) == instances


def test_the_form_of_a_request_doesnt_name_the_instance(client: FlaskClient) -> None:
    answers = [
        post(client, JPEG, **JANE),
        post(client, JPEG, metadata=json.dumps(JANE)),
        post(client, JPEG, metadata=METADATA["an object of the DICOM JSON model"]),
        upload(client, data=JPEG, content_type="image/jpeg", query_string=JANE),
        upload(client, **form(JPEG, filename="another.jpeg", **JANE)),
    ]
    assert len({only(response)["SOPInstanceUID"] for response in answers}) == 1


def test_an_accession_number_gathers_requests_in_one_study(client: FlaskClient) -> None:
    said = {"PatientID": "P-7", "AccessionNumber": "A-1"}
    studies = [only(post(client, make_jpeg(seed=n), **said))["StudyInstanceUID"] for n in range(3)]
    assert len(set(studies)) == 1
    other = post(client, JPEG, PatientID="P-8", AccessionNumber="A-1")
    assert only(other)["StudyInstanceUID"] not in studies


def test_a_body_whose_connection_broke_is_no_upload(
    client: FlaskClient, store: ScriptedServer
) -> None:
    """gunicorn hands on what has come, and says that this is all."""
    answer = client.post(
        "/v1/instances?PatientID=P-7",
        data=JPEG[:-2],
        content_type="image/jpeg",
        environ_overrides={"CONTENT_LENGTH": str(len(JPEG)), "wsgi.input_terminated": True},
    )
    assert (answer.status_code, answer.get_json()["type"]) == (400, "urn:jpegstow:cut-off")
    assert store.requests == []


def test_metadata_has_a_limit_of_its_own(client: FlaskClient, store: ScriptedServer) -> None:
    long = json.dumps({"OtherPatientNames": ["a"] * 300_000}).encode()
    answer = post(client, JPEG, metadata=(BytesIO(long), "m.json", "application/json"))
    assert answer.status_code == 413
    assert store.requests == []
