"""Messages that are pushed: over HTTP, and from Google's own emulator to the archive."""

import base64
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import pytest
import requests
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.describing import CAPTURE
from tests.jpegs import make_jpeg
from tests.peers import (
    BOUND,
    Respond,
    ScriptedServer,
    instances_in,
    refused_port,
    stored,
    unavailable,
)
from tests.peers.buckets import Bucket, BucketServer
from tests.peers.pubsub import PubSub, Topic, require_emulator
from tests.processes import kill, wait_until
from tests.serving import COMMAND, Serving, client_for
from tests.streams import behind_soi, segment
from tests.tokens import AUDIENCE, EMAIL, bearer, key_server

JPEG = make_jpeg(16, 16)
PUSH = "/v1/pubsub"
NAME = "Zebedee/photo.jpg"
TEN_MB = 10_000_000  # bytes, the largest message there is
POISON = b"GIF89a no picture"


def envelope(data: bytes = b"", **attributes: str) -> bytes:
    """Return what Pub/Sub pushes."""
    message: dict[str, Any] = {"messageId": "7", "publishTime": "2026-03-14T15:09:26.535Z"}
    message |= {"data": base64.b64encode(data).decode()} if data else {}
    message |= {"attributes": attributes} if attributes else {}
    return json.dumps({"message": message, "subscription": "projects/p/subscriptions/s"}).encode()


def notified(name: str = NAME, event: str = "OBJECT_FINALIZE") -> dict[str, Any]:
    return {"eventType": event, "bucketId": "pictures", "objectId": name}


def push(client: FlaskClient, body: bytes, **headers: str) -> TestResponse:
    said = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(PUSH, data=body, content_type="application/json", headers=said)


def reason_of(response: TestResponse) -> str:
    """Return the short name of a problem, which nobody has to know more of."""
    assert response.mimetype == "application/problem+json"
    return str(response.get_json()["type"]).rpartition(":")[2]


def dead(client: FlaskClient) -> list[dict[str, Any]]:
    return list(client.get("/v1/queue?state=dead").get_json()["entries"])


@pytest.fixture
def store() -> Iterator[ScriptedServer]:
    with ScriptedServer(stored()) as server:
        yield server


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
def client(store: ScriptedServer, bucket: Bucket) -> Iterator[FlaskClient]:
    with BucketServer(bucket) as buckets:
        yield client_for(store.dicomweb_url, PUSH_AUTH="none", BUCKET_ENDPOINT=buckets.url)


# What is answered


def test_a_pushed_picture_is_stored_and_acknowledged(
    client: FlaskClient, store: ScriptedServer
) -> None:
    response = push(client, envelope(JPEG, PatientID="P-7"))
    assert (response.status_code, response.data) == (204, b"")
    (request,) = store.requests
    assert len(instances_in(request)) == 1


def test_an_unwrapped_picture_is_stored_with_its_headers(
    client: FlaskClient, store: ScriptedServer
) -> None:
    headers = {"patientname": "Müller".encode().decode("latin-1"), "Priority": "u=1"}
    form = "application/x-www-form-urlencoded"
    assert client.post(PUSH, data=JPEG, content_type=form, headers=headers).status_code == 204
    assert "Müller".encode() in store.requests[0].body


def test_a_new_object_is_stored_and_acknowledged(
    client: FlaskClient, store: ScriptedServer, bucket: Bucket
) -> None:
    bucket.add(NAME, JPEG)
    assert push(client, envelope(**notified())).status_code == 204
    assert len(store.requests) == 1


def test_an_event_of_a_new_object_is_stored_and_acknowledged(
    client: FlaskClient, store: ScriptedServer, bucket: Bucket
) -> None:
    resource = {"bucket": "pictures", "name": NAME, "generation": bucket.add(NAME, JPEG)}
    kind = "google.cloud.storage.object.v1.finalized"
    response = push(client, json.dumps(resource).encode(), ce_type=kind, ce_id="1")
    assert response.status_code == 204
    assert len(store.requests) == 1


@pytest.mark.parametrize("event", ["OBJECT_DELETE", "OBJECT_METADATA_UPDATE"])
def test_what_is_no_new_object_is_acknowledged(
    client: FlaskClient, store: ScriptedServer, event: str
) -> None:
    assert push(client, envelope(**notified(event=event))).status_code == 204
    assert (store.requests, dead(client)) == ([], [])


def test_what_the_store_does_not_take_is_queued_and_acknowledged() -> None:
    with ScriptedServer(unavailable()) as store:
        client = client_for(store.dicomweb_url, PUSH_AUTH="none")
        assert push(client, envelope(JPEG)).status_code == 204
        totals = client.get("/v1/queue").get_json()["totals"]
    assert totals == {"pending": 1, "leased": 0, "dead": 0}


THOUSAND: dict[str, Any] = {f"unknown{number}": "Dulcinea" for number in range(1000)}
MALFORMED = {
    "nothing": b"",
    "no data": envelope(),
    "not base64": b'{"message": {"data": "%%%"}}',
    "not JSON": b'{"message": ',
    "JSON that is no object": b"[1, 2]",
    "an object that is no envelope": b"{}",
    "not a JPEG": envelope(POISON),
    "no such object": envelope(**notified("gone.jpg")),
    "a thousand attributes": envelope(JPEG, **THOUSAND),
    "ten megabytes": envelope(bytes(TEN_MB)),
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_poison_is_acknowledged_and_dead_once(client: FlaskClient, body: bytes) -> None:
    for _ in range(2):
        assert push(client, body).status_code == 204
    (entry,) = dead(client)
    assert entry["reason"]
    assert "Dulcinea" not in json.dumps(entry)


def test_a_message_of_ten_megabytes_is_stored_whatever_uploads_are_allowed(
    store: ScriptedServer,
) -> None:
    client = client_for(store.dicomweb_url, PUSH_AUTH="none", MAX_UPLOAD_BYTES="2000000")
    comments = [segment(0xFE, bytes(65_533))] * ((TEN_MB - len(JPEG)) // 65_537)
    assert push(client, envelope(behind_soi(JPEG, *comments))).status_code == 204
    assert len(store.requests) == 1


def test_what_is_dead_can_be_seen_mended_and_dropped(
    client: FlaskClient, store: ScriptedServer
) -> None:
    push(client, envelope(JPEG, PatientID="Dulcinea" * 9, StudyID="S-1"))
    (listed,) = dead(client)
    path = f"/v1/queue/{listed['id']}"
    told = client.get(path).get_json()
    assert "PatientID" in told["reason"]
    assert (told["SOPInstanceUID"], told["instance"], told["source"]) == ("", None, "pubsub")
    assert list(told["attributes"]) == ["00200010"]
    assert client.get(f"{path}/image").data == JPEG
    better = {"attributes": {"PatientID": "P-7"}, "template": CAPTURE}
    mended = client.post(f"{path}/retry", json=better)
    assert (mended.status_code, mended.get_json()["state"]) == (202, "pending")
    assert client.get(path).status_code == 404
    assert client.delete(mended.headers["Location"]).status_code == 204
    assert store.requests == []


PAGES = {
    "of another site": {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
    "of another site in an old browser": {"Origin": "https://evil.example"},
    "of a name that leads here": {"Origin": "http://evil.example", "Host": "evil.example"},
    "in a sandbox": {"Origin": "null"},
}


@pytest.mark.parametrize("headers", PAGES.values(), ids=PAGES)
def test_no_page_pushes_where_anybody_may(
    headers: dict[str, str], client: FlaskClient, store: ScriptedServer
) -> None:
    body = envelope(JPEG, PatientID="P-7")
    answer = client.post(PUSH, data=body, content_type="text/plain", headers=headers)
    assert (answer.status_code, reason_of(answer)) == (403, "cross-site")
    assert store.requests == []
    assert push(client, body).status_code == 204


def test_a_body_that_is_cut_off_is_refused_and_comes_again(client: FlaskClient) -> None:
    body = envelope(JPEG)
    told = {"CONTENT_LENGTH": str(len(body)), "wsgi.input_terminated": True}
    response = client.post(PUSH, input_stream=BytesIO(body[:-9]), environ_overrides=told)
    assert (response.status_code, reason_of(response)) == (400, "cut-off")
    assert dead(client) == []


@pytest.mark.parametrize(
    "answer", [Respond(403, {}, b"<Error><Code>AccessDenied</Code></Error>"), None]
)
def test_a_message_whose_bucket_can_not_be_read_comes_again(
    store: ScriptedServer, answer: Respond | None
) -> None:
    with BucketServer(answer or unavailable()) as server, refused_port() as port:
        url = server.url if answer else f"http://127.0.0.1:{port}"
        client = client_for(store.dicomweb_url, PUSH_AUTH="none", BUCKET_ENDPOINT=url)
        response = push(client, envelope(**notified()))
    assert response.status_code == 503
    assert "Retry-After" in response.headers
    assert "Zebedee" not in response.text
    assert dead(client) == []


@pytest.mark.parametrize("data", [JPEG, POISON])
def test_a_message_that_a_full_queue_can_not_keep_comes_again(data: bytes) -> None:
    with ScriptedServer(unavailable()) as store:
        client = client_for(store.dicomweb_url, PUSH_AUTH="none", QUEUE_MAX_ENTRIES="1")
        push(client, envelope(make_jpeg(16, 16, seed=1)))
        response = push(client, envelope(data))
    assert (response.status_code, reason_of(response)) == (503, "queue-full")


def test_the_same_message_again_is_the_same_instance(
    client: FlaskClient, store: ScriptedServer
) -> None:
    for _ in range(3):
        assert push(client, envelope(JPEG, PatientID="P-7")).status_code == 204
    assert len({*map(tuple, map(instances_in, store.requests))}) == 1


# Who pushes


@pytest.fixture
def guarded(store: ScriptedServer) -> Iterator[FlaskClient]:
    """A client of a service that asks for tokens."""
    with key_server() as keys:
        said = {"PUSH_AUDIENCE": AUDIENCE, "PUSH_SERVICE_ACCOUNT": EMAIL}
        yield client_for(store.dicomweb_url, PUSH_KEYS_URL=keys.url, **said)


def test_a_push_with_a_good_token_is_taken(guarded: FlaskClient, store: ScriptedServer) -> None:
    assert push(guarded, envelope(JPEG), Authorization=bearer()).status_code == 204
    assert len(store.requests) == 1


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("", 401),
        ("Basic YTpi", 401),
        ("Bearer a.b.c", 401),
        (bearer(aud="https://elsewhere.example"), 403),
        (bearer("another key"), 401),
        (bearer(exp=1), 401),
        (bearer(email="mallory@elsewhere.example"), 403),
        (bearer(email_verified=False), 403),
    ],
    ids=[
        "none",
        "another scheme",
        "no token",
        "another audience",
        "another key",
        "expired",
        "another account",
        "not verified",
    ],
)
@pytest.mark.parametrize("data", [JPEG, POISON], ids=["picture", "poison"])
def test_a_push_by_anybody_else_does_nothing(
    guarded: FlaskClient, store: ScriptedServer, authorization: str, status: int, data: bytes
) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    response = push(guarded, envelope(data), **headers)
    assert response.status_code == status
    assert (store.requests, dead(guarded)) == ([], [])


# From end to end


@dataclass(frozen=True)
class Road:
    """The emulator, a bucket, and the service with its embedded archive."""

    pubsub: PubSub
    bucket: Bucket
    serving: Serving
    subscriptions: list[str] = field(default_factory=list)

    def topic(self, *, wrapped: bool = True) -> Topic:
        """Make a topic whose messages are pushed to the service."""
        topic = self.pubsub.topic()
        url = self.serving.url + PUSH
        self.subscriptions.append(topic.push_to(url, wrapped=wrapped, least_wait=1))
        return topic

    def close(self) -> None:
        """Let nothing more come of what was published."""
        while self.subscriptions:
            self.pubsub.ask("DELETE", self.subscriptions.pop())

    def ended(self, count: int) -> list[dict[str, Any]]:
        """Return what the log tells of messages once so many have come to their end."""
        wait_until(lambda: len(self._ended()) >= count)
        return self._ended()

    def _ended(self) -> list[dict[str, Any]]:
        whole, _, _ = self.serving.log.read_text().rpartition("\n")
        told = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
        return [line for line in told if line["message"] == "message"]

    def stored(self, **said: str) -> list[str]:
        """Return the UIDs of the instances in the archive of which that is said."""
        url = f"{self.serving.archive_url}/instances"
        response = requests.get(url, params=said, timeout=BOUND)
        found = response.json() if response.status_code == 200 else []
        return [instance["00080018"]["Value"][0] for instance in found]

    def queued(self) -> dict[str, int]:
        """Count the retry queue's entries by their state."""
        queue = requests.get(f"{self.serving.url}/v1/queue", timeout=BOUND).json()
        return dict(queue["totals"])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Road]:
    folder, bucket = tmp_path_factory.mktemp("road"), Bucket()
    with PubSub(folder) as pubsub, BucketServer(bucket) as buckets:
        said = {"PUSH_AUTH": "none", "BUCKET_ENDPOINT": buckets.url, "WORKERS": "1"}
        with Serving(folder / "data", **said) as serving:
            yield Road(pubsub, bucket, serving)


@pytest.fixture
def road(running: Road) -> Iterator[Road]:
    """The road, with a log in which nothing stands yet, and nothing that waits."""
    assert running.queued() == EMPTY
    running.serving.log.write_bytes(b"")  # its writers append
    yield running
    running.close()


EMPTY = {"pending": 0, "leased": 0, "dead": 0}


IN_JSON = json.dumps({"image": base64.b64encode(JPEG).decode()}).encode()


@pytest.mark.parametrize(
    ("form", "data"), [("wrapped", JPEG), ("wrapped", IN_JSON), ("unwrapped", IN_JSON)]
)
def test_a_published_picture_arrives_in_the_archive(road: Road, form: str, data: bytes) -> None:
    name = f"Müller^{form}^{len(data)}^日本"
    road.topic(wrapped=form == "wrapped").publish(data, PatientID="P-7", PatientName=name)
    (ended,) = road.ended(1)
    assert ended["outcome"] == "stored"
    assert road.stored(PatientName=name) == [ended["SOPInstanceUID"]]


@pytest.mark.parametrize("form", ["wrapped", "unwrapped"])
def test_the_object_of_a_notification_arrives_in_the_archive(road: Road, form: str) -> None:
    patient = f"notified-{form}"
    generation = road.bucket.add(f"{patient}.jpg", JPEG, PatientID=patient)
    said = notified(f"{patient}.jpg") | {"objectGeneration": generation}
    road.topic(wrapped=form == "wrapped").publish(b"{}", **said)
    (ended,) = road.ended(1)
    assert (ended["outcome"], ended["source"]) == ("stored", "gs://pictures")
    assert road.stored(PatientID=patient) == [ended["SOPInstanceUID"]]


def test_the_same_message_three_times_is_one_instance(road: Road) -> None:
    topic = road.topic()
    for _ in range(3):
        topic.publish(JPEG, PatientID="again")
    ended = road.ended(3)
    (stored,) = road.stored(PatientID="again")
    assert [one["SOPInstanceUID"] for one in ended] == [stored] * 3


def test_while_the_archive_is_away_pictures_are_queued_and_then_stored(road: Road) -> None:
    supervisor = road.serving.process.pid
    os.kill(supervisor, signal.SIGSTOP)  # else it would start the archive again at once
    try:
        kill(road.serving.running(b"service.wsgi:archive()"))
        road.topic().publish(JPEG, PatientID="later")
        (ended,) = road.ended(1)
        assert ended["outcome"] == "queued"
        totals = road.queued()
        assert totals["pending"] + totals["leased"] == 1  # it may be tried again already
        assert totals["dead"] == 0
    finally:
        os.kill(supervisor, signal.SIGCONT)
    wait_until(lambda: road.queued() == EMPTY)
    assert len(road.ended(1)) == 1  # it was acknowledged, and never came again
    assert road.stored(PatientID="later") == [ended["SOPInstanceUID"]]


def test_poison_is_acknowledged_once_and_mended(road: Road) -> None:
    topic = road.topic()
    with ScriptedServer(unavailable()) as refusing:
        topic.push_to(refusing.url, least_wait=1)
        topic.publish(JPEG, PatientID="mended" * 11, AccessionNumber="A-1")
        refusing.wait_for(3)  # whoever doesn't acknowledge has it again and again
    (ended,) = road.ended(1)
    assert (ended["outcome"], ended["reason"]) == ("dead", "bad-attribute")
    queue = requests.get(f"{road.serving.url}/v1/queue?state=dead", timeout=BOUND).json()
    (entry,) = queue["entries"]
    command = [COMMAND, "queue", "retry", entry["id"], "--set", "PatientID=mended"]
    environment = {"PATH": os.environ["PATH"], "DATA_DIR": str(road.serving.data_dir)}
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=BOUND)
    wait_until(lambda: road.queued() == EMPTY)
    assert len(road.stored(PatientID="mended")) == 1


def test_a_message_that_nothing_can_be_kept_of_comes_again(road: Road) -> None:
    name = "late.jpg"
    generation = road.bucket.add(name, JPEG, PatientID="late")
    said = notified(name) | {"bucketId": "not-yet", "objectGeneration": generation}
    road.topic().publish(b"", **said)
    wait_until(lambda: road.serving.log.read_text().count("object-unavailable") >= 2)
    assert (road.queued(), road.stored(PatientID="late")) == (EMPTY, [])
    road.bucket.name = "not-yet"
    try:
        (ended,) = road.ended(1)
    finally:
        road.bucket.name = "pictures"
    assert road.stored(PatientID="late") == [ended["SOPInstanceUID"]]


@pytest.mark.parametrize(
    ("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)]
)
def test_without_java_the_emulator_is_asked_for_where_ci_is_set(
    monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="isn't installed: apt-get install"):
        require_emulator()
