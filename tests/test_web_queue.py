"""What the service answers of uploads that the store doesn't take, and what it keeps of them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from tests.jpegs import make_jpeg
from tests.peers import (
    LoseAnswer,
    Respond,
    ScriptedServer,
    Step,
    empty_200,
    failed,
    no_studies,
    partial_202,
    stored,
    throttled,
    unavailable,
)
from tests.serving import client_for, form, only, post, upload

JPEG = make_jpeg()
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
    return client_for(module_store.dicomweb_url)


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
    # One text for all of them, by which an operator finds them, with the cause in it.
    reasons = {only(answer)["reason"] for answer in answers[1:]}
    assert reasons == {"the store keeps failing, and is left alone: status 429"}
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
        response = post(client, JPEG, b"no picture", make_jpeg(seed=1))
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


LOUDNESS: dict[str, tuple[Step, str, str, str]] = {
    "refused": (failed(0xA900), "ERROR", "rejected", "status 409, failure reason A900H"),
    "not allowed": (Respond(401), "ERROR", "queued", "status 401"),
    "away": (unavailable(), "WARNING", "queued", "status 503"),
    "busy": (throttled(5), "WARNING", "queued", "status 429"),
    "stored": (stored(), "INFO", "stored", ""),
}


@pytest.mark.parametrize(
    ("answer", "severity", "outcome", "reason"), LOUDNESS.values(), ids=LOUDNESS
)
def test_what_only_an_operator_can_mend_is_loud_in_the_log(
    answer: Step, severity: str, outcome: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with ScriptedServer(answer) as server:
        response = post(client_for(server.dicomweb_url), JPEG, PatientName="Quixote")
    (text,) = capsys.readouterr().out.splitlines()
    line = json.loads(text)
    assert (line["severity"], line["outcome"], line.get("reason", "")) == (
        severity,
        outcome,
        reason,
    )
    told = response.get_json()
    told = told["instances"][0] if "instances" in told else told
    assert line["SOPInstanceUID"] == told["SOPInstanceUID"]
    assert "Quixote" not in text


def test_what_no_queue_takes_is_not_called_queued(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ScriptedServer(failed(0xA900)) as server:
        client = client_for(server.dicomweb_url, DATA_DIR=str(tmp_path))
        make_unusable(tmp_path)
        assert post(client, JPEG).status_code == 503
    line = json.loads(capsys.readouterr().out)
    assert (line["outcome"], "queue" in line["reason"]) == ("queueunusable", True)
