"""The retry queue in a bucket with Google's own Pub/Sub emulator as its alarm clock."""

import base64
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from service.dicom.dataset import Instance
from service.dicom.outcome import Outcome, Stored, Unavailable
from service.errors import QueueUnusable
from service.gcp.envelope import Message
from service.gcp.objects import Buckets
from service.gcp.queue import Alarm, BucketQueue, Records, Redelivery
from service.gcp.queue.bucket_queue import Ring
from service.retry import LEASE, Filter, Limits
from tests.jpegs import make_jpeg
from tests.peers import (
    BOUND,
    Respond,
    ScriptedServer,
    failed,
    instances_in,
    stored,
    throttled,
    unavailable,
)
from tests.peers.buckets import Bucket, BucketServer
from tests.peers.pubsub import PubSub, Topic
from tests.processes import wait_until
from tests.pulling import Command, left
from tests.queues import (
    DOWN,
    NOW,
    REFUSED,
    WEEK,
    Bell,
    Shelf,
    attempt,
    everything,
    numbered,
    put,
    uid_of,
)
from tests.serving import Serving
from tests.test_push import envelope

JPEG = make_jpeg(16, 16)
BUCKET = "gs://pictures"
RETRY = "/v1/retry"
LIMITS = Limits(1000, 1 << 30)


@pytest.fixture(scope="module")
def pubsub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PubSub]:
    with PubSub(tmp_path_factory.mktemp("pubsub")) as running:
        yield running


@dataclass
class Cloud:
    """A service without a disk of its own: a bucket, a topic, and the store of a test."""

    pubsub: PubSub
    topic: Topic
    bucket: BucketServer
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return self.pubsub.environment | {
            "RETRY_QUEUE": self.place,
            "BUCKET_ENDPOINT": self.bucket.url,
            "READ_BACK": "never",
        }

    @property
    def place(self) -> str:
        project, _, topic = self.topic.name.removeprefix("projects/").split("/")
        return f"pubsub://{project}/{topic}?bucket={BUCKET}/queue"

    def serving(self, store: ScriptedServer) -> Serving:
        given = self.environment | {"PUSH_AUTH": "none", "RETRY_WORKERS": "0"}
        return Serving(self.folder / "data", DICOMWEB_URL=store.url, **given)

    def queue(self, ring: Ring | None = None) -> BucketQueue:
        records = Records(Buckets(self.bucket.url), BUCKET, "queue")
        return BucketQueue(records, ring or Bell(), LIMITS)

    def entries(self) -> list[dict[str, str]]:
        page = self.queue().list(Filter(), 100)
        return [{"id": one.sop_instance_uid, "state": one.state} for one in page.entries]


@pytest.fixture
def cloud(pubsub: PubSub, tmp_path: Path) -> Iterator[Cloud]:
    with BucketServer(Bucket()) as bucket:
        yield Cloud(pubsub, pubsub.topic(), bucket, tmp_path)


def of_instance(store: ScriptedServer, name: str) -> int:
    """Count how often an instance was sent."""
    return sum(
        any(uid == name for _, uid in instances_in(request))
        for request in list(store.requests)
        if request.method == "POST"
    )


def uploaded(serving: Serving) -> str:
    response = serving.post(JPEG, PatientID="Zebedee-7")
    assert response.status_code == 202
    (instance,) = response.json()["instances"]
    return str(instance["SOPInstanceUID"])


def test_what_the_store_did_not_take_is_pushed_until_it_does(cloud: Cloud) -> None:
    """No process of ours watches the queue: Pub/Sub's deliveries alone drain it."""
    with (
        ScriptedServer(*[unavailable()] * 3, stored()) as store,
        cloud.serving(store) as serving,
    ):
        cloud.topic.push_to(serving.url + RETRY, least_wait=1)
        name = uploaded(serving)
        shown = requests.get(f"{serving.url}/v1/queue/{name}", timeout=BOUND)
        assert shown.status_code in (200, 404)  # it may be stored by now
        wait_until(lambda: cloud.entries() == [])
        assert of_instance(store, name) == 4
        assert cloud.bucket.requests
    assert not (cloud.folder / "data" / "queue").exists()


def test_what_is_refused_for_good_is_dead_and_its_alarm_is_silenced(cloud: Cloud) -> None:
    with (
        ScriptedServer(unavailable(), failed()) as store,
        cloud.serving(store) as serving,
    ):
        beside = cloud.topic.pull_from()  # shows that there was one alarm, and no second
        cloud.topic.push_to(serving.url + RETRY, least_wait=1)
        name = uploaded(serving)
        wait_until(lambda: [one["state"] for one in cloud.entries()] == ["dead"])
        assert [one["data"] for one in left(cloud.pubsub, beside)] != []
        assert requests.post(f"{serving.url}/v1/queue/{name}/retry", timeout=BOUND).ok
        wait_until(lambda: of_instance(store, name) == 3)
        wait_until(lambda: [one["state"] for one in cloud.entries()] == ["dead"])
        assert len(left(cloud.pubsub, beside)) == 1


def test_a_worker_may_pull_the_alarms_instead(cloud: Cloud) -> None:
    subscription = cloud.topic.pull_from(retryPolicy={"minimumBackoff": "1s"})
    place = f"{cloud.place}&subscription={subscription.rpartition('/')[2]}"
    with ScriptedServer(*[unavailable()] * 2, stored()) as store:
        with cloud.serving(store) as serving:
            name = uploaded(serving)
        assert cloud.entries() == [{"id": name, "state": "pending"}]
        given = cloud.environment | {"RETRY_QUEUE": place, "DICOMWEB_URL": store.url}
        with Command(cloud.folder / "retry.log", "retry", **given) as command:
            wait_until(lambda: cloud.entries() == [])
            assert command.stop() == 0
            assert "1 at their end" in command.output
        assert of_instance(store, name) == 3


def test_a_worker_without_a_subscription_looks_through_the_bucket(cloud: Cloud) -> None:
    with ScriptedServer(unavailable(), stored()) as store:
        with cloud.serving(store) as serving:
            name = uploaded(serving)
        given = cloud.environment | {"DICOMWEB_URL": store.url}
        with Command(cloud.folder / "retry.log", "retry", **given) as command:
            wait_until(lambda: cloud.entries() == [])
            assert command.stop() == 0
        assert of_instance(store, name) == 2


def test_an_alarm_that_went_to_the_dead_letters_is_set_again_by_a_sweep(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = cloud.pubsub.topic()
    kept = letters.pull_from()
    with ScriptedServer(unavailable()) as store, cloud.serving(store) as serving:
        cloud.topic.push_to(serving.url + RETRY, least_wait=1, dead_letters=letters, attempts=5)
        name = uploaded(serving)
        wait_until(lambda: left(cloud.pubsub, kept) != [], 90.0)
        assert cloud.entries() == [{"id": name, "state": "pending"}]
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", cloud.pubsub.host)
    with ScriptedServer(stored()) as store, cloud.serving(store) as serving:
        cloud.topic.push_to(serving.url + RETRY, least_wait=1)
        queue = cloud.queue(Alarm(cloud.topic.name))
        heard = queue.show(name).history[-1].at
        assert queue.sweep(heard + 59, 60.0).rearmed == 0
        assert queue.sweep(heard + 61, 60.0).rearmed == 1
        queue.close()
        wait_until(lambda: cloud.entries() == [])
        assert of_instance(store, name) == 1


def test_sweeping_is_a_command(cloud: Cloud) -> None:
    name = put(cloud.queue(), numbered())  # ages ago, by its moments
    alarms = cloud.topic.pull_from()
    with Command(cloud.folder / "log", "queue", "sweep", "--json", **cloud.environment) as command:
        assert command.process.wait(BOUND) == 0
    assert json.loads(command.output) == {"rearmed": 1, "adopted": 0, "removed": 0}
    (message,) = left(cloud.pubsub, alarms)
    assert base64.b64decode(message["data"]).decode() == name


class Rung:
    """What one delivery brings about, with a store that is a list and time as an argument."""

    def __init__(self, server: BucketServer, answer: object, now: float = NOW) -> None:
        self.queue = BucketQueue(Records(Buckets(server.url), BUCKET, ""), Bell(), LIMITS)
        self.shelf = Shelf(answer)  # type: ignore[arg-type]
        self.now = now
        self.redelivery = Redelivery(
            self.queue, self.shelf, WEEK, clock=lambda: self.now, chance=lambda: 1.0
        )

    def deliver(self, name: str) -> bool:
        """Tell whether the alarm is at its end."""
        return self.redelivery.push(envelope(name.encode()), {"content-type": "application/json"})


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
def server(bucket: Bucket) -> Iterator[BucketServer]:
    with BucketServer(bucket) as server:
        yield server


def test_an_alarm_of_what_is_gone_or_dead_is_at_its_end(server: BucketServer) -> None:
    rung = Rung(server, Stored())
    assert rung.deliver("2.25.1")
    assert rung.deliver(put(rung.queue, numbered(), attempt(REFUSED)))
    assert rung.shelf.asked == []


def test_an_alarm_of_what_a_newer_version_has_written_comes_again(
    server: BucketServer, bucket: Bucket
) -> None:
    """While two versions run, either gets the other's alarms; to take one for done loses it."""
    rung = Rung(server, Stored())
    name = put(rung.queue, numbered())
    (record,) = [one for one in bucket.objects if "records/" in one]
    newer = bucket.objects[record].data.replace(b'"version":1', b'"version":2')
    bucket.add(record, newer)
    assert not rung.deliver(name)
    assert bucket.objects[record].data == newer
    assert rung.shelf.asked == []


def test_an_alarm_before_its_time_asks_no_store_and_comes_again(server: BucketServer) -> None:
    rung = Rung(server, Stored())
    name = put(rung.queue, numbered(), attempt(Unavailable("busy", retry_after=30.0, status=429)))
    assert not rung.deliver(name)
    assert rung.shelf.asked == []
    rung.now += 30.0
    assert rung.deliver(name)
    assert rung.shelf.asked == [name]
    assert rung.queue.totals().entries == {"pending": 0, "leased": 0, "dead": 0}


def test_two_deliveries_at_once_send_once(server: BucketServer) -> None:
    rung = Rung(server, Stored())
    name = put(rung.queue, numbered())
    assert rung.queue.lease_entry(name, NOW)
    assert not rung.deliver(name)
    assert rung.shelf.asked == []
    rung.now += LEASE  # who held it is dead
    assert rung.deliver(name)
    assert rung.shelf.asked == [name]


class Overtaken(Shelf):
    """A store that answers so late that the alarm has come a second time, and been answered."""

    rung: Rung
    second: Outcome

    def store(
        self, instances: Sequence[Instance], within: float | None = None
    ) -> dict[str, Outcome]:
        """Let the lease run out, and another delivery come in between."""
        (name,) = outcomes = super().store(instances, within)
        if len(self.asked) == 1:
            self.rung.now += LEASE
            late, self.answer = self.answer, self.second
            self.rung.deliver(name)
            self.answer = late
        return outcomes


@pytest.mark.parametrize("second", [Stored(), DOWN, REFUSED], ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("first", [Stored(), DOWN, REFUSED], ids=lambda one: type(one).__name__)
def test_a_delivery_that_outlives_its_lease_undoes_nothing_of_the_next(
    server: BucketServer, first: Outcome, second: Outcome
) -> None:
    """Both send the same instance; what one of them has stored is at its end."""
    rung = Rung(server, first)
    rung.redelivery._store = store = Overtaken(first)
    store.rung, store.second = rung, second
    name = put(rung.queue, numbered())
    rung.deliver(name)
    assert store.asked == [name, name]
    left = [entry.state for entry in everything(rung.queue)]
    if Stored() in (first, second):
        assert left == []
        assert server_objects(server) == []
    else:  # what came first is too late to say anything
        assert left == ["dead" if second is REFUSED else "pending"]


def server_objects(server: BucketServer) -> list[str]:
    return [one.name for one in Buckets(server.url).list(BUCKET)]


def test_what_is_too_old_is_dead_and_its_alarm_at_its_end(server: BucketServer) -> None:
    rung = Rung(server, Unavailable("down", status=503))
    name = put(rung.queue, numbered())
    for _ in range(9):
        assert not rung.deliver(name)
        rung.now += 1000.0
    rung.now += WEEK
    assert rung.deliver(name)
    assert rung.queue.show(name).state == "dead"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        envelope(b"no/id"),
        envelope(b"\xff\xfe"),
        envelope(b"a" * 200),
        envelope(),
        b'{"message": {"data": "%"}}',
    ],
)
def test_what_is_no_alarm_is_acknowledged_and_told(
    server: BucketServer, body: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    rung = Rung(server, Stored())
    assert rung.redelivery.push(body, {"content-type": "application/json"})
    assert "message ignored" in capsys.readouterr().out
    assert rung.shelf.asked == []


def test_a_bucket_that_fails_lets_the_alarm_come_again() -> None:
    with BucketServer(Respond(403)) as broken:
        rung = Rung(broken, Stored())
        with pytest.raises(QueueUnusable):
            rung.redelivery.take(Message(uid_of(numbered()).encode(), {}))


def test_retry_after_is_honoured_over_the_deliveries(cloud: Cloud) -> None:
    """A delivery costs the store nothing while it wants to be left alone."""
    with ScriptedServer(throttled(4), stored()) as store, cloud.serving(store) as serving:
        cloud.topic.push_to(serving.url + RETRY, least_wait=0)
        name = uploaded(serving)
        wait_until(lambda: cloud.entries() == [])
        assert of_instance(store, name) == 2


def test_an_alarm_without_a_token_is_refused(cloud: Cloud) -> None:
    with ScriptedServer(stored()) as store:
        serving = Serving(
            cloud.folder / "data",
            DICOMWEB_URL=store.url,
            **cloud.environment,
            RETRY_WORKERS="0",
            PUSH_AUDIENCE="https://jpegstow.example",
            PUSH_SERVICE_ACCOUNT="push@p.iam.example",
        )
        with serving:
            name = put(cloud.queue(), numbered())
            refused = requests.post(serving.url + RETRY, envelope(name.encode()), timeout=BOUND)
            assert refused.status_code == 401
            assert store.requests == []


def test_a_queue_in_a_folder_has_no_alarms(tmp_path: Path) -> None:
    with (
        ScriptedServer(stored()) as store,
        Serving(tmp_path / "data", DICOMWEB_URL=store.url, PUSH_AUTH="none") as serving,
    ):
        assert requests.post(serving.url + RETRY, b"", timeout=BOUND).status_code == 404


def test_a_topic_that_is_not_there_is_told(pubsub: PubSub, server: BucketServer) -> None:
    environment = pubsub.environment | {
        "RETRY_QUEUE": f"pubsub://jpegstow-tests/none-such?bucket={BUCKET}",
        "BUCKET_ENDPOINT": server.url,
    }
    command = Command(Path(str(pubsub._log) + ".doctor"), "doctor", "--json", **environment)
    with command:
        assert command.process.wait(BOUND) == 1
    found = {one["check"]: one["wrong"] for one in json.loads(command.output)}
    assert "topic" in found["retry queue in a bucket"]
    assert "NotFound" in found["retry queue in a bucket"]


def test_many_alarms_make_no_threads(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for each message is thousands when a queue is swept after an outage."""
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", cloud.pubsub.host)
    beside = cloud.topic.pull_from()
    alarm = Alarm(cloud.topic.name)
    names = [f"2.25.{number}" for number in range(1500)]
    started: set[str] = set()
    threading.setprofile(lambda *_: started.add(threading.current_thread().name))
    try:
        alarm.set(names)
    finally:
        threading.setprofile(None)
    alarm.close()
    assert started == set()
    received: set[str] = set()

    def all_received() -> bool:
        messages = left(cloud.pubsub, beside)
        received.update(base64.b64decode(one["data"]).decode() for one in messages)
        return received == set(names)

    wait_until(all_received)


def test_a_pubsub_that_says_nothing_is_given_up_and_leaves_no_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An upload waits for its alarm, and in an outage of Pub/Sub so do many."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", f"127.0.0.1:{mute.getsockname()[1]}")
        alarm = Alarm("projects/jpegstow-tests/topics/none", patience=0.5)
        before = set(threading.enumerate())
        began = time.monotonic()
        for _ in range(2):
            with pytest.raises(QueueUnusable, match="the topic can be reached"):
                alarm.set(["2.25.1"])
        assert "can't be used" in alarm.missing()  # whoever asks for readiness waits for it
        assert time.monotonic() - began < BOUND
        assert set(threading.enumerate()) <= before
        alarm.close()


def test_a_subscription_that_cannot_be_pulled_is_told_by_the_doctor(
    cloud: Cloud, tmp_path: Path
) -> None:
    pulled = cloud.topic.pull_from().rpartition("/")[2]
    pushed = cloud.topic.push_to("http://127.0.0.1:9/v1/retry").rpartition("/")[2]
    told = {}
    for name in (pulled, pushed, "none-such"):
        given = cloud.environment | {"RETRY_QUEUE": f"{cloud.place}&subscription={name}"}
        with Command(tmp_path / name, "doctor", "--json", **given) as command:
            command.process.wait(BOUND)
        found = {one["check"]: one["wrong"] for one in json.loads(command.output)}
        assert found["retry queue in a bucket"] == ""
        told[name] = found["retry subscription"]
    assert told[pulled] == ""
    assert "pushes" in told[pushed]
    assert "NotFound" in told["none-such"]
