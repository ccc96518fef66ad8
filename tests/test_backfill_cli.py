"""`jpegstow backfill`: from a bucket to a topic, and on from where it was killed."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from service.cli import main
from tests.jpegs import make_jpeg
from tests.peers import Respond, ScriptedServer, instances_in, stored
from tests.peers.buckets import Bucket, BucketServer
from tests.peers.pubsub import PROJECT, PubSub, Topic
from tests.peers.stow import Instance
from tests.processes import wait_until
from tests.pulling import Command, left

MANY = 1200
NAMES = [f"Zebedee/{number:05}.jpg" for number in range(MANY)]
PLACE = "gs://pictures/Zebedee/"


@pytest.fixture(scope="module")
def pubsub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PubSub]:
    with PubSub(tmp_path_factory.mktemp("pubsub")) as running:
        yield running


@pytest.fixture
def topic(pubsub: PubSub) -> Topic:
    return pubsub.topic()


@pytest.fixture
def bucket() -> Bucket:
    """Fill a bucket with many pictures, and with what is no picture or lies elsewhere."""
    bucket = Bucket(page=250)
    for name in [*NAMES, "Zebedee/00000.json", "Zebedee/notes.txt", "other/1.jpg"]:
        bucket.add(name, b"12345")
    return bucket


@pytest.fixture
def server(bucket: Bucket) -> Iterator[BucketServer]:
    with BucketServer(bucket) as server:
        yield server


def backfill(server: ScriptedServer, topic: Topic, *arguments: str | Path) -> Result:
    """Run the command within this process."""
    given = topic.pubsub.environment | {"BUCKET_ENDPOINT": server.url}
    typed = ["backfill", PLACE, "--topic", topic.name, *map(str, arguments)]
    return CliRunner(env=given).invoke(main, typed)


def published(topic: Topic, subscription: str, expected: Sequence[str] = ()) -> list[str]:
    """Return the names of all objects of which a subscription has got messages, in their order.

    Those that are expected are waited for, and one more that is published behind them. A message
    counts once, however often it comes.
    """
    last = topic.publish(objectId="")
    names: dict[str, str] = {}

    def all_come() -> bool:
        messages = left(topic.pubsub, subscription)
        names.update({one["messageId"]: one["attributes"]["objectId"] for one in messages})
        return not messages and {*expected, ""} <= {*names.values()}

    wait_until(all_come)
    del names[last]
    return sorted(names.values())


def test_a_dry_run_counts_and_publishes_nothing(
    server: BucketServer, topic: Topic, tmp_path: Path
) -> None:
    subscription = topic.pull_from()
    state = tmp_path / "state.json"
    done = backfill(server, topic, "--dry-run", "--state", state)
    assert (done.exit_code, done.stdout) == (0, "1200 objects of 6000 bytes would be published\n")
    assert not state.exists()
    assert published(topic, subscription) == []


def test_it_goes_on_behind_a_name(server: BucketServer, topic: Topic) -> None:
    subscription = topic.pull_from()
    done = backfill(server, topic, "--after", NAMES[-11])
    assert (done.exit_code, done.stdout) == (0, "10 objects of 50 bytes published\n")
    assert published(topic, subscription, NAMES[-10:]) == NAMES[-10:]


def test_with_all_only_sidecars_are_left_out(server: BucketServer, topic: Topic) -> None:
    assert backfill(server, topic, "--dry-run", "--all").stdout.startswith("1201 objects")


def test_killed_in_the_middle_it_goes_on_and_leaves_nothing_out(
    server: BucketServer, topic: Topic, tmp_path: Path
) -> None:
    subscription = topic.pull_from()
    state = tmp_path / "state.json"
    typed = ["backfill", PLACE, "--topic", topic.name, "--state", str(state), "--rate", "50/s"]
    given = topic.pubsub.environment | {"BUCKET_ENDPOINT": server.url}
    with Command(tmp_path / "log", *typed, **given) as command:
        wait_until(state.exists)
        command.kill()
    after = json.loads(state.read_text())["after"]
    assert after in NAMES[:-1]
    done = backfill(server, topic, "--state", state)
    behind = len(NAMES) - NAMES.index(after) - 1
    assert (done.exit_code, done.stdout) == (
        0,
        f"{behind} objects of {5 * behind} bytes published\n",
    )
    names = published(topic, subscription, NAMES)
    assert sorted(set(names)) == NAMES
    assert len(names) < MANY + 1000, "it began anew"
    assert backfill(server, topic, "--state", state).stdout == "0 objects of 0 bytes published\n"


def test_what_was_published_before_a_bucket_fails_is_kept(
    bucket: Bucket, topic: Topic, tmp_path: Path
) -> None:
    state = tmp_path / "state.json"
    with BucketServer(*[bucket] * 4, Respond(403)) as server:
        done = backfill(server, topic, "--state", state)
    assert done.exit_code == 2
    # Of the thousand objects that the answers had, one is a sidecar.
    assert done.stdout == "999 objects of 4995 bytes published\n"
    assert "the bucket gs://pictures is forbidden to us" in done.stderr
    assert "Zebedee" not in done.output
    assert json.loads(state.read_text())["after"] == NAMES[998]


def test_a_topic_that_is_not_there_is_told(
    server: BucketServer, pubsub: PubSub, tmp_path: Path
) -> None:
    missing = Topic(pubsub, f"{PROJECT}/topics/missing")
    state = tmp_path / "state.json"
    done = backfill(server, missing, "--state", state)
    assert done.exit_code == 2
    assert done.stdout == "0 objects of 0 bytes published\n"
    assert "the topic can't be published to: NotFound (--topic); create it" in done.stderr
    assert "Zebedee" not in done.output
    assert not state.exists()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"after": "a"}',
        '{"source": "gs://pictures/", "topic": "TOPIC", "all": false, "after": "a"}',
        '{"source": "gs://pictures/Zebedee/", "topic": "TOPIC", "all": true, "after": "a"}',
        '{"source": "gs://pictures/Zebedee/", "topic": "TOPIC", "all": false, "after": 7}',
    ],
)
def test_a_state_that_is_not_of_this_backfill_is_refused(
    server: BucketServer, topic: Topic, tmp_path: Path, content: str
) -> None:
    state = tmp_path / "state.json"
    state.write_text(content.replace("TOPIC", topic.name))
    done = backfill(server, topic, "--state", state)
    assert done.exit_code == 2
    assert "(--state); name another file, or delete it" in done.stderr
    assert server.requests == []


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["pictures", "--topic", "projects/p/topics/t"], "gs://BUCKET/PREFIX"),
        (["gs://pictures", "--topic", "t"], "projects/P/topics/T"),
        (["gs://pictures", "--topic", "projects/p/topics/t", "--rate", "0/s"], "N/s"),
        (["gs://pictures", "--topic", "projects/p/topics/t", "--rate", "5/m"], "N/s"),
    ],
)
def test_what_is_typed_is_checked(typed: list[str], told: str) -> None:
    done = CliRunner().invoke(main, ["backfill", *typed])
    assert done.exit_code == 2
    assert f"it has to be {told}" in done.stderr


def test_what_is_published_is_stored_by_pull(
    topic: Topic, server: BucketServer, bucket: Bucket, tmp_path: Path
) -> None:
    subscription = topic.pull_from()
    bucket.objects.clear()
    for number in range(3):
        bucket.add(f"Zebedee/{number}.jpg", make_jpeg(seed=number))
    assert backfill(server, topic, "--rate", "100").stdout.startswith("3 objects")
    with ScriptedServer(stored(), also={"GET": Respond(404)}) as store:
        given = topic.pubsub.environment | {
            "BUCKET_ENDPOINT": server.url,
            "DATA_DIR": str(tmp_path),
            "DICOMWEB_URL": store.url,
        }
        with Command(tmp_path / "log", "pull", subscription, **given) as command:
            # It asks for each before it posts it, and a message may come twice.
            wait_until(lambda: len(posted(store)) >= 3)
            assert command.stop() == 0
            assert "Zebedee" not in command.output
        assert len(posted(store)) == 3


def posted(store: ScriptedServer) -> set[Instance]:
    """Return the instances that a store was given."""
    posts = [request for request in tuple(store.requests) if request.method == "POST"]
    return {instance for request in posts for instance in instances_in(request)}
