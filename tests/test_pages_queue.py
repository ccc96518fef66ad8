"""The queue's page in a real browser: the store is away and comes back, or refuses."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.archive_server import ArchiveServer
from tests.browsing import Tab, files, serious, shoot, size_of, tab
from tests.jpegs import make_jpeg
from tests.painted import arm
from tests.peers import BOUND, ScriptedServer, failed, free_port, stored
from tests.processes import clean, end, start
from tests.serving import COMMAND, Serving


def upload(opened: Tab, patient: str, state: str, seed: int) -> None:
    page = opened.page
    page.goto("/")
    page.get_by_label("Patient ID").fill(patient)
    page.locator("#files").set_input_files(files(arm(seed)))
    page.get_by_role("button", name="Send (1)").click()
    expect(page.locator(f'[data-state="{state}"]')).to_have_count(1)


def test_what_the_store_cannot_take_is_seen_in_the_queue_and_stored_once_it_is_back(
    browser: Browser, tmp_path: Path
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/dicomWeb"
    with (
        # Nobody sends it again before somebody has clicked.
        Serving(tmp_path / "data", DICOMWEB_URL=url, RETRY_WORKERS="0") as serving,
        tab(browser, serving.url, "phone") as opened,
    ):
        page = opened.page
        upload(opened, "P-7", "queued", seed=1)
        page.get_by_role("link", name="Queue").click()
        entry = page.locator(".entry")
        expect(entry).to_have_count(1)
        expect(entry).to_contain_text("Waiting")
        expect(entry).to_contain_text("the connection to the store failed")
        assert size_of(entry.locator("img")) == [256, 192]
        assert serious(page) == []
        shoot(page, "queue-phone")
        with ArchiveServer(tmp_path / "store", port):
            page.get_by_role("button", name="Try now").click()
            expect(page.locator("#notice")).to_have_text("It is tried now.")
            given = clean(DATA_DIR=str(serving.data_dir), DICOMWEB_URL=url)
            worker = start([COMMAND, "retry"], tmp_path / "retry.log", given)
            # By itself: the list is asked for again and again.
            expect(page.locator("#entries")).to_contain_text(
                "Nothing waits here.", timeout=BOUND * 1000
            )
            end(worker)
            found = page.request.get(f"http://127.0.0.1:{port}/dicomWeb/studies?PatientID=P-7")
            assert len(found.json()) == 1
    assert "P-7" not in " ".join(opened.urls)


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Serving, ScriptedServer]]:
    refused = failed(0xA900, "the patient is unknown")
    folder = tmp_path_factory.mktemp("refusing") / "data"
    with (
        ScriptedServer(refused, refused, stored()) as store,
        Serving(folder, DICOMWEB_URL=store.dicomweb_url, READ_BACK="never") as serving,
    ):
        yield serving, store


def test_a_dead_entry_is_mended_and_another_discarded(
    browser: Browser, refusing: tuple[Serving, ScriptedServer]
) -> None:
    serving, store = refusing
    with tab(browser, serving.url, "desk") as opened:
        page = opened.page
        upload(opened, "P-8", "refused", seed=2)
        expect(page.locator(".picture")).to_contain_text("What to do: Open it with “Show”")
        page.get_by_role("button", name="Next patient").click()
        expect(page.get_by_label("Patient ID")).to_have_value("")
        upload(opened, "P-9", "refused", seed=3)
        page.get_by_role("link", name="Show").click()
        page.wait_for_url("**/queue/*")
        page.get_by_label("Date of birth").fill("1980")
        page.get_by_role("button", name="Change and send again").click()
        expect(page.locator("#alert")).to_contain_text("Where: Date of birth")
        page.get_by_label("Date of birth").fill("")
        page.get_by_label("Patient ID").fill("P-10")
        page.get_by_role("button", name="Add an attribute").click()
        page.get_by_label("Attribute (DICOM keyword)").fill("PatientHeight")
        page.get_by_label("Value").fill("1")
        page.get_by_role("button", name="Change and send again").click()
        expect(page.locator("#alert")).to_contain_text("Where: PatientHeight")
        assert serious(page) == []
        shoot(page, "mend-desk")
        page.get_by_label("Attribute (DICOM keyword)").fill("PatientComments")
        page.get_by_label("Value", exact=True).fill("looked up")
        page.get_by_role("button", name="Change and send again").click()
        expect(page.locator("#notice")).to_have_text("Changed; it is sent again.")
        expect(page.locator(".entry")).to_have_count(1, timeout=BOUND * 1000)
        expect(page.locator(".entry")).to_contain_text("Needs a decision")
        page.get_by_label("State").select_option("pending")
        page.get_by_role("button", name="Filter").click()
        expect(page.locator("#entries")).to_contain_text("Nothing matches.")
        page.get_by_label("State").select_option("dead")
        page.get_by_role("button", name="Filter").click()
        expect(page.locator(".entry")).to_have_count(1)
        page.get_by_role("button", name="Discard").click()
        shoot(page, "discard-desk")
        page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
        expect(page.locator(".entry")).to_have_count(1)
        page.get_by_role("button", name="Discard").click()
        page.get_by_role("dialog").get_by_role("button", name="Discard").click()
        expect(page.locator(".entry")).to_have_count(0)
        assert b"P-10" in store.requests[-1].body
        assert b"looked up" in store.requests[-1].body
        # What was refused on the way is in Chromium's console, and nothing else.
        assert len(opened.refused) == 4


def test_a_long_queue_is_read_page_by_page_each_from_its_top(
    browser: Browser, tmp_path: Path
) -> None:
    nobody = f"http://127.0.0.1:{free_port()}/dicomWeb"
    with (
        Serving(tmp_path / "data", DICOMWEB_URL=nobody, RETRY_WORKERS="0") as serving,
        tab(browser, serving.url, "phone") as opened,
    ):
        for seed in range(58):
            assert serving.post(make_jpeg(16, 16, seed=seed)).status_code == 202
        page = opened.page
        page.goto("/queue")
        expect(page.locator(".entry")).to_have_count(50)
        page.get_by_role("button", name="Next page").click()
        expect(page.locator(".entry")).to_have_count(8)
        assert page.evaluate("scrollY") == 0
        page.get_by_role("button", name="First page").click()
        expect(page.locator(".entry")).to_have_count(50)
