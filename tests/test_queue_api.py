"""What an operator sees of the retry queue over HTTP."""

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from tests.jpegs import make_jpeg, picture
from tests.peers import failed, parts_of, stored, unavailable
from tests.queue_service import (
    JPEG,
    MOMENT,
    NOBODY,
    PLANTED,
    QUEUE,
    SAID,
    Service,
    problem_of,
    service,
)
from tests.queues import ENTRY_KEYS
from tests.serving import client_for, only, post


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
    assert list(entry) == ENTRY_KEYS
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
    assert list(entry)[-5:] == ["history", "key", "normalised", "attributes", "instance"]
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


def test_a_damaged_entry_shows_what_is_left_of_it_and_can_be_dropped(refusing: Service) -> None:
    name = refusing.dead()
    before = refusing.entry(name)
    file = refusing.folder / "queue" / "entries" / name
    file.write_bytes(file.read_bytes()[:-100])
    response = refusing.client.get(f"{QUEUE}/{name}")
    assert response.status_code == 200
    entry = response.get_json()
    assert list(entry) == [*ENTRY_KEYS, "history", "damaged"]
    told = entry.pop("damaged")
    assert entry == {key: before[key] for key in entry}
    assert len(entry["history"]) == 1
    assert ("damaged or gone" in told, "drop" in told) == (True, True)
    image = refusing.client.get(f"{QUEUE}/{name}/image")
    problem = problem_of(image, 500)
    assert (problem["type"], "drop" in problem["mend"]) == ("urn:jpegstow:damaged-entry", True)
    better = {"attributes": {"PatientID": "P-8"}}
    mended = refusing.client.post(f"{QUEUE}/{name}/retry", json=better)
    assert problem_of(mended, 500)["type"] == "urn:jpegstow:damaged-entry"
    assert refusing.entry(name) | {"damaged": ""} == entry | {"damaged": ""}
    planted = [value for value in ("Rocinante", "Dulcinea") if value in response.text + image.text]
    assert planted == []
    assert refusing.names() == [name]
    assert refusing.client.delete(f"{QUEUE}/{name}").status_code == 204


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
