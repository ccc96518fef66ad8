"""What the service answers, and what it writes of it into its log."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import pytest
from flask.testing import FlaskClient

from service import __version__
from tests.jpegs import make_jpeg
from tests.peers import (
    BOUND,
    Respond,
    ScriptedServer,
    failed,
    parts_of,
    stored,
)
from tests.serving import client_for, form, only, post, upload

JPEG = make_jpeg()
PNG = b"\x89PNG\r\n\x1a\n" + bytes(50)
PLANTED = ["Quixote", "Dulcinea", "Rocinante"]  # what no answer and no log line may repeat
PROBLEM = "application/problem+json"


@pytest.fixture(scope="module")
def module_store() -> Iterator[ScriptedServer]:
    with ScriptedServer(stored()) as server:
        yield server


@pytest.fixture
def store(module_store: ScriptedServer) -> ScriptedServer:
    module_store.requests.clear()
    return module_store


@pytest.fixture(scope="module")
def client(module_store: ScriptedServer) -> FlaskClient:
    url = module_store.dicomweb_url
    return client_for(url)


def test_a_stored_instance_is_answered_with_all_that_names_it(
    client: FlaskClient, store: ScriptedServer
) -> None:
    image = make_jpeg(60, 40, comment=b"hello", icc=True)
    response = post(client, image + b"behind")
    assert (response.status_code, response.mimetype) == (201, "application/json")
    instance = only(response)
    assert list(instance) == [
        "status",
        "outcome",
        "RetrieveURL",
        "SOPClassUID",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "SOPInstanceUID",
        "TransferSyntaxUID",
        "Rows",
        "Columns",
        "normalised",
    ]
    assert (instance["status"], instance["outcome"]) == (201, "stored")
    assert (instance["Rows"], instance["Columns"]) == (40, 60)
    assert instance["TransferSyntaxUID"] == "1.2.840.10008.1.2.4.50"
    assert response.headers["Location"] == instance["RetrieveURL"]
    assert "removed comment (9 bytes)" in instance["normalised"]
    assert any("6 bytes" in change for change in instance["normalised"])
    (request,) = store.requests
    assert instance["SOPInstanceUID"].encode() in request.body


def test_a_store_that_has_changed_what_it_stored_is_not_kept_quiet(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with ScriptedServer(stored(warning=0xB000)) as changing:
        response = post(client_for(changing.dicomweb_url), JPEG)
    instance = only(response)
    assert (response.status_code, instance["outcome"]) == (201, "stored")
    assert instance["WarningReason"] == 0xB000
    line = json.loads(capsys.readouterr().out)
    assert (line["severity"], line["outcome"]) == ("WARNING", "stored")
    assert line["reason"] == "stored, but not as it was sent: warning reason B000H"


def test_each_image_of_a_request_has_its_own_result(
    client: FlaskClient, store: ScriptedServer
) -> None:
    response = post(client, JPEG, PNG, make_jpeg(progressive=True, seed=1), JPEG[:-100])
    assert (response.status_code, response.mimetype) == (207, "application/json")
    instances = response.get_json()["instances"]
    assert [one["status"] for one in instances] == [201, 415, 201, 422]
    assert "PNG" in instances[1]["detail"]
    assert "RetrieveURL" not in instances[1]
    assert "normalised" not in instances[3]
    assert "entropy-coded data is damaged" in instances[3]["detail"]
    (request,) = store.requests
    stored_uids = [item["00080018"]["Value"][0] for item in json.loads(parts_of(request)[0][1])]
    assert stored_uids == [instances[0]["SOPInstanceUID"], instances[2]["SOPInstanceUID"]]


TRANSFORMED: dict[str, tuple[bytes, str]] = {
    "progressive": (make_jpeg(progressive=True), "recoded progressive as baseline"),
    "on its side": (make_jpeg(orientation=6), "turned a quarter clockwise without loss"),
    "on its side, of an odd size": (
        make_jpeg(63, 47, orientation=6),
        (
            "decoded, turned a quarter clockwise and encoded again at quality 98, since it could "
            "not be turned upright without loss"
        ),
    ),
    "without EOI": (JPEG[:-2], "added the missing EOI"),
    "behind a line break": (b"\r\n" + JPEG, "removed 2 bytes in front of SOI"),
    "with a second SOI": (JPEG[:2] + JPEG, "removed a second SOI"),
}


@pytest.mark.parametrize(("image", "change"), TRANSFORMED.values(), ids=TRANSFORMED)
def test_what_was_done_to_a_picture_is_told_in_the_answer_and_the_log(
    image: bytes, change: str, client: FlaskClient, capsys: pytest.CaptureFixture[str]
) -> None:
    response = post(client, image)
    instance = only(response)
    assert response.status_code == 201
    assert instance["TransferSyntaxUID"] == "1.2.840.10008.1.2.4.50"
    assert (instance["Rows"] > instance["Columns"]) is ("quarter" in change)
    assert change in instance["normalised"]
    assert json.loads(capsys.readouterr().out)["normalised"] == instance["normalised"]


def test_images_that_all_are_stored_are_answered_with_201(client: FlaskClient) -> None:
    response = post(client, JPEG, make_jpeg(seed=1))
    assert response.status_code == 201
    assert [one["status"] for one in response.get_json()["instances"]] == [201, 201]


def test_no_value_and_no_name_of_a_file_reaches_the_log_or_the_answer(
    client: FlaskClient, store: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {"PatientName": "Quixote^Alonso", "PatientID": "Rocinante-7", "StudyID": "Dulcinea"}
    good = upload(client, **form(JPEG, filename="Quixote Alonso 1605.jpg", **said))
    bad = upload(client, **form(JPEG[:-100], filename="Quixote.jpg", **said))
    raw = upload(client, data=JPEG, query_string=said)
    assert (good.status_code, bad.status_code, raw.status_code) == (201, 422, 201)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["outcome"] for line in lines] == ["stored", "damagedjpeg", "stored"]
    everything = str(lines) + good.text + bad.text + raw.text + str([*good.headers, *raw.headers])
    assert [value for value in PLANTED if value in everything] == []
    assert all(b"1605" not in request.body for request in store.requests)
    assert all("Quixote" not in request.path for request in store.requests)


def test_a_stores_own_words_reach_the_client_but_not_the_log(
    capsys: pytest.CaptureFixture[str],
) -> None:
    answers = [
        (failed(0x0110, "PatientName Quixote^Alonso is odd"), 502),
        (Respond(400, {}, b'{"error":{"message":"no Quixote here"}}'), 502),
        (Respond(503, {}, b"Quixote is away"), 202),
    ]
    for answer, status in answers:
        with ScriptedServer(answer) as server:
            response = post(client_for(server.dicomweb_url), JPEG)
        assert response.status_code == status
        told = only(response)["reason"] if status == 202 else response.get_json()["detail"]
        assert "Quixote" in told
    logged = capsys.readouterr()
    assert "Quixote" not in logged.out + logged.err
    reasons = [json.loads(line)["reason"] for line in logged.out.splitlines()]
    assert reasons == [
        "status 409, failure reason 0110H",
        "status 400, failure reason 0000H",
        "status 503",
    ]


def test_an_upload_is_one_line_of_log(
    client: FlaskClient, capsys: pytest.CaptureFixture[str]
) -> None:
    instance = only(post(client, JPEG))
    (text,) = capsys.readouterr().out.splitlines()
    line = json.loads(text)
    for name in ("SOPInstanceUID", "StudyInstanceUID", "Rows", "Columns", "normalised"):
        assert line[name] == instance[name]
    assert (line["severity"], line["outcome"], line["source"]) == ("INFO", "stored", "http")
    assert line["template"] == "vl-photographic-image"
    assert line["bytes_in"] == len(JPEG)
    assert 0 < line["bytes_out"] < len(JPEG)
    assert line["milliseconds"] > 0


def test_the_same_request_twice_sends_the_same_bytes(
    client: FlaskClient, store: ScriptedServer
) -> None:
    said = {"PatientID": "P-7", "PatientName": "Doe^Jane", "AccessionNumber": "A-1"}
    images = (JPEG, make_jpeg(seed=1))
    first, second = (post(client, *images, **said).get_json() for _ in range(2))
    assert first == second
    assert len({(r.sha256, r.headers["content-type"]) for r in store.requests}) == 1


def test_parallel_posts_of_the_same_send_the_same_bytes(
    client: FlaskClient, store: ScriptedServer
) -> None:
    start = threading.Barrier(8)

    def posted(_: int) -> str:
        start.wait(BOUND)
        return str(only(post(client.application.test_client(), JPEG, PatientID="P-7")))

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(posted, range(8)))) == 1
    assert Counter(r.sha256 for r in store.requests).most_common()[0][1] == 8


def test_an_idempotency_key_tells_equal_requests_apart(
    client: FlaskClient, store: ScriptedServer
) -> None:
    said = {"PatientID": "P-7", "AccessionNumber": "A-1"}
    uids = [
        only(upload(client, **form(JPEG, **said), headers={"Idempotency-Key": key}))[
            "SOPInstanceUID"
        ]
        for key in ("a", "b", "a")
    ]
    assert uids[0] == uids[2] != uids[1]
    assert len({request.sha256 for request in store.requests}) == 2


def test_an_error_that_nobody_foresaw_is_told_without_its_text(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fall() -> NoReturn:
        raise KeyError("Quixote")

    with ScriptedServer(stored()) as server:
        client = client_for(server.dicomweb_url)
        client.application.view_functions["upload"] = fall
        response = post(client, JPEG)
    assert (response.status_code, response.mimetype) == (500, PROBLEM)
    logged = json.loads(capsys.readouterr().out)
    assert (logged["severity"], logged["error"]) == ("ERROR", "KeyError")
    assert "Quixote" not in response.text + json.dumps(logged)


def test_health_tells_the_version(client: FlaskClient) -> None:
    response = client.get("/healthz")
    assert response.get_json() == {"status": "ok", "version": __version__}
