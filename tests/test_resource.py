"""Paths of the studies service: what they name, and what is none."""

import pytest

from service.dicom.resource import Resource, parse, parse_search
from service.errors import BadRequest

BASE = "http://127.0.0.1:8042/dicomWeb"
PATHS = {
    "studies/1.2": Resource("1.2"),
    "/studies/1.2/": Resource("1.2"),
    "studies/1.2/series/3.4": Resource("1.2", "3.4"),
    "studies/1.2/series/3.4/instances/5.6": Resource("1.2", "3.4", "5.6"),
    "studies/1.2/series/3.4/instances/5.6/frames/7": Resource("1.2", "3.4", "5.6", 7),
    f"{BASE}/studies/1.2": Resource("1.2"),
}


@pytest.mark.parametrize(("text", "resource"), PATHS.items())
def test_a_path_names_a_resource(text: str, resource: Resource) -> None:
    assert parse(text, BASE) == resource
    assert parse(resource.path, BASE) == resource
    assert parse(resource.name, BASE) == resource


def test_what_has_no_path_is_the_whole_store() -> None:
    assert (Resource().path, Resource().name, Resource().level) == ("", "/", "store")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "studies",
        "studies/",
        "studies/..",
        "studies/1.2/series/..",
        "studies/1.02",
        "studies/" + "1." * 40,
        "studies/1.2/series/3.4/instances/5.6/frames/0",
        "studies/1.2/instances/5.6",
        "studies/1.2?x=y",
        "http://127.0.0.1:8043/dicomWeb/studies/1.2",
        f"{BASE}x/studies/1.2",
        "studies/1.2/series/3.4/instances/5.6/rendered",
    ],
)
def test_any_other_text_is_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(text, BASE)
    assert text == "" or len(text) < 9 or text not in str(caught.value)


SEARCHED = {
    "studies": ("study", Resource()),
    "series": ("series", Resource()),
    "instances": ("instance", Resource()),
    "/studies/1.2/series": ("series", Resource("1.2")),
    "studies/1.2/instances": ("instance", Resource("1.2")),
    "studies/1.2/series/3.4/instances": ("instance", Resource("1.2", "3.4")),
}


@pytest.mark.parametrize(("text", "searched"), SEARCHED.items())
def test_what_is_searched_for_has_a_level_and_a_place(
    text: str, searched: tuple[str, Resource]
) -> None:
    assert parse_search(text) == searched


@pytest.mark.parametrize(
    "text", ["", "patients", "studies/1.2", "studies/1.2/studies", "series/1.2/instances", "a/b"]
)
def test_no_other_search_is_known(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_search(text)
