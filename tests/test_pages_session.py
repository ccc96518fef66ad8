"""The pages in a real browser where one has to sign in: the way in, and what its end costs."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.access import KEYS, MADE
from tests.browsing import files, serious, shoot, tab
from tests.painted import arm
from tests.serving import Serving


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("session") / "data"
    with Serving(folder, AUTH="apikey", KEYS=KEYS, SESSION_SECRET="of the tests") as service:
        yield service


def sign_in(page: Page, role: str) -> None:
    page.get_by_label("API key or token").fill(MADE[role][0])
    page.get_by_role("button", name="Sign in").click()


def sign_in_elsewhere(page: Page) -> None:
    """Sign in again in another tab, as the notice of a session that has ended offers."""
    with page.expect_popup() as opening:
        page.get_by_role("link", name="Sign in").click()
    sign_in(opening.value, "all")
    expect(opening.value.get_by_label("Patient ID")).to_be_visible()


def choose(page: Page, patient: str, *seeds: int) -> None:
    page.get_by_label("Patient ID").fill(patient)
    page.locator("#files").set_input_files(files(*map(arm, seeds)))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", ["phone", "desk"])
def test_who_opens_a_page_signs_in_gets_there_and_leaves_nothing_of_a_patient_behind(
    browser: Browser, serving: Serving, viewport: str, scheme: str
) -> None:
    with tab(browser, serving.url, viewport, color_scheme=scheme) as opened:
        page = opened.page
        page.goto("/queue")
        expect(page.get_by_label("API key or token")).to_be_focused()
        assert serious(page) == []
        page.get_by_label("API key or token").fill("jpegstow_of_nobody")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("isn't known here")
        expect(page.get_by_label("API key or token")).to_be_focused()
        assert serious(page) == []
        shoot(page, f"sign-in-{viewport}-{scheme}")
        sign_in(page, "all")
        expect(page).to_have_url(re.compile(r"/queue$"))
        page.goto("/")
        page.get_by_label("Patient ID").fill("P-7")
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_label("API key or token")).to_be_visible()
        assert "P-7" not in page.evaluate("JSON.stringify({...sessionStorage})")


def test_the_sign_in_speaks_the_language_that_was_chosen(
    browser: Browser, serving: Serving
) -> None:
    with tab(browser, serving.url, "phone") as opened:
        page = opened.page
        page.goto("/sign-in")
        page.get_by_role("link", name="Deutsch").click()
        expect(page.get_by_role("heading")).to_have_text("Anmelden")
        page.reload()
        expect(page.locator("html")).to_have_attribute("lang", "de")


def test_a_session_that_ends_amid_the_pictures_costs_none_of_them(
    browser: Browser, serving: Serving
) -> None:
    with tab(browser, serving.url, "phone") as opened:
        page = opened.page
        page.goto("/")
        sign_in(page, "all")
        choose(page, "P-7", 1, 2, 3)
        page.context.clear_cookies()
        page.get_by_role("button", name="Send (3)").click()
        expect(page.get_by_role("alert")).to_contain_text("Your session has ended.")
        expect(page.locator('[data-state="failed"]')).to_have_count(1)
        expect(page.locator('[data-state="waiting"]')).to_have_count(2)
        assert serious(page) == []
        shoot(page, "session-phone")
        sign_in_elsewhere(page)
        page.get_by_role("button", name="Send (3)").click()
        expect(page.locator('[data-state="stored"]')).to_have_count(3)
        expect(page.get_by_role("alert")).to_be_hidden()


def test_the_queue_that_is_open_goes_on_once_somebody_has_signed_in_again(
    browser: Browser, serving: Serving
) -> None:
    with tab(browser, serving.url, "desk") as opened:
        page = opened.page
        page.goto("/queue")
        sign_in(page, "all")
        expect(page.get_by_role("heading", name="Retry queue")).to_be_visible()
        page.context.clear_cookies()
        page.get_by_role("button", name="Filter").click()
        expect(page.get_by_role("alert")).to_contain_text("Your session has ended.")
        sign_in_elsewhere(page)
        page.get_by_role("button", name="Filter").click()
        page.get_by_role("button", name="Filter").click()
        expect(page.locator("#alert")).to_be_hidden()
        # htmx's own words for answers of 400 and more.
        assert {error[:26] for error in opened.errors} == {"Response Status Error Code"}
        opened.errors.clear()


def test_a_page_that_a_key_does_not_open_says_so_as_a_page(
    browser: Browser, serving: Serving
) -> None:
    with tab(browser, serving.url, "phone") as opened:
        page = opened.page
        page.goto("/studies")
        sign_in(page, "upload")
        expect(page.get_by_role("heading", name="That didn't work")).to_be_visible()
        expect(page.locator("main")).to_contain_text("You may not do this.")
        page.get_by_role("link", name="To the upload page").click()
        choose(page, "P-8", 4)
        page.get_by_role("button", name="Send (1)").click()
        expect(page.locator('[data-state="stored"]')).to_have_count(1)
        # What that key doesn't open has no link.
        expect(page.get_by_role("link", name="Show")).to_have_count(0)
        expect(page.get_by_role("link", name="Queue")).to_have_count(0)
        expect(page.get_by_role("link", name="Upload")).to_have_count(1)
