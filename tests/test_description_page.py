"""The description as a page: all of it, under the strictest policy, from this host alone."""

import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
import yaml
from werkzeug.test import TestResponse

from service.description import DESCRIPTION
from service.description.page import page
from tests.queue_service import NOBODY
from tests.serving import client_for

DOCUMENT = yaml.safe_load(DESCRIPTION.read_bytes())
VOID = {"meta", "link", "br"}


class Tags(HTMLParser):
    """The tags of a page with their attributes, its text, and what is open at its end."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def values(self, *names: str) -> list[str]:
        return [each[name] for _, each in self.found for name in names if name in each]


@pytest.fixture(scope="module")
def response() -> TestResponse:
    return client_for(NOBODY).get("/docs")


@pytest.fixture(scope="module")
def tags(response: TestResponse) -> Tags:
    return Tags(response.text)


def test_the_page_is_html_that_is_well_formed(response: TestResponse, tags: Tags) -> None:
    assert (response.status_code, response.mimetype) == (200, "text/html")
    assert tags.open == []
    ids = tags.values("id")
    assert len(ids) == len(set(ids))


def test_the_page_has_no_script_no_style_of_its_own_and_nothing_of_another_host(
    response: TestResponse, tags: Tags
) -> None:
    policy = response.headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert re.match(r"default-src '(none|self)'(;|$)", policy)
    names = {tag for tag, _ in tags.found}
    assert names & {"script", "style", "iframe", "object", "embed", "base", "img"} == set()
    attributes = {name for _, each in tags.found for name in each}
    assert [name for name in attributes if name == "style" or name.startswith("on")] == []
    links = tags.values("href", "src", "action", "srcset")
    assert len(links) > 50
    assert [link for link in links if not re.fullmatch(r"#[\w-]+|/[\w./-]+", link)] == []
    assert [link for link in links if link.startswith("//")] == []


def test_every_link_leads_somewhere(tags: Tags) -> None:
    client, ids = client_for(NOBODY), set(tags.values("id"))
    links = set(tags.values("href"))
    assert {link[1:] for link in links if link.startswith("#")} - ids == set()
    assert set(tags.values("aria-labelledby")) - ids == set()
    others = {link for link in links if link.startswith("/")}
    assert others == {"/openapi.yaml", "/docs/style.css"}
    assert {client.get(link).status_code for link in others} == {200}


def test_its_style_asks_for_nothing_else() -> None:
    style = client_for(NOBODY).get("/docs/style.css")
    assert (style.status_code, style.mimetype) == (200, "text/css")
    assert not re.search(r"url\(|@import|http", style.text)
    assert "prefers-color-scheme: dark" in style.text


def test_all_that_is_described_stands_on_the_page(tags: Tags) -> None:
    text, ids = "".join(tags.text), set(tags.values("id"))
    operations = [
        each for item in DOCUMENT["paths"].values() for each in item.values() if "summary" in each
    ]
    assert len(operations) > 10
    assert {each["operationId"] for each in operations} - ids == set()
    assert {f"schema-{name}" for name in DOCUMENT["components"]["schemas"]} - ids == set()
    sources = [each["source"] for one in operations for each in one["x-codeSamples"]]
    assert [source for source in sources if source not in text] == []
    for each in operations:
        assert each["summary"] in text
        assert set(each["responses"]) <= set(re.findall(r"\b[2-5]\d\d\b", text))


def test_headings_leave_out_no_level(tags: Tags) -> None:
    levels = [int(tag[1]) for tag, _ in tags.found if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_what_is_described_cannot_become_markup() -> None:
    kept = DESCRIPTION.read_text()
    hostile = re.sub(r"(description|summary|title): (?=[A-Z])", r"\1: <script>x</script> ", kept)
    assert hostile.count("<script>") > 100
    assert "<script" not in page(hostile)
