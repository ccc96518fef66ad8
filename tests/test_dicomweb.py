"""The archive as a server: deletes, errors, tricks with paths, and an independent client."""

import logging
import re
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from urllib.parse import quote

import pytest
from dicomweb_client.api import DICOMwebClient
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from werkzeug.serving import WSGIRequestHandler, make_server

from service.archive import Archive
from service.dicomweb import create_app
from service.durable import opening
from service.wsgi import open_archive
from tests.archive_instances import BASELINE, INSTANCE, SERIES, STUDY, dicom_file, jpeg, put
from tests.processes import wait_until

PATH = f"/studies/{STUDY}/series/{SERIES}/instances/{INSTANCE}"
PLAIN = "/dicomWeb"
METHODS = {"GET", "POST", "DELETE", "PUT", "PATCH"}
GOOGLE = "/v1/projects/p/locations/l/datasets/d/dicomStores/dicomWeb/dicomWeb"


class Quiet(WSGIRequestHandler):
    """A request handler without an access log."""

    def log(self, *_: object) -> None:
        """Keep silent."""


@pytest.fixture
def server(archive: Archive) -> Iterator[str]:
    """Serve the archive on loopback; return its URL."""
    running = make_server("127.0.0.1", 0, create_app(archive), threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{running.port}"
    running.shutdown()
    thread.join()
    running.server_close()


def test_an_independent_client_stores_searches_and_retrieves(server: str) -> None:
    client = DICOMwebClient(f"{server}{GOOGLE}")
    answer = client.store_instances([dcmread(BytesIO(dicom_file()))])
    (stored,) = answer.ReferencedSOPSequence
    assert stored.ReferencedSOPInstanceUID == INSTANCE
    (study,) = client.search_for_studies(search_filters={"PatientID": "P1"})
    assert study["0020000D"]["Value"] == [STUDY]
    assert len(client.search_for_series(STUDY)) == 1
    assert len(client.search_for_instances(STUDY, SERIES)) == 1
    uids = (STUDY, SERIES, INSTANCE)
    assert client.retrieve_instance(*uids).PatientName == "Müller^José"
    assert client.retrieve_instance_metadata(*uids)["00280010"]["Value"] == [48]
    assert client.retrieve_instance_frames(*uids, [1], (("image/jpeg", BASELINE),)) == [jpeg()]
    (decoded,) = client.retrieve_instance_frames(*uids, [1])
    assert len(decoded) == 64 * 48 * 3
    rendered = client.retrieve_instance_frames_rendered(*uids, [1], ("image/jpeg",))
    assert rendered == jpeg()
    assert client.retrieve_instance_rendered(*uids, media_types=("image/jpeg",)) == jpeg()
    (retrieved,) = client.retrieve_series(STUDY, SERIES, (("application/dicom", "*"),))
    assert retrieved.SOPInstanceUID == INSTANCE
    uri = client.retrieve_instance_metadata(*uids)["7FE00010"]["BulkDataURI"]
    assert uri == f"{server}{GOOGLE}{PATH}/bulkdata/7FE00010"
    (bulk,) = client.retrieve_bulkdata(uri)
    assert bulk == decoded
    (whole,) = client.iter_study(STUDY)
    assert whole.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    client.delete_instance(*uids)
    assert client.search_for_studies() == []


def test_an_instance_is_deleted_at_once(client: FlaskClient, archive: Archive) -> None:
    put(archive, dicom_file())
    response = client.delete(PLAIN + PATH)
    assert (response.status_code, response.get_json()) == (200, {})
    assert client.get(PLAIN + PATH).status_code == 404
    assert client.delete(PLAIN + PATH).status_code == 404


@pytest.mark.parametrize("path", [f"/studies/{STUDY}", f"/studies/{STUDY}/series/{SERIES}"])
@pytest.mark.parametrize(
    ("base", "names"),
    [
        (PLAIN, "projects/local/locations/local/datasets/local"),
        (GOOGLE, "projects/p/locations/l/datasets/d"),
    ],
)
def test_a_study_or_series_is_deleted_by_an_operation(
    client: FlaskClient, archive: Archive, base: str, names: str, path: str
) -> None:
    put(archive, dicom_file())
    put(archive, dicom_file(SOPInstanceUID="9.9"))
    name = client.delete(base + path).get_json()["name"]
    assert re.fullmatch(names + "/operations/[0-9]{19}", name)
    assert client.get(f"{base}/studies").get_json(force=True) == []
    assert client.delete(base + path).status_code == 404
    wait_until(lambda: "done" in client.get(f"/v1/{name}").get_json())
    operation = client.get(f"/v1/{name}").get_json()
    metadata = operation.pop("metadata")
    assert operation == {
        "name": name,
        "done": True,
        "response": {"@type": "type.googleapis.com/google.protobuf.Empty"},
    }
    method = "DeleteSeries" if "series" in path else "DeleteStudy"
    assert metadata["apiMethodName"].endswith(f".v1.dicom.DicomService.{method}")
    assert metadata["counter"] == {"success": "2"}
    assert metadata["createTime"] < metadata["endTime"]
    assert metadata["endTime"].endswith("Z")
    assert client.get("/v1/" + name.replace("projects/", "projects/x")).status_code == 404


def test_while_a_study_is_being_deleted_nothing_can_be_stored_into_it(
    client: FlaskClient, archive: Archive
) -> None:
    put(archive, dicom_file())
    parent = "projects/p/locations/l/datasets/d"
    record = {"parent": parent, "version": "v1beta1", "method": "DeleteStudy"}
    operation = archive.begin_delete(STUDY, None, record)
    assert operation
    running = client.get(f"/v1beta1/{parent}/operations/{operation}").get_json()
    assert running["metadata"].pop("createTime").endswith("Z")
    assert running == {
        "name": f"{parent}/operations/{operation}",
        "metadata": {
            "@type": "type.googleapis.com/google.cloud.healthcare.v1beta1.OperationMetadata",
            "apiMethodName": "google.cloud.healthcare.v1beta1.dicom.DicomService.DeleteStudy",
            "counter": {"pending": "1"},
        },
    }
    request = {"content_type": "application/dicom", "headers": {"Accept": "application/dicom+json"}}
    refused = client.post(f"{PLAIN}/studies", data=dicom_file(), **request)
    assert refused.status_code == 409
    (failed,) = refused.get_json(force=True)["00081198"]["Value"]
    assert failed["00081197"]["Value"] == [0xA700]
    assert "being deleted" in failed["00091097"]["Value"][0]
    archive.finish_delete(operation)
    assert client.post(f"{PLAIN}/studies", data=dicom_file(), **request).status_code == 200


def test_an_operation_that_never_was_is_not_found(client: FlaskClient) -> None:
    response = client.get("/v1/projects/p/locations/l/datasets/d/operations/1")
    assert response.status_code == 404


def test_the_archive_says_that_it_is_healthy(client: FlaskClient) -> None:
    assert client.get("/healthz").status_code == 200


def test_storage_that_fails_is_unavailable_and_says_nothing_of_the_content(
    client: FlaskClient, archive: Archive, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    incoming = tmp_path / "archive" / "incoming"
    incoming.rmdir()
    incoming.write_text("in the way")
    response = client.post(f"{PLAIN}/studies", data=dicom_file(), content_type="application/dicom")
    assert response.status_code == 503
    assert response.get_json()["error"]["status"] == "UNAVAILABLE"
    assert "Müller" not in caplog.text
    assert archive.instances(STUDY) == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/dicomWeb", 404),
        ("GET", "/dicomWeb/studies/", 404),
        ("PUT", "/dicomWeb/studies", 405),
        ("GET", "/v2/projects/p/locations/l/datasets/d/dicomStores/s/dicomWeb/studies", 404),
        ("GET", "/dicomWeb/studies/..", 400),
        ("GET", "/dicomWeb/studies/1.2/series/%2e%2e/instances/1.2", 400),
        ("GET", "/dicomWeb/studies/..%2f..%2fetc", 404),
        ("GET", "/dicomWeb/studies/1.2%00", 400),
        ("GET", "/dicomWeb/studies/01.2", 400),
        ("GET", "/dicomWeb/studies/" + "1." * 40, 400),
        ("GET", "/dicomWeb/studies/%ff", 400),
        ("DELETE", "/dicomWeb/studies/..", 400),
        ("DELETE", "/dicomWeb/studies/.", 400),
        ("DELETE", "/dicomWeb/studies/%2e%2e/series/%2e%2e", 400),
        ("POST", "/dicomWeb/studies/..", 400),
    ],
)
def test_an_odd_path_is_refused_in_the_form_of_google_s_errors(
    client: FlaskClient, archive: Archive, tmp_path: Path, method: str, path: str, status: int
) -> None:
    put(archive, dicom_file())
    (tmp_path / "kept").write_text("outside of the archive")
    response = client.open(path, method=method)
    envelope = response.get_json()["error"]
    assert (response.status_code, envelope["code"]) == (status, status)
    assert set(envelope) == {"code", "message", "status"}
    assert archive.path(archive.instances(STUDY)[0].uids).read_bytes() == dicom_file()
    assert (tmp_path / "kept").exists()


_HEADER = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)
_TEXT = st.text(max_size=12) | st.sampled_from(["1.2", "..", "all", "limit", "PatientID", "-1"])


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    method=st.sampled_from(["GET", "DELETE", "POST", "HEAD"]),
    steps=st.lists(
        st.sampled_from(["studies", "series", "instances", "metadata", "frames", "rendered"])
        | _TEXT,
        max_size=7,
    ),
    query=st.dictionaries(_TEXT, _TEXT, max_size=3),
    accept=_HEADER | st.sampled_from(['multipart/related; type="', "a/b;q=x", '"\\"\\']),
)
def test_no_request_breaks_the_archive(
    client: FlaskClient, method: str, steps: list[str], query: dict[str, str], accept: str
) -> None:
    response = client.open(
        f"{PLAIN}/{'/'.join(map(quote, steps))}",
        method=method,
        query_string=query,
        headers={
            "Accept": accept.encode("ascii", "replace")
            .decode()
            .replace("\n", " ")
            .replace("\r", " ")
        },
    )
    assert response.status_code < 500


@pytest.mark.parametrize(
    ("host", "port", "base"),
    [
        ("127.0.0.1", "8042", "http://127.0.0.1:8042/dicomWeb"),
        ("[::1]", "8042", "http://[::1]:8042/dicomWeb"),
        ("localhost", "80", "http://localhost/dicomWeb"),
        ("localhost:1", "8042", "http://localhost:1/dicomWeb"),
        ("pacs.test", "8042", "http://pacs.test/dicomWeb"),
    ],
)
def test_urls_have_the_port_that_a_client_on_this_machine_left_out_of_its_host_header(
    client: FlaskClient, archive: Archive, host: str, port: str, base: str
) -> None:
    put(archive, dicom_file())
    environ = {"HTTP_HOST": host, "SERVER_PORT": port}
    (study,) = client.get(f"{PLAIN}/studies", environ_overrides=environ).get_json(force=True)
    assert study["00081190"]["Value"] == [f"{base}/studies/{STUDY}"]


@pytest.mark.parametrize("host", ["", "a b", "<b>", "\u00e4", "[::1]:80", "x:y", "a/../b", ":"])
def test_an_odd_host_header_does_not_break_the_archive(
    client: FlaskClient, archive: Archive, host: str
) -> None:
    put(archive, dicom_file())
    response = client.get(f"{PLAIN}/studies", headers={"Host": host})
    assert response.status_code in {200, 400}


def test_nothing_of_a_request_is_logged(
    client: FlaskClient, archive: Archive, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    put(archive, dicom_file())
    client.get(f"{PLAIN}/studies?PatientName=Geheim")
    client.get(f"{PLAIN}/studies?PatientName=Geheim*")
    client.post(
        f"{PLAIN}/studies", data=dicom_file(PatientID="Geheim"), content_type="application/dicom"
    )
    assert "Geheim" not in caplog.text


def test_while_the_index_is_made_anew_everything_is_unavailable_but_health(
    tmp_path: Path,
) -> None:
    app = create_app()
    client = app.test_client()
    for method, path in (
        ("GET", "/studies"),
        ("POST", "/studies"),
        ("DELETE", f"/studies/{STUDY}"),
    ):
        response = client.open(PLAIN + path, method=method, content_type="application/dicom")
        assert (response.status_code, response.headers["Retry-After"]) == (503, "30")
        assert response.get_json()["error"]["status"] == "UNAVAILABLE"
    assert "anew" in client.get("/healthz").get_json()["status"]
    Archive(tmp_path).close()
    with opening(tmp_path / "alive.lock") as (file, _):
        opened = open_archive(app, tmp_path, 0.0)  # waits for the lock, as for a rebuild
        assert client.get(f"{PLAIN}/studies").status_code == 503
    wait_until(lambda: client.get(f"{PLAIN}/studies").status_code == 200)
    opened.join()
    file.close()
    app.extensions["archive"].close()


def test_an_archive_that_cannot_be_opened_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "index.sqlite").write_bytes(b"not SQLite at all" * 999)
    with pytest.raises(RuntimeError, match="damaged"):
        open_archive(create_app(), tmp_path, 30.0)


def test_every_route_stands_in_the_conformance_statement() -> None:
    text = (Path(__file__).parents[1] / "docs" / "conformance.md").read_text()
    table = [line for line in text.splitlines() if re.match(r"\| (GET|POST|DELETE) ", line)]
    stated = {
        (line.split("|")[1].strip(), path)
        for line in table
        for path in re.findall("`([^`]*)`", line)
    }
    plain = [rule for rule in create_app().url_map.iter_rules() if rule.rule.startswith(PLAIN)]
    for rule in plain:
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule.removeprefix(PLAIN))
        assert {(method, path) for method in rule.methods or () if method in METHODS} <= stated
    assert len(plain) == sum(path.startswith("/s") or path == "/instances" for _, path in stated)
