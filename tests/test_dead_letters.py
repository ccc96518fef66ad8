"""Dead letters, by Google's own emulator: what could not be kept comes to them, and poison doesn't.

Of three messages one can't be read from its bucket, one finds a full retry queue while the store is
away, and one is no picture. The first two are answered 503 for as long as the policy says. Then
what was wrong is mended, and the dead letters are pulled by one command, and pushed by another.
"""

import base64
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.archive_server import ArchiveServer
from tests.jpegs import make_jpeg
from tests.peers import BOUND, Respond, ScriptedServer, free_port
from tests.peers.buckets import Bucket, BucketServer
from tests.peers.pubsub import PubSub, Topic
from tests.processes import wait_until
from tests.pulling import Command, left
from tests.serving import SECRET, Serving

ATTEMPTS = 5  # the fewest that Pub/Sub takes
PATIENCE = 60.0  # seconds; the emulator needs some 15 for five attempts
NAME = "photo.jpg"
IN_BUCKET, BY_ITSELF, QUEUED = (make_jpeg(16, 16, seed=seed) for seed in range(3))
POISON = b"GIF89a no picture"


@dataclass(frozen=True)
class Road:
    """A service with a small retry queue, whose store and bucket aren't there yet.

    Attributes
    ----------
    settings
        What `jpegstow pull` is told as well.
    letters
        The dead-letter topic; `subscriptions` hold what has come to it.
    """

    pubsub: PubSub
    bucket: Bucket
    serving: Serving
    settings: dict[str, str]
    letters: Topic
    subscriptions: list[str]

    @property
    def push_url(self) -> str:
        """Where messages are pushed to."""
        return f"{self.serving.url}/v1/pubsub"

    def logged(self, message: str) -> list[dict[str, Any]]:
        """Return what the service has told of one kind."""
        whole, _, _ = self.serving.log.read_text().rpartition("\n")
        lines = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
        return [line for line in lines if line["message"] == message]

    def outcomes(self) -> list[str]:
        """Return what became of all that the service has acknowledged."""
        return [line["outcome"] for line in self.logged("message")]

    def states(self) -> list[str]:
        """Return the states of what is in the retry queue, in alphabetical order."""
        listed = requests.get(f"{self.serving.url}/v1/queue", timeout=BOUND).json()["entries"]
        return sorted(one["state"] for one in listed)

    def stored(self) -> list[str]:
        """Return the patients of all instances in the archive, in alphabetical order."""
        url, asked = f"{self.settings['DICOMWEB_URL']}/instances", {"includefield": "PatientID"}
        response = requests.get(url, params=asked, timeout=BOUND)
        found = response.json() if response.status_code == 200 else []
        return sorted(one["00100020"]["Value"][0] for one in found)


@dataclass(frozen=True)
class Failed:
    """What had happened when Pub/Sub gave up.

    Attributes
    ----------
    refusals
        Why, and with which status, the service has refused messages.
    letters
        What came to the dead-letter topic.
    """

    outcomes: list[str]
    refusals: Counter[tuple[str, int]]
    letters: list[dict[str, Any]]
    states: list[str]


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Road]:
    folder, bucket, port = tmp_path_factory.mktemp("letters"), Bucket(), free_port()
    with PubSub(folder) as pubsub, BucketServer(bucket) as buckets:
        settings = {
            "DICOMWEB_URL": f"http://127.0.0.1:{port}/dicomWeb",
            "BUCKET_ENDPOINT": buckets.url,
            "UID_NAMESPACE": SECRET,
        }
        given = {"PUSH_AUTH": "none", "WORKERS": "1", "RETRY_WORKERS": "0"}
        with Serving(folder / "data", **settings, **given, QUEUE_MAX_ENTRIES="2") as serving:
            letters = pubsub.topic()
            subscriptions = [letters.pull_from(), letters.pull_from()]
            yield Road(pubsub, bucket, serving, settings, letters, subscriptions)


@pytest.fixture(scope="module")
def failed(road: Road) -> Failed:
    """Publish poison, a picture that fills the queue, and two messages that can't be kept."""
    first, second = topics = road.pubsub.topic(), road.pubsub.topic()
    for topic in topics:
        topic.push_to(road.push_url, least_wait=1, dead_letters=road.letters, attempts=ATTEMPTS)
    first.publish(POISON, PatientID="poison")
    second.publish(QUEUED, PatientID="queued")
    wait_until(lambda: len(road.outcomes()) == 2)
    event = {"eventType": "OBJECT_FINALIZE", "bucketId": "not-yet", "objectId": NAME}
    generation = road.bucket.add(NAME, IN_BUCKET, PatientID="in a bucket")
    with ScriptedServer(Respond(204)) as witness:
        road.letters.push_to(witness.url)
        first.publish(b"", **event, objectGeneration=generation)
        second.publish(BY_ITSELF, PatientID="by itself")
        witness.wait_for(2, PATIENCE)
        letters = [json.loads(request.body)["message"] for request in witness.requests]
    refusals = Counter((one["reason"], one["status"]) for one in road.logged("request refused"))
    return Failed(road.outcomes(), refusals, letters, road.states())


def test_what_nothing_can_be_kept_of_comes_as_often_as_the_policy_says_and_is_a_dead_letter(
    failed: Failed,
) -> None:
    assert failed.refusals == {
        ("object-unavailable", 503): ATTEMPTS,
        ("queue-full", 503): ATTEMPTS,
    }
    data = {base64.b64decode(letter.get("data", "")) for letter in failed.letters}
    assert data == {b"", BY_ITSELF}
    counts = [
        one["attributes"]["CloudPubSubDeadLetterSourceDeliveryCount"] for one in failed.letters
    ]
    assert counts == [str(ATTEMPTS)] * 2


def test_poison_is_acknowledged_once_dead_in_the_retry_queue_and_no_dead_letter(
    failed: Failed,
) -> None:
    assert sorted(failed.outcomes) == ["dead", "queued"]
    assert failed.states == ["dead", "pending"]
    assert POISON not in {base64.b64decode(letter.get("data", "")) for letter in failed.letters}


@pytest.mark.usefixtures("failed")
def test_dead_letters_are_stored_once_when_they_are_pulled_or_pushed_after_what_was_wrong_is_mended(
    road: Road, tmp_path: Path
) -> None:
    pulled, pushed = road.subscriptions
    port = road.settings["DICOMWEB_URL"].rpartition(":")[2].partition("/")[0]
    road.bucket.name = "not-yet"
    with ArchiveServer(tmp_path / "store", int(port)):
        given = road.settings | road.pubsub.environment | {"DATA_DIR": str(tmp_path)}
        with Command(tmp_path / "pull.log", "pull", pulled, **given) as command:
            wait_until(lambda: command.output.count('"outcome": "stored"') == 2)
            assert command.stop() == 0
            assert command.output.endswith("2 acknowledged, 0 returned\n")
        assert road.stored() == ["by itself", "in a bucket"]
        push_to(road, pushed, pushEndpoint=road.push_url)
        wait_until(lambda: road.outcomes().count("stored") == 2)
        push_to(road, pushed)
        assert road.stored() == ["by itself", "in a bucket"]
    assert [left(road.pubsub, subscription) for subscription in road.subscriptions] == [[], []]


def push_to(road: Road, subscription: str, **config: str) -> None:
    """Let a subscription push, or by an empty configuration be pulled from."""
    road.pubsub.ask("POST", f"{subscription}:modifyPushConfig", {"pushConfig": config})
