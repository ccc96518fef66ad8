"""From a message to its end: stored, queued, or kept as dead where an operator finds it."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset

from service.dicom.dataset import Instance
from service.dicom.outcome import Outcome, Stored
from service.errors import BadRequest, JpegstowError, NotAJpeg, ObjectUnavailable, QueueFull
from service.gcp import metadata
from service.gcp.envelope import Message
from service.gcp.intake import Intake, Source
from service.gcp.objects import Buckets
from service.retry import Entry, Filter, Limits, Queue, SqliteQueue, shown
from service.retry.mend import Correction, mend, retry
from tests.describing import CAPTURE, PHOTOGRAPH, SAID, rules
from tests.jpegs import make_jpeg
from tests.peers import Respond, refused_port
from tests.peers.buckets import Bucket, BucketServer
from tests.queues import DOWN, NOW, REFUSED, ROOMY, drain_of, everything, sqlite_queue
from tests.test_envelope import BODIES, HEADERS, JSON, TEXT, UNHURRIED, base64_of

JPEG = make_jpeg(16, 16)
LIMIT = 100_000  # bytes
NAME = "Zebedee/Barataria/photo 1.jpg"
PLANTED = ["Zebedee", "Barataria", "Dulcinea", "Rocinante"]
LONG = "Dulcinea" * 9  # longer than PatientID's VR allows


@dataclass
class Shelf:
    """A store that is a list of what it was given."""

    answer: Outcome = field(default_factory=Stored)
    wire: str = "json"
    asked: list[Dataset] = field(default_factory=list)

    def store(
        self,
        instances: Sequence[Instance],
        within: float | None = None,  # noqa: ARG002
    ) -> dict[str, Outcome]:
        self.asked += [instance.dataset for instance in instances]
        return {instance.sop_instance_uid: self.answer for instance in instances}


@dataclass(frozen=True)
class Line:
    """An intake and all that stands around it."""

    shelf: Shelf
    queue: SqliteQueue
    bucket: Bucket
    buckets: Buckets

    def intake(self, patterns: str = "", queue: Queue | None = None) -> Intake:
        source = Source(self.buckets, metadata.rules(patterns), PHOTOGRAPH, LIMIT)
        return Intake(rules(), self.shelf, queue or self.queue, source, lambda: NOW)

    def take(self, data: bytes = b"", patterns: str = "", **attributes: str) -> None:
        self.intake(patterns).take(Message(data, attributes))

    def notify(self, name: str = NAME, generation: str = "", patterns: str = "") -> None:
        """Take the notification of an object."""
        self.take(b"", patterns, **notified(name, generation))

    def stored(self) -> Dataset:
        """Return the one instance that was stored, which nothing is kept of."""
        assert everything(self.queue) == []
        (dataset,) = self.shelf.asked
        return dataset

    def entry(self) -> Entry:
        (entry,) = everything(self.queue)
        return entry

    def dead(self, reason: str) -> Entry:
        """Return the one entry, which is dead, has no UIDs, and shows its reason to anybody."""
        entry = self.entry()
        assert self.shelf.asked == []
        assert (entry.state, entry.is_described, entry.next_attempt) == ("dead", False, None)
        assert reason in entry.reason
        told = shown.whole_as_json(entry, shown.loaded(self.queue, entry.sop_instance_uid))
        assert {told[name] for name in told if name.endswith("UID")} == {""}
        assert told["instance"] is None
        assert everything(self.queue, Filter(state="dead", reason=reason)) == [entry]
        assert [planted for planted in PLANTED if planted in json.dumps(shown.as_json(entry))] == []
        return entry

    def mend(self, entry: Entry, template: str = "", **attributes: str) -> str:
        correction = Correction(attributes, template)
        return mend(self.queue, entry.sop_instance_uid, correction, rules(), NOW)

    def drain(self) -> None:
        """Send all that waits."""
        drain = drain_of(self.queue, self.shelf)
        while lease := drain.take(NOW):
            drain.settle(lease, drain.send(lease), NOW)


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
def line(bucket: Bucket, tmp_path: Path) -> Iterator[Line]:
    with BucketServer(bucket) as server, sqlite_queue(tmp_path / "queue") as queue:
        yield Line(Shelf(), queue, bucket, Buckets(server.url))


def notified(name: str = NAME, generation: str = "", event: str = "OBJECT_FINALIZE") -> Any:
    return {
        "eventType": event,
        "bucketId": "pictures",
        "objectId": name,
        "objectGeneration": generation,
    }


def as_json(**model: Any) -> bytes:
    return json.dumps(model).encode()


def in_json(image: bytes, **model: Any) -> bytes:
    return as_json(image=base64_of(image), **model)


def beside(line: Line, sidecar: bytes, **custom: Any) -> None:
    """Put a picture into the bucket, and a sidecar beside it."""
    line.bucket.add(NAME, JPEG, **custom)
    line.bucket.add(metadata.sidecar_name(NAME), sidecar)


# Stored


def test_a_picture_in_a_message_is_stored_with_what_its_attributes_say(line: Line) -> None:
    line.take(JPEG, **{name: str(value) for name, value in SAID.items()})
    stored = line.stored()
    assert {name: stored.get(name) for name in SAID} == SAID


def test_a_picture_in_json_is_stored_with_its_metadata_and_template(line: Line) -> None:
    line.take(in_json(JPEG, metadata={"PatientID": "P-7"}, template=CAPTURE), StudyID="S-1")
    stored = line.stored()
    assert (stored.PatientID, stored.StudyID) == ("P-7", "S-1")
    assert stored.SOPClassUID.name == "Secondary Capture Image Storage"


@pytest.mark.parametrize("generation", ["", "given"])
def test_a_new_object_is_stored(line: Line, generation: str) -> None:
    newest = line.bucket.add(NAME, JPEG, PatientID="P-7")
    line.notify(generation=newest if generation else "")
    assert line.stored().PatientID == "P-7"


def test_an_object_that_a_message_names_is_stored_with_what_the_message_says(line: Line) -> None:
    line.bucket.add(NAME, JPEG, PatientID="P-7")
    line.take(f"gs://pictures/{NAME}".encode(), PatientID="P-8")
    assert line.stored().PatientID == "P-8"


@pytest.mark.parametrize("tag", ["00104000", "PatientComments"])
def test_the_later_source_wins_by_whatever_name_it_calls_an_attribute(line: Line, tag: str) -> None:
    sidecar = {"StudyID": "sidecar", tag: "sidecar"}
    if tag.isdigit():
        sidecar[tag] = {"vr": "LT", "Value": ["sidecar"]}  # type: ignore[assignment]
    name = "rule/rule/rule/rule.jpg"
    custom: dict[str, Any] = dict.fromkeys(
        ("AccessionNumber", "StudyID", "PatientComments"), "custom"
    )
    line.bucket.add(name, JPEG, **custom)
    line.bucket.add("rule/rule/rule/rule.json", as_json(**sidecar))
    patterns = "{PatientID}/{AccessionNumber}/{StudyID}/{PatientComments}.jpg"
    line.take(
        as_json(object=f"gs://pictures/{name}", metadata={"PatientComments": "message"}), patterns
    )
    stored = line.stored()
    assert (stored.PatientID, stored.AccessionNumber) == ("rule", "custom")
    assert (stored.StudyID, stored.PatientComments) == ("sidecar", "message")


@pytest.mark.parametrize("source", ["rule", "custom", "sidecar", "message"])
def test_the_template_is_that_of_whichever_source_names_one(line: Line, source: str) -> None:
    custom: dict[str, Any] = {"template": CAPTURE} if source == "custom" else {}
    name = f"{CAPTURE}/photo.jpg"
    line.bucket.add(name, JPEG, **custom)
    sidecar = {"template": CAPTURE} if source == "sidecar" else {}
    line.bucket.add(metadata.sidecar_name(name), as_json(**sidecar))
    pattern = "{template}/**" if source == "rule" else ""
    template = {"template": CAPTURE} if source == "message" else {}
    line.take(as_json(object=f"gs://pictures/{name}", **template), pattern)
    assert line.stored().SOPClassUID.name == "Secondary Capture Image Storage"


def test_the_same_message_again_is_the_same_instance(line: Line) -> None:
    generation = line.bucket.add(NAME, JPEG)
    for _ in range(3):
        line.notify(generation=generation)
        line.take(JPEG, PatientID="P-7")
    assert len({dataset.SOPInstanceUID for dataset in line.shelf.asked}) == 2
    assert len(line.shelf.asked) == 6


def test_another_generation_is_another_instance(line: Line) -> None:
    for _ in range(2):
        line.notify(generation=line.bucket.add(NAME, JPEG))
    assert len({dataset.SOPInstanceUID for dataset in line.shelf.asked}) == 2


@pytest.mark.parametrize("event", ["OBJECT_DELETE", "OBJECT_METADATA_UPDATE", "OBJECT_ARCHIVE"])
def test_what_is_no_new_object_comes_to_nothing(line: Line, event: str) -> None:
    line.take(b"", **notified(event=event))
    assert (line.shelf.asked, everything(line.queue)) == ([], [])


def test_a_new_sidecar_comes_to_nothing(line: Line) -> None:
    beside(line, b"{}")
    line.notify(metadata.sidecar_name(NAME))
    assert (line.shelf.asked, everything(line.queue)) == ([], [])


# Not stored


def test_what_the_store_does_not_take_now_waits_in_the_queue(line: Line) -> None:
    line.shelf.answer = DOWN
    line.bucket.add(NAME, JPEG, PatientID="P-7")
    line.notify()
    entry = line.entry()
    assert (entry.state, entry.is_described, entry.reason) == ("pending", True, DOWN.reason)
    assert entry.source == "gs://pictures"


def test_what_the_store_refuses_is_kept_as_dead(line: Line) -> None:
    line.shelf.answer = REFUSED
    line.take(JPEG)
    entry = line.entry()
    assert (entry.state, entry.is_described, entry.reason) == ("dead", True, REFUSED.reason)


def test_what_a_later_delivery_stores_waits_no_longer(line: Line) -> None:
    line.shelf.answer = DOWN
    line.take(JPEG)
    line.shelf.answer = Stored()
    line.take(JPEG)
    assert everything(line.queue) == []


POISON = {
    "not a JPEG": (b"GIF89a not a picture", {}, "GIF"),
    "no picture": (b"", {}, "the message holds no picture"),
    "damaged": (JPEG[:-200], {}, ""),
    "bad attribute": (JPEG, {"PatientID": LONG}, "PatientID"),
    "unknown attribute": (JPEG, {"PatientId": "Dulcinea"}, "did you mean PatientID"),
    "unknown template": (JPEG, {"template": "a-kind-of-my-own"}, "there is no such template"),
    "template that is no text": (in_json(JPEG, template=7), {}, "there is no such template"),
    "template of half a character": (in_json(JPEG, template="\ud800"), {}, "no such template"),
    "attribute twice": (
        in_json(JPEG, metadata={"PatientID": "Dulcinea", "00100020": {"vr": "LO"}}),
        {},
        "given twice",
    ),
    "not base64": (b'{"image": "%%%"}', {}, "base64"),
    "not JSON": (b'{"image": ', {}, "JSON"),
    "no object's name": (b"gs://pictures", {}, "gs://BUCKET/OBJECT"),
}


@pytest.mark.parametrize(("data", "said", "reason"), POISON.values(), ids=POISON)
def test_poison_is_dead_once_however_often_it_comes(
    line: Line, data: bytes, said: dict[str, str], reason: str
) -> None:
    for _ in range(3):
        line.take(data, **said)
    entry = line.dead(reason)
    assert (entry.source, entry.attempts, entry.history) == ("pubsub", 0, ())
    line.queue.drop(entry.sop_instance_uid, NOW)
    assert everything(line.queue) == []


def test_an_envelope_that_is_poison_is_dead_as_it_came(line: Line) -> None:
    body = as_json(message={"data": "%%%"})
    for _ in range(2):
        line.intake().push(body, {"content-type": "application/json"})
    entry = line.dead("base64")
    assert line.queue.load(entry.sop_instance_uid).upload.image == body


def test_dead_attributes_are_mended_and_the_good_ones_kept(line: Line) -> None:
    line.take(JPEG, PatientID=LONG, AccessionNumber="A-1", PatientId="x", template=CAPTURE)
    entry = line.dead("PatientID")
    kept = line.queue.load(entry.sop_instance_uid)
    assert kept.upload.image == JPEG
    assert [element.keyword for element in kept.upload.attributes] == ["AccessionNumber"]
    name = line.mend(entry, PatientID="P-7")
    assert name.startswith("2.25.")
    mended = line.queue.load(name).described
    assert mended
    dataset = mended.instance.dataset
    assert (dataset.PatientID, dataset.AccessionNumber) == ("P-7", "A-1")
    waiting = line.entry()
    assert (waiting.state, waiting.template, waiting.next_attempt) == ("pending", CAPTURE, NOW)
    line.drain()
    assert line.stored() == dataset


def test_of_an_attribute_that_is_given_twice_the_first_is_kept_beside_the_picture(
    line: Line,
) -> None:
    line.take(in_json(JPEG, metadata={"PatientID": "P-7", "00100020": {"vr": "LO"}}))
    kept = line.queue.load(line.dead("given twice").sop_instance_uid).upload
    assert (kept.image, kept.attributes.PatientID) == (JPEG, "P-7")


def test_a_template_is_mended(line: Line) -> None:
    line.take(JPEG, PatientID="P-7", template="wuond")
    name = line.mend(line.dead("no such template"), template=CAPTURE)
    line.drain()
    stored = line.stored()
    assert (stored.SOPInstanceUID, stored.PatientID) == (name, "P-7")
    assert stored.SOPClassUID.name == "Secondary Capture Image Storage"


def test_what_can_not_be_mended_stays_as_it_was(line: Line) -> None:
    line.take(b"GIF89a not a picture")
    entry = line.dead("GIF")
    with pytest.raises(NotAJpeg):
        line.mend(entry, PatientID="P-7")
    with pytest.raises(BadRequest, match="could not be described"):
        retry(line.queue, entry.sop_instance_uid, NOW)
    assert line.dead("GIF") == entry


def test_trying_all_the_dead_again_leaves_what_is_no_instance_dead(line: Line) -> None:
    line.take(JPEG, PatientID=LONG)
    assert line.queue.revive(Filter(state="dead"), NOW) == 0
    line.dead("PatientID")


def test_a_thousand_unknown_attributes_are_refused_before_pub_sub_asks_again(line: Line) -> None:
    started = time.monotonic()
    line.take(JPEG, PatientID="P-7", **{f"unknownKeyword{number}": "x" for number in range(1000)})
    assert time.monotonic() - started < 5.0
    kept = line.queue.load(line.dead("isn't a DICOM keyword").sop_instance_uid)
    assert [element.keyword for element in kept.upload.attributes] == ["PatientID"]


# Buckets


@pytest.mark.parametrize("generation", ["", "1"])
def test_an_object_that_is_gone_is_dead_once(line: Line, generation: str) -> None:
    if generation:
        line.bucket.add(NAME, JPEG)
    for _ in range(2):
        line.notify(generation=generation)
    assert line.dead("an object isn't in gs://pictures").source == "gs://pictures"


def test_two_objects_that_are_gone_are_two_entries(line: Line) -> None:
    line.notify("a.jpg")
    line.notify("b.jpg")
    assert len(everything(line.queue)) == 2


def test_an_object_that_is_too_large_is_dead_unread(line: Line) -> None:
    line.bucket.add(NAME, bytes(LIMIT + 1))
    line.notify()
    entry = line.dead("MAX_UPLOAD_BYTES")
    assert line.queue.load(entry.sop_instance_uid).upload.image == b""


@pytest.mark.parametrize("name", ["a//Zebedee.jpg", "a/../Zebedee.jpg", "Zebedee\n.jpg"])
def test_a_name_that_can_not_be_asked_for_is_dead(line: Line, name: str) -> None:
    line.notify(name)
    line.dead("a name that can't be asked for")


@pytest.mark.parametrize(
    ("sidecar", "reason"),
    [
        (b"not JSON: Dulcinea", "the sidecar can't be read"),
        (b'["Dulcinea"]', "the sidecar isn't a JSON object"),
        (b"{}" + b" " * 1_000_000, "bytes"),
    ],
    ids=["not JSON", "no object", "too large"],
)
def test_a_picture_whose_sidecar_can_not_be_read_is_dead_and_mended(
    line: Line, sidecar: bytes, reason: str
) -> None:
    beside(line, sidecar, AccessionNumber="A-1")
    for _ in range(2):
        line.notify()
    entry = line.dead(reason)
    assert line.queue.load(entry.sop_instance_uid).upload.image == JPEG
    mended = line.queue.load(line.mend(entry, PatientID="P-7")).described
    assert mended
    assert mended.instance.dataset.PatientID == "P-7"


def test_a_bad_attribute_of_a_sidecar_is_dead_beside_all_the_good_ones(line: Line) -> None:
    beside(line, as_json(PatientID=LONG, StudyID="S-1"), AccessionNumber="A-1")
    line.notify(patterns="**/{SeriesDescription}.jpg")
    kept = line.queue.load(line.dead("PatientID").sop_instance_uid).upload
    keywords = [element.keyword for element in kept.attributes]
    assert keywords == ["AccessionNumber", "SeriesDescription", "StudyID"]


def test_another_generation_of_poison_is_another_entry(line: Line) -> None:
    for _ in range(2):
        line.bucket.add(NAME, b"GIF89a")
        line.notify()
    assert len(everything(line.queue)) == 2


FORBIDDEN = Respond(403, {}, b"<Error><Code>AccessDenied</Code></Error>")
GONE = Respond(404, {}, b"<Error><Code>NoSuchBucket</Code></Error>")


@pytest.mark.parametrize("answer", [FORBIDDEN, GONE], ids=["forbidden", "no bucket"])
def test_a_bucket_that_can_not_be_read_keeps_nothing_and_the_message_comes_again(
    line: Line, answer: Respond
) -> None:
    with BucketServer(answer) as server:
        there = replace(line, buckets=Buckets(server.url))
        with pytest.raises(ObjectUnavailable) as caught:
            there.notify()
    assert caught.value.transient
    assert everything(line.queue) == []
    line.bucket.add(NAME, JPEG)
    line.notify()
    line.stored()


def test_a_sidecar_that_can_not_be_read_now_keeps_nothing(line: Line, bucket: Bucket) -> None:
    bucket.add(NAME, JPEG)
    with BucketServer(bucket, FORBIDDEN) as server:
        there = replace(line, buckets=Buckets(server.url))
        with pytest.raises(ObjectUnavailable):
            there.notify()
    assert (line.shelf.asked, everything(line.queue)) == ([], [])


def test_a_bucket_that_is_away_keeps_nothing(line: Line) -> None:
    with refused_port() as port:
        there = replace(line, buckets=Buckets(f"http://127.0.0.1:{port}"))
        with pytest.raises(ObjectUnavailable):
            there.notify()
    assert everything(line.queue) == []


# What can't be kept


@pytest.mark.parametrize(("data", "answer"), [(JPEG, DOWN), (JPEG, REFUSED), (b"GIF89a", Stored())])
def test_what_a_full_queue_does_not_keep_comes_again(
    line: Line, tmp_path: Path, data: bytes, answer: Outcome
) -> None:
    line.shelf.answer = answer
    with (
        sqlite_queue(tmp_path / "full", Limits(0, ROOMY.size)) as full,
        pytest.raises(QueueFull) as caught,
    ):
        line.intake(queue=full).take(Message(data, {}))
    assert caught.value.transient


# Whatever comes

SAYING = st.dictionaries(
    st.sampled_from(["PatientID", "StudyDate", "template", "00100020", "SeriesNumber"]) | TEXT,
    JSON | st.sampled_from(["1", "\ud800", "20260314"]),
    max_size=4,
)
PICTURES = st.builds(lambda said: in_json(JPEG, metadata=said), SAYING)
OBJECTS = st.builds(
    lambda name, said: as_json(object=f"gs://pictures/{name}", metadata=said),
    st.just("there.jpg") | TEXT,
    SAYING,
)
ENVELOPES = st.builds(
    lambda data, said: as_json(message={"data": base64_of(data), "attributes": said}),
    BODIES | PICTURES | OBJECTS | st.just(JPEG),
    SAYING,
)


@settings(
    UNHURRIED,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(BODIES | PICTURES | OBJECTS | ENVELOPES, HEADERS)
def test_whatever_is_pushed_comes_to_an_end(
    line: Line, body: bytes, headers: dict[str, str]
) -> None:
    line.bucket.add("there.jpg", JPEG)
    line.intake("{PatientID}/{name}.jpg").push(body, headers)  # an exception would never end
    assert {entry.state for entry in everything(line.queue)} <= {"dead"}


# What is told


def test_the_log_tells_what_became_of_a_message_and_nothing_of_whom(
    line: Line, capsys: pytest.CaptureFixture[str]
) -> None:
    who: dict[str, Any] = {"PatientID": "Rocinante", "PatientName": "Dulcinea^Zebedee"}
    line.take(JPEG, **who)
    line.take(JPEG, PatientID=LONG)
    line.take(b"GIF89a Dulcinea", **who)
    line.take(JPEG, template="Barataria", **who)
    line.take(f"gs://pictures/{NAME}/gone".encode(), **who)
    line.take(b"gs://Rocinante", **who)
    line.take(b"", **notified(event="OBJECT_DELETE"))
    line.notify(metadata.sidecar_name(NAME))
    beside(line, b"Dulcinea", **who)
    line.notify()
    for answer in (DOWN, REFUSED):
        line.shelf.answer = answer
        line.bucket.add("Zebedee.jpg", JPEG, **who)
        line.notify("Zebedee.jpg", patterns="{PatientComments}.jpg")
    with pytest.raises(JpegstowError):
        line.take(b"gs://barataria/Zebedee.jpg", **who)
    written = capsys.readouterr().out
    told = [json.loads(one) for one in written.splitlines()]
    assert [one.get("outcome", one["message"]) for one in told] == [
        "stored",
        "dead",
        "dead",
        "dead",
        "dead",
        "dead",
        "message ignored",
        "message ignored",
        "dead",
        "queued",
        "rejected",
    ]
    assert told[0]["SOPInstanceUID"] == line.shelf.asked[0].SOPInstanceUID
    assert told[0]["bytes_in"] == len(JPEG)
    assert all("reason" in one for one in told[1:])
    assert [planted for planted in PLANTED if planted in written] == []
