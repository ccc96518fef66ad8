"""What an instance says of itself: precedence, image facts, and the judgement of dciodvfy."""

import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from service.dicom import attributes, consistency, json_model, part10, template
from service.dicom.dataset import Instance, describe, merge, overlay
from service.dicom.template import Template
from service.dicom.uid import Identity
from service.errors import BadAttribute, UnsupportedJpeg
from tests.describing import normalised
from tests.jpegs import make_jpeg
from tests.judges import require_tool
from tests.streams import of_process

FOLDER = Path(__file__).parents[1] / "templates"
TEMPLATES = {p.stem: template.parse(p.stem, p.read_bytes()) for p in sorted(FOLDER.glob("*.json"))}
PHOTOGRAPH, CAPTURE = TEMPLATES["vl-photographic-image"], TEMPLATES["secondary-capture-image"]
IDENTITY = Identity("2.25.1", "2.25.2", "2.25.3", "2.25.4")
CALLER: dict[str, Any] = {
    "PatientName": "Yamada^Tarou=山田^太郎",
    "PatientID": "P-7",
    "PatientBirthDate": "19700101",
    "PatientSex": "F",
    "StudyDate": "20240305",
    "StudyTime": "140709",
    "AccessionNumber": "A-1",
    "SeriesNumber": 1,
    "InstanceNumber": 7,
    "ImageLaterality": "L",
    "BodyPartExamined": "HAND",
    "AnatomicRegionSequence": [
        {"CodeValue": "85562004", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Hand"}
    ],
}


# What some SOP classes want.
WANTED: dict[str, Any] = {
    "ImageLaterality": "R",
    "AnatomicRegionSequence": "hand",
    "Manufacturer": "Acme",
    "ManufacturerModelName": "Dermatoscope",
    "DeviceSerialNumber": "7",
    "SoftwareVersions": "1.0",
    "ContentDate": "20240305",
    "ContentTime": "140709",
    "AcquisitionDateTime": "20240305140709",
    "AcquisitionDeviceTypeCodeSequence": "external camera",
}


def least(of: Template) -> dict[str, Any]:
    return {keyword: WANTED[keyword] for keyword in consistency.WANTED.get(of.sop_class, ())}


def instance(
    data: bytes, of: Template = PHOTOGRAPH, caller: dict[str, Any] | None = None
) -> Instance:
    said = attributes.parse(CALLER if caller is None else caller)
    found = normalised(data)
    return describe(found, merge(of, found.tags, said), IDENTITY)


COLOUR = instance(make_jpeg(64, 48))


def test_an_instance_names_itself() -> None:
    assert (
        COLOUR.sop_class_uid,
        COLOUR.study_instance_uid,
        COLOUR.series_instance_uid,
        COLOUR.sop_instance_uid,
        COLOUR.transfer_syntax,
    ) == (
        "1.2.840.10008.5.1.4.1.1.77.1.4",
        "2.25.1",
        "2.25.2",
        "2.25.3",
        "1.2.840.10008.1.2.4.50",
    )
    assert COLOUR.dataset.SpecificCharacterSet == "ISO_IR 192"


def test_the_image_pixel_macro_is_whole() -> None:
    facts = {
        "SamplesPerPixel": 3,
        "PhotometricInterpretation": "YBR_FULL_422",
        "PlanarConfiguration": 0,
        "Rows": 48,
        "Columns": 64,
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
    }
    assert {keyword: COLOUR.dataset[keyword].value for keyword in facts} == facts


@pytest.mark.parametrize(
    ("data", "photometric_interpretation", "planar"),
    [
        (make_jpeg(16, 16), "YBR_FULL_422", True),
        (make_jpeg(16, 16, keep_rgb=True), "RGB", True),
        (make_jpeg(16, 16, "L"), "MONOCHROME2", False),
    ],
)
def test_planar_configuration_is_of_colour_only(
    data: bytes,
    photometric_interpretation: str,
    planar: bool,  # noqa: FBT001
) -> None:
    dataset = instance(data).dataset
    assert dataset.PhotometricInterpretation == photometric_interpretation
    assert ("PlanarConfiguration" in dataset) is planar


def test_a_lossy_image_says_so_with_ratio_and_method() -> None:
    dataset = COLOUR.dataset
    assert dataset.LossyImageCompression == "01"
    assert dataset.LossyImageCompressionMethod == "ISO_10918_1"
    ratio = 64 * 48 * 3 / len(COLOUR.codestream)
    assert float(dataset.LossyImageCompressionRatio) == pytest.approx(ratio, abs=0.005)
    assert len(str(dataset.LossyImageCompressionRatio)) <= 16


def test_an_image_encoded_again_says_so_with_a_value_for_each_time() -> None:
    upright = instance(make_jpeg(33, 17))
    dataset = instance(make_jpeg(33, 17, orientation=3)).dataset
    assert upright.dataset.ImageType == ["ORIGINAL", "PRIMARY"]
    assert dataset.ImageType == ["DERIVED", "PRIMARY"]
    assert dataset.DerivationDescription.startswith("Decoded, turned by a half and encoded again")
    assert dataset.LossyImageCompression == "01"
    assert dataset.LossyImageCompressionMethod == ["ISO_10918_1"] * 2
    before, after = dataset.LossyImageCompressionRatio
    assert before == upright.dataset.LossyImageCompressionRatio
    assert 1 < after < before


def test_an_image_turned_without_loss_is_the_original() -> None:
    dataset = instance(make_jpeg(32, 16, orientation=6)).dataset
    assert (dataset.Rows, dataset.Columns) == (32, 16)
    assert dataset.ImageType == ["ORIGINAL", "PRIMARY"]
    assert "DerivationDescription" not in dataset
    assert dataset.LossyImageCompressionMethod == "ISO_10918_1"


def test_other_values_of_the_image_type_stay_when_it_is_derived() -> None:
    said = {"ImageType": ["ORIGINAL", "SECONDARY", "LABEL"]}
    dataset = instance(make_jpeg(33, 17, orientation=3), caller=said).dataset
    assert dataset.ImageType == ["DERIVED", "SECONDARY", "LABEL"]
    dataset = instance(make_jpeg(33, 17, orientation=3), caller={"ImageType": None}).dataset
    assert dataset.ImageType == ["DERIVED", "PRIMARY"]


def test_an_icc_profile_comes_along_and_srgb_is_named() -> None:
    dataset = instance(make_jpeg(16, 16, icc=True)).dataset
    assert dataset.ICCProfile[36:40] == b"acsp"
    assert dataset.ICCProfile[12:24] == b"scnrRGB XYZ "
    assert "ICCProfile" not in COLOUR.dataset
    assert "ICCProfile" not in instance(make_jpeg(16, 16, "L", icc=True)).dataset


@pytest.mark.parametrize(
    ("data", "method"),
    [
        (of_process(0xC3, predictor=1), None),
        (of_process(0xF7), None),
        (of_process(0xF7, predictor=1), "ISO_14495_1"),
    ],
    ids=["lossless", "JPEG-LS", "JPEG-LS near"],
)
def test_a_lossless_image_says_so_with_neither(data: bytes, method: str | None) -> None:
    dataset = instance(data, CAPTURE).dataset
    assert dataset.LossyImageCompression == ("01" if method else "00")
    assert dataset.get("LossyImageCompressionMethod") == method
    assert ("LossyImageCompressionRatio" in dataset) == bool(method)


@pytest.mark.parametrize(
    ("data", "bits"),
    [
        (of_process(0xC1, precision=12), (16, 12, 11)),
        (of_process(0xC3, precision=16, predictor=1), (16, 16, 15)),
    ],
    ids=["12 bits", "16 bits"],
)
def test_deep_samples_are_for_secondary_capture_only(
    data: bytes, bits: tuple[int, int, int]
) -> None:
    with pytest.raises(UnsupportedJpeg, match="use the template secondary-capture-image") as caught:
        instance(data, PHOTOGRAPH)
    assert caught.value.reason == "sop-class"
    dataset = instance(data, CAPTURE).dataset
    assert (dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit) == bits


def test_the_caller_overrides_the_template_and_the_image_overrides_both() -> None:
    model = json_model.to_json(CAPTURE.dataset)
    del model["00080070"]
    model |= {"Manufacturer": "Acme", "StudyDescription": "from the template"}
    mine = template.parse("mine", json_model.dumps(model))
    dataset = instance(
        make_jpeg(16, 16), mine, {"StudyDescription": "from the caller", "Modality": "DMS"}
    ).dataset
    assert (dataset.Manufacturer, dataset.StudyDescription) == ("Acme", "from the caller")
    assert dataset.Modality == "DMS"
    assert (dataset.PatientName, dataset.Rows) == (None, 16)


def test_the_camera_overrides_the_template_and_the_caller_overrides_both() -> None:
    model = json_model.to_json(CAPTURE.dataset)
    mine = template.parse("mine", json_model.dumps(model | {"0008002A": {"vr": "DT"}}))
    data = make_jpeg(16, 16, taken="2024:03:05 14:07:09")
    assert instance(data, mine, {}).dataset.AcquisitionDateTime == "20240305140709"
    said = {"AcquisitionDateTime": "1999"}
    assert instance(data, mine, said).dataset.AcquisitionDateTime == "1999"


@pytest.mark.parametrize(
    ("of", "keyword"),
    [
        (name, keyword)
        for name, of in TEMPLATES.items()
        for keyword in consistency.WANTED.get(of.sop_class, ())
    ],
)
@pytest.mark.parametrize("empty", [True, False], ids=["empty", "absent"])
def test_what_a_sop_class_wants_is_asked_for(of: str, keyword: str, *, empty: bool) -> None:
    said = least(TEMPLATES[of])
    assert instance(make_jpeg(16, 16), TEMPLATES[of], said)
    if keyword not in TEMPLATES[of].dataset or empty:
        said = {name: value for name, value in said.items() if name != keyword}
        said |= {keyword: None} if empty else {}
        with pytest.raises(BadAttribute, match=f"wants {keyword}") as caught:
            instance(make_jpeg(16, 16), TEMPLATES[of], said)
        assert (caught.value.reason, caught.value.where) == ("missing-attribute", keyword)


def test_an_empty_value_of_the_caller_empties_the_template() -> None:
    assert instance(make_jpeg(16, 16), PHOTOGRAPH, {"ImageType": None}).dataset.ImageType is None


def test_identity_is_the_last_word() -> None:
    dataset = instance(make_jpeg(16, 16), caller={"StudyInstanceUID": "1.2"}).dataset
    assert dataset.StudyInstanceUID == "2.25.1"


def test_overlaying_leaves_both_as_they_were() -> None:
    below, above = Dataset(), Dataset()
    below.PatientID, above.StudyID, above.PatientID = "below", "S-1", "above"
    both = overlay(below, above)
    both.AccessionNumber = "A-1"
    del both.StudyID
    assert (below.PatientID, above.StudyID, both.PatientID) == ("below", "S-1", "above")
    assert "AccessionNumber" not in below
    assert "AccessionNumber" not in above


@pytest.mark.parametrize(
    ("caller", "present"),
    [
        ({}, True),
        ({"ImageLaterality": "L"}, False),
        ({"ImageLaterality": ""}, True),
        ({"ImageLaterality": "L", "Laterality": "L"}, False),
        ({"Laterality": "R"}, True),
    ],
)
def test_laterality_yields_to_that_of_the_image(
    caller: dict[str, Any],
    present: bool,  # noqa: FBT001
) -> None:
    assert ("Laterality" in merge(CAPTURE, {}, attributes.parse(caller))) is present
    assert "Laterality" in CAPTURE.dataset


def dciodvfy(path: Path, pieces: Iterable[bytes | memoryview]) -> list[str]:
    path.write_bytes(b"".join(pieces))
    judged = subprocess.run(
        [require_tool("dciodvfy"), "-new", str(path)], capture_output=True, check=False, text=True
    )
    lines = (judged.stdout + judged.stderr).splitlines()
    assert judged.returncode == 0, lines
    return [line for line in lines if line.startswith("Error")]


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("caller", [CALLER, {}], ids=["much said", "nothing said"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_dciodvfy_finds_no_error(
    name: str, caller: dict[str, Any], mode: str, tmp_path: Path
) -> None:
    made = instance(make_jpeg(250, 187, mode), TEMPLATES[name], caller | least(TEMPLATES[name]))
    pieces = part10.encode(made.dataset, made.codestream, made.transfer_syntax)
    assert dciodvfy(tmp_path / "instance.dcm", pieces) == []


@pytest.mark.parametrize(
    "data",
    [
        make_jpeg(64, 48, keep_rgb=True),
        of_process(0xC1, precision=12),
        of_process(0xC3, b"\1\2\3", predictor=1),
        of_process(0xF7, precision=16, predictor=1),
    ],
    ids=["RGB", "12 bits", "lossless RGB", "JPEG-LS near"],
)
def test_dciodvfy_finds_no_error_in_secondary_captures_of_every_kind(
    data: bytes, tmp_path: Path
) -> None:
    made = instance(data, CAPTURE)
    pieces = part10.encode(made.dataset, made.codestream, made.transfer_syntax)
    assert dciodvfy(tmp_path / "instance.dcm", pieces) == []


def test_dciodvfy_would_find_an_error(tmp_path: Path) -> None:
    broken = Dataset()
    broken.update(COLOUR.dataset)
    del broken.PatientID
    pieces = part10.encode(broken, COLOUR.codestream, COLOUR.transfer_syntax)
    path = tmp_path / "instance.dcm"
    path.write_bytes(b"".join(pieces))
    judged = subprocess.run(
        [require_tool("dciodvfy"), "-new", str(path)], capture_output=True, check=False, text=True
    )
    assert "PatientID" in judged.stdout + judged.stderr
