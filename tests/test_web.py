"""What the service answers, to the good and to the bad, and what it writes of it into its log."""

import json
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlencode

import pytest
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from service import __version__
from tests.jpegs import make_jpeg, picture
from tests.peers import (
    LoseAnswer,
    Respond,
    ScriptedServer,
    Step,
    empty_200,
    failed,
    no_studies,
    partial_202,
    parts_of,
    stored,
    throttled,
    unavailable,
)
from tests.serving import UPLOAD, client_for, form, only, post, upload
from tests.streams import of_process

JPEG = make_jpeg()
PROBLEM = "application/problem+json"
LIMIT = 1_000_000  # bytes of a request


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
    return client_for(url, MAX_UPLOAD_BYTES=str(LIMIT), MAX_IMAGES="5", MAX_PIXELS="10000000")


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


def test_each_image_of_a_request_has_its_own_result(
    client: FlaskClient, store: ScriptedServer
) -> None:
    response = post(client, JPEG, png(), make_jpeg(progressive=True, seed=1), JPEG[:-100])
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


def test_images_that_all_are_refused_are_told_so_one_by_one(
    client: FlaskClient, store: ScriptedServer
) -> None:
    response = post(client, png(), JPEG[:300])
    assert response.status_code == 207
    assert [one["status"] for one in response.get_json()["instances"]] == [415, 422]
    assert store.requests == []


def png() -> bytes:
    return saved("PNG")


def saved(kind: str) -> bytes:
    file = BytesIO()
    picture(8, 8).save(file, kind)
    return file.getvalue()


def bomb() -> bytes:
    """Return 14 kB that say of themselves that they are 65500 x 65500 pixels."""
    data = bytearray(make_jpeg(8, 8))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 65_500, 65_500)
    return bytes(data[:-2]) + bytes(14_000) + b"\xff\xd9"


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)

BAD_IMAGES = {
    "a PNG named .jpg": (png(), 415, "PNG"),
    "a GIF named .jpg": (saved("GIF"), 415, "GIF"),
    "a WebP named .jpg": (saved("WEBP"), 415, "WebP"),
    "a HEIC named .jpg": (HEIC, 415, "HEIC"),
    "text": (b"this is no picture", 415, "JPEG"),
    "a truncated JPEG": (make_jpeg(400, 300)[:-1000], 422, "damaged-scan"),
    "a truncated JPEG with EOI": (make_jpeg(400, 300)[:-1000] + JPEG[-2:], 422, "damaged-scan"),
    "a truncated progressive JPEG": (
        make_jpeg(400, 300, progressive=True)[:-9000],
        422,
        "truncated",
    ),
    "the first bytes of a JPEG": (JPEG[:100], 422, "truncated"),
    "a bomb": (bomb(), 413, "65500 x 65500"),
    "a CMYK JPEG": (make_jpeg(mode="CMYK"), 415, "CMYK"),
    "a hierarchical JPEG": (of_process(0xC5), 415, "hierarchical"),
}


@pytest.mark.parametrize("raw", [False, True], ids=["in a form", "bare"])
@pytest.mark.parametrize(("image", "status", "said"), BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_what_is_no_acceptable_jpeg_is_refused(
    *,
    image: bytes,
    status: int,
    said: str,
    raw: bool,
    client: FlaskClient,
    store: ScriptedServer,
) -> None:
    response = upload(client, data=image, content_type="image/jpeg") if raw else post(client, image)
    problem = problem_of(response)
    assert problem["status"] == status
    assert said in str(problem)
    assert store.requests == []


def problem_of(response: TestResponse) -> dict[str, Any]:
    """Hold an answer to RFC 9457 3.1, and to our own rule: what, and how to mend it."""
    assert response.mimetype == PROBLEM
    assert 400 <= response.status_code < 500
    problem = response.get_json()
    assert problem["status"] == response.status_code
    assert set(problem) <= {"type", "title", "status", "detail", "where", "mend"}
    assert problem["type"].startswith("urn:jpegstow:")
    assert problem["title"]
    assert problem["detail"]
    return dict(problem)


# Values that no answer and no log line may repeat.
PLANTED = ["Quixote", "Dulcinea", "Rocinante"]

BAD_FIELDS = {
    "an unknown keyword": ({"PatientNam": "Quixote"}, "PatientNam"),
    "a keyword that is a value": ({"Quixote^Alonso": "x"}, ""),
    "a date that isn't in the calendar": ({"StudyDate": "20240231"}, "StudyDate"),
    "a date in another form": ({"PatientBirthDate": "1605-01-16 Quixote"}, "PatientBirthDate"),
    "a value that is too long": ({"PatientID": "Quixote" * 10}, "PatientID"),
    "a UID with a leading zero": ({"StudyInstanceUID": "1.2.03"}, "StudyInstanceUID"),
    "a UID of 65 characters": ({"StudyInstanceUID": "1." + "2" * 63}, "StudyInstanceUID"),
    "a UID that ends with a dot": ({"StudyInstanceUID": "1.2."}, "StudyInstanceUID"),
    "Rows from the caller": ({"Rows": "7"}, "Rows"),
    "Pixel Data from the caller": ({"PixelData": "Quixote"}, "7FE00010"),
    "a SOP Instance UID from the caller": ({"SOPInstanceUID": "1.2.3"}, "SOPInstanceUID"),
    "a character set from the caller": (
        {"SpecificCharacterSet": "ISO_IR 100"},
        "SpecificCharacterSet",
    ),
    "a control character": ({"PatientName": "Quixote\x1b[31m"}, "PatientName"),
    "a NUL": ({"PatientName": "Quixote\0"}, "PatientName"),
    "a line break in a name": ({"PatientName": "Quixote\nAlonso"}, "PatientName"),
    "a backslash": ({"PatientID": "Quixote\\Dulcinea"}, "PatientID"),
    "a code in small letters": ({"Modality": "quixote".capitalize()}, "Modality"),
    "two values where one belongs": ({"PatientID": ["Quixote", "Dulcinea"]}, "PatientID"),
    "a sex that isn't one": ({"PatientSex": "Quixote"}, "PatientSex"),
    "a tag of group 0002": ({"00020010": "1.2"}, "00020010"),
    "a private tag": ({"00091001": "Quixote"}, "00091001"),
    "an unknown template": ({"template": "Quixote"}, "template"),
    "two templates": ({"template": ["Quixote", "Dulcinea"]}, "template"),
    "metadata that isn't JSON": ({"metadata": '{"PatientName": Quixote}'}, "metadata"),
    "metadata cut short": ({"metadata": '{"PatientName": "Quixote"'}, "metadata"),
    "metadata that is a text": ({"metadata": '"Quixote"'}, "metadata"),
    "metadata twice": ({"metadata": ['{"PatientID": "Quixote"}', "{}"]}, "metadata"),
    "metadata with a name twice": (
        {"metadata": '{"PatientID": "Quixote", "PatientID": "Dulcinea"}'},
        "metadata",
    ),
    "metadata with NaN": ({"metadata": '{"PatientWeight": NaN}'}, "metadata"),
    "metadata nested without end": ({"metadata": '{"a":' * 100_000}, "metadata"),
    "a number of a million digits": (
        {"metadata": '{"SeriesNumber": ' + "9" * 400_000 + "}"},
        "metadata",
    ),
    "two objects for one image": ({"metadata": "[{}, {}]"}, "metadata"),
    "an array of texts": ({"metadata": '["Quixote"]'}, "metadata"),
    "a field that contradicts metadata": (
        {"metadata": '{"PatientID": "Quixote"}', "PatientID": "Dulcinea"},
        "PatientID",
    ),
    "an element that isn't one": ({"metadata": '{"00100010": "Quixote"}'}, "PatientName"),
    "an element of another VR": (
        {"metadata": '{"00100010": {"vr": "LO", "Value": ["Quixote"]}}'},
        "PatientName",
    ),
    "a sequence of texts": (
        {"metadata": '{"AnatomicRegionSequence": ["Quixote"]}'},
        "AnatomicRegionSequence",
    ),
    "a bad value in a sequence": (
        {"metadata": '{"AnatomicRegionSequence": [{"CodeMeaning": "Quixote\\u0007"}]}'},
        "AnatomicRegionSequence[1].CodeMeaning",
    ),
    "half of a surrogate pair": (
        {"metadata": '{"PatientName": "Quixote\\ud800"}'},
        "PatientName",
    ),
}


@pytest.mark.parametrize(("fields", "where"), BAD_FIELDS.values(), ids=BAD_FIELDS)
def test_what_cant_be_said_of_a_picture_is_refused(
    fields: dict[str, Any],
    where: str,
    client: FlaskClient,
    store: ScriptedServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    response = post(client, JPEG, **fields)
    problem = problem_of(response)
    assert problem["status"] == 400
    assert where in problem.get("where", "")
    assert store.requests == []
    logged = "".join(capsys.readouterr())
    assert '"reason"' in logged
    assert [value for value in PLANTED if value in response.text + logged] == []


BAD_REQUESTS: dict[str, tuple[dict[str, Any], int, str]] = {
    "no image": (form(PatientID="P-7"), 400, "no image"),
    "a web form without files": ({"data": {"PatientID": "P-7"}}, 415, "multipart/form-data"),
    "no body": ({}, 400, "no image"),
    "an empty body": ({"data": b"", "content_type": "image/jpeg"}, 400, "no image"),
    "an empty form": ({"data": {}, "content_type": "multipart/form-data"}, 400, "no image"),
    "an image that is text": (
        {"data": {"image": "Quixote"}, "content_type": "multipart/form-data"},
        400,
        "not a file",
    ),
    "an image of no bytes": (form(b""), 415, "empty"),
    "an image in another field": (
        {"data": {"photo": (BytesIO(JPEG), "Quixote.jpg")}},
        400,
        "another field",
    ),
    "a body of JSON": ({"json": {"PatientName": "Quixote"}}, 415, "application/json"),
    "a type that isn't one": (
        {"data": JPEG, "content_type": "Quixote <Dulcinea>"},
        415,
        "can't hold a JPEG",
    ),
    "a form without a boundary": (
        {"data": b"Quixote", "headers": {"Content-Type": "multipart/form-data"}},
        400,
        "no image",
    ),
    "a form cut short": (
        {
            "data": b'--b\r\nContent-Disposition: form-data; name="PatientID"\r\n\r\nQuixote',
            "headers": {"Content-Type": "multipart/form-data; boundary=b"},
        },
        400,
        "no image",
    ),
    "an Idempotency-Key with spaces": (
        {**form(JPEG), "headers": {"Idempotency-Key": "Quixote Dulcinea"}},
        400,
        "Idempotency-Key",
    ),
    "10,000 form fields": (
        form(JPEG, **{f"Field{number}": "Quixote" for number in range(10_000)}),
        413,
        "too many",
    ),
    "a field of 600 kB": (form(JPEG, PatientComments="Quixote" * 90_000), 413, "too large"),
    "six images where five are allowed": (form(*[JPEG] * 6), 413, "6 images"),
    "a body above the limit": (
        {"data": JPEG + bytes(LIMIT), "content_type": "image/jpeg"},
        413,
        f"{LIMIT} bytes",
    ),
}


@pytest.mark.parametrize(("request_", "status", "said"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_what_is_no_upload_is_refused(
    request_: dict[str, Any],
    status: int,
    said: str,
    client: FlaskClient,
    store: ScriptedServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    response = upload(client, **request_)
    problem = problem_of(response)
    assert problem["status"] == status
    assert said in str(problem)
    assert store.requests == []
    logged = "".join(capsys.readouterr())
    assert [value for value in PLANTED if value in response.text + logged] == []


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


PREFERENCES = {
    "alone": [("Prefer", "respond-async")],
    "in capitals": [("Prefer", "Respond-ASYNC")],
    "among others, with a parameter": [("Prefer", "wait=10, respond-async; x=y,handling=lenient")],
    "in a header of its own": [("Prefer", "wait=10"), ("Prefer", "respond-async")],
}


@pytest.mark.parametrize("headers", PREFERENCES.values(), ids=PREFERENCES)
def test_a_client_that_would_rather_not_wait_is_answered_from_the_queue(
    headers: list[tuple[str, str]], client: FlaskClient, store: ScriptedServer
) -> None:
    response = upload(client, **form(JPEG, PatientID="P-8"), headers=headers)
    assert response.status_code == 202
    assert response.headers["Preference-Applied"] == "respond-async"
    assert store.requests == []
    entry = client.get(response.headers["Location"]).get_json()
    assert (entry["state"], entry["attempts"], entry["history"]) == ("pending", 0, [])


@pytest.mark.parametrize("preference", ["wait=10", "respond-asynchronous", "x=respond-async", ""])
def test_another_preference_changes_nothing(preference: str, client: FlaskClient) -> None:
    response = upload(client, **form(JPEG), headers={"Prefer": preference})
    assert response.status_code == 201
    assert "Preference-Applied" not in response.headers


@pytest.mark.parametrize("answer", [unavailable(), LoseAnswer(), throttled(5), empty_200()])
def test_what_the_store_cant_take_now_is_queued_and_can_be_found_there(answer: Step) -> None:
    with ScriptedServer(answer) as server:
        client = client_for(server.dicomweb_url)
        response = post(client, JPEG, PatientName="Quixote")
    assert (response.status_code, response.mimetype) == (202, "application/json")
    assert not {"Retry-After", "Preference-Applied"} & set(response.headers.keys())
    told = only(response)
    assert (told["status"], told["outcome"]) == (202, "queued")
    assert told["queue"] == f"/v1/queue/{told['SOPInstanceUID']}" == response.headers["Location"]
    assert "RetrieveURL" not in told
    entry = client.get(told["queue"]).get_json()
    assert (entry["state"], entry["attempts"]) == ("pending", 1)
    assert entry["reason"] == told["reason"] == entry["history"][0]["reason"]
    assert "Quixote" not in response.text


def test_what_is_stored_at_a_later_try_leaves_the_queue() -> None:
    with ScriptedServer(unavailable(), stored()) as server:
        client = client_for(server.dicomweb_url)
        first, second = post(client, JPEG), post(client, JPEG)
    assert (first.status_code, second.status_code) == (202, 201)
    assert only(first)["SOPInstanceUID"] == only(second)["SOPInstanceUID"]
    assert client.get(first.headers["Location"]).status_code == 404


def test_a_store_that_wants_to_be_left_alone_gets_no_further_request() -> None:
    with ScriptedServer(throttled(300)) as server:
        client = client_for(server.dicomweb_url)
        answers = [post(client, make_jpeg(seed=seed)) for seed in range(3)]
        assert len(server.requests) == 1
    assert [answer.status_code for answer in answers] == [202, 202, 202]
    assert "left alone" in only(answers[2])["reason"]
    entries = client.get("/v1/queue").get_json()["entries"]
    assert [entry["attempts"] for entry in entries] == [1, 0, 0]


def test_what_the_store_refuses_is_kept_for_an_operator() -> None:
    with ScriptedServer(failed(0xA900, "no such class here")) as server:
        client = client_for(server.dicomweb_url)
        response = post(client, JPEG)
    problem = response.get_json()
    assert (response.status_code, response.mimetype) == (502, PROBLEM)
    assert problem["type"] == "urn:jpegstow:rejected-by-store"
    assert "Retry-After" not in response.headers
    entry = client.get(problem["queue"]).get_json()
    assert (entry["state"], entry["next_attempt"]) == ("dead", None)
    assert "no such class here" in entry["reason"] == problem["detail"]


def test_a_full_queue_takes_nothing_but_what_it_has(tmp_path: Path) -> None:
    with ScriptedServer(unavailable()) as server:
        given = {"DATA_DIR": str(tmp_path), "QUEUE_MAX_ENTRIES": "1"}
        client = client_for(server.dicomweb_url, **given)
        first, other, again = (post(client, make_jpeg(seed=seed)) for seed in (0, 1, 0))
    assert [answer.status_code for answer in (first, other, again)] == [202, 503, 202]
    assert other.mimetype == PROBLEM
    assert other.get_json()["type"] == "urn:jpegstow:queue-full"
    assert other.get_json()["where"] == "QUEUE_MAX_ENTRIES"
    assert int(other.headers["Retry-After"]) > 0
    assert "queue" not in other.get_json()
    assert client.get("/v1/queue").get_json()["totals"] == {"pending": 1, "leased": 0, "dead": 0}
    assert kept_files(tmp_path) == [only(first)["SOPInstanceUID"]]


def kept_files(data_dir: Path) -> list[str]:
    folders = [data_dir / "queue" / name for name in ("entries", "incoming")]
    return [path.name for folder in folders for path in folder.iterdir()]


def test_without_its_queue_nothing_is_acknowledged_that_isnt_stored(tmp_path: Path) -> None:
    with ScriptedServer(stored(), unavailable(), also={"GET": no_studies()}) as server:
        client = client_for(server.dicomweb_url, DATA_DIR=str(tmp_path))
        make_unusable(tmp_path)
        good, bad = post(client, JPEG), post(client, make_jpeg(seed=1))
        ready = client.get("/readyz")
    assert (good.status_code, bad.status_code, ready.status_code) == (201, 503, 503)
    assert bad.get_json()["type"] == "urn:jpegstow:queue-unusable"
    assert bad.get_json()["where"] == "RETRY_QUEUE"
    assert int(bad.headers["Retry-After"]) > 0
    assert ready.get_json()["status"] == "unavailable"
    assert "can't be written" in ready.get_json()["checks"]["retry queue"]
    assert kept_files(tmp_path) == []


def make_unusable(data_dir: Path) -> None:
    """Spoil a queue that nobody has used yet, even for root, whom no missing right stops."""
    index = data_dir / "queue" / "queue.sqlite"
    index.unlink()
    index.mkdir()


MIXED = {
    "the last can wait": (partial_202(0xA700), 202, "pending"),
    "the last is refused": (partial_202(0xA900), 502, "dead"),
}


@pytest.mark.parametrize(("answer", "status", "state"), MIXED.values(), ids=MIXED)
def test_images_of_one_request_fare_each_in_its_own_way(
    answer: Step, status: int, state: str
) -> None:
    with ScriptedServer(answer) as server:
        client = client_for(server.dicomweb_url)
        response = post(client, JPEG, png(), make_jpeg(seed=1))
    assert response.status_code == 207
    assert not {"Location", "Retry-After"} & set(response.headers.keys())
    first, second, third = response.get_json()["instances"]
    assert [one["status"] for one in (first, second, third)] == [201, 415, status]
    assert not {"queue"} & (first.keys() | second.keys())
    assert client.get(third["queue"]).get_json()["state"] == state
    assert [entry["id"] for entry in client.get("/v1/queue").get_json()["entries"]] == [
        third["SOPInstanceUID"]
    ]


def test_images_that_all_are_queued_are_told_so_one_by_one(client: FlaskClient) -> None:
    images = (make_jpeg(seed=1), make_jpeg(seed=2))
    response = upload(client, **form(*images), headers={"Prefer": "respond-async"})
    assert response.status_code == 207
    assert [one["outcome"] for one in response.get_json()["instances"]] == ["queued", "queued"]


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
        start.wait(10)
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


def test_unknown_paths_and_methods_are_problems_too(client: FlaskClient) -> None:
    nowhere, get = client.get("/Quixote"), client.get(UPLOAD)
    assert [problem_of(response)["status"] for response in (nowhere, get)] == [404, 405]
    assert "POST" in get.headers["Allow"]
    assert "Quixote" not in nowhere.text


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


@settings(max_examples=150, deadline=2000)
@given(
    start=st.integers(0, len(JPEG)),
    length=st.integers(0, 40),
    filling=st.binary(max_size=40),
)
def test_a_damaged_upload_is_stored_or_refused_but_never_a_500(
    client: FlaskClient, start: int, length: int, filling: bytes
) -> None:
    damaged = JPEG[:start] + filling + JPEG[start + length :]
    response = upload(client, data=damaged, content_type="image/jpeg")
    assert response.status_code in {201, 400, 413, 415, 422}
    if response.status_code != 201:
        problem_of(response)


@settings(max_examples=150, deadline=2000)
@given(
    fields=st.dictionaries(
        st.sampled_from(["PatientName", "PatientID", "StudyDate", "metadata", "Rows", "x"]),
        st.text() | st.from_regex(r"[\[{\"0-9:,}\]]*"),
    )
)
def test_any_text_in_a_field_is_taken_or_refused(
    client: FlaskClient, fields: dict[str, str]
) -> None:
    body = urlencode(fields, errors="replace")
    response = upload(client, query_string=body, data=JPEG, content_type="image/jpeg")
    assert response.status_code in {201, 400}
