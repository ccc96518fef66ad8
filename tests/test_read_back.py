"""A store that names an instance as stored is believed only where it has what it was sent."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from service import settings
from service.dicom import part10
from service.dicom.attributes import parse
from service.dicom.dataset import Instance, describe, merge
from service.dicom.outcome import Outcome, Rejected, Stored, Unavailable
from service.dicom.template import parse as parse_template
from service.dicom.uid import Identity
from service.store import DicomwebStore
from service.store.read_back import is_truthful
from tests.describing import normalised
from tests.jpegs import make_jpeg
from tests.peers import (
    BOUND,
    CutAnswer,
    Flood,
    Garbage,
    LoseAnswer,
    Orthanc,
    Respond,
    ScriptedServer,
    Step,
    already_exists_409,
    failed,
    stored,
)
from tests.serving import settings_for

FILE = Path(__file__).parents[1] / "templates" / "secondary-capture-image.json"
NAMED = "the store named the instance as stored"


def made(number: int, seed: int = 0, **said: str) -> Instance:
    """Return an instance whose UIDs are those of its number, whatever its content."""
    attributes = parse({"PatientID": "P-7", "StudyDescription": "Hand"} | said)
    merged = merge(parse_template(FILE.stem, FILE.read_bytes()), {}, attributes)
    identity = Identity("2.25.1", "2.25.2", f"2.25.3{number}", "2.25.9")
    return describe(normalised(make_jpeg(seed=seed)), merged, identity)


def file_of(instance: Instance) -> bytes:
    """Return an instance as a DICOM file."""
    pieces = part10.encode(instance.dataset, instance.codestream, instance.transfer_syntax)
    return b"".join(bytes(piece) for piece in pieces)


def outcomes_of(url: str, *instances: Instance, **environment: str) -> list[Outcome]:
    store = DicomwebStore(settings_for(url, **environment))
    return list(store.store(instances).values())


FIRST = made(1)
OTHERS = {
    "another codestream": made(1, seed=1),
    "another attribute": made(1, StudyDescription="Foot"),
}


@pytest.fixture
def empty(orthanc: Orthanc) -> Orthanc:
    orthanc.empty()
    return orthanc


def kept_by(server: Orthanc) -> list[str]:
    """Return the digests of the files that a server has."""
    paths = [f"{server.url}/instances/{name}/file" for name in server.get("/instances")]
    files = [server.session.get(path, timeout=BOUND).content for path in paths]
    return [hashlib.sha256(file).hexdigest() for file in files]


@pytest.mark.parametrize(
    ("read_back", "duplicate"), [("auto", True), ("always", True), ("never", False)]
)
def test_the_same_content_again_is_a_duplicate(
    empty: Orthanc, read_back: str, *, duplicate: bool
) -> None:
    for expected in (False, duplicate):
        (outcome,) = outcomes_of(empty.dicomweb_url, FIRST, READ_BACK=read_back)
        assert isinstance(outcome, Stored)
        assert outcome.duplicate == expected
        assert outcome.retrieve_url.endswith(f"/instances/{FIRST.sop_instance_uid}")


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("read_back", ["auto", "always"])
def test_other_content_under_the_same_uid_is_not_stored(
    empty: Orthanc, read_back: str, other: Instance
) -> None:
    url = empty.dicomweb_url
    outcomes_of(url, FIRST, READ_BACK=read_back)
    before = kept_by(empty)
    (outcome,) = outcomes_of(url, other, READ_BACK=read_back)
    assert outcome == Rejected(f"{NAMED}, with other content", status=409)
    assert kept_by(empty) == before == [hashlib.sha256(file_of(FIRST)).hexdigest()]


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_never_believes_a_store_that_keeps_the_old_content(empty: Orthanc, other: Instance) -> None:
    outcomes_of(empty.dicomweb_url, FIRST)
    (outcome,) = outcomes_of(empty.dicomweb_url, other, READ_BACK="never")
    assert isinstance(outcome, Stored)
    assert kept_by(empty) == [hashlib.sha256(file_of(FIRST)).hexdigest()]


def test_each_instance_of_a_request_is_asked_for(empty: Orthanc) -> None:
    outcomes_of(empty.dicomweb_url, made(1), made(2))
    sent = [made(1), made(2, seed=1), made(3)]
    same, other, new = outcomes_of(empty.dicomweb_url, *sent, READ_BACK="auto")
    assert isinstance(same, Stored)
    assert same.duplicate
    assert isinstance(other, Rejected)
    assert isinstance(new, Stored)
    assert not new.duplicate


@dataclass(frozen=True)
class Told:
    """What came of an upload, and the methods of the requests that it took."""

    outcome: Outcome
    methods: Sequence[str]


def told(*steps: Step, read_back: str = "auto") -> Told:
    """Upload to a store that plays these steps."""
    with ScriptedServer(*steps) as server:
        (outcome,) = outcomes_of(server.dicomweb_url, FIRST, READ_BACK=read_back)
        if isinstance(outcome, Stored):
            outcome = replace(outcome, retrieve_url="")
    return Told(outcome, [request.method for request in server.requests])


def holding(instance: Instance) -> Respond:
    return Respond(200, {"Content-Type": "application/dicom"}, file_of(instance))


def test_the_question_names_the_instance_and_wants_metadata() -> None:
    with ScriptedServer(Respond(404), stored()) as server:
        outcomes_of(server.dicomweb_url, FIRST, READ_BACK="auto")
    question, _ = server.requests
    assert question.path == (
        f"/dicomWeb/studies/2.25.1/series/2.25.2/instances/{FIRST.sop_instance_uid}/metadata"
    )
    assert question.headers["accept"] == "application/dicom+json"


ABSENT = {
    "404": Respond(404),
    "410": Respond(410),
    "204": Respond(204),
    "an empty array": Respond(200, {}, b"[]"),
    "an empty array with blanks": Respond(200, {}, b" [\n]\r\n"),
}
CANT_TELL = {str(status): Respond(status) for status in (400, 405, 406, 501)}


@pytest.mark.parametrize("answer", (ABSENT | CANT_TELL).values(), ids=ABSENT | CANT_TELL)
def test_a_store_is_believed_where_the_instance_was_not_there_or_it_cant_tell(answer: Step) -> None:
    assert told(answer, stored()) == Told(Stored(), ["GET", "POST"])


THERE = {
    "its metadata": Respond(200, {}, b'[{"00080018":{"vr":"UI","Value":["2.25.31"]}}]'),
    "more than is read": Flood(1 << 26),
    "nothing": Respond(200),
}


@pytest.mark.parametrize("answer", THERE.values(), ids=THERE)
def test_an_instance_that_was_there_is_compared(answer: Step) -> None:
    steps = ["GET", "POST", "GET"]
    assert told(answer, stored(), holding(FIRST)) == Told(Stored(duplicate=True), steps)
    for other in OTHERS.values():
        refused = Rejected(f"{NAMED}, with other content", status=409)
        assert told(answer, stored(), holding(other)) == Told(refused, steps)


FAILURES: dict[str, list[Step]] = {
    **{str(status): [Respond(status)] for status in (302, 401, 403, 429, 500, 503)},
    "no answer": [LoseAnswer(), LoseAnswer()],
    "half an answer": [CutAnswer(), CutAnswer()],
    "garbage": [Garbage(), Garbage()],
}


@pytest.mark.parametrize("question", FAILURES.values(), ids=FAILURES)
def test_an_instance_is_compared_where_the_question_failed(question: list[Step]) -> None:
    steps = ["GET"] * len(question) + ["POST", "GET"]
    assert told(*question, stored(), holding(FIRST)) == Told(Stored(), steps)
    (other, *_) = OTHERS.values()
    refused = Rejected(f"{NAMED}, with other content", status=409)
    assert told(*question, stored(), holding(other)) == Told(refused, steps)


def test_no_further_question_is_asked_of_a_store_that_gives_no_answer() -> None:
    lost = [LoseAnswer(), LoseAnswer()]
    with ScriptedServer(*lost, stored(), holding(made(1)), holding(made(2))) as server:
        outcomes = outcomes_of(server.dicomweb_url, made(1), made(2), READ_BACK="auto")
    assert [type(outcome) for outcome in outcomes] == [Stored, Stored]
    assert [r.method for r in server.requests] == ["GET", "GET", "POST", "GET", "GET"]


def test_a_store_that_names_what_it_doesnt_have_is_not_believed() -> None:
    missing = Unavailable(f"{NAMED}, but doesn't have it", status=200)
    for status in (404, 410, 204):
        steps = Respond(404), stored(), Respond(status)
        assert told(*steps, read_back="always") == Told(missing, ["GET", "POST", "GET"])
        assert told(Respond(503), *steps[1:]) == Told(missing, ["GET", "POST", "GET"])
    assert told(Respond(404), stored(), Respond(404), read_back="auto").outcome == Stored()


def test_what_cant_be_read_back_is_not_known_to_be_stored() -> None:
    busy = Respond(503, {"Retry-After": "7"})
    reason = f"{NAMED}; reading it back to compare was answered 503"
    expected = Unavailable(reason, 7.0, 503)
    assert told(Respond(503), stored(), busy).outcome == expected
    denied = told(Respond(503), stored(), Respond(403)).outcome
    assert isinstance(denied, Unavailable)
    assert denied.operator
    assert told(Respond(404), stored(), busy, read_back="always").outcome == expected


def test_a_connection_lost_while_reading_back_leaves_it_unknown() -> None:
    outcome = told(Respond(503), stored(), LoseAnswer()).outcome
    assert isinstance(outcome, Unavailable)
    assert "connection to the store failed" in outcome.reason


def test_always_compares_what_was_not_there_before() -> None:
    steps = ["GET", "POST", "GET"]
    found = told(Respond(404), stored(), holding(FIRST), read_back="always")
    assert found == Told(Stored(), steps)
    changed = told(Respond(404), stored(), holding(made(1, seed=1)), read_back="always")
    assert changed == Told(Rejected(f"{NAMED}, with other content", status=409), steps)


def test_never_asks_nothing() -> None:
    assert told(stored(), read_back="never") == Told(Stored(), ["POST"])


def test_what_the_store_refused_is_not_read() -> None:
    found = told(Respond(200, {}, b"[{}]"), failed(0x0117))
    assert isinstance(found.outcome, Rejected)
    assert found.methods == ["GET", "POST"]


@pytest.mark.parametrize("read_back", ["auto", "always", "never"])
def test_a_conflict_is_compared_in_every_case(read_back: str) -> None:
    question = [] if read_back == "never" else [Respond(404)]
    found = told(*question, already_exists_409(), holding(FIRST), read_back=read_back)
    assert found.outcome == Stored(duplicate=True)


def test_the_embedded_archive_is_not_asked() -> None:
    with ScriptedServer(stored()) as server:
        port = server.url.rpartition(":")[2]
        (outcome,) = outcomes_of("", FIRST, READ_BACK="auto", ARCHIVE_PORT=port)
    assert isinstance(outcome, Stored)
    assert [request.method for request in server.requests] == ["POST"]


GOOGLE = "https://healthcare.googleapis.com/v1/projects/p/locations/l/datasets/d/dicomStores/s"
TRUTHFUL = {
    f"{GOOGLE}/dicomWeb": True,
    "https://HEALTHCARE.googleapis.com:443/v1": True,
    "": True,
    "https://healthcare.googleapis.com.example/v1": False,
    "https://pacs.example/healthcare.googleapis.com": False,
    "http://127.0.0.1:8042/dicomWeb": False,
}


@pytest.mark.parametrize(("url", "truthful"), TRUTHFUL.items())
def test_only_stores_that_tell_are_believed_unasked(url: str, *, truthful: bool) -> None:
    assert is_truthful(settings.load({"DICOMWEB_URL": url})) == truthful
