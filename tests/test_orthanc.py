"""A store that nobody here has written takes our instances, and gives them back equal."""

import hashlib
from io import BytesIO

import pytest
from pydicom import dcmread

from tests.jpegs import make_jpeg
from tests.peers import BOUND, Orthanc, Received, ScriptedServer, parts_of, stored
from tests.serving import client_for, only, post

SAID = {"PatientID": "P-7", "PatientName": "Даниленко^Ольга=山田", "StudyDate": "20240305"}
JPEG = make_jpeg(199, 101, comment=b"private", taken="2024:03:05 14:07:09")


def written_for(jpeg: bytes, **fields: str) -> bytes:
    """Return the DICOM file that is sent for an upload."""
    with ScriptedServer(stored()) as store:
        post(client_for(store.dicomweb_url, DICOMWEB_WIRE="part10"), jpeg, **fields)
    ((_, file),) = parts_of(store.requests[0])
    return file


@pytest.fixture
def empty(orthanc: Orthanc) -> Orthanc:
    orthanc.empty()
    return orthanc


@pytest.mark.parametrize("wire", ["part10", "auto"])
@pytest.mark.parametrize("template", ["vl-photographic-image", "secondary-capture-image"])
def test_an_instance_comes_back_equal(empty: Orthanc, wire: str, template: str) -> None:
    client = client_for(empty.dicomweb_url, DICOMWEB_WIRE=wire)
    response = post(client, JPEG, **SAID, template=template)
    assert response.status_code == 201
    sent = written_for(JPEG, **SAID, template=template)

    (name,) = empty.get("/instances")
    kept = empty.session.get(f"{empty.url}/instances/{name}/file", timeout=BOUND).content
    assert hashlib.sha256(kept).hexdigest() == hashlib.sha256(sent).hexdigest()

    (file,) = retrieve(empty, only(response)["RetrieveURL"])
    assert dcmread(BytesIO(file)) == dcmread(BytesIO(sent))


def retrieve(server: Orthanc, url: str) -> list[bytes]:
    """Fetch instances as multipart/related, read by the standard library."""
    accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
    answer = server.session.get(url, headers={"Accept": accept}, timeout=BOUND)
    assert answer.status_code == 200
    headers = {"content-type": answer.headers["Content-Type"]}
    return [body for _, body in parts_of(Received("GET", url, headers, answer.content))]


def test_orthanc_decodes_what_it_was_sent(empty: Orthanc) -> None:
    post(client_for(empty.dicomweb_url), JPEG)
    (name,) = empty.get("/instances")
    preview = empty.session.get(f"{empty.url}/instances/{name}/preview", timeout=BOUND)
    assert preview.headers["Content-Type"] == "image/png"
    assert empty.get(f"/instances/{name}/simplified-tags")["Columns"] == "199"


def test_the_same_request_again_makes_no_second_instance(empty: Orthanc) -> None:
    client = client_for(empty.dicomweb_url)
    first, second = (post(client, JPEG, **SAID) for _ in range(2))
    assert (first.status_code, second.status_code) in {(201, 200), (201, 201)}
    assert only(first)["SOPInstanceUID"] == only(second)["SOPInstanceUID"]
    assert len(empty.get("/instances")) == 1


def test_several_images_are_stored_in_one_request(empty: Orthanc) -> None:
    response = post(client_for(empty.dicomweb_url), *(make_jpeg(seed=n) for n in range(4)))
    assert response.status_code == 201
    study = only_study(empty)
    assert study == response.get_json()["instances"][0]["StudyInstanceUID"]
    assert len(empty.get("/instances")) == 4


def only_study(server: Orthanc) -> str:
    (name,) = server.get("/studies")
    return str(server.get(f"/studies/{name}")["MainDicomTags"]["StudyInstanceUID"])


def test_it_is_ready_without_orthanc_too_but_says_so(orthanc: Orthanc) -> None:
    there = client_for(orthanc.dicomweb_url).get("/readyz")
    assert (there.status_code, there.get_json()["status"]) == (200, "ok")
    away = client_for(f"{orthanc.url}/nowhere").get("/readyz")
    assert (away.status_code, away.get_json()["status"]) == (200, "degraded")
    assert "404" in away.get_json()["checks"]["store"]
