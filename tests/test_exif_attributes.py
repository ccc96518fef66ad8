"""What a camera says of itself and its exposure comes along; what it says of people doesn't."""

import struct
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword

from service.dicom import exif, exif_attributes
from service.dicom.exif import IMAGE, PHOTO, Value
from service.dicom.exif_attributes import attributes
from service.errors import BadAttribute, DamagedJpeg
from tests.describing import CAPTURE, PHOTOGRAPH, SAID, described
from tests.jpegs import GPS_IFD, make_jpeg
from tests.streams import behind_soi, segment, without


def of_class(sop_class: str) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = f"1.2.840.10008.5.1.4.1.1.{sop_class}"
    return dataset


VL_PHOTOGRAPHIC, DERMOSCOPIC = of_class("77.1.4"), of_class("77.1.7")
SECONDARY_CAPTURE = of_class("7")
PLAIN = without(make_jpeg(32, 16), 0xE0)
MOMENT = ("AcquisitionDate", "AcquisitionTime", "ContentDate", "ContentTime", "AcquisitionDateTime")

# Tag, what EXIF holds, the DICOM keyword, its value.
CAMERA: list[tuple[int, int, Any, str, Any]] = [
    (IMAGE, 0x010F, "Aleph", "Manufacturer", "Aleph"),
    (IMAGE, 0x0110, "A-1", "ManufacturerModelName", "A-1"),
    (IMAGE, 0x0131, "firmware 2.1", "SoftwareVersions", "firmware 2.1"),
    (PHOTO, 0xA431, "SN-77", "DeviceSerialNumber", "SN-77"),
]
EXPOSURE: list[tuple[int, int, Any, str, Any]] = [
    (PHOTO, 0x829A, (1, 250), "ExposureTimeInSeconds", 0.004),
    (PHOTO, 0x829D, (28, 10), "FNumber", 2.8),
    (PHOTO, 0x8822, 2, "ExposureProgram", 2),
    (PHOTO, 0x8827, 400, "PhotographicSensitivity", 400),
    (PHOTO, 0x9204, (-1, 3), "ExposureBiasValue", -0.333333333333),
    (PHOTO, 0x9205, (2, 1), "MaxApertureValue", 2),
    (PHOTO, 0x9206, (5, 2), "SubjectDistance", 2.5),
    (PHOTO, 0x9207, 5, "MeteringMode", 5),
    (PHOTO, 0x9208, 10, "LightSource", 10),
    (PHOTO, 0x920A, (425, 100), "FocalLength", 4.25),
    (PHOTO, 0xA402, 1, "ExposureMode", 1),
    (PHOTO, 0xA403, 1, "WhiteBalance", 1),
    (PHOTO, 0xA404, (3, 2), "DigitalZoomRatio", 1.5),
    (PHOTO, 0xA405, 26, "FocalLengthIn35mmFilm", 26),
    (PHOTO, 0xA406, 3, "SceneCaptureType", 3),
    (PHOTO, 0xA408, 2, "Contrast", 2),
    (PHOTO, 0xA433, "Aleph", "LensMake", "Aleph"),
    (PHOTO, 0xA434, "A 26 mm", "LensModel", "A 26 mm"),
]
TIMES = {0x9003: "2024:03:05 14:07:09", 0x9291: "123", 0x9011: "+02:00"}
# Description, artist, copyright, XP title, comment, author; owner, user comment, maker's note.
PRIVATE = {IMAGE: (0x010E, 0x013B, 0x8298, 0x9C9B, 0x9C9C, 0x9C9D), PHOTO: (0xA430, 0x9286, 0x927C)}


def block(tags: dict[tuple[int, int], Any], *, gps: bool = False) -> bytes:
    """Write an Exif block; a pair of numbers is a rational one."""
    written = Image.Exif()
    photo = written.get_ifd(0x8769)
    for (directory, tag), value in tags.items():
        number = TiffImagePlugin.IFDRational(*value) if isinstance(value, tuple) else value
        (written if directory == IMAGE else photo)[tag] = number
    if gps:
        written.get_ifd(GPS_IFD).update({1: "N", 2: (51.0, 28.0, 40.0), 29: "2024:03:05"})
    return written.tobytes()


def photographed(tags: dict[tuple[int, int], Any], *, gps: bool = False) -> bytes:
    return behind_soi(PLAIN, segment(0xE1, block(tags, gps=gps)))


def everything() -> dict[tuple[int, int], Any]:
    said = {(directory, tag): value for directory, tag, value, _, _ in CAMERA + EXPOSURE}
    return said | {(PHOTO, tag): value for tag, value in TIMES.items()}


def instance(
    data: bytes, template: str = PHOTOGRAPH, said: dict[str, Any] | None = None
) -> Dataset:
    return described(data, template, SAID if said is None else said).instance.dataset


PHOTO_OF_ALL = photographed(everything())


@pytest.mark.parametrize("row", CAMERA + EXPOSURE, ids=lambda row: row[3])
def test_a_value_comes_along(row: tuple[int, int, Any, str, Any]) -> None:
    *_, keyword, wanted = row
    found = instance(PHOTO_OF_ALL)[keyword].value
    if isinstance(wanted, str):
        assert found == wanted
    else:
        assert float(found) == pytest.approx(wanted, rel=1e-9)


def test_the_moment_is_that_of_the_original_with_its_fraction() -> None:
    dataset = instance(PHOTO_OF_ALL)
    assert [dataset[keyword].value for keyword in MOMENT] == [
        "20240305",
        "140709.123",
        "20240305",
        "140709.123",
        "20240305140709.123+0200",
    ]


def test_the_offset_stands_with_the_moment_and_nowhere_else() -> None:
    """Timezone Offset From UTC would govern the times of the study as well."""
    dataset = instance(PHOTO_OF_ALL)
    assert "TimezoneOffsetFromUTC" not in dataset
    holding = [e.keyword for e in dataset if "+02" in str(e.value)]
    assert holding == ["AcquisitionDateTime"]


def test_a_secondary_capture_takes_the_camera_and_the_moment_only() -> None:
    dataset = instance(PHOTO_OF_ALL, CAPTURE)
    assert dataset.Manufacturer == "Aleph"
    assert dataset.AcquisitionDateTime.startswith("20240305")
    assert [element for element in dataset if element.tag.group == 0x0016] == []


def test_the_caller_is_believed_before_the_camera_and_the_camera_before_the_template() -> None:
    said = SAID | {"Manufacturer": "Beth", "AcquisitionDateTime": "20200101"}
    dataset = instance(PHOTO_OF_ALL, said=said)
    assert dataset.Manufacturer == "Beth"
    assert dataset.AcquisitionDateTime == "20200101"
    assert instance(PLAIN, "ophthalmic-photography-8-bit-image", OPHTHALMIC).Manufacturer is None
    ours = photographed({(IMAGE, 0x010F): "Aleph"})
    assert instance(ours, "ophthalmic-photography-8-bit-image", OPHTHALMIC).Manufacturer == "Aleph"


OPHTHALMIC = SAID | {
    "ImageLaterality": "L",
    "ContentDate": "20240305",
    "ContentTime": "140709",
    "AcquisitionDateTime": "20240305140709",
    "AcquisitionDeviceTypeCodeSequence": "external camera",
}


@pytest.mark.parametrize("maker", ["Manufacturer", "ManufacturerModelName"])
def test_two_makers_never_describe_one_camera(maker: str) -> None:
    dataset = instance(PHOTO_OF_ALL, said=SAID | {maker: "Beth"})
    camera = {"Manufacturer", "ManufacturerModelName", "SoftwareVersions", "DeviceSerialNumber"}
    assert {keyword for keyword in camera if dataset.get(keyword)} == {maker}


def test_a_serial_number_of_the_callers_completes_the_camera() -> None:
    dataset = instance(PHOTO_OF_ALL, said=SAID | {"DeviceSerialNumber": "77"})
    assert (dataset.Manufacturer, dataset.DeviceSerialNumber) == ("Aleph", "77")


@pytest.mark.parametrize("keyword", ["ContentDate", "AcquisitionDateTime"])
def test_two_clocks_never_tell_one_moment(keyword: str) -> None:
    dataset = instance(PHOTO_OF_ALL, said=SAID | {keyword: "20200101"})
    assert [one for one in MOMENT if one in dataset] == [keyword]


def test_a_zone_of_the_callers_leaves_only_the_moment_that_has_its_own() -> None:
    said = SAID | {"TimezoneOffsetFromUTC": "-0500"}
    dataset = instance(PHOTO_OF_ALL, said=said)
    assert [one for one in MOMENT if one in dataset] == ["AcquisitionDateTime"]
    assert dataset.AcquisitionDateTime.endswith("+0200")


def test_a_patient_without_identity_has_no_serial_numbers_and_no_moments() -> None:
    said = SAID | {"PatientIdentityRemoved": "YES"}
    dataset = instance(photographed(everything() | {(PHOTO, 0xA435): "L-77"}), said=said)
    removed = {*MOMENT, "DeviceSerialNumber", "LensSerialNumber"}
    assert [keyword for keyword in removed if keyword in dataset] == []
    assert dataset.LensModel == "A 26 mm"


def test_what_the_sop_class_wants_may_come_from_the_camera() -> None:
    said = {"PatientID": "P-7"}
    with pytest.raises(BadAttribute, match="DeviceSerialNumber") as caught:
        instance(PLAIN, "dermoscopic-photography-image", said)
    assert (caught.value.reason, caught.value.where) == ("missing-attribute", "Manufacturer")
    assert instance(PHOTO_OF_ALL, "dermoscopic-photography-image", said).DeviceSerialNumber


def test_nothing_of_people_and_places_comes_along() -> None:
    private: dict[tuple[int, int], Any] = {}
    private |= {(d, tag): "Zebedee" for d, tags in PRIVATE.items() for tag in tags}
    private |= {(PHOTO, 0x9286): b"ASCII\0\0\0Zebedee", (PHOTO, 0x927C): b"Zebedee" * 9}
    private |= {(IMAGE, tag): "Zebedee".encode("utf-16-le") for tag in (0x9C9B, 0x9C9C, 0x9C9D)}
    data = photographed(everything() | private, gps=True)
    assert b"Zebedee" in data
    one, other = instance(data), instance(photographed(everything()))
    for dataset in (one, other):  # which is named by the whole file, secrets and all
        del dataset.SOPInstanceUID
    assert one == other
    assert "Zebedee" not in str(one)
    assert not any(e.keyword.startswith("GPS") for e in instance(data))
    for keyword in ("MakerNote", "CameraOwnerName", "ImageComments", "OperatorsName"):
        assert keyword not in instance(data)


def test_every_attribute_that_is_set_is_one_of_the_dictionary() -> None:
    keywords = [*exif_attributes._EQUIPMENT.values(), *exif_attributes._PHOTOGRAPHIC.values()]
    assert [keyword for keyword in keywords if tag_for_keyword(keyword) is None] == []


@pytest.mark.parametrize(
    ("flash", "said"),
    [
        (0x00, (0, 0, 0, 0)),
        (0x01, (1, 0, 0, 0)),
        (0x5F, (1, 3, 3, 1)),
        (0x18, (0, 0, 3, 0)),
        (0x4D, (1, 2, 1, 1)),
        (0x20, (0, 0, 0, 0)),
        (0x03, (1, None, 0, 0)),
    ],
)
def test_the_bits_of_the_flash_are_told_apart(flash: int, said: tuple[int | None, ...]) -> None:
    dataset = attributes({(PHOTO, 0x9209): (flash,)}, DERMOSCOPIC)
    assert said == (
        dataset.FlashFiringStatus,
        dataset.get("FlashReturnStatus"),
        dataset.FlashMode,
        dataset.FlashRedEyeMode,
    )
    assert "FlashFunctionPresent" not in dataset


@pytest.mark.parametrize(
    ("tag", "value", "keyword"),
    [
        ((PHOTO, 0x829A), ((1, 0),), "ExposureTimeInSeconds"),
        ((PHOTO, 0x829A), (float("nan"),), "ExposureTimeInSeconds"),
        ((PHOTO, 0x829A), "1/250", "ExposureTimeInSeconds"),
        ((PHOTO, 0x829A), b"\0", "ExposureTimeInSeconds"),
        ((PHOTO, 0x9206), ((0xFFFFFFFF, 1),), "SubjectDistance"),
        ((PHOTO, 0x9206), ((0xFFFFFFFF, 10),), "SubjectDistance"),
        ((PHOTO, 0x9206), ((0, 100),), "SubjectDistance"),
        ((PHOTO, 0xA405), (0,), "FocalLengthIn35mmFilm"),
        ((PHOTO, 0x9207), (77,), "MeteringMode"),
        ((PHOTO, 0x8822), (9,), "ExposureProgram"),
        ((PHOTO, 0x829D), ((28, 10), (28, 10)), "FNumber"),
        ((PHOTO, 0xA432), ((24, 1), (70, 1), (0, 0), (0, 0)), "LensSpecification"),
        ((PHOTO, 0xA405), (2**40,), "FocalLengthIn35mmFilm"),
        ((IMAGE, 0x010F), (65,), "Manufacturer"),
        ((IMAGE, 0x010F), "", "Manufacturer"),
        ((IMAGE, 0x010F), "\x01\x02", "Manufacturer"),
        ((PHOTO, 0x9000), b"new!", "EXIFVersion"),
    ],
)
def test_what_means_nothing_is_left_out(tag: tuple[int, int], value: Value, keyword: str) -> None:
    assert keyword not in attributes({tag: value}, VL_PHOTOGRAPHIC)


def test_text_is_made_to_fit() -> None:
    said: dict[tuple[int, int], Value] = {
        (IMAGE, 0x010F): "Aleph\\Beth\r\n\0 ",
        (IMAGE, 0x0110): "x" * 70,
        (PHOTO, 0x9000): b"0232",
        (PHOTO, 0x8827): (100, 100),
    }
    dataset = attributes(said, VL_PHOTOGRAPHIC)
    assert dataset.Manufacturer == "Aleph Beth"
    assert dataset.ManufacturerModelName == "x" * 64
    assert dataset.EXIFVersion == "0232"
    assert dataset.PhotographicSensitivity == 100


@pytest.mark.parametrize(
    ("original", "fraction", "offset", "moment"),
    [
        ("2024:03:05 14:07:09", "", "", "20240305140709"),
        ("2024-03-05T14:07:09", "5", "Z", "20240305140709.5"),
        ("2024:03:05 14:07:09", "1234567", "-00:00", "20240305140709"),
        ("2024:03:05 14:07:09", "", "-13:00", "20240305140709"),
        ("2024:03:05 14:07:09", "", "+14:00", "20240305140709+1400"),
        ("2024:03:05 14:07:09", "", "-03:30", "20240305140709-0330"),
        ("2024:13:05 14:07:09", "", "", None),
        ("2024:02:30 14:07:09", "", "", None),
        ("2024:03:05 25:07:09", "", "", None),
        ("0000:00:00 00:00:00", "", "", None),
        ("    :  :     :  :  ", "", "", None),
        ("yesterday", "", "", None),
    ],
)
def test_a_moment_is_whole_or_none(
    original: str, fraction: str, offset: str, moment: str | None
) -> None:
    said: dict[tuple[int, int], Value] = {
        (PHOTO, 0x9003): original,
        (PHOTO, 0x9291): fraction,
        (PHOTO, 0x9011): offset,
    }
    dataset = attributes(said, SECONDARY_CAPTURE)
    assert dataset.get("AcquisitionDateTime") == moment
    assert [k for k in MOMENT if k in dataset] == ([] if moment is None else list(MOMENT))


def test_the_moment_of_digitizing_stands_in() -> None:
    said: dict[tuple[int, int], Value] = {
        (PHOTO, 0x9003): "0000:00:00 00:00:00",
        (PHOTO, 0x9004): "1999:12:31 23:59:59",
        (PHOTO, 0x9291): "77",
        (PHOTO, 0x9292): "9",
    }
    assert attributes(said, SECONDARY_CAPTURE).AcquisitionDateTime == "19991231235959.9"


def test_srgb_is_what_a_camera_declares() -> None:
    assert exif_attributes.says_srgb({(PHOTO, 0xA001): (1,)})
    for value in ((65535,), (2,), b"\1", "1", (1, 1)):
        assert not exif_attributes.says_srgb({(PHOTO, 0xA001): value})


BROKEN = {
    "empty": b"",
    "no byte order": b"XX*\0" + bytes(30),
    "cut": block(everything())[6:40],
    "an offset beyond": b"II*\0\xff\xff\xff\x7f",
    "a directory of itself": b"II*\0\x08\0\0\0\1\0\x69\x87\4\0\1\0\0\0\x08\0\0\0\0\0\0\0",
    "a count of millions": b"MM\0*\0\0\0\x08\xff\xff" + bytes(range(240)),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_block_is_dropped_and_named(kind: str) -> None:
    data = behind_soi(PLAIN, segment(0xE1, b"Exif\0\0" + BROKEN[kind]))
    made = described(data)
    assert f"removed Exif ({len(BROKEN[kind]) + 10} bytes)" in made.changes
    unread = "found nothing that can be read in Exif"
    assert (unread in made.changes) == (not exif.parse(BROKEN[kind]))
    assert not made.instance.dataset.Manufacturer
    assert unread not in described(PHOTO_OF_ALL).changes


TIFF = st.one_of(
    st.binary(max_size=300),
    st.builds(
        lambda order, body: order + body,
        st.sampled_from([b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"]),
        st.binary(max_size=300),
    ),
)


def entry(tag: int, kind: int, count: int, value: int) -> bytes:
    return struct.pack("<HHII", tag, kind, count, value)


TAGS = [tag for _, tag in [*exif_attributes._EQUIPMENT, *exif_attributes._PHOTOGRAPHIC]]
ENTRIES = st.lists(
    st.builds(
        entry,
        st.sampled_from([*TAGS, 0x0112, 0x8769, 0x9003, 0x9011, 0x9000, 0x9209, 0xA001]),
        st.integers(0, 14),
        st.one_of(st.integers(0, 20), st.integers(0, 2**32 - 1)),
        st.one_of(st.integers(0, 400), st.integers(0, 2**32 - 1)),
    ),
    max_size=12,
)
DIRECTORIES = st.builds(
    lambda one, other, rest: (
        b"II*\0\x08\0\0\0"
        + struct.pack("<H", len(one) + 1)
        + b"".join(one)
        + entry(0x8769, 4, 1, 10 + 12 * (len(one) + 1))
        + struct.pack("<H", len(other))
        + b"".join(other)
        + rest
    ),
    ENTRIES,
    ENTRIES,
    st.binary(max_size=80),
)


@settings(max_examples=150, deadline=None)
@example(block(everything())[6:])
@given(st.one_of(TIFF, DIRECTORIES))
def test_no_block_fails_an_upload(written: bytes) -> None:
    """Only an orientation may be refused, or need another way; never because of its block."""
    data = behind_soi(PLAIN, segment(0xE1, b"Exif\0\0" + written))
    made = described(data, PHOTOGRAPH)
    assert made.instance.transfer_syntax == "1.2.840.10008.1.2.4.50"
    assert len(made.instance.dataset.to_json()) > 100


def test_damage_beside_the_block_is_still_damage() -> None:
    with pytest.raises(DamagedJpeg):
        described(PHOTO_OF_ALL[:-60])
