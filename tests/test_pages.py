"""The pages in a real browser, on a phone and at a desk, before the real service and archive."""

import json
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, expect
from pydicom import dcmread

from service.dicom.coded import LISTS
from service.texts import LANGUAGES, catalogue
from tests.browsing import Tab, files, serious, shoot, size_of, tab
from tests.jpegs import make_jpeg
from tests.painted import arm
from tests.peers import BOUND
from tests.serving import Serving

PLANTED = ("Quixote", "Dulcinea", "P-7")


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with Serving(tmp_path_factory.mktemp("pages") / "data") as service:
        yield service


@pytest.fixture(params=["phone", "desk"])
def opened(browser: Browser, serving: Serving, request: pytest.FixtureRequest) -> Iterator[Tab]:
    with tab(browser, serving.url, request.param) as one:
        yield one


@pytest.fixture(scope="module")
def stored(serving: Serving) -> str:
    """Store a study of two pictures, and return the path of the page of the first."""
    said = {"PatientID": "P-3", "PatientName": "Panza^Sancho", "AccessionNumber": "A-3"}
    answer = serving.post(arm(8), arm(9), **said, AnatomicRegionSequence="forearm")
    first = answer.json()["instances"][0]
    return (
        f"/studies/{first['StudyInstanceUID']}/series/{first['SeriesInstanceUID']}"
        f"/instances/{first['SOPInstanceUID']}"
    )


def test_three_pictures_are_uploaded_and_one_that_lies_on_its_side_is_upright(
    opened: Tab, serving: Serving, request: pytest.FixtureRequest
) -> None:
    page = opened.page
    page.goto("/")
    page.get_by_label("Patient ID").fill("P-7")
    page.get_by_label("Family name").fill("Quixote")
    page.get_by_label("Given name").fill("Dulcinea")
    page.get_by_label("Date of birth").fill("1980-02-03")
    page.get_by_role("combobox", name="Body site").select_option("forearm")
    page.locator("#files").set_input_files(files(arm(1), arm(2)))
    page.locator("#camera").set_input_files(files(arm(3, orientation=6)))
    page.get_by_role("button", name="Send (3)").click()
    expect(page.locator("#summary")).to_have_text("3 of 3 pictures taken")
    assert page.locator('[data-state="stored"]').count() == 3
    done = page.locator("#pictures > li").nth(2).get_by_text("What was done to it")
    done.click()
    expect(page.get_by_text("turned a quarter clockwise without loss")).to_be_visible()
    done.click()
    links = page.get_by_role("link", name="Show")
    paths = [links.nth(number).get_attribute("href") or "" for number in range(links.count())]
    assert len(paths) == 3
    assert len({path.split("/")[2] for path in paths}) == 1, "one patient's share a study"
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    shoot(page, f"upload-{request.node.callspec.id}")
    turned = requests.get(f"{serving.archive_url}{paths[2]}/metadata", timeout=BOUND).json()[0]
    assert (turned["00280011"]["Value"], turned["00280010"]["Value"]) == ([1200], [900])
    assert turned["00100010"]["Value"] == [{"Alphabetic": "Quixote^Dulcinea"}]
    assert turned["00100030"]["Value"] == ["19800203"]
    assert turned["00082218"]["Value"][0]["00080104"]["Value"] == ["Forearm"]
    links.nth(2).click()
    assert size_of(page.locator("#viewer img")) == [1200, 900]
    assert serious(page) == []


def test_what_was_entered_stays_for_one_patient_and_no_longer(opened: Tab) -> None:
    page = opened.page
    page.goto("/")
    page.get_by_label("Patient ID").fill("P-7")
    page.get_by_label("Kind of picture").select_option("ophthalmic-photography-8-bit-image")
    page.get_by_label("Eye").select_option("L")
    page.get_by_role("link", name="Studies").click()
    page.get_by_role("link", name="Upload").click()
    expect(page.get_by_label("Patient ID")).to_have_value("P-7")
    expect(page.get_by_label("Eye")).to_have_value("L")
    assert page.evaluate("localStorage.length") == 0
    page.get_by_role("button", name="Next patient").click()
    expect(page.get_by_label("Patient ID")).to_have_value("")
    expect(page.get_by_label("Eye")).to_have_value("")
    assert "P-7" not in page.evaluate("JSON.stringify({...sessionStorage})")


def test_files_are_dropped_onto_the_page(browser: Browser, serving: Serving) -> None:
    with tab(browser, serving.url, "desk") as opened:
        page = opened.page
        page.goto("/")
        page.get_by_label("Patient ID").fill("P-40")
        dropped = page.evaluate_handle(
            """bytes => {
                const dropped = new DataTransfer();
                const options = { type: "image/jpeg" };
                dropped.items.add(new File([new Uint8Array(bytes)], "IMG_40.jpg", options));
                return dropped;
            }""",
            list(make_jpeg(seed=40)),
        )
        page.dispatch_event("#drop", "dragover", {"dataTransfer": dropped})
        expect(page.locator("#drop")).to_have_class("over")
        page.dispatch_event("#drop", "drop", {"dataTransfer": dropped})
        expect(page.locator(".picture")).to_contain_text("IMG_40.jpg")
        page.get_by_role("button", name="Send (1)").click()
        expect(page.locator('[data-state="stored"]')).to_have_count(1)


def test_two_patients_never_share_a_study(browser: Browser, serving: Serving) -> None:
    with tab(browser, serving.url, "phone") as opened:
        page = opened.page
        page.goto("/")
        for number in (1, 2):
            page.get_by_label("Patient ID").fill(f"P-1{number}")
            page.locator("#camera").set_input_files(files(arm(10 + number)))
            page.get_by_role("button", name="Send (1)").click()
            expect(page.get_by_role("link", name="Show")).to_have_count(number)
        links = page.get_by_role("link", name="Show")
        studies = {(links.nth(n).get_attribute("href") or "").split("/")[2] for n in (0, 1)}
        assert len(studies) == 2


def test_a_file_that_is_no_jpeg_is_refused_with_what_is_wrong_and_what_to_do(opened: Tab) -> None:
    page = opened.page
    page.goto("/")
    page.get_by_label("Patient ID").fill("P-7")
    page.locator("#files").set_input_files(files(b"GIF89a no picture", arm(4)[:20_000]))
    page.get_by_role("button", name="Send (2)").click()
    expect(page.locator("#summary")).to_have_text("0 of 2 pictures taken")
    expect(page.locator('[data-state="failed"]')).to_have_count(2)
    expect(page.locator(".picture").nth(1)).to_contain_text("Where: ")
    assert serious(page) == []
    page.get_by_role("button", name="Next patient").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(page.get_by_label("Patient ID")).to_have_value("P-7")
    page.get_by_role("button", name="Remove").first.click()
    expect(page.locator(".picture")).to_have_count(1)
    page.get_by_role("button", name="Remove").click()
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()
    assert len(opened.refused) == 2


def test_a_study_is_found_looked_at_and_taken_away_as_a_file(
    opened: Tab, stored: str, request: pytest.FixtureRequest
) -> None:
    page = opened.page
    page.goto("/studies")
    page.get_by_label("Name").fill("panza")
    page.get_by_role("button", name="Search").click()
    tile = page.locator("#found .tiles li")
    expect(tile).to_have_count(1)
    expect(tile).to_contain_text("Panza, Sancho")
    assert size_of(tile.locator("img")) == [256, 192]
    tile.click()
    expect(page.locator(".tiles li")).to_have_count(2)
    assert size_of(page.locator(".tiles img").first) == [256, 192]
    shoot(page, f"study-{request.node.callspec.id}")
    page.goto(stored)
    assert size_of(page.locator("#viewer img")) == [1200, 900]
    fitting = page.locator("#viewer img").bounding_box()
    page.get_by_role("button", name="Zoom in").click()
    expect(page.locator("#zoom")).to_have_text("150 %")
    zoomed = page.locator("#viewer img").bounding_box()
    assert fitting
    assert zoomed
    assert zoomed["width"] > fitting["width"] * 1.4
    page.locator("#viewer").press("0")
    expect(page.locator("#zoom")).to_have_text("100 %")
    row = page.get_by_role("row").filter(has_text="Patient's Name")
    expect(row).to_contain_text("Panza^Sancho")
    expect(page.get_by_role("row").filter(has_text="(0008,2218)")).to_contain_text("Items: 1")
    shoot(page, f"picture-{request.node.callspec.id}")
    with page.expect_download() as downloading:
        page.get_by_role("link", name="Download DICOM file").click()
    uid = stored.rpartition("/")[2]
    assert downloading.value.suggested_filename == f"{uid}.dcm"
    dataset = dcmread(BytesIO(Path(downloading.value.path()).read_bytes()))
    assert (dataset.SOPInstanceUID, str(dataset.PatientName)) == (uid, "Panza^Sancho")


def test_a_picture_is_deleted_only_after_a_yes(opened: Tab, serving: Serving) -> None:
    page = opened.page
    answer = serving.post(arm(20), PatientID="P-20", StudyID=str(page.viewport_size)[-7:])
    told = answer.json()["instances"][0]
    path = told["RetrieveURL"].removeprefix(serving.archive_url)
    page.goto(path)
    page.get_by_role("button", name="Delete the picture").click()
    expect(page.get_by_role("dialog")).to_contain_text("for good?")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert requests.get(told["RetrieveURL"] + "/metadata", timeout=BOUND).status_code == 200
    page.get_by_role("button", name="Delete the picture").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete the picture").click()
    expect(page.locator("#notice")).to_have_text("Deleted.")
    assert requests.get(told["RetrieveURL"] + "/metadata", timeout=BOUND).status_code == 404
    page.goto(path)
    expect(page.get_by_role("heading")).to_have_text("That didn't work")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", ["phone", "desk"])
def test_no_page_keeps_anybody_out_in_light_and_dark(
    browser: Browser, serving: Serving, stored: str, viewport: str, scheme: str
) -> None:
    study = "/".join(stored.split("/")[:3])
    with tab(browser, serving.url, viewport, color_scheme=scheme) as opened:
        page = opened.page
        for path in ("/", "/queue", "/studies", study, stored):
            page.goto(path)
            assert serious(page) == []
            width = page.evaluate("[document.body.scrollWidth, window.innerWidth]")
            assert width[0] <= width[1], f"{path} is wider than the {viewport}"
        if scheme == "dark":
            background = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
            assert max(map(int, re.findall(r"\d+", background)[:3])) < 64
            shoot(page, f"dark-{viewport}")


@pytest.mark.parametrize(
    ("language", "title"), [("en", "Upload"), ("de", "Bilder"), ("es", "Subir")]
)
def test_the_pages_speak_the_language_of_the_browser_until_another_is_chosen(
    browser: Browser, serving: Serving, language: str, title: str
) -> None:
    with tab(browser, serving.url, "phone", locale=language) as opened:
        page = opened.page
        page.goto("/")
        assert page.locator("html").get_attribute("lang") == language
        expect(page.get_by_role("heading", level=1)).to_contain_text(title)
        assert serious(page) == []
        page.goto("/queue")
        shoot(page, f"queue-{language}")
        page.get_by_role("link", name="Español" if language != "es" else "Deutsch").click()
        other = "es" if language != "es" else "de"
        expect(page.locator("html")).to_have_attribute("lang", other)
        assert page.url.endswith("/queue")
        page.get_by_role("link", name=catalogue()["nav.studies"][other]).click()
        expect(page.locator("html")).to_have_attribute("lang", other)


def test_the_whole_way_is_gone_by_keyboard_alone(browser: Browser, serving: Serving) -> None:
    with tab(browser, serving.url, "desk") as opened:
        page = opened.page
        page.goto("/")
        # Playwright begins to catch choosers at the first listener, without waiting for it.
        page.on("filechooser", lambda _: None)
        page.keyboard.press("Tab")
        expect(page.locator(".skip")).to_be_focused()
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        expect(page.get_by_label("Patient ID")).to_be_focused()
        page.keyboard.type("P-30")
        for _ in range(30):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == "files":
                break
        expect(page.locator("#files")).to_be_focused()
        with page.expect_file_chooser() as choosing:
            page.keyboard.press("Space")
        choosing.value.set_files(files(arm(30)))
        for _ in range(5):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.type") == "submit":
                break
        page.keyboard.press("Enter")
        expect(page.locator('[data-state="stored"]')).to_have_count(1)


def test_every_code_that_is_known_by_name_has_a_text() -> None:
    known = {name for names in LISTS.values() for name in names}
    assert {key.removeprefix("code.") for key in catalogue() if key.startswith("code.")} == known


def test_every_text_is_there_in_every_language() -> None:
    for key, said in catalogue().items():
        assert set(said) == set(LANGUAGES), key
        assert all(said.values()), key
        places = {language: set(re.findall(r"{\w+}", text)) for language, text in said.items()}
        assert len(set(map(frozenset, places.values()))) == 1, key


def test_no_url_and_no_log_line_of_the_pages_names_a_patient(
    browser: Browser, serving: Serving
) -> None:
    with tab(browser, serving.url, "phone") as opened:
        page = opened.page
        page.goto("/studies")
        for label, value in (("Name", "Quixote"), ("Patient ID", "P-7")):
            page.get_by_label(label).fill(value)
            page.get_by_role("button", name="Search").click()
            page.wait_for_load_state("networkidle")
        urls = " ".join(opened.urls)
    logged = [json.loads(line) for line in serving.log.read_text().splitlines() if "{" in line[:1]]
    assert logged
    assert [word for word in PLANTED if word in urls or word in serving.log.read_text()] == []


def test_pages_answer_with_a_policy_and_stay_out_of_caches(serving: Serving) -> None:
    for path in ("/", "/queue", "/studies"):
        answer = requests.get(f"{serving.url}{path}", timeout=BOUND)
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert answer.headers["Cache-Control"] == "no-store"
        assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=", answer.text)
