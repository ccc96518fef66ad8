"""Templates: the built-in ones are whole, and a bad one says what is wrong with it."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.dicom import json_model, template
from service.dicom.attributes import FORBIDDEN_TO_TEMPLATES
from service.dicom.template import REQUIRED, Template
from service.errors import BadTemplate

FILES = sorted((Path(__file__).parents[1] / "templates").glob("*.json"))
MODEL: dict[str, Any] = {
    **dict.fromkeys(REQUIRED),
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7",
    "Modality": "OT",
}


def parsed(**changes: Any) -> Template:
    return template.parse("mine", json.dumps(MODEL | changes).encode())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_built_in_template_is_whole(path: Path) -> None:
    found = template.parse(path.stem, path.read_bytes())
    assert found.name == path.stem
    assert found.sop_class.keyword
    assert set(REQUIRED) <= set(found.dataset.dir())
    assert found.dataset.PatientOrientation is None
    assert all(keyword not in found.dataset for keyword in FORBIDDEN_TO_TEMPLATES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_built_in_template_is_in_the_json_model_as_we_write_it(path: Path) -> None:
    found = template.parse(path.stem, path.read_bytes())
    assert json_model.to_json(found.dataset) == json.loads(path.read_bytes())


def test_there_are_templates() -> None:
    assert {"secondary-capture-image", "vl-photographic-image"} <= {path.stem for path in FILES}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([MODEL]),
        json.dumps(MODEL, indent=4, sort_keys=True),
        json.dumps({"$schema": "https://example.org/dicom.json", **MODEL}),
        json.dumps({("00080060" if k == "Modality" else k): v for k, v in MODEL.items()}).replace(
            '"OT"', '{"vr": "CS", "Value": ["OT"]}'
        ),
    ],
)
def test_a_template_is_its_content_however_it_is_written(text: str) -> None:
    assert template.parse("mine", text.encode()).digest == parsed().digest


def test_other_content_has_another_digest() -> None:
    others = [parsed(), parsed(Modality="XC"), parsed(Manufacturer="Acme"), parsed(Manufacturer="")]
    assert len({each.digest for each in others}) == len(others)


def test_a_digest_is_frozen_for_ever() -> None:
    assert parsed().digest == "62c4a8dcd9b4f43e6cd024c6ea4e16be0c19b9ae81c1c2df6e9a3725c2e92cb8"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "isn't JSON in UTF-8"),
        (b"{", "isn't JSON in UTF-8"),
        (b'{"PatientName": "\xff"}', "isn't JSON in UTF-8"),
        (b"[]", "isn't a DICOM JSON object"),
        (b"[{}, {}]", "isn't a DICOM JSON object"),
        (b'"text"', "isn't a DICOM JSON object"),
        (b"null", "isn't a DICOM JSON object"),
        (b"{}", "lacks PatientName, PatientID, "),
    ],
)
def test_what_is_no_template_says_so(text: bytes, says: str) -> None:
    with pytest.raises(BadTemplate, match=says) as caught:
        template.parse("mine", text)
    assert caught.value.where == "template mine"


@pytest.mark.parametrize(
    ("changes", "where", "says"),
    [
        ({"SOPClassUID": None}, "", "lacks SOPClassUID"),
        ({"Modality": ""}, "", "lacks Modality"),
        ({"SOPClassUID": "1.2.3"}, ", SOPClassUID", "no SOP class"),
        ({"SOPClassUID": "1.2.840.10008.1.2.4.50"}, ", SOPClassUID", "no SOP class"),
        ({"SOPInstanceUID": "1.2"}, ", SOPInstanceUID", "the service names instances"),
        ({"StudyInstanceUID": "1.2"}, ", StudyInstanceUID", "identity of one study"),
        ({"SeriesInstanceUID": "1.2"}, ", SeriesInstanceUID", "identity of one series"),
        ({"SpecificCharacterSet": "ISO_IR 100"}, ", SpecificCharacterSet", "always ISO_IR 192"),
        ({"Rows": 5}, ", Rows", "read from the JPEG"),
        ({"PixelData": {"vr": "OW"}}, ", 7FE00010", "the data dictionary"),
        ({"ConversionTyp": "DI"}, ", ConversionTyp", "did you mean ConversionType"),
        ({"ConversionType": "di"}, ", ConversionType", "capital letters"),
    ],
)
def test_a_bad_attribute_is_named(changes: dict[str, Any], where: str, says: str) -> None:
    with pytest.raises(BadTemplate, match=says) as caught:
        parsed(**changes)
    assert caught.value.where == "template mine" + where
    assert caught.value.http_status == 500


@pytest.mark.parametrize("keyword", REQUIRED)
def test_every_attribute_of_type_2_is_wanted(keyword: str) -> None:
    model = {name: value for name, value in MODEL.items() if name != keyword}
    with pytest.raises(BadTemplate, match=f"lacks {keyword}"):
        template.parse("mine", json.dumps(model).encode())
