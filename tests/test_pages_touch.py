"""The pages in the hands of somebody in a hurry: faults, slow lines, many pictures, zoom."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browsing import files, serious, shoot, size_of, tab
from tests.jpegs import make_jpeg
from tests.painted import arm
from tests.serving import Serving


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with Serving(tmp_path_factory.mktemp("touch") / "data") as service:
        yield service


def choose(page: Page, patient: str, *images: bytes) -> None:
    page.goto("/")
    page.get_by_label("Patient ID").fill(patient)
    page.locator("#files").set_input_files(files(*images))


def refused_fields(page: Page) -> list[str]:
    labels = "found => found.map(field => field.labels[0].textContent)"
    return list(page.locator("[aria-invalid=true]").evaluate_all(labels))


def test_what_a_kind_of_picture_lacks_is_asked_for_by_the_fields_own_labels(
    browser: Browser, serving: Serving
) -> None:
    with tab(browser, serving.url, "phone") as opened:
        page = opened.page
        choose(page, "P-1", *(make_jpeg(seed=seed) for seed in range(3)))
        page.get_by_label("Kind of picture").select_option("dermoscopic-photography-image")
        page.get_by_role("button", name="Send (3)").click()
        lacking = ["Manufacturer of the camera", "Model", "Serial number", "Software version"]
        picture = page.locator(".picture").first
        expect(picture).to_contain_text("Where: " + ", ".join(lacking))
        expect(picture).to_contain_text("Something that was entered isn't accepted.")
        assert refused_fields(page) == lacking
        first = page.get_by_label("Manufacturer of the camera")
        expect(first).to_be_focused()
        bar = page.locator(".actions").bounding_box()
        shown = first.bounding_box()
        assert bar
        assert shown
        assert shown["y"] + shown["height"] <= bar["y"], "the field isn't behind the buttons"
        # What would be refused the same isn't sent over a slow line.
        expect(page.locator('[data-state="waiting"]')).to_have_count(2)
        assert len(opened.refused) == 1
        assert serious(page) == []
        shoot(page, "lacking-phone")
        for label in lacking:
            page.get_by_label(label).fill("X")
        page.get_by_role("button", name="Send (3)").click()
        expect(page.locator('[data-state="stored"]')).to_have_count(3)
        assert refused_fields(page) == []


def test_a_name_that_is_too_long_is_marked_where_it_was_entered(
    browser: Browser, serving: Serving
) -> None:
    with tab(browser, serving.url, "desk", locale="de") as opened:
        page = opened.page
        page.goto("/")
        page.get_by_label("Patienten-ID").fill("P-2")
        page.get_by_label("Nachname").fill("N" * 60)
        page.get_by_label("Vorname").fill("V" * 60)
        page.locator("#files").set_input_files(files(make_jpeg(seed=4)))
        page.get_by_role("button", name="Senden (1)").click()
        expect(page.locator(".picture")).to_contain_text("Eine Angabe wird nicht angenommen.")
        assert refused_fields(page) == ["Nachname", "Vorname"]
        assert page.locator('.picture [data-part="detail"]').get_attribute("lang") == "en"


def test_many_pictures_of_which_one_is_broken_are_stored_but_for_that(
    browser: Browser, serving: Serving
) -> None:
    with tab(browser, serving.url, "phone") as opened:
        page = opened.page
        images = [make_jpeg(32, 32, seed=seed) for seed in range(40)]
        choose(page, "P-3", *images[:20], images[20][:-300], *images[21:])
        page.get_by_role("button", name="Send (40)").dblclick()
        expect(page.locator("#summary")).to_have_text("39 of 40 pictures taken")
        broken = page.locator('[data-state="failed"]')
        expect(broken).to_have_count(1)
        expect(broken).to_contain_text("The picture's file is damaged.")
        assert len([url for url in opened.urls if url.endswith("/v1/instances")]) == 40
        page.get_by_role("button", name="Send (1)").click()
        expect(page.locator("#summary")).to_have_text("39 of 40 pictures taken")


def test_offline_nothing_more_is_tried_and_nothing_is_lost(
    browser: Browser, serving: Serving
) -> None:
    with tab(browser, serving.url, "phone") as opened:
        page = opened.page
        choose(page, "P-4", arm(1), arm(2), arm(3))
        page.context.set_offline(True)
        page.get_by_role("button", name="Send (3)").click()
        expect(page.locator('[data-state="failed"]')).to_contain_text("can't be reached")
        expect(page.locator('[data-state="waiting"]')).to_have_count(2)
        expect(page.locator('[data-state="failed"]')).to_be_in_viewport(ratio=1)
        shoot(page, "offline-phone")
        page.context.set_offline(False)
        page.get_by_role("button", name="Send (3)").click()
        expect(page.locator('[data-state="stored"]')).to_have_count(3)


def test_a_line_on_which_nothing_moves_is_given_up_and_the_picture_may_be_sent_again(
    browser: Browser, serving: Serving
) -> None:
    with tab(browser, serving.url, "phone") as opened:
        page = opened.page
        page.clock.install()
        choose(page, "P-5", arm(1))
        page.route("**/v1/instances", lambda _: None)  # never answered
        page.get_by_role("button", name="Send (1)").click()
        expect(page.locator('[data-state="sending"]')).to_have_count(1)
        page.clock.fast_forward("03:00")
        expect(page.locator('[data-state="failed"]')).to_contain_text("can't be reached")
        page.unroute_all(behavior="ignoreErrors")
        page.get_by_role("button", name="Send again").click()
        expect(page.locator('[data-state="stored"]')).to_have_count(1)


def test_what_is_not_sent_yet_is_not_left_without_a_question(
    browser: Browser, serving: Serving
) -> None:
    with tab(browser, serving.url, "phone") as opened:
        page = opened.page
        choose(page, "P-6", arm(1))
        with page.expect_event("dialog") as asking:
            page.once("dialog", lambda dialog: dialog.dismiss())
            page.get_by_role("link", name="Queue").click()
        assert asking.value.type == "beforeunload"
        expect(page.locator(".picture")).to_have_count(1)


def test_two_fingers_zoom_where_they_are_and_one_moves(browser: Browser, serving: Serving) -> None:
    told = serving.post(arm(1), PatientID="P-7").json()["instances"][0]
    with tab(browser, serving.url, "phone") as opened:
        page = opened.page
        page.goto(told["RetrieveURL"].removeprefix(serving.archive_url))
        assert size_of(page.locator("#viewer img")) == [1200, 900]
        box = page.locator("#viewer").bounding_box()
        assert box
        x, y = box["x"] + box["width"] * 0.75, box["y"] + box["height"] / 2
        fingers = page.context.new_cdp_session(page)

        def touch(kind: str, *points: tuple[float, float]) -> None:
            given = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
            fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": given})

        touch("touchStart", (x - 20, y), (x + 20, y))
        for apart in range(25, 61, 5):
            touch("touchMove", (x - apart, y + apart / 4), (x + apart, y + apart / 4))
        touch("touchEnd")
        expect(page.locator("#zoom")).to_have_text("300 %")
        scrolled = page.locator("#viewer").evaluate("viewer => viewer.scrollLeft")
        assert scrolled > box["width"], "the point between the fingers stays there"
        assert page.evaluate("visualViewport.scale") == 1
        touch("touchStart", (x, y))
        for moved in range(10, 101, 10):
            touch("touchMove", (x - moved, y))
        touch("touchEnd")
        further = "([viewer, left]) => viewer.scrollLeft > left + 50"
        assert page.evaluate(further, [page.locator("#viewer").element_handle(), scrolled])


def test_one_goes_from_picture_to_picture_and_back_to_the_study_after_a_deletion(
    browser: Browser, serving: Serving
) -> None:
    answer = serving.post(arm(1), arm(2), arm(3), PatientID="P-8", PatientName="Panza^Sancho")
    study = answer.json()["instances"][0]["StudyInstanceUID"]
    with tab(browser, serving.url, "phone") as opened:
        page = opened.page
        page.goto(f"/studies/{study}")
        page.locator(".tiles a").first.click()
        expect(page.locator(".place")).to_contain_text("Picture 1 of 3")
        expect(page.get_by_role("link", name="Previous")).to_have_count(0)
        expect(page.locator(".facts")).to_contain_text("P-8")
        page.get_by_role("link", name="Next").click()
        expect(page.locator(".place")).to_contain_text("Picture 2 of 3")
        assert serious(page) == []
        shoot(page, "place-phone")
        page.get_by_role("link", name="Next").click()
        expect(page.locator(".place")).to_contain_text("Picture 3 of 3")
        expect(page.get_by_role("link", name="Next")).to_have_count(0)
        page.get_by_role("button", name="Delete the picture").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete the picture").click()
        expect(page.locator("#notice")).to_have_text("Deleted.")
        expect(page.locator(".tiles li")).to_have_count(2)


def test_the_way_back_leads_to_what_was_searched_for_and_a_link_to_all(
    browser: Browser, serving: Serving
) -> None:
    for patient in ("P-91", "P-92"):
        serving.post(make_jpeg(), PatientID=patient)
    with tab(browser, serving.url, "phone") as opened:
        page = opened.page
        page.goto("/studies")
        page.get_by_label("Patient ID").fill("P-92")
        page.get_by_role("button", name="Search").click()
        tile = page.locator("#found .tiles li")
        expect(tile).to_have_count(1)
        for back in (page.go_back, page.get_by_role("link", name="Back to the studies").click):
            tile.click()
            expect(page.get_by_role("heading", level=1)).to_have_text("P-92")
            back()
            expect(page.get_by_label("Patient ID")).to_have_value("P-92")
            expect(tile).to_have_count(1)
        page.get_by_role("link", name="Studies").click()
        expect(page.locator("#found")).to_contain_text("P-91")
        expect(page.get_by_label("Patient ID")).to_have_value("")
        assert "P-92" not in " ".join(opened.urls)


def test_what_is_typed_as_markup_is_shown_as_text(browser: Browser, serving: Serving) -> None:
    evil = "<script>alert(1)</script>"
    with tab(browser, serving.url, "phone") as opened:
        page = opened.page
        page.goto("/")
        page.get_by_label("Patient ID").fill(evil)
        page.get_by_label("Family name").fill(evil)
        (named,) = files(arm(1))
        page.locator("#files").set_input_files([named | {"name": f"{evil}.jpg"}])
        expect(page.locator(".picture strong")).to_have_text(f"{evil}.jpg")
        page.get_by_role("button", name="Send (1)").click()
        page.get_by_role("link", name="Show").click()
        expect(page.get_by_role("heading", level=1)).to_have_text(evil)
        page.goto("/studies")
        expect(page.locator("#found")).to_contain_text(evil)
        # What separates the parts of a name (PS3.5 6.2) is not taken as a part of one.
        page.goto("/")
        page.get_by_label("Given name").fill("Sancho=Panza")
        page.locator("#files").set_input_files(files(arm(1)))
        page.get_by_role("button", name="Send (1)").click()
        expect(page.get_by_label("Given name")).to_be_focused()
        expect(page.locator('[data-state="waiting"]')).to_have_count(1)
        assert not page.get_by_label("Given name").evaluate("field => field.validity.valid")


def test_a_page_that_there_is_not_is_told_as_a_page(browser: Browser, serving: Serving) -> None:
    with tab(browser, serving.url, "phone", locale="es") as opened:
        page = opened.page
        page.goto("/nothing")
        expect(page.get_by_role("heading")).to_have_text("No ha funcionado")
        expect(page.locator("main")).to_contain_text("Esta página no existe")
        page.get_by_role("link", name="Ir a la página de subida").click()
        expect(page.get_by_label("ID del paciente")).to_be_visible()
