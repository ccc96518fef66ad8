"""Each template makes instances in which dciodvfy finds no error, and nobody finds a lie."""

import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydicom import Dataset, dcmread

from service.errors import BadAttribute, UnsupportedJpeg
from tests.describing import SAID, described, dicom_file, rules
from tests.jpegs import make_jpeg
from tests.judges import require_tool
from tests.streams import behind_soi, segment, without

EYES = "ophthalmic-photography-8-bit-image"
EYE = {
    "ImageLaterality": "L",
    "ContentDate": "20240305",
    "ContentTime": "140709",
    "AcquisitionDateTime": "20240305140709",
    "AcquisitionDeviceTypeCodeSequence": "external camera",
}
CAMERA = {
    "Manufacturer": "Aleph",
    "ManufacturerModelName": "A-1",
    "DeviceSerialNumber": "SN-77",
    "SoftwareVersions": "2.1",
}
WANTED: dict[str, dict[str, Any]] = {
    "ophthalmic-photography-8-bit-image": EYE,
    "dermoscopic-photography-image": CAMERA,
}
CLASSES = {
    "dermoscopic-photography-image": ("77.1.7", "DMS"),
    "ophthalmic-photography-8-bit-image": ("77.1.5.1", "OP"),
    "scanned-document": ("7", "DOC"),
    "secondary-capture-image": ("7", "OT"),
    "vl-endoscopic-image": ("77.1.1", "ES"),
    "vl-microscopic-image": ("77.1.2", "GM"),
    "vl-photographic-image": ("77.1.4", "XC"),
}
# dciodvfy's dictionary is older than Dermoscopic Photography; and it can't know what is paired.
KNOWN_WARNINGS = ("Unrecognized defined term = <DMS>", "Laterality(0020,0060)")


def photograph(**options: Any) -> bytes:
    """Return a picture with all of EXIF that comes along."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0131] = "Aleph", "A-1", "2.1"
    exif[0x0112] = options.pop("orientation", 1)
    exif.get_ifd(0x8769).update(
        {0x9003: "2024:03:05 14:07:09", 0x9011: "+02:00", 0x829A: 0.004, 0x829D: 2.8}
        | {0x8827: 100, 0x9209: 0x59, 0x9207: 5, 0xA403: 0, 0xA406: 0, 0x9000: b"0232"}
        | {0x920A: 4.25, 0xA405: 26, 0xA001: 1, 0xA434: "A 26 mm", 0xA431: "SN-77"}
    )
    data = without(make_jpeg(**options), 0xE0)
    return behind_soi(data, segment(0xE1, exif.tobytes()))


PICTURES = {
    "wrapped": photograph(width=64, height=48),
    "turned": photograph(width=64, height=48, orientation=6),
    "encoded again": photograph(width=61, height=47, orientation=6),
    "progressive": photograph(width=64, height=48, progressive=True),
    "grey": photograph(width=64, height=48, mode="L"),
    "with a profile": photograph(width=64, height=48, icc=True),
    "CMYK": photograph(width=64, height=48, mode="CMYK"),
}
BARE = make_jpeg(64, 48)


def complaints(file: Path, *options: str) -> list[str]:
    command = [require_tool("dciodvfy"), *options, str(file)]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    assert told  # it names the class that it has found
    return [line for line in told.splitlines() if line.startswith(("Error", "Warning"))]


def errors(file: Path) -> list[str]:
    lines = [*complaints(file), *complaints(file, "-new")]
    return [line for line in lines if line.startswith("Error")]


def test_these_are_all_templates() -> None:
    found = rules().templates
    assert {
        name: (str(one.sop_class).removeprefix("1.2.840.10008.5.1.4.1.1."), one.dataset.Modality)
        for name, one in found.items()
    } == CLASSES


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize("template", CLASSES)
def test_dciodvfy_finds_no_error(template: str, kind: str, tmp_path: Path) -> None:
    said = SAID | WANTED.get(template, {})
    if template.startswith("ophthalmic") and kind in {"encoded again", "CMYK"}:
        with pytest.raises(UnsupportedJpeg, match="derived ophthalmic"):
            described(PICTURES[kind], template, said, CMYK="convert")
        return
    made = described(PICTURES[kind], template, said, CMYK="convert")
    (tmp_path / "a.dcm").write_bytes(dicom_file(made))
    assert errors(tmp_path / "a.dcm") == []
    assert_honest(dcmread(tmp_path / "a.dcm"), bytes(made.instance.codestream))


def assert_honest(dataset: Dataset, frame: bytes) -> None:
    """Check what dciodvfy doesn't: the lossy attributes, the syntax, the profile's class."""
    syntax = dataset.file_meta.TransferSyntaxUID
    assert (syntax, syntax.is_retired) == ("1.2.840.10008.1.2.4.50", False)
    assert dataset.LossyImageCompression == "01"
    again = dataset.ImageType[0] == "DERIVED"
    assert again == ("DerivationDescription" in dataset)
    for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        values = 2 if again else 1
        assert values == dataset[keyword].VM, keyword
    assert set(as_list(dataset.LossyImageCompressionMethod)) == {"ISO_10918_1"}
    uncompressed = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel
    ratio = float(as_list(dataset.LossyImageCompressionRatio)[-1])
    assert ratio == pytest.approx(uncompressed / len(frame), abs=0.01)
    assert ("ICCProfile" in dataset) <= (dataset.SamplesPerPixel == 3)
    if "ICCProfile" in dataset:
        assert dataset.ICCProfile[12:16] == b"scnr"
    with Image.open(BytesIO(frame)) as image:
        assert image.size == (dataset.Columns, dataset.Rows)


def as_list(value: Any) -> list[Any]:
    return [value] if isinstance(value, str | float) else list(value)


@pytest.mark.parametrize("template", CLASSES)
def test_a_picture_of_which_nothing_is_known_is_valid_too(template: str, tmp_path: Path) -> None:
    made = described(BARE, template, {"PatientID": "P-7"} | WANTED.get(template, {}))
    (tmp_path / "a.dcm").write_bytes(dicom_file(made))
    assert errors(tmp_path / "a.dcm") == []


@pytest.mark.parametrize("template", CLASSES)
def test_a_side_and_a_region_leave_no_warning(template: str, tmp_path: Path) -> None:
    said = SAID | WANTED.get(template, {}) | {"AnatomicRegionSequence": "hand"}
    said |= {"BodyPartExamined": "HAND", "ImageLaterality": "L", "StudyID": "S-1"}
    made = described(BARE, template, said)
    (tmp_path / "a.dcm").write_bytes(dicom_file(made))
    told = complaints(tmp_path / "a.dcm", "-new")
    assert [line for line in told if not any(known in line for known in KNOWN_WARNINGS)] == []


@pytest.mark.parametrize("template", WANTED)
def test_what_only_the_caller_knows_is_asked_for(template: str) -> None:
    for keyword in WANTED[template]:
        said = SAID | {k: v for k, v in WANTED[template].items() if k != keyword}
        with pytest.raises(BadAttribute, match=f"wants {keyword}") as caught:
            described(BARE, template, said)
        assert (caught.value.reason, caught.value.where) == ("missing-attribute", keyword)


def test_a_fundus_camera_wants_the_size_of_a_pixel() -> None:
    said = SAID | EYE | {"AcquisitionDeviceTypeCodeSequence": "fundus camera"}
    with pytest.raises(BadAttribute, match="PixelSpacing"):
        described(BARE, "ophthalmic-photography-8-bit-image", said)
    said |= {"PixelSpacing": [0.01, 0.01]}
    assert described(BARE, "ophthalmic-photography-8-bit-image", said).instance.dataset.PixelSpacing


@pytest.mark.parametrize(
    ("template", "said", "where"),
    [
        ("vl-photographic-image", {"Modality": "CT"}, "Modality"),
        ("vl-photographic-image", {"ImageType": ["FOO", "BAR"]}, "ImageType"),
        ("vl-photographic-image", {"Laterality": "R", "ImageLaterality": "L"}, "Laterality"),
        ("ophthalmic-photography-8-bit-image", EYE | {"ImageLaterality": "U"}, "ImageLaterality"),
        ("dermoscopic-photography-image", CAMERA | {"ContactMethod": "CONTACT"}, "ImmersionMedia"),
        ("vl-photographic-image", {"PatientOrientation": ["ZZ", "QQ"]}, "PatientOrientation"),
        ("vl-photographic-image", {"SeriesInstanceUID": "1.2.3"}, "SeriesInstanceUID"),
        ("vl-photographic-image", {"TimezoneOffsetFromUTC": "CET"}, "TimezoneOffsetFromUTC"),
        (
            "vl-photographic-image",
            {"AnatomicRegionSequence": [{"CodeValue": "1", "CodingSchemeDesignator": "SCT"}]},
            "AnatomicRegionSequence[1].CodeMeaning",
        ),
    ],
)
def test_what_the_sop_class_forbids_is_refused(
    template: str, said: dict[str, Any], where: str
) -> None:
    with pytest.raises(BadAttribute) as caught:
        described(BARE, template, {"PatientID": "P-7"} | said)
    assert caught.value.where == where


def test_a_side_that_is_said_twice_is_said_once() -> None:
    said = SAID | {"Laterality": "L", "ImageLaterality": "L"}
    dataset = described(BARE, said=said).instance.dataset
    assert ("Laterality" in dataset, dataset.ImageLaterality) == (False, "L")


def test_an_eye_has_its_side_and_its_region() -> None:
    made = described(BARE, "ophthalmic-photography-8-bit-image", SAID | EYE)
    dataset = made.instance.dataset
    assert dataset.ImageLaterality == "L"
    assert dataset.AnatomicRegionSequence[0].CodeMeaning == "Eye"
    assert (dataset.NumberOfFrames, dataset.FrameTime) == (1, 0)


def test_a_scanned_document_is_a_secondary_capture_of_paper() -> None:
    dataset = described(BARE, "scanned-document").instance.dataset
    assert (dataset.ConversionType, dataset.BurnedInAnnotation) == ("SD", "YES")


def test_every_dermoscopic_picture_in_colour_has_a_frame_of_reference_and_a_profile() -> None:
    made = described(BARE, "dermoscopic-photography-image", SAID | CAMERA)
    dataset = made.instance.dataset
    assert dataset.FrameOfReferenceUID.startswith("2.25.")
    other = described(make_jpeg(32, 16), "dermoscopic-photography-image", SAID | CAMERA)
    shared = ("SeriesInstanceUID", "FrameOfReferenceUID")
    if dataset.SeriesInstanceUID == other.instance.dataset.SeriesInstanceUID:
        assert dataset.FrameOfReferenceUID == other.instance.dataset.FrameOfReferenceUID, shared
    assert dataset.ICCProfile[12:16] == b"scnr"
