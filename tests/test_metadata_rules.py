"""What is said of a picture in a bucket, by rules, custom metadata and a sidecar."""

import json
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.datadict import keyword_dict

from service.dicom import attributes
from service.errors import BadRequest
from service.gcp.metadata import (
    by_name,
    custom,
    is_sidecar,
    joined,
    rules,
    sidecar,
    sidecar_name,
)

MARKER = "Zebedee"


@pytest.mark.parametrize(
    ("pattern", "name", "said"),
    [
        (
            "{PatientID}/{AccessionNumber}/{name}.jpg",
            "P-7/A-1/IMG_1.jpg",
            {"PatientID": "P-7", "AccessionNumber": "A-1"},
        ),
        ("{PatientID}/{name}.jpg", "P-7/A-1/x.jpg", None),
        ("{PatientID}/{name}.jpg", "/x.jpg", None),
        ("{PatientID}/{name}.jpg", "P-7/x.JPG", None),
        ("{PatientID}/{name}.jpg", "P-7/x.jpg.jpg", {"PatientID": "P-7"}),
        ("{PatientID}/{name}.jpg", "P-7/x.jpg\n", None),
        ("{PatientID}/{name}.jpg", "P-7/x_jpg", None),
        ("{PatientID}_{name}.jpg", "a_b_c.jpg", {"PatientID": "a"}),
        ("{PatientID}_{StudyID}.jpg", "a_b_c.jpg", {"PatientID": "a", "StudyID": "b_c"}),
        ("{PatientID}--x.jpg", "a-b--x.jpg", {"PatientID": "a-b"}),
        ("{PatientID}", "Müller 1#%2F.jpg", {"PatientID": "Müller 1#%2F.jpg"}),
        ("%2F/{PatientID}", "//P", None),
        ("%2F/{PatientID}", "%2F/P", {"PatientID": "P"}),
        ("a.b*(c)+[d]?^$|\\/{PatientID}", "a.b*(c)+[d]?^$|\\/P", {"PatientID": "P"}),
        ("a.b/{PatientID}", "axb/P", None),
        ("{a}/{a}/{PatientID}.jpg", "x/y/P.jpg", {"PatientID": "P"}),
        ("{template}/{PatientID}.jpg", "wound/P.jpg", {"template": "wound", "PatientID": "P"}),
        ("in/**/{PatientID}.jpg", "in/P.jpg", {"PatientID": "P"}),
        ("in/**/{PatientID}.jpg", "in/a/b/c/P.jpg", {"PatientID": "P"}),
        ("in/**/{PatientID}/x.jpg", "in/a/b/P/x.jpg", {"PatientID": "P"}),
        ("**/{PatientID}.jpg", "P.jpg", {"PatientID": "P"}),
        ("{PatientID}/**", "P/a/b/c.jpg", {"PatientID": "P"}),
        ("{PatientID}/**", "P/", None),
        ("{PatientID}/**x", "P/**x", {"PatientID": "P"}),
    ],
)
def test_a_rule_reads_attributes_out_of_a_name(
    pattern: str, name: str, said: dict[str, str] | None
) -> None:
    # A second rule tells a rule that says nothing from one that doesn't match.
    assert by_name(rules(f"{pattern} **"), name) == (said or {})
    (rule,) = rules(pattern)
    assert (rule.expression.fullmatch(name) is not None) == (said is not None)


def test_the_first_rule_that_matches_counts() -> None:
    read = rules("wounds/{PatientID}/{n}.jpg\n  {StudyID}/{PatientID}/{n}.jpg\n\n{PatientID}.jpg ")
    assert by_name(read, "wounds/P/1.jpg") == {"PatientID": "P"}
    assert by_name(read, "S/P/1.jpg") == {"StudyID": "S", "PatientID": "P"}
    assert by_name(read, "P.jpg") == {"PatientID": "P"}


def test_no_rule_says_nothing() -> None:
    assert rules(" \n ") == ()
    assert by_name((), "P/1.jpg") == {}
    assert by_name(rules("{PatientID}.jpg"), "P/1.jpg") == {}


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("{PatientId}/x.jpg", "did you mean PatientID?"),
        ("{Patient}/x.jpg", "isn't a DICOM keyword"),
        ("{}/x.jpg", "isn't a DICOM keyword"),
        ("{a-b}/x.jpg", "isn't a DICOM keyword"),
        ("{Rows}/x.jpg", "it is read from the JPEG and can't be set"),
        ("{SOPInstanceUID}/x.jpg", "the service names instances"),
        ("{SOPClassUID}/x.jpg", "choose another template"),
        ("{PixelData}", "PixelData"),
        ("{TransferSyntaxUID}", "isn't the caller's to set"),
        ("{00100020}", "isn't"),
        ("{PatientID}/{PatientID}", "{PatientID} more than once"),
        ("{template}/{template}", "{template} more than once"),
        ("{PatientID}{name}.jpg", "two parts have nothing between them"),
        ("{PatientID/x.jpg", "a brace without a partner"),
        ("PatientID}/x.jpg", "a brace without a partner"),
        ("{{PatientID}}/x.jpg", "a brace without a partner"),
        ("{a/b}.jpg", "brace"),
        ("**/{PatientID}/**", "** more than once"),
    ],
)
def test_a_rule_that_cannot_be_used_is_refused_with_its_text(pattern: str, problem: str) -> None:
    with pytest.raises(ValueError, match=r"^the rule ") as caught:
        rules(f"{{StudyID}}.jpg {pattern}")
    assert pattern in str(caught.value)
    assert problem in str(caught.value)


LITERALS = st.text(st.characters(exclude_characters="{}/* \t\r\n\x0b\x0c"), max_size=5).filter(
    lambda text: not any(character.isspace() for character in text)
)
WORDS = st.text(st.characters(exclude_characters="/"), min_size=1, max_size=20)


@given(LITERALS, LITERALS, LITERALS, WORDS, WORDS)
def test_a_name_made_of_a_rule_gives_its_parts_back(
    before: str, between: str, behind: str, patient: str, study: str
) -> None:
    (rule,) = rules(f"{before}{{PatientID}}/{between}{{StudyID}}{behind}")
    name = f"{before}{patient}/{between}{study}{behind}"
    said = by_name((rule,), name)
    assert said["PatientID"] == patient
    assert name.endswith(f"/{between}{said['StudyID']}{behind}")
    assert "/" not in said["StudyID"]


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_is_rules_or_a_value_error(text: str, name: str) -> None:
    with suppress(ValueError):
        assert all("/" not in value for value in by_name(rules(text), name).values())


@pytest.mark.parametrize(
    "pattern",
    [
        "{PatientID}-{StudyID}-{AccessionNumber}-{SeriesNumber}-{a}-{b}-{c}-{d}.jpg",
        "**/{a}/{b}/{c}/{d}/{e}/{PatientID}.jpg",
        "**/{a}x{b}/{PatientID}.jpg",
    ],
)
@pytest.mark.parametrize("name", ["-" * 1024, "a-" * 512, "a/" * 512, "xa/" * 341])
def test_no_name_takes_long(pattern: str, name: str) -> None:
    read = rules(pattern)
    started = time.process_time()
    assert by_name(read, name) == {}
    assert time.process_time() - started < 1


def test_custom_metadata_are_keywords_in_any_case() -> None:
    given = {
        "patientid": "P-7",
        "STUDYDESCRIPTION": "ulcer",
        "AccessionNumber": "",
        "Template": "wound",
        "uploader": "app",
        "00100010": "not a keyword",
        "patient-id": "no keyword either",
        "rows": "5",
    }
    assert custom(given) == {
        "PatientID": "P-7",
        "StudyDescription": "ulcer",
        "AccessionNumber": "",
        "template": "wound",
        "Rows": "5",
    }


def test_no_two_keywords_differ_in_case_only() -> None:
    keywords = [keyword for keyword in keyword_dict if keyword]
    assert len({keyword.lower() for keyword in keywords}) == len(keywords)
    assert "template" not in {keyword.lower() for keyword in keywords}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("=?UTF-8?B?TcO8bGxlcl5KYW4=?=", "Müller^Jan"),
        ("=?utf-8?q?M=C3=BCller?=", "Müller"),
        ("M=C3=BCller?", "M=C3=BCller?"),
        ("=?nonsense?B?TcO8?=", "=?nonsense?B?TcO8?="),
        ("=?UTF-8?B?/////w==?=", "=?UTF-8?B?/////w==?="),
        ("=?UTF-8?B?x?=", "=?UTF-8?B?x?="),
        ("why =? not", "why =? not"),
        ("M%C3%BCller%5EJan", "Müller^Jan"),
        ("%E6%97%A5%E6%9C%AC", "日本"),
        ("50%25", "50%25"),
        ("100%", "100%"),
        ("a%20b", "a%20b"),
        ("M%FCller", "M%FCller"),
        ("Müller %C3%BC", "Müller %C3%BC"),
    ],
)
def test_custom_metadata_may_be_encoded_words_or_percent_encoded(value: str, text: str) -> None:
    assert custom({"patientname": value}) == {"PatientName": text}


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=40)))
def test_any_custom_metadata_are_read_or_ignored(metadata: dict[str, str]) -> None:
    assert set(custom(metadata)) <= {*keyword_dict, "template"}


def test_a_sidecar_is_the_object_of_an_upload() -> None:
    said = {"PatientID": "P-7", "00080050": {"vr": "SH", "Value": ["A-1"]}, "template": "wound"}
    assert sidecar(json.dumps(said).encode()) == said
    assert sidecar(b"\xef\xbb\xbf{}") == {}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "sidecar, character 0"),
        (b'{"PatientName": "Zebedee}', "sidecar, character 16"),
        (b'{"PatientName": "Zebedee\xff"}', "not strict UTF-8 JSON"),
        (b'{"PatientName": "Zebedee", "PatientName": "Zebedee"}', "not strict UTF-8 JSON"),
        (b'{"PatientWeight": NaN, "PatientName": "Zebedee"}', "not strict UTF-8 JSON"),
        (b'[{"PatientName": "Zebedee"}]', "isn't a JSON object"),
        (b'"Zebedee"', "isn't a JSON object"),
        (b'{"template": ["Zebedee"]}', "the template isn't text"),
        (b"[" * 100_000, "not strict UTF-8 JSON"),
    ],
)
def test_a_sidecar_that_cannot_be_read_is_refused_without_its_values(
    text: bytes, problem: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        sidecar(text)
    assert problem in str(caught.value)
    assert MARKER not in str(caught.value)
    assert not caught.value.transient


def test_later_sources_win_attribute_by_attribute() -> None:
    named = {"PatientID": "name", "StudyID": "name", "AccessionNumber": "name", "template": "a"}
    said = {"PatientID": "custom", "AccessionNumber": "custom", "template": "b"}
    assert joined(named, said, {"AccessionNumber": "sidecar"}) == (
        {"PatientID": "custom", "StudyID": "name", "AccessionNumber": "sidecar"},
        "b",
    )
    assert joined(named, {}, {"template": "c"})[1] == "c"
    assert joined({}, {}, {}) == ({}, "")


def test_an_empty_value_wins_too() -> None:
    assert joined({"PatientID": "P-7"}, {}, {"PatientID": None}) == ({"PatientID": None}, "")


def test_a_tag_in_the_sidecar_wins_over_the_keyword_of_a_rule() -> None:
    element = {"vr": "LO", "Value": ["sidecar"]}
    said, _ = joined({"PatientID": "name", "StudyID": "S"}, {}, {"00100020": element})
    assert said == {"StudyID": "S", "00100020": element}
    assert attributes.parse(said).PatientID == "sidecar"


def test_two_spellings_in_one_sidecar_are_left_for_the_attributes_to_refuse() -> None:
    both = {"00100020": {"vr": "LO", "Value": ["1"]}, "PatientID": "2"}
    assert joined({}, {}, both) == (both, "")


def test_the_sources_stay_as_they_are() -> None:
    given = {"template": "a", "PatientID": "P"}
    joined(given, given, given)
    assert given == {"template": "a", "PatientID": "P"}


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("photo.jpg", "photo.json"),
        ("P-7/A.1/photo.JPG", "P-7/A.1/photo.json"),
        ("P.7/photo", "P.7/photo.json"),
        ("a/photo.jpg.jpg", "a/photo.jpg.json"),
        ("Müller #1%2F.jpg", "Müller #1%2F.json"),
    ],
)
def test_a_sidecar_has_the_name_of_its_picture(name: str, beside: str) -> None:
    assert sidecar_name(name) == beside
    assert is_sidecar(beside)
    assert not is_sidecar(name)
