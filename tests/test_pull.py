"""Pulling messages: each is acknowledged once it is at its end, however the process ends."""

import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from service import assemble
from service.errors import ObjectUnavailable
from service.gcp.envelope import Message
from service.gcp.pull import Workers, pull
from service.retry import Filter
from tests.archive_server import ArchiveServer
from tests.jpegs import make_jpeg
from tests.peers import BOUND, Respond, ScriptedServer, Wire, stored
from tests.peers.buckets import Bucket, BucketServer
from tests.peers.pubsub import PROJECT, PubSub
from tests.processes import wait_until
from tests.pulling import Command, left, numbered, publish_all
from tests.serving import settings_for

JPEG = make_jpeg()
SMALL = make_jpeg(16, 16)
MANY = 2000
LONG = 240.0  # seconds that a hundred of them may take; all take 85 to 130 on two busy cores
GRACE = 8.0  # seconds that the end may take beyond that of a process with nothing under way


@pytest.fixture(scope="module")
def pubsub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PubSub]:
    with PubSub(tmp_path_factory.mktemp("pubsub")) as running:
        yield running


@pytest.fixture
def store() -> Iterator[ScriptedServer]:
    with ScriptedServer(stored()) as server:
        yield server


def pulling(
    pubsub: PubSub, subscription: str, folder: Path, store_url: str = "", **environment: str
) -> Command:
    """Return a process that pulls from a subscription."""
    given = {"DATA_DIR": str(folder), "DICOMWEB_URL": store_url, "READ_BACK": "never"}
    given |= pubsub.environment | environment
    return Command(folder / "pull.log", "pull", subscription, "-j", "4", **given)


def states(folder: Path) -> list[str]:
    """Return the states of what is in the retry queue."""
    queue = assemble.retry_queue(settings_for("", DATA_DIR=str(folder)))
    found = [str(entry.state) for entry in queue.list(Filter(), 100).entries]
    queue.close()
    return found


class Held:
    """A step that stores what comes once the server is released."""

    def __init__(self) -> None:
        self._come: list[Wire] = []

    @property
    def come(self) -> int:
        """How many requests have come."""
        return len(self._come)

    def play(self, wire: Wire) -> None:
        """Count, and wait."""
        self._come.append(wire)
        wire.script.released.wait(BOUND)
        stored().play(wire)


def test_a_message_is_acknowledged_once_its_picture_is_stored(
    pubsub: PubSub, store: ScriptedServer, tmp_path: Path
) -> None:
    topic = pubsub.topic()
    subscription = topic.pull_from()
    topic.publish(JPEG, PatientID="Zebedee-7")
    with pulling(pubsub, subscription, tmp_path, store.url) as command:
        wait_until(lambda: command.says('"outcome": "stored"'))
        assert command.stop() == 0
        assert command.output.endswith("1 acknowledged, 0 returned\n")
        assert "Zebedee" not in command.output
    assert len(store.requests) == 1
    assert left(pubsub, subscription) == []


def test_what_the_store_does_not_take_is_queued_and_acknowledged(
    pubsub: PubSub, tmp_path: Path
) -> None:
    topic = pubsub.topic()
    subscription = topic.pull_from()
    topic.publish(JPEG)
    with (
        ScriptedServer(Respond(503)) as store,
        pulling(pubsub, subscription, tmp_path, store.url, STORE_DEADLINE="1") as command,
    ):
        wait_until(lambda: command.says('"outcome": "queued"'))
        assert command.stop() == 0
    assert states(tmp_path) == ["pending"]
    assert left(pubsub, subscription) == []


def test_poison_is_kept_as_dead_and_acknowledged(
    pubsub: PubSub, store: ScriptedServer, tmp_path: Path
) -> None:
    topic = pubsub.topic()
    subscription = topic.pull_from()
    for poison in (b"no picture", b"{", JPEG[:-100]):
        topic.publish(poison)
    with pulling(pubsub, subscription, tmp_path, store.url) as command:
        wait_until(lambda: command.output.count('"outcome": "dead"') >= 3)
        assert command.stop() == 0
        assert command.output.endswith("3 acknowledged, 0 returned\n")
    assert states(tmp_path) == ["dead"] * 3
    assert store.requests == []
    assert left(pubsub, subscription) == []


def test_what_fails_for_now_comes_again(
    pubsub: PubSub, store: ScriptedServer, tmp_path: Path
) -> None:
    topic = pubsub.topic()
    subscription = topic.pull_from()
    bucket = Bucket()
    generation = bucket.add("Zebedee/photo.jpg", JPEG)
    topic.publish(
        eventType="OBJECT_FINALIZE",
        bucketId=bucket.name,
        objectId="Zebedee/photo.jpg",
        objectGeneration=generation,
    )
    with (
        BucketServer(Respond(403), Respond(403), bucket) as server,
        pulling(pubsub, subscription, tmp_path, store.url, BUCKET_ENDPOINT=server.url) as command,
    ):
        wait_until(lambda: command.says('"outcome": "stored"'))
        assert command.stop() == 0
        assert "1 acknowledged, 2 returned\n" in command.output
        assert "Zebedee" not in command.output
    assert states(tmp_path) == []
    assert left(pubsub, subscription) == []


def test_what_is_under_way_is_finished_before_the_process_ends(
    pubsub: PubSub, tmp_path: Path
) -> None:
    topic = pubsub.topic()
    subscription = topic.pull_from()
    publish_all(pubsub, topic.name, [(numbered(JPEG, serial), {}) for serial in range(20)])
    held = Held()
    with ScriptedServer(held) as store:
        with pulling(pubsub, subscription, tmp_path, store.url) as command:
            wait_until(lambda: held.come == 4)
            command.process.send_signal(signal.SIGTERM)
            wait_until(lambda: command.says("told to stop"))  # else it might begin a fifth
            store.released.set()
            assert command.process.wait(BOUND) == 0
            assert command.output.endswith("4 acknowledged, 0 returned\n")
        assert len(store.requests) == 4
    others: set[str] = set()

    def all_come() -> bool:
        others.update(message["messageId"] for message in left(pubsub, subscription))
        return len(others) >= 16

    wait_until(all_come, LONG)
    assert len(others) == 16


def test_what_does_not_end_in_time_is_given_back(pubsub: PubSub, tmp_path: Path) -> None:
    topic = pubsub.topic()
    subscription = topic.pull_from()
    topic.publish(JPEG)
    held = Held()
    with ScriptedServer(held) as store:
        with pulling(pubsub, subscription, tmp_path, store.url) as command:
            wait_until(lambda: held.come >= 1)
            took = stopping(command)
            assert command.output.endswith("0 acknowledged, 0 returned\n")
        store.released.set()
        with pulling(pubsub, subscription, tmp_path, store.url) as command:
            # The emulator lets the lease run out first where the stream is closed already.
            wait_until(lambda: command.says('"outcome": "stored"'), LONG)
            idle = stopping(command)
    assert idle < took < GRACE + idle


def stopping(command: Command) -> float:
    """Return the seconds that a process takes to end, which a busy machine adds to."""
    began = time.monotonic()
    assert command.stop() == 0
    return time.monotonic() - began


@pytest.mark.usefixtures("own_signals")
def test_an_unforeseen_error_of_one_message_is_logged_without_its_text_and_ends_nothing(
    pubsub: PubSub, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = pubsub.topic()
    subscription = topic.pull_from()
    topic.publish(b"1")
    errors = [ObjectUnavailable("away"), KeyError("Zebedee")]

    def take(message: Message) -> None:
        assert message.data == b"1"
        if errors:
            raise errors.pop()
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PUBSUB_EMULATOR_HOST", pubsub.host)
        assert pull(subscription, take, 2, 1_000_000) == {"acknowledged": 1, "returned": 2}
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    lines = [line for line in told if line["message"] == "message returned"]
    assert told[-1]["message"] == "told to stop"
    assert [line.get("error") or line["reason"] for line in lines] == [
        "KeyError",
        "object-unavailable",
    ]
    assert "Zebedee" not in str(lines)


@pytest.mark.usefixtures("own_signals")
def test_a_signal_that_the_kernel_gives_to_another_thread_ends_it_too(pubsub: PubSub) -> None:
    topic = pubsub.topic()
    subscription = topic.pull_from()
    topic.publish(b"1")

    def take(_message: Message) -> None:
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    rescue = threading.Timer(BOUND, os.kill, (os.getpid(), signal.SIGTERM))
    rescue.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PUBSUB_EMULATOR_HOST", pubsub.host)
            assert pull(subscription, take, 1, 1_000_000) == {"acknowledged": 1}
        assert rescue.is_alive(), "it had to be told twice"
    finally:
        rescue.cancel()


@pytest.fixture
def own_signals() -> Iterator[None]:
    """Put back what was done at signals before."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_subscription_that_is_not_there_is_told_at_once(pubsub: PubSub, tmp_path: Path) -> None:
    missing = f"{PROJECT}/subscriptions/missing"
    with pulling(pubsub, missing, tmp_path, "http://127.0.0.1:9") as command:
        assert command.process.wait(BOUND) == 2
    assert "can't be pulled: NotFound (SUBSCRIPTION); create it" in command.output
    assert "Traceback" not in command.output


def test_a_subscription_needs_its_full_name(pubsub: PubSub, tmp_path: Path) -> None:
    with pulling(pubsub, "mine", tmp_path) as command:
        assert command.process.wait(BOUND) == 2
    assert "it has to be projects/P/subscriptions/S" in command.output


def test_workers_begin_nothing_once_they_shall_end_and_give_back_what_they_can_not_finish() -> None:
    began, may_end = threading.Event(), threading.Event()

    def work(_message: str) -> None:
        began.set()
        assert may_end.wait(BOUND)

    workers = Workers(1, grace=0.05)
    workers.schedule(work, "first")
    workers.schedule(work, "second")
    assert began.wait(BOUND)
    workers.stop()
    workers.schedule(work, "third")
    assert workers.shutdown(await_msg_callbacks=True) == ["second", "third", "first"]
    may_end.set()
    wait_until(lambda: workers.shutdown(await_msg_callbacks=True) == [])


def test_of_2000_messages_each_is_stored_once_though_the_process_is_killed_twice(
    pubsub: PubSub, tmp_path: Path
) -> None:
    topic = pubsub.topic()
    subscription = topic.pull_from()
    said = {"PatientID": "P-7", "AccessionNumber": "A-1"}
    pictures = [
        (numbered(SMALL, serial), said | {"InstanceNumber": str(serial)}) for serial in range(MANY)
    ]
    publish_all(pubsub, topic.name, pictures)
    with ArchiveServer(tmp_path / "store") as archive:
        port = str(archive.port)
        started = time.monotonic()
        for enough in (MANY // 4, MANY // 2):
            with pulling(pubsub, subscription, tmp_path, ARCHIVE_PORT=port) as command:
                wait_for_stored(command, enough)
                command.kill()
        with pulling(pubsub, subscription, tmp_path, ARCHIVE_PORT=port) as command:
            wait_for_stored(command, MANY)
            print(f"{MANY} messages, two kills: {time.monotonic() - started:.1f} s")
            assert command.stop() == 0
        found = instances(f"http://127.0.0.1:{port}/dicomWeb/instances")
    assert len({one["00080018"]["Value"][0] for one in found}) == len(found) == MANY
    assert sorted(one["00200013"]["Value"][0] for one in found) == list(range(MANY))
    assert states(tmp_path) == []


def logged(command: Command) -> int:
    """Count the instances of which a process, and those before it, say that they are stored.

    To look for their files again and again would take one of two processors by itself.
    """
    return len(
        set(re.findall(r'"outcome": "stored".*"SOPInstanceUID": "([\d.]+)"', command.output))
    )


def wait_for_stored(command: Command, enough: int) -> None:
    """Wait until so many instances are said to be stored, as long as more of them are."""
    while (there := logged(command)) < enough:
        more = min(there + 100, enough)
        wait_until(lambda most=more: logged(command) >= most, LONG)  # type: ignore[misc]


def instances(url: str) -> list[dict[str, Any]]:
    """Search for all instances, page by page."""
    found: list[dict[str, Any]] = []
    while True:
        asked = {"limit": "500", "offset": str(len(found))}
        response = requests.get(url, params=asked, timeout=BOUND)
        response.raise_for_status()
        page = response.json() if response.status_code == 200 else []
        if not page:
            return found
        found += page
