"""What the pages read of a store: our archive, a real Orthanc, and stores that fail."""

import json
from collections.abc import Iterator
from html import unescape
from io import BytesIO
from typing import Any

import pytest
from flask.testing import FlaskClient
from PIL import Image
from pydicom import dcmread

from tests.jpegs import make_jpeg
from tests.peers import Orthanc, Respond, ScriptedServer, failed
from tests.queue_service import NOBODY
from tests.serving import Serving, client_for, form, only, post, upload

SAID = {"PatientID": "P-7", "PatientName": "Quixote^Alonso", "AccessionNumber": "A-7"}
JSON = {"Content-Type": "application/dicom+json"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Serving(tmp_path_factory.mktemp("store") / "data") as serving:
        yield serving.archive_url


@pytest.fixture(params=["archive", "Orthanc"])
def client(request: pytest.FixtureRequest, archive: str) -> FlaskClient:
    """Return a client of the service before a store."""
    if request.param == "archive":
        return client_for(archive)
    orthanc: Orthanc = request.getfixturevalue("orthanc")
    return client_for(orthanc.dicomweb_url)


def page_of(instance: dict[str, Any]) -> str:
    return (
        f"/studies/{instance['StudyInstanceUID']}/series/{instance['SeriesInstanceUID']}"
        f"/instances/{instance['SOPInstanceUID']}"
    )


def test_any_store_is_searched_and_looked_at(client: FlaskClient) -> None:
    instance = only(post(client, make_jpeg(640, 480, seed=5), **SAID))
    page, study = page_of(instance), f"/studies/{instance['StudyInstanceUID']}"
    for said in ({"PatientName": "Quixote"}, {"PatientID": "P-7"}, {"AccessionNumber": "A-7"}, {}):
        found = client.post("/studies/search", data=said).get_data(as_text=True)
        assert study in found, f"not found by {list(said)}"
        assert "Quixote, Alonso" in found
    assert page in client.get(study).get_data(as_text=True)
    for path in (f"{study}/thumbnail", f"{page}/thumbnail"):
        small = client.get(path)
        assert small.mimetype == "image/jpeg"
        # Orthanc makes it square, by black bars.
        assert Image.open(BytesIO(small.data)).size in {(256, 192), (256, 256)}
    assert Image.open(BytesIO(client.get(f"{page}/rendered").data)).size == (640, 480)
    told = client.get(page).get_data(as_text=True)
    assert "Patient&#39;s Name" in told
    assert "Quixote^Alonso" in told
    file = client.get(f"{page}/file")
    assert file.headers["Content-Disposition"].startswith("attachment")
    assert dcmread(BytesIO(file.data)).SOPInstanceUID == instance["SOPInstanceUID"]


def test_what_is_deleted_is_gone_and_its_study_too_when_it_was_the_last(archive: str) -> None:
    client = client_for(archive)
    instances = post(client, make_jpeg(seed=1), make_jpeg(seed=2), PatientID="P-9").get_json()
    first, second = map(page_of, instances["instances"])
    study = first.partition("/series/")[0]
    assert client.delete(first).status_code == 204
    assert [client.get(page).status_code for page in (first, second, study)] == [404, 200, 200]
    assert client.delete(study).status_code == 204
    assert client.get(study).status_code == 404
    assert study not in client.post("/studies/search", data={"PatientID": "P-9"}).text


def test_of_a_store_that_knows_no_delete_it_is_told_that_nothing_is_deleted(
    orthanc: Orthanc,
) -> None:
    client = client_for(orthanc.dicomweb_url)
    page = page_of(only(post(client, make_jpeg(seed=3), PatientID="P-10")))
    answer = client.delete(page, headers={"HX-Request": "true"})
    assert answer.status_code == 502
    assert answer.get_json()["detail"].startswith("The store didn't delete it")
    assert client.get(page).status_code == 200


def test_a_date_range_finds_what_is_in_it(archive: str) -> None:
    client = client_for(archive)
    instance = only(post(client, make_jpeg(seed=6), PatientID="P-8", StudyDate="20240305"))
    dates = [("2024-03-05", "2024-03-05"), ("2024-03-01", ""), ("", "2024-03-04")]
    found = [client.post("/studies/search", data={"from": a, "to": b}).text for a, b in dates]
    assert [instance["StudyInstanceUID"] in text for text in found] == [True, True, False]
    assert "2024-03-05" in found[0]


def test_a_store_that_cannot_be_reached_is_told_as_such() -> None:
    client = client_for(NOBODY)
    listed = client.get("/studies")
    assert listed.status_code == 200
    assert "The store can&#39;t be read now" in listed.text
    answers = [client.get("/studies/1.2"), client.get("/studies/1.2/series/3/instances/4")]
    answers.append(client.get("/studies/1.2/series/3/instances/4/file"))
    assert [answer.status_code for answer in answers] == [503] * 3
    assert all("the connection to the store failed" in answer.text for answer in answers)
    assert client.get("/studies/1.2/thumbnail").mimetype == "image/svg+xml"
    asked = client.delete("/studies/1.2", headers={"HX-Request": "true"})
    assert (asked.status_code, asked.mimetype) == (503, "application/problem+json")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Respond(200, {"Content-Type": "text/html"}, b"<p>Sign in</p>"), "isn&#39;t JSON"),
        (Respond(200, JSON, b'{"0020000D": 1}'), "isn&#39;t an array"),
        (Respond(401), "doesn&#39;t accept the credentials"),
        (Respond(400), "the store answered 400"),
    ],
)
def test_what_a_store_answers_amiss_is_no_page_that_breaks(answer: Respond, said: str) -> None:
    with ScriptedServer(answer) as store:
        assert said in client_for(store.dicomweb_url).get("/studies").text


def test_what_a_store_says_is_shown_as_text_and_never_as_markup() -> None:
    evil = b'[{"0020000D": {"vr": "UI", "Value": ["1.2"]}, "00100010": {"vr": "PN", "Value": '
    evil += b'[{"Alphabetic": "<script>alert(1)</script>"}]}}, {"0020000D": {"vr": "UI", "Value": '
    evil += b'["../x"]}}, {"0020000D": "none", "x": 1}]'
    with ScriptedServer(Respond(200, JSON, evil)) as store:
        text = client_for(store.dicomweb_url).get("/studies").text
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "../x" not in text


@pytest.mark.parametrize("path", ["/studies/x", "/studies/1.2/series/3/instances/..%2f4/file"])
def test_an_address_without_uids_asks_the_store_nothing(path: str) -> None:
    with ScriptedServer(Respond(200, JSON, b"[]")) as store:
        assert client_for(store.dicomweb_url).get(path).status_code in {400, 404}
        assert store.requests == []


def test_an_entry_that_is_gone_is_told_on_a_page() -> None:
    client = client_for(NOBODY)
    # Not an error in the console of a list whose entry was stored a moment ago.
    assert client.get("/queue/1.2.3/thumbnail").mimetype == "image/svg+xml"
    answer = client.get("/queue/1.2.3", headers={"Accept-Language": "de"})
    assert answer.status_code == 404
    assert answer.mimetype == "text/html"
    assert "Das hat nicht geklappt" in answer.text


def test_the_list_of_the_queue_is_sent_again_only_when_it_has_changed() -> None:
    client = client_for(NOBODY)
    first = client.post("/queue/list").text
    seen = first.partition('name="seen" value="')[2].partition('"')[0]
    assert client.post("/queue/list", data={"seen": seen}).status_code == 204
    queued = only(post(client, make_jpeg(seed=7)))
    changed = client.post("/queue/list", data={"seen": seen})
    assert queued["SOPInstanceUID"] in changed.text
    assert client.post("/queue/list", data={"state": "none"}).status_code == 400


def test_a_long_queue_is_shown_page_by_page_and_a_refresh_stays_on_its_page() -> None:
    client = client_for(NOBODY)
    headers = {"Prefer": "respond-async"}
    for seed in range(51):
        upload(client, **form(make_jpeg(16, 16), PatientID=f"P-{seed}"), headers=headers)
    first = client.post("/queue/list").text
    assert first.count('class="entry"') == 50
    after = unescape(first).partition('{"after": "')[2].partition('"')[0]
    second = client.post("/queue/list", data={"after": after}).text
    assert second.count('class="entry"') == 1
    names = ("seen", "filtered", "page")
    kept = {name: second.partition(f'name="{name}" value="')[2].partition('"')[0] for name in names}
    assert client.post("/queue/list", data=kept).status_code == 204
    filtered = client.post("/queue/list", data=kept | {"state": "pending"}).text
    assert filtered.count('class="entry"') == 50, "another filter begins at its first page"


def test_all_that_a_filter_shows_are_tried_and_no_others() -> None:
    with ScriptedServer(failed(detail="unknown patient"), failed(detail="bad date")) as store:
        client = client_for(store.dicomweb_url)
        for seed in range(2):
            assert post(client, make_jpeg(seed=seed)).status_code == 502
    listed = client.post("/queue/list", data={"reason": "unknown"}).text
    button = unescape(listed.partition('hx-post="/queue/retry"')[2])
    chosen = json.loads(button.partition("hx-vals='")[2].partition("'")[0])
    assert client.post("/queue/retry", data=chosen).status_code == 204
    entries = client.get("/v1/queue").get_json()["entries"]
    assert {entry["state"]: "unknown" in entry["reason"] for entry in entries} == {
        "pending": True,
        "dead": False,
    }
    assert "/queue/retry" not in client.post("/queue/list", data={"reason": "nothing"}).text


@pytest.mark.parametrize(
    ("accepted", "language"),
    [("de-AT,en;q=0.5", "de"), ("fr,es-MX;q=0.8,en;q=0.7", "es"), ("fr", "en"), ("", "en")],
)
def test_a_language_of_a_country_comes_before_another_one(accepted: str, language: str) -> None:
    page = client_for(NOBODY).get("/", headers={"Accept-Language": accepted})
    assert f'<html lang="{language}">' in page.text


def test_a_language_is_chosen_for_pages_of_ours_alone() -> None:
    client = client_for(NOBODY)
    chosen = client.get("/language/de?back=/queue")
    assert chosen.headers["Location"] == "/queue"
    assert 'lang="de"' in client.get("/").text
    for back in ("//evil.example/", "https://evil.example/", "/\\evil.example"):
        assert client.get("/language/es", query_string={"back": back}).headers["Location"] == "/"
    assert client.get("/language/xx").headers.getlist("Set-Cookie") == []
