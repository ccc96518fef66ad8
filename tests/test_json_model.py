"""The DICOM JSON model there and back: PS3.18 Annex F."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset

from service.dicom import json_model
from service.dicom.attributes import parse
from service.dicom.json_model import JsonObject

EVERY_VR: JsonObject = {
    "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
    "0008002A": {"vr": "DT", "Value": ["20240305140709.5+0100"]},
    "00080020": {"vr": "DA", "Value": ["20240305"]},
    "00080030": {"vr": "TM", "Value": ["140709.5"]},
    "00080054": {"vr": "AE", "Value": ["ONE", "TWO"]},
    "00080090": {"vr": "PN"},
    "00080119": {"vr": "UC", "Value": ["long"]},
    "00080120": {"vr": "UR", "Value": ["https://example.org/"]},
    "00081140": {"vr": "SQ", "Value": [{"00081150": {"vr": "UI", "Value": ["1.2.3"]}}, {}]},
    "00100010": {
        "vr": "PN",
        "Value": [{"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ"}],
    },
    "00100020": {"vr": "LO", "Value": ["=P^7"]},
    "00101001": {"vr": "PN", "Value": [{"Alphabetic": "a"}, {"Alphabetic": "b"}]},
    "00101010": {"vr": "AS", "Value": ["034Y"]},
    "00104000": {"vr": "LT", "Value": ["two\r\nlines \\ one"]},
    "00189087": {"vr": "FD", "Value": [0.1]},
    "00189219": {"vr": "SS", "Value": [-1]},
    "00200013": {"vr": "IS", "Value": [7]},
    "00280009": {"vr": "AT", "Value": ["00181063"]},
    "00280010": {"vr": "US", "Value": [65535]},
    "00280030": {"vr": "DS", "Value": [0.5, 1e-10]},
    "00409096": {"vr": "SQ"},
    "00700022": {"vr": "FL", "Value": [0.5, -1.25]},
    "0040A160": {"vr": "UT", "Value": ["🦷" * 3]},
    "7FE00001": {"vr": "OV"},
}


def test_every_vr_comes_back_as_it_was() -> None:
    model = json_model.to_json(json_model.from_json(EVERY_VR))
    assert model == EVERY_VR


def test_keys_ascend_in_every_data_set() -> None:
    inner = parse({"CodeValue": "1", "CodeMeaning": "x", "CodingSchemeDesignator": "99"})
    dataset = Dataset()
    dataset.PatientID = "P-7"
    dataset.AnatomicRegionSequence = [inner]
    dataset.StudyDate = "20240305"
    model = json_model.to_json(dataset)
    assert list(model) == ["00080020", "00082218", "00100020"]
    assert list(model["00082218"]["Value"][0]) == ["00080100", "00080102", "00080104"]


@pytest.mark.parametrize("keyword", ["PatientName", "PatientID", "Rows", "AnatomicRegionSequence"])
@pytest.mark.parametrize("value", [None, [], ""])
def test_an_attribute_without_a_value_has_only_its_vr(keyword: str, value: Any) -> None:
    dataset = Dataset()
    setattr(dataset, keyword, [] if keyword.endswith("Sequence") else value)
    assert [set(element) for element in json_model.to_json(dataset).values()] == [{"vr"}]


@pytest.mark.parametrize(
    ("keyword", "values", "expected"),
    [
        ("OtherPatientNames", ["A^B", ""], [{"Alphabetic": "A^B"}, None]),
        ("PixelSpacing", ["", "0.5"], [None, 0.5]),
        ("ReferencedFrameNumber", ["1", "", "3"], [1, None, 3]),
    ],
)
def test_an_empty_one_among_several_values_is_null(
    keyword: str, values: list[str], expected: list[Any]
) -> None:
    dataset, outer = Dataset(), Dataset()
    setattr(dataset, keyword, values)
    outer.ReferencedImageSequence = [dataset]
    ((element,),) = [item.values() for item in json_model.to_json(outer)["00081140"]["Value"]]
    assert element["Value"] == expected == json_model.values_of(dataset[keyword])
    assert json_model.from_json(json_model.to_json(outer)) == outer


def test_the_text_is_compact_utf_8() -> None:
    model = {"00100020": {"vr": "LO", "Value": ["é🦷"]}}
    assert json_model.dumps(model) == '{"00100020":{"vr":"LO","Value":["é🦷"]}}'.encode()


@pytest.mark.parametrize(
    "model",
    [
        {"00100020": None},
        {"00100020": []},
        {"00100020": "x"},
        {"00100020": {}},
        {"00100020": {"Value": ["x"]}},
        {"00100020": {"vr": "XX", "Value": ["x"]}},
        {"00100020": {"vr": 5, "Value": ["x"]}},
        {"0010002": {"vr": "LO", "Value": ["x"]}},
        {"PatientID": {"vr": "LO", "Value": ["x"]}},
        {"00280010": {"vr": "US", "Value": ["x"]}},
        {"00280010": {"vr": "US", "Value": 5}},
        {"00280009": {"vr": "AT", "Value": ["zz"]}},
        {"00081140": {"vr": "SQ", "Value": ["x"]}},
        {"00081140": {"vr": "SQ", "Value": [{"00100020": {}}]}},
        {"00100010": {"vr": "PN", "Value": [5]}},
        {"00420011": {"vr": "OB", "InlineBinary": 5}},
        {"00420011": {"vr": "OB", "InlineBinary": []}},
    ],
)
def test_what_is_not_in_the_model_is_refused(model: JsonObject) -> None:
    with pytest.raises(ValueError, match="isn't in the DICOM JSON model"):
        json_model.from_json(model)


def test_an_error_tells_no_value() -> None:
    with pytest.raises(ValueError, match="attribute '00280010'") as caught:
        json_model.from_json({"00280010": {"vr": "US", "Value": ["Zebedee"]}})
    assert "Zebedee" not in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
ELEMENTS = st.fixed_dictionaries(
    {},
    optional={
        "vr": st.sampled_from(["LO", "PN", "SQ", "US", "DS", "IS", "AT", "DA", "OB", "UN"]) | JSON,
        "Value": st.lists(JSON, max_size=2) | JSON,
        "InlineBinary": JSON,
        "BulkDataURI": JSON,
    },
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["00100020", "00280010", "7FE00010", "x"]), ELEMENTS | JSON))
def test_any_json_is_read_or_refused(model: JsonObject) -> None:
    try:
        dataset = json_model.from_json(model)
    except ValueError:
        return
    assert len(dataset) <= len(model)


def test_what_is_json_is_read() -> None:
    text = '{"a": [1, -2.5e3, "é", true, null, {}], "b": {"a": 1}, "": [{"a": 2}, {"a": 3}]}'
    expected = json.loads(text)
    for encoded in (text, text.encode(), text.encode("utf-16")):
        assert json_model.loads(encoded) == expected


BAD_JSON: dict[str, bytes | str] = {
    "nothing": "",
    "half of it": '{"PatientID": "Zebedee"',
    "more than it": '{} "Zebedee"',
    "a bare word": "Zebedee",
    "other bytes": b'{"PatientID": "Zebedee\xff"}',
    "a name twice": '{"Zebedee": 1, "Zebedee": 1}',
    "a name twice within": '[{"a": {"Zebedee": "Zebedee", "b": 1, "Zebedee": "x"}}]',
    "a name twice, once escaped": '{"Zebedee": 1, "\\u005aebedee": 2}',
    "not a number": '{"Zebedee": NaN}',
    "infinity": "[Infinity]",
    "the other infinity": "[-Infinity]",
    "arrays without end": "[" * 200_000,
    "objects without end": '{"Zebedee":' * 200_000,
    "arrays so deep, and their end": "[" * 200_000 + "]" * 200_000,
    "a huge integer": "9" * 400_000,
    "a huge integer within": b'{"Zebedee": -' + b"7" * 5_000 + b"}",
    "a line break in a text": '"Zebedee\n"',
    "an escape that isn't one": r'"Zebedee\x"',
}


@pytest.mark.parametrize("text", BAD_JSON.values(), ids=BAD_JSON)
def test_what_is_no_strict_json_is_refused_without_its_values(text: bytes | str) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        json_model.loads(text)
    assert "Zebedee" not in str(caught.value)
    assert "77777" not in str(caught.value)


@given(JSON)
def test_what_was_written_is_read_back(model: Any) -> None:
    text = json.dumps(model)
    if "NaN" not in text and "Infinity" not in text:
        assert json_model.loads(text) == model
