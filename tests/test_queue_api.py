"""What an operator sees of the retry queue over HTTP, and what he can do about it."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families
from werkzeug.test import TestResponse

from service import assemble, metrics
from service.retry import Drain, Filter, Lease, Limits, Pace, SqliteQueue, Totals
from service.store import DicomwebStore
from service.web import create_app
from tests.jpegs import make_jpeg, picture
from tests.peers import ScriptedServer, Step, failed, instances_in, parts_of, stored, unavailable
from tests.serving import client_for, form, only, post, settings_for, upload

JPEG = make_jpeg()
PROBLEM = "application/problem+json"
QUEUE = "/v1/queue"
PLANTED = ["Quixote", "Dulcinea", "Rocinante"]
SAID = {"PatientID": "Rocinante-7", "PatientName": "Quixote^Alonso", "StudyID": "Dulcinea"}
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
NOBODY = "http://127.0.0.1:9/dicomWeb"


@dataclass(frozen=True)
class Service:
    """The service, the store behind it, and its queue as another process sees it."""

    client: FlaskClient
    store: ScriptedServer
    queue: SqliteQueue
    folder: Path

    def queued(self, key: str = "", jpeg: bytes = JPEG, **said: str) -> str:
        """Put an instance into the queue without asking the store; return its UID."""
        headers = {"Prefer": "respond-async", "Idempotency-Key": key}
        response = upload(self.client, **form(jpeg, **SAID | said), headers=headers)
        assert response.status_code == 202
        return str(only(response)["SOPInstanceUID"])

    def dead(self, jpeg: bytes = JPEG, **said: str) -> str:
        """Have the store refuse an instance; return its UID."""
        response = post(self.client, jpeg, **SAID | said)
        assert response.status_code == 502
        return str(response.get_json()["SOPInstanceUID"])

    def leased(self) -> Lease:
        """Take an entry as a worker does."""
        lease = self.queue.lease(time.time())
        assert lease
        return lease

    def entry(self, name: str) -> dict[str, Any]:
        return dict(self.client.get(f"{QUEUE}/{name}").get_json())

    def names(self, query: str = "") -> list[str]:
        answer = self.client.get(QUEUE + query).get_json()
        return [entry["id"] for entry in answer["entries"]]

    def drain(self) -> None:
        """Send what is due, one after the other."""
        store = DicomwebStore(settings_for(self.store.dicomweb_url))
        drain = Drain(self.queue, store, Pace(1, 604_800), lambda: 1.0)
        now = time.time()
        while lease := drain.take(now):
            drain.settle(lease, drain.send(lease), now)


@contextmanager
def service(folder: Path, *steps: Step) -> Iterator[Service]:
    queue = SqliteQueue(folder / "queue", Limits(10_000, 1 << 30))
    with ScriptedServer(*steps) as store:
        client = client_for(store.dicomweb_url, DATA_DIR=str(folder))
        yield Service(client, store, queue, folder)
    queue.close()


@pytest.fixture
def quiet(tmp_path: Path) -> Iterator[Service]:
    """A service whose store takes whatever it is sent."""
    with service(tmp_path, stored()) as found:
        yield found


@pytest.fixture
def refusing(tmp_path: Path) -> Iterator[Service]:
    """A service whose store refuses the first instance, and takes all others."""
    with service(tmp_path, failed(0xA900, "no such patient: Quixote"), stored()) as found:
        yield found


def problem_of(response: TestResponse, status: int) -> dict[str, Any]:
    assert (response.status_code, response.mimetype) == (status, PROBLEM)
    problem = dict(response.get_json())
    assert problem["status"] == status
    assert problem["type"].startswith("urn:jpegstow:")
    assert problem["detail"]
    return problem


def test_a_list_tells_what_waits_but_nothing_of_a_patient(quiet: Service) -> None:
    first, second = quiet.queued("a"), quiet.queued("b", make_jpeg(seed=1))
    response = quiet.client.get(QUEUE)
    assert (response.status_code, response.mimetype) == (200, "application/json")
    assert response.headers["Cache-Control"] == "no-store"
    answer = response.get_json()
    assert list(answer) == ["entries", "next", "totals"]
    assert [entry["id"] for entry in answer["entries"]] == [first, second]
    assert answer["next"] is None
    assert answer["totals"] == {"pending": 2, "leased": 0, "dead": 0}
    entry = answer["entries"][0]
    assert list(entry) == [
        "id",
        "state",
        "SOPInstanceUID",
        "SeriesInstanceUID",
        "StudyInstanceUID",
        "SOPClassUID",
        "TransferSyntaxUID",
        "template",
        "source",
        "wire",
        "bytes",
        "first_seen",
        "attempts",
        "next_attempt",
        "reason",
    ]
    assert (entry["state"], entry["SOPInstanceUID"], entry["attempts"]) == ("pending", first, 0)
    assert (entry["template"], entry["source"]) == ("vl-photographic-image", "http")
    assert entry["TransferSyntaxUID"] == "1.2.840.10008.1.2.4.50"
    assert entry["bytes"] == (quiet.folder / "queue" / "entries" / first).stat().st_size
    assert MOMENT.fullmatch(entry["first_seen"])
    assert MOMENT.fullmatch(entry["next_attempt"])
    assert [value for value in PLANTED if value in response.text] == []


def test_page_after_page_shows_every_entry_once_in_the_order_of_arrival(quiet: Service) -> None:
    names = [quiet.queued(str(number)) for number in range(250)]
    assert len(set(names)) == 250
    assert quiet.names() == names[:100]
    assert quiet.names("?limit=1000") == names
    pages, url = [], f"{QUEUE}?state=pending&limit=120"
    while url:
        answer = quiet.client.get(url).get_json()
        pages.append([entry["id"] for entry in answer["entries"]])
        url = answer["next"]
        assert url is None or url.startswith(f"{QUEUE}?state=pending&limit=120&after=")
    assert [len(page) for page in pages] == [120, 120, 10]
    assert [name for page in pages for name in page] == names


def test_the_next_page_is_filtered_as_the_first(refusing: Service) -> None:
    dead = refusing.dead()
    others = [refusing.queued(str(number)) for number in range(3)]
    study = refusing.entry(dead)["StudyInstanceUID"]
    first = refusing.client.get(f"{QUEUE}?limit=1&reason=NO+such&study={study}").get_json()
    assert ([entry["id"] for entry in first["entries"]], first["next"]) == ([dead], None)
    first = refusing.client.get(f"{QUEUE}?limit=2&study={study}").get_json()
    second = refusing.client.get(first["next"]).get_json()
    assert [entry["id"] for entry in second["entries"]] == others[1:]
    assert second["next"] is None


def test_entries_are_chosen_by_state_reason_and_study(refusing: Service) -> None:
    dead, pending = refusing.dead(), refusing.queued("a")
    elsewhere = refusing.queued("b", StudyID="another")
    leased = refusing.leased().entry.sop_instance_uid
    study = refusing.entry(elsewhere)["StudyInstanceUID"]
    assert refusing.names() == [dead, pending, elsewhere]
    assert leased == pending
    assert refusing.names("?state=dead") == [dead]
    assert refusing.names("?state=leased") == [pending]
    assert refusing.names("?state=pending") == [elsewhere]
    assert refusing.names("?reason=No+Such") == [dead]
    assert refusing.names("?reason=%25") == []
    assert refusing.names(f"?study={study}") == [elsewhere]
    assert refusing.names(f"?state=dead&study={study}") == []
    assert refusing.names("?state=&reason=&study=&limit=&after=") == [dead, pending, elsewhere]
    totals = refusing.client.get(f"{QUEUE}?state=dead").get_json()["totals"]
    assert totals == {"pending": 1, "leased": 1, "dead": 1}


BAD_QUERIES = {
    "an unknown state": ("state=Quixote", "state"),
    "a state that is none for others": ("state=dropped", "state"),
    "a state twice": ("state=dead&state=pending", "state"),
    "an unknown parameter": ("Quixote=1", "query"),
    "a patient": ("PatientName=Quixote", "query"),
    "no limit at all": ("limit=0", "limit"),
    "a limit too high": ("limit=1001", "limit"),
    "a negative limit": ("limit=-1", "limit"),
    "a limit in other digits": ("limit=%EF%BC%91", "limit"),
    "a limit that is a word": ("limit=Quixote", "limit"),
    "a place that is none": ("after=Quixote", "after"),
}


@pytest.mark.parametrize(("query", "where"), BAD_QUERIES.values(), ids=BAD_QUERIES)
def test_a_list_that_nobody_can_give_is_refused(query: str, where: str, quiet: Service) -> None:
    response = quiet.client.get(f"{QUEUE}?{query}")
    assert problem_of(response, 400)["where"] == where
    assert response.headers["Cache-Control"] == "no-store"
    assert "Quixote" not in response.text


def test_one_entry_is_shown_with_all_but_its_pixels(refusing: Service) -> None:
    response = post(refusing.client, make_jpeg(60, 40, comment=b"hello"), **SAID)
    told = response.get_json()
    shown = refusing.client.get(told["queue"])
    assert shown.headers["Cache-Control"] == "no-store"
    entry = shown.get_json()
    assert list(entry)[-4:] == ["history", "normalised", "attributes", "instance"]
    for name in ("SOPInstanceUID", "StudyInstanceUID", "SOPClassUID", "normalised"):
        assert entry[name] == told[name]
    (attempt,) = entry["history"]
    assert MOMENT.fullmatch(attempt.pop("at"))
    assert attempt == {
        "outcome": "rejected",
        "status": 409,
        "reason": told["detail"],
        "wire": "json",
    }
    assert (entry["state"], entry["attempts"], entry["wire"]) == ("dead", 1, "json")
    assert (entry["next_attempt"], entry["reason"]) == (None, told["detail"])
    assert entry["attributes"] == {
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Quixote^Alonso"}]},
        "00100020": {"vr": "LO", "Value": ["Rocinante-7"]},
        "00200010": {"vr": "SH", "Value": ["Dulcinea"]},
    }
    (sent,) = json.loads(parts_of(refusing.store.requests[0])[0][1])
    del sent["00020010"], sent["7FE00010"]
    assert entry["instance"] == sent


def test_only_the_last_ten_attempts_are_shown(tmp_path: Path) -> None:
    with service(tmp_path, unavailable()) as away:
        name = only(post(away.client, JPEG, **SAID))["SOPInstanceUID"]
        for _ in range(11):
            away.client.post(f"{QUEUE}/{name}/retry")
            away.drain()
        entry = away.entry(name)
    assert (entry["attempts"], len(entry["history"])) == (12, 10)
    assert {attempt["status"] for attempt in entry["history"]} == {503}


def jpeg2000() -> bytes:
    file = BytesIO()
    picture(32, 24).save(file, "JPEG2000", no_jp2=True)
    return file.getvalue()


PICTURES = {
    "baseline": (JPEG, "image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.50", "jpg"),
    "turned": (
        make_jpeg(orientation=6),
        "image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.50",
        "jpg",
    ),
    "large": (
        make_jpeg(900, 700, subsampling="4:4:4"),
        "image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.50",
        "jpg",
    ),
    "JPEG 2000": (jpeg2000(), "image/jp2; transfer-syntax=1.2.840.10008.1.2.4.90", "j2k"),
}


@pytest.mark.parametrize(("image", "kind", "suffix"), PICTURES.values(), ids=PICTURES)
def test_the_image_is_byte_for_byte_what_the_store_gets(
    image: bytes, kind: str, suffix: str, quiet: Service
) -> None:
    name = quiet.queued("", image)
    response = quiet.client.get(f"{QUEUE}/{name}/image")
    assert (response.status_code, response.headers["Content-Type"]) == (200, kind)
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Content-Disposition"] == f'inline; filename="{name}.{suffix}"'
    assert response.content_length == len(response.data)
    quiet.drain()
    ((_, sent),) = parts_of(quiet.store.requests[0])[1:]
    assert response.data == sent
    assert quiet.client.get(f"{QUEUE}/{name}/image").status_code == 404


STRANGE = [
    "1.2.3",
    "retry",
    "Quixote",
    "..%2F..%2Fsecret",
    "..%2fsecret",
    "%2e%2e",
    "%00",
    "1" * 9000,
]


@pytest.mark.parametrize("name", STRANGE)
def test_what_the_queue_doesnt_hold_is_not_found_whatever_its_name(
    name: str, quiet: Service
) -> None:
    (quiet.folder / "secret").write_text("Dulcinea")
    (quiet.folder / "queue" / "secret").write_text("Dulcinea")
    kept = quiet.queued()
    url = f"{QUEUE}/{name}"
    answers = [
        quiet.client.get(url),
        quiet.client.get(f"{url}/image"),
        quiet.client.post(f"{url}/retry"),
        quiet.client.post(f"{url}/retry", json={"attributes": {"PatientID": "P-8"}}),
        quiet.client.delete(url),
    ]
    for response in answers:
        assert problem_of(response, 404)["type"] in {
            "urn:jpegstow:no-such-entry",
            "urn:jpegstow:not-found",
        }
        assert [value for value in PLANTED if value in response.text] == []
    assert (quiet.folder / "secret").exists()
    assert quiet.names() == [kept]


def test_a_dead_entry_can_be_tried_again(refusing: Service) -> None:
    name = refusing.dead()
    response = refusing.client.post(f"{QUEUE}/{name}/retry")
    assert response.status_code == 202
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Location"] == f"{QUEUE}/{name}"
    entry = response.get_json()
    assert (entry["id"], entry["state"], entry["attempts"]) == (name, "pending", 1)
    assert MOMENT.fullmatch(entry["next_attempt"])
    assert "no such patient" in entry["reason"]
    refusing.drain()
    assert instances_in(refusing.store.requests[1]) == [(entry["SOPClassUID"], name)]
    assert refusing.store.requests[0].sha256 == refusing.store.requests[1].sha256
    assert refusing.names() == []


@pytest.mark.parametrize("body", [b"{}", b'{"attributes": {}, "template": ""}', b" {}\n"])
def test_a_body_that_says_nothing_describes_nothing_anew(body: bytes, refusing: Service) -> None:
    name = refusing.dead()
    response = refusing.client.post(f"{QUEUE}/{name}/retry", data=body)
    assert (response.status_code, response.get_json()["id"]) == (202, name)


def test_an_entry_that_is_being_sent_is_left_alone(quiet: Service) -> None:
    name = quiet.queued()
    lease = quiet.leased()
    before = quiet.entry(name)
    url = f"{QUEUE}/{name}"
    better = {"attributes": {"PatientID": "P-8"}}
    answers = [
        quiet.client.post(f"{url}/retry"),
        quiet.client.post(f"{url}/retry", json=better),
        quiet.client.delete(url),
    ]
    for response in answers:
        assert problem_of(response, 409)["type"] == "urn:jpegstow:being-sent"
        assert int(response.headers["Retry-After"]) > 0
    assert quiet.client.post(f"{QUEUE}/retry?state=leased").get_json() == {"retried": 0}
    assert (quiet.entry(name), quiet.names()) == (before, [name])
    assert before["state"] == "leased"
    quiet.queue.put_back(lease, 0.0, None)
    assert quiet.client.post(f"{url}/retry").status_code == 202
    assert quiet.client.delete(url).status_code == 204


def test_a_mended_entry_is_stored_under_its_new_name(refusing: Service) -> None:
    old = refusing.dead()
    before, picture_before = refusing.entry(old), image_of(refusing, old)
    better = {"attributes": {"PatientID": "P-8", "ImageComments": "mended"}}
    response = refusing.client.post(f"{QUEUE}/{old}/retry", json=better)
    assert response.status_code == 202
    new = response.get_json()["id"]
    assert new != old
    assert response.headers["Location"] == f"{QUEUE}/{new}"
    assert [value for value in PLANTED if value in response.text] == []
    assert refusing.client.get(f"{QUEUE}/{old}").status_code == 404
    entry = refusing.entry(new)
    assert (entry["state"], entry["attempts"], entry["history"]) == ("pending", 0, [])
    assert entry["instance"]["00100020"]["Value"] == ["P-8"]
    assert entry["attributes"] == before["attributes"] | {
        "00100020": {"vr": "LO", "Value": ["P-8"]},
        "00204000": {"vr": "LT", "Value": ["mended"]},
    }
    assert entry["normalised"] == before["normalised"]
    assert image_of(refusing, new) == picture_before
    refusing.drain()
    assert refusing.names() == []
    (item,) = json.loads(parts_of(refusing.store.requests[-1])[0][1])
    assert item["00080018"]["Value"] == [new]
    assert item["00100020"]["Value"] == ["P-8"]
    assert item["00100010"] == before["instance"]["00100010"]
    assert kept_files(refusing) == []


def image_of(service: Service, name: str) -> bytes:
    return bytes(service.client.get(f"{QUEUE}/{name}/image").data)


def kept_files(service: Service) -> list[str]:
    folders = [service.folder / "queue" / name for name in ("entries", "incoming", "damaged")]
    return [path.name for folder in folders for path in folder.iterdir()]


def test_another_template_makes_another_instance(refusing: Service) -> None:
    old = refusing.dead()
    body = {"template": "secondary-capture-image"}
    entry = refusing.client.post(f"{QUEUE}/{old}/retry", json=body).get_json()
    assert entry["template"] == "secondary-capture-image"
    assert entry["SOPClassUID"] == "1.2.840.10008.5.1.4.1.1.7"
    assert refusing.names() == [entry["id"]] != [old]


def test_a_mended_entry_becomes_what_a_better_upload_would_have(refusing: Service) -> None:
    old = refusing.dead()
    better = {"attributes": {"PatientSex": "M"}}
    mended = refusing.client.post(f"{QUEUE}/{old}/retry", json=better).get_json()["id"]
    entry = refusing.entry(mended)
    with service(refusing.folder / "other", stored()) as other:
        assert other.entry(other.queued(PatientSex="M"))["instance"] == entry["instance"]


def test_the_same_said_again_keeps_the_name(refusing: Service) -> None:
    name = refusing.dead()
    response = refusing.client.post(f"{QUEUE}/{name}/retry", json={"attributes": SAID})
    assert (response.status_code, response.get_json()["id"]) == (202, name)
    assert refusing.entry(name)["state"] == "pending"


BAD_BODIES: dict[str, tuple[bytes, str]] = {
    "no JSON": (b"Quixote", "body"),
    "half of it": (b'{"attributes": {"PatientID": "Quixote"}', "body"),
    "other bytes": (b"\xff\xfe\xfd", "body"),
    "a list": (b'[{"PatientID": "Quixote"}]', "body"),
    "a number": (b"7", "body"),
    "null": (b"null", "body"),
    "attributes without their name": (b'{"PatientID": "Quixote"}', "body"),
    "a name twice": (b'{"attributes": {"PatientID": "Quixote", "PatientID": "P-9"}}', "body"),
    "not a number": (b'{"attributes": {"SeriesNumber": NaN}}', "body"),
    "no end": (b'{"attributes":' * 50_000 + b"1", "body"),
    "a list of attributes": (b'{"attributes": ["Quixote"]}', "attributes"),
    "a numbered template": (b'{"template": 7}', "template"),
    "an unknown template": (b'{"template": "Quixote"}', "template"),
    "an unknown keyword": (b'{"attributes": {"PatientNam": "Quixote"}}', "PatientNam"),
    "a bad value": (b'{"attributes": {"PatientSex": "Quixote"}}', "PatientSex"),
    "a fact of the image": (b'{"attributes": {"Rows": 7}}', "Rows"),
    "its name": (b'{"attributes": {"SOPInstanceUID": "1.2.3"}}', "SOPInstanceUID"),
    "a template that wants more": (
        b'{"template": "dermoscopic-photography-image"}',
        "Manufacturer",
    ),
}


@pytest.mark.parametrize(("body", "where"), BAD_BODIES.values(), ids=BAD_BODIES)
def test_a_mend_that_isnt_acceptable_changes_nothing(
    body: bytes, where: str, refusing: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    name = refusing.dead()
    before = refusing.entry(name)
    response = refusing.client.post(
        f"{QUEUE}/{name}/retry", data=body, content_type="application/json"
    )
    problem = problem_of(response, 400)
    assert where in problem["where"]
    assert refusing.entry(name) == before
    assert refusing.names() == [name]
    assert len(refusing.store.requests) == 1
    logged = "".join(capsys.readouterr())
    assert [value for value in PLANTED if value in response.text + logged] == []


def test_a_mend_of_a_megabyte_is_too_much(quiet: Service) -> None:
    name = quiet.queued()
    body = {"attributes": {"ImageComments": "x" * 1_000_000}}
    response = quiet.client.post(f"{QUEUE}/{name}/retry", json=body)
    assert problem_of(response, 413)["where"] == "body"
    assert quiet.names() == [name]


def test_a_mend_that_is_cut_off_is_no_retry(quiet: Service) -> None:
    name = quiet.queued()
    due = quiet.entry(name)["next_attempt"]
    response = quiet.client.post(
        f"{QUEUE}/{name}/retry",
        input_stream=BytesIO(),
        environ_overrides={"CONTENT_LENGTH": "50", "wsgi.input_terminated": True},
    )
    assert problem_of(response, 400)["type"] == "urn:jpegstow:cut-off"
    assert quiet.entry(name)["next_attempt"] == due


def test_an_entry_that_is_stored_before_the_answer_is_named_all_the_same(tmp_path: Path) -> None:
    class Swift(SqliteQueue):
        """A queue whose worker is faster than the answer."""

        def revive(self, chosen: Filter, now: float) -> int:
            revived = super().revive(chosen, now)
            self.finish(chosen.instance)
            return revived

    settings = settings_for(NOBODY, DATA_DIR=str(tmp_path))
    queue = Swift(tmp_path / "queue", Limits(10, 1 << 30))
    client = create_app(assemble.rules(settings), DicomwebStore(settings), queue, settings)
    response = post(client.test_client(), JPEG, **SAID)
    url = response.headers["Location"]
    response = client.test_client().post(f"{url}/retry")
    queue.close()
    assert (response.status_code, response.headers["Location"]) == (202, url)
    name = url.rpartition("/")[2]
    assert response.get_json() == {"id": name, "SOPInstanceUID": name}


def test_many_are_tried_again_at_once_the_dead_unless_told_otherwise(tmp_path: Path) -> None:
    with service(tmp_path, failed(0xA900, "odd"), failed(0x0122), failed(0xA900, "odd")) as found:
        dead = [found.dead(make_jpeg(seed=seed)) for seed in range(3)]
        pending = found.queued("a", StudyID="another")
        study = found.entry(pending)["StudyInstanceUID"]
        for query, expected in (
            (f"?study={study}", 0),
            ("?reason=ODD", 2),
            ("", 1),
            ("?state=", 0),
            (f"?state=pending&study={study}", 1),
            ("?state=pending", 4),
        ):
            response = found.client.post(f"{QUEUE}/retry{query}")
            assert (response.status_code, response.get_json()) == (200, {"retried": expected})
            assert response.headers["Cache-Control"] == "no-store"
        assert found.names("?state=pending") == [*dead, pending]


@pytest.mark.parametrize(
    "query", ["state=Quixote", "limit=5", "id=1", "after=1", "reason=a&reason=b"]
)
def test_a_choice_that_isnt_one_revives_nothing(query: str, refusing: Service) -> None:
    name = refusing.dead()
    response = refusing.client.post(f"{QUEUE}/retry?{query}")
    assert problem_of(response, 400)["where"] in {"state", "query", "reason"}
    assert "Quixote" not in response.text
    assert refusing.names("?state=dead") == [name]


def test_a_dropped_entry_is_gone_with_its_file(refusing: Service) -> None:
    name, other = refusing.dead(), refusing.queued("a")
    response = refusing.client.delete(f"{QUEUE}/{name}")
    assert (response.status_code, response.data) == (204, b"")
    assert response.headers["Cache-Control"] == "no-store"
    assert problem_of(refusing.client.delete(f"{QUEUE}/{name}"), 404)
    assert refusing.names() == [other] == kept_files(refusing)


def test_other_methods_are_told_which_are_allowed(quiet: Service) -> None:
    name = quiet.queued()
    for method, url, allowed in (
        ("PUT", f"{QUEUE}/{name}", "DELETE"),
        ("DELETE", QUEUE, "GET"),
        ("GET", f"{QUEUE}/{name}/retry", "POST"),
        ("POST", "/metrics", "GET"),
    ):
        response = quiet.client.open(url, method=method)
        assert problem_of(response, 405)
        assert allowed in response.headers["Allow"]


def test_a_damaged_entry_says_so_and_can_be_dropped(quiet: Service) -> None:
    name = quiet.queued()
    file = quiet.folder / "queue" / "entries" / name
    file.write_bytes(file.read_bytes()[:-100])
    for url in (f"{QUEUE}/{name}", f"{QUEUE}/{name}/image"):
        response = quiet.client.get(url)
        problem = problem_of(response, 500)
        assert (problem["type"], "drop" in problem["mend"]) == ("urn:jpegstow:damaged-entry", True)
        assert [value for value in PLANTED if value in response.text] == []
    assert quiet.names() == [name]
    assert quiet.client.delete(f"{QUEUE}/{name}").status_code == 204


def test_a_queue_that_cant_be_read_is_told_and_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    client = client_for(NOBODY, DATA_DIR=str(tmp_path))
    index = tmp_path / "queue" / "queue.sqlite"
    index.unlink()
    index.mkdir()
    for response in (
        client.get(QUEUE),
        client.get(f"{QUEUE}/1.2.3"),
        client.post(f"{QUEUE}/retry"),
        client.delete(f"{QUEUE}/1.2.3"),
        client.get("/metrics"),
    ):
        problem = problem_of(response, 503)
        assert (problem["type"], problem["where"]) == ("urn:jpegstow:queue-unusable", "RETRY_QUEUE")
        assert int(response.headers["Retry-After"]) > 0


def test_no_value_reaches_the_log_and_every_act_of_an_operator_does(
    refusing: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    old = refusing.dead()
    refusing.client.get(QUEUE)
    refusing.client.get(f"{QUEUE}?reason=Quixote")
    refusing.client.get(f"{QUEUE}/{old}")
    refusing.client.get(f"{QUEUE}/{old}/image")
    refusing.client.post(f"{QUEUE}/{old}/retry")
    better = {"attributes": {"PatientID": "Rocinante-8"}}
    new = refusing.client.post(f"{QUEUE}/{old}/retry", json=better).get_json()["id"]
    refusing.client.post(f"{QUEUE}/retry?reason=Quixote&study=Dulcinea")
    refusing.client.get("/metrics")
    refusing.client.delete(f"{QUEUE}/{new}")
    refusing.client.delete(f"{QUEUE}/Quixote")
    captured = capsys.readouterr()
    assert captured.err == ""
    assert [value for value in PLANTED if value in captured.out] == []
    lines = [json.loads(line) for line in captured.out.splitlines()]
    said = [(line["message"], line.get("SOPInstanceUID")) for line in lines]
    assert said == [
        ("upload", old),
        ("queue retry", old),
        ("queue mend", new),
        ("queue retry", None),
        ("queue drop", new),
        ("request refused", None),
    ]
    assert (lines[2]["replaces"], lines[3]["retried"]) == (old, 0)


def figures(text: str) -> dict[str, float]:
    return {
        sample.name + "".join(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_figures_of_an_empty_queue_are_there_and_nought(quiet: Service) -> None:
    response = quiet.client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    assert response.headers["Cache-Control"] == "no-store"
    assert figures(response.text) == {
        "jpegstow_queue_entriespending": 0,
        "jpegstow_queue_entriesleased": 0,
        "jpegstow_queue_entriesdead": 0,
        "jpegstow_queue_bytes": 0,
        "jpegstow_queue_oldest_seconds": 0,
        "jpegstow_queue_attempts_totalstored": 0,
        "jpegstow_queue_attempts_totalunavailable": 0,
        "jpegstow_queue_attempts_totalrejected": 0,
    }


def test_the_figures_are_those_of_the_queue_whoever_has_changed_it(tmp_path: Path) -> None:
    steps = (failed(0xA900, "Quixote"), unavailable(), stored())
    with service(tmp_path, *steps) as found:
        dead = found.dead()
        post(found.client, make_jpeg(seed=1), **SAID)
        sizes = [found.entry(name)["bytes"] for name in found.names()]
        before = figures(found.client.get("/metrics").text)
        found.client.post(f"{QUEUE}/retry?state=pending")
        found.drain()
        response = found.client.get("/metrics")
        after = figures(response.text)
        assert found.names() == [dead]
    assert before["jpegstow_queue_entriespending"] == before["jpegstow_queue_entriesdead"] == 1
    assert before["jpegstow_queue_bytes"] == sum(sizes)
    assert 0 < before["jpegstow_queue_oldest_seconds"] < 60
    assert before["jpegstow_queue_attempts_totalunavailable"] == 1
    assert before["jpegstow_queue_attempts_totalrejected"] == 1
    assert before["jpegstow_queue_attempts_totalstored"] == 0
    assert after["jpegstow_queue_attempts_totalstored"] == 1
    assert after["jpegstow_queue_entriespending"] == after["jpegstow_queue_oldest_seconds"] == 0
    assert after["jpegstow_queue_entriesdead"] == 1
    assert [value for value in PLANTED if value in response.text] == []


@pytest.mark.parametrize(("now", "age"), [(1_000.5, 900.5), (50.0, 0.0)])
def test_the_age_of_the_oldest_never_is_negative(now: float, age: float) -> None:
    totals = Totals({"pending": 1, "leased": 0, "dead": 0}, 7, 100.0, {})
    found = figures(metrics.exposition(totals, now).decode())
    assert found["jpegstow_queue_oldest_seconds"] == age
    assert found["jpegstow_queue_bytes"] == 7
