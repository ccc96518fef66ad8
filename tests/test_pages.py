"""The pages in a real browser, on a phone and at a desk, before the real service and archive."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.browsing import Tab, chromium, files, tab
from tests.jpegs import make_jpeg
from tests.serving import Serving

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with Serving(tmp_path_factory.mktemp("pages") / "data") as service:
        yield service


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(params=["phone", "desk"])
def opened(browser: Browser, serving: Serving, request: pytest.FixtureRequest) -> Iterator[Tab]:
    with tab(browser, serving.url, request.param) as one:
        yield one


def test_three_pictures_are_uploaded_and_one_that_lies_on_its_side_is_upright(
    opened: Tab, serving: Serving
) -> None:
    page = opened.page
    page.goto("/")
    page.get_by_label("Patient ID").fill("P-7")
    page.get_by_label("Family name").fill("Doe")
    page.get_by_label("Given name").fill("Jane")
    page.get_by_label("Date of birth").fill("1980-02-03")
    page.get_by_role("combobox", name="Body site").select_option("forearm")
    page.locator("#files").set_input_files(
        files(make_jpeg(640, 480, seed=1), make_jpeg(320, 240, seed=2))
    )
    page.locator("#camera").set_input_files(files(make_jpeg(640, 480, seed=3, orientation=6)))
    page.get_by_role("button", name="Send (3)").click()
    expect(page.locator("#summary")).to_have_text("3 of 3 pictures taken")
    assert page.locator('[data-state="stored"]').count() == 3
    links = page.get_by_role("link", name="Show")
    assert links.count() == 3
    paths = [links.nth(number).get_attribute("href") or "" for number in range(3)]
    studies = {path.split("/")[2] for path in paths}
    assert len(studies) == 1, "pictures of one patient share a study"
    turned = page.request.get(f"{serving.archive_url}{paths[2]}/metadata").json()[0]
    assert (turned["00280011"]["Value"], turned["00280010"]["Value"]) == ([480], [640])
    assert turned["00100010"]["Value"] == [{"Alphabetic": "Doe^Jane"}]
    assert turned["00100030"]["Value"] == ["19800203"]
