"""What an operator can do about the retry queue over HTTP: try again, describe anew, discard."""

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from service.retry import Filter, Limits, SqliteQueue
from service.wsgi import application
from tests.jpegs import make_jpeg
from tests.peers import failed, instances_in, parts_of, stored
from tests.queue_service import (
    JPEG,
    MOMENT,
    NOBODY,
    PLANTED,
    QUEUE,
    SAID,
    Service,
    kept_files,
    problem_of,
    service,
)
from tests.serving import post, settings_for


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
    client = application(settings, queue)
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
