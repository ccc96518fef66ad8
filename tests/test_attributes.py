"""What a caller may say of a picture, in keywords or in the DICOM JSON model."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import dictionary_VR, keyword_dict

from service.dicom import attributes, json_model, uid
from service.dicom.attributes import (
    FORBIDDEN_TO_TEMPLATES,
    IMAGE_FACTS,
    MAX_DEPTH,
    OWN,
    multiplicity,
)
from service.dicom.json_model import BINARY
from service.errors import BadAttribute

MARKER = "Zebedee"

PAIRS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"PatientID": " P-7 "}, {"00100020": {"vr": "LO", "Value": ["P-7"]}}),
    ({"PatientID": "P-7"}, {"00100020": {"Value": ["P-7"]}}),
    ({"PatientID": ["P-7"]}, {"00100020": {"vr": "LO", "Value": ["P-7 "]}}),
    ({"PatientID": ""}, {"00100020": {"vr": "LO"}}),
    ({"PatientID": None}, {"00100020": {"vr": "LO", "Value": []}}),
    ({"PatientID": []}, {"00100020": {"vr": "LO"}}),
    ({"PatientID": "  "}, {"00100020": {"vr": "LO", "Value": [" "]}}),
    (
        {"PatientName": "Doe^Jane"},
        {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "Doe^Jane"}]}},
    ),
    (
        {"PatientName": "Yamada^Tarou=山田^太郎"},
        {
            "00100010": {
                "vr": "PN",
                "Value": [{"Ideographic": "山田^太郎", "Alphabetic": "Yamada^Tarou^"}],
            }
        },
    ),
    ({"PatientName": "^^"}, {"00100010": {"vr": "PN", "Value": [{}]}}),
    ({"InstanceNumber": 7}, {"00200013": {"vr": "IS", "Value": ["07"]}}),
    ({"InstanceNumber": "7"}, {"00200013": {"vr": "IS", "Value": [7]}}),
    ({"PixelSpacing": ["0.50", 0.5]}, {"00280030": {"vr": "DS", "Value": [0.5, ".5"]}}),
    ({"ImageType": ["ORIGINAL", "PRIMARY"]}, {"00080008": {"Value": ["ORIGINAL", "PRIMARY"]}}),
    ({"PatientWeight": 70}, {"00101030": {"vr": "DS", "Value": [70.0]}}),
    (
        {"AnatomicRegionSequence": {"CodeMeaning": "x"}},
        {
            "00082218": {
                "vr": "SQ",
                "Value": [{"00080104": {"vr": "LO", "Value": ["x"]}}],
            }
        },
    ),
    (
        {"AnatomicRegionSequence": "Upper limb"},
        {
            "AnatomicRegionSequence": {
                "CodeValue": "53120007",
                "CodingSchemeDesignator": "SCT",
                "CodeMeaning": "Upper limb",
            }
        },
    ),
    ({"AnatomicRegionSequence": ""}, {"00082218": {"vr": "SQ"}}),
    ({"AnatomicRegionSequence": []}, {"00082218": {"vr": "SQ"}}),
    ({"AnatomicRegionSequence": None}, {"00082218": {"vr": "SQ", "Value": []}}),
    ({"0020000d": {"Value": ["1.2.3"]}}, {"0020000D": {"vr": "UI", "Value": ["1.2.3"]}}),
]


@pytest.mark.parametrize(("keywords", "model"), PAIRS)
def test_keywords_and_the_json_model_say_the_same(
    keywords: dict[str, Any], model: dict[str, Any]
) -> None:
    one, other = attributes.parse(keywords), attributes.parse(model)
    assert json_model.to_json(one) == json_model.to_json(other)
    assert uid.canonical(one) == uid.canonical(other)


def test_both_forms_may_be_mixed() -> None:
    dataset = attributes.parse({"PatientID": "P-7", "00080050": {"vr": "SH", "Value": ["A-1"]}})
    assert (dataset.PatientID, dataset.AccessionNumber) == ("P-7", "A-1")


def test_the_order_in_which_attributes_are_given_says_nothing() -> None:
    model = {"StudyDate": "20240305", "PatientID": "P-7", "Modality": "XC"}
    backwards = dict(reversed(model.items()))
    assert uid.canonical(attributes.parse(model)) == uid.canonical(attributes.parse(backwards))


def test_every_element_has_the_vr_of_the_dictionary() -> None:
    dataset = attributes.parse({"PatientName": "a", "PatientID": "b", "SeriesNumber": 1})
    assert {e.keyword: e.VR for e in dataset} == {
        k: dictionary_VR(k) for k in ("PatientName", "PatientID", "SeriesNumber")
    }


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"PatientId": "x"}, "PatientId", "did you mean PatientID"),
    ({"patient_name": "x"}, "the given name", "did you mean PatientName"),
    ({"Zzzzzzzzz": "x"}, "Zzzzzzzzz", "use a keyword"),
    ({"": "x"}, "the given name", "use a keyword"),
    ({"x" * 10_000: "x"}, "the given name", "use a keyword"),
    ({"a b": "x"}, "the given name", "isn't a DICOM keyword"),
    ({"\ud800": "x"}, "the given name", "isn't a DICOM keyword"),
    ({"00100020 ": "x"}, "the given name", "isn't a DICOM keyword"),
    ({"00090010": {"Value": ["x"]}}, "00090010", "data dictionary"),
    ({"00080000": {"Value": [1]}}, "00080000", "data dictionary"),
    ({"00180061": {"Value": ["1"]}}, "00180061", "data dictionary"),
    ({"00020010": {"Value": ["1.2"]}}, "00020010", "data dictionary"),
    ({"TransferSyntaxUID": "1.2"}, "00020010", "data dictionary"),
    ({"FFFEE000": {}}, "FFFEE000", "data dictionary"),
    ({"7FE00010": {"vr": "OW"}}, "7FE00010", "data dictionary"),
    ({"EncapsulatedDocument": "x"}, "EncapsulatedDocument", "VR OB"),
    ({"PixelPaddingValue": 1}, "PixelPaddingValue", "US or SS"),
    ({"RedPaletteColorLookupTableData": "x"}, "RedPaletteColorLookupTableData", "VR OW"),
    ({"PatientID": ["a", "b"]}, "PatientID", "2 values"),
    ({"PixelSpacing": [1]}, "PixelSpacing", "multiplicity is 2"),
    ({"PixelSpacing": 1}, "PixelSpacing", "1 values"),
    ({"ImageType": ["ORIGINAL"]}, "ImageType", "multiplicity is 2-n"),
    ({"PatientID": "a", "00100020": {"Value": ["a"]}}, "PatientID", "twice"),
    ({"0020000d": {}, "0020000D": {}}, "StudyInstanceUID", "twice"),
    ({"PatientID": {"vr": "LO", "Value": ["x"]}}, "PatientID", "text or a number"),
    ({"00100020": "x"}, "PatientID", "isn't an object"),
    ({"00100020": ["x"]}, "PatientID", "isn't an object"),
    ({"00100020": {"vr": "SH", "Value": ["x"]}}, "PatientID", "vr isn't LO"),
    ({"00100020": {"vr": ["LO"], "Value": ["x"]}}, "PatientID", "vr isn't LO"),
    ({"00100020": {"Value": "x"}}, "PatientID", "isn't a list"),
    ({"00100020": {"Value": None}}, "PatientID", "isn't a list"),
    ({"00100020": {"InlineBinary": "eA=="}}, "PatientID", "more than vr and Value"),
    ({"00100020": {"BulkDataURI": "http://x"}}, "PatientID", "more than vr and Value"),
    ({"AnatomicRegionSequence": "x"}, "AnatomicRegionSequence", "jpegstow codes"),
    ({"AnatomicRegionSequence": 7}, "AnatomicRegionSequence", "list of objects"),
    ({"RequestAttributesSequence": "x"}, "RequestAttributesSequence", "list of objects"),
    ({"AnatomicRegionSequence": [None]}, "AnatomicRegionSequence", "list of objects"),
    ({"AnatomicRegionSequence": [[]]}, "AnatomicRegionSequence", "list of objects"),
    (
        {"AnatomicRegionSequence": [{}, {"CodeValue": "x" * 17}]},
        "AnatomicRegionSequence[2].CodeValue",
        "17 characters",
    ),
    (
        {"AnatomicRegionSequence": [{"PixelData": "x"}]},
        "AnatomicRegionSequence[1].7FE00010",
        "data dictionary",
    ),
    (
        {"RequestAttributesSequence": [{"SpecificCharacterSet": "ISO_IR 100"}]},
        "RequestAttributesSequence[1].SpecificCharacterSet",
        "always ISO_IR 192",
    ),
    ({"SpecificCharacterSet": "ISO_IR 100"}, "SpecificCharacterSet", "always ISO_IR 192"),
    ({"SOPInstanceUID": "1.2"}, "SOPInstanceUID", "Idempotency-Key"),
    ({"SOPClassUID": "1.2"}, "SOPClassUID", "choose another template"),
    ({"00080016": {"Value": ["1.2"]}}, "SOPClassUID", "choose another template"),
    ({"Rows": 5}, "Rows", "read from the JPEG"),
]


@pytest.mark.parametrize(("model", "where", "text"), BAD)
def test_a_bad_attribute_is_named_with_a_remedy(
    model: dict[str, Any], where: str, text: str
) -> None:
    with pytest.raises(BadAttribute) as caught:
        attributes.parse(model)
    assert caught.value.where == where
    assert text in str(caught.value)


@pytest.mark.parametrize("keyword", sorted(IMAGE_FACTS | OWN))
@pytest.mark.parametrize("value", [1, "", None, []])
def test_image_facts_are_nobodys_to_say(keyword: str, value: Any) -> None:
    assert keyword in keyword_dict
    for forbidden in (attributes.FORBIDDEN_TO_CALLERS, FORBIDDEN_TO_TEMPLATES):
        with pytest.raises(BadAttribute):
            attributes.parse({keyword: value}, forbidden)


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_only_a_caller_names_a_study_or_a_series(keyword: str) -> None:
    assert attributes.parse({keyword: "1.2.3"})[keyword].value == "1.2.3"
    with pytest.raises(BadAttribute, match="a template can't hold the identity"):
        attributes.parse({keyword: "1.2.3"}, FORBIDDEN_TO_TEMPLATES)


def test_identity_may_be_referred_to_within_a_sequence() -> None:
    item = {"ReferencedSOPInstanceUID": "1.2.3", "StudyInstanceUID": "1.2"}
    dataset = attributes.parse({"ReferencedImageSequence": [item]})
    assert dataset.ReferencedImageSequence[0].StudyInstanceUID == "1.2"


def nested(depth: int) -> dict[str, Any]:
    model: dict[str, Any] = {"CodeMeaning": "x"}
    for _ in range(depth):
        model = {"ConceptCodeSequence": [model]}
    return model


def test_sequences_nest_to_a_limit() -> None:
    assert attributes.parse(nested(MAX_DEPTH))
    with pytest.raises(BadAttribute, match="nested more than 8 deep"):
        attributes.parse(nested(MAX_DEPTH + 1))
    with pytest.raises(BadAttribute, match="nested more than 8 deep"):
        attributes.parse(nested(400))


@pytest.mark.parametrize(
    ("vm", "least", "most"),
    [("1", 1, 1), ("3", 3, 3), ("1-3", 1, 3), ("1-n", 1, float("inf")), ("2-2n", 2, float("inf"))],
)
def test_a_value_multiplicity_is_a_range(vm: str, least: int, most: float) -> None:
    assert multiplicity(vm) == (least, most)


def test_every_value_multiplicity_of_the_dictionary_is_understood() -> None:
    for vm in {entry[1] for entry in DicomDictionary.values()}:
        least, most = multiplicity(vm)
        assert 1 <= least <= most


@pytest.mark.parametrize(
    "model",
    [
        {"PatientName": MARKER + "\\x"},
        {"PatientID": [MARKER, MARKER]},
        {"PatientID": {MARKER: MARKER}},
        {"00100020": MARKER},
        {"00100020": {"vr": MARKER}},
        {"00100020": {MARKER: MARKER}},
        {"PatientSex": MARKER},
        {"PatientBirthDate": MARKER},
        {"SeriesNumber": MARKER},
        {"PatientWeight": MARKER},
        {"Rows": MARKER},
        {f"{MARKER} {MARKER}": MARKER},
        {"AnatomicRegionSequence": MARKER},
        {"RequestAttributesSequence": MARKER},
        {"AnatomicRegionSequence": [{"CodeValue": MARKER * 9}]},
    ],
)
def test_no_error_tells_a_value(model: dict[str, Any]) -> None:
    with pytest.raises(BadAttribute) as caught:
        attributes.parse(model)
    assert MARKER not in str(caught.value)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["vr", "Value", "CodeValue", "00080100", "Alphabetic"]), inner
        )
    ),
    max_leaves=8,
)
NAMES = st.sampled_from([*sorted(keyword_dict)[::25], "00100020", "00100010", "0040A043"])


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(NAMES | st.text(max_size=10), JSON_VALUES, max_size=4))
def test_any_json_is_a_data_set_or_refused(model: dict[str, Any]) -> None:
    try:
        dataset = attributes.parse(model)
    except BadAttribute:
        return
    text = uid.canonical(dataset)
    assert uid.canonical(json_model.from_json(json_model.to_json(dataset))) == text
    assert all(element.VR not in BINARY for element in dataset)
