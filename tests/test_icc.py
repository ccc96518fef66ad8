"""Profiles in the form that DICOM demands, which change no colour."""

import struct
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from service.dicom import icc
from tests.decoding import Pixels, furthest
from tests.describing import PHOTOGRAPH, SAID, described, dicom_file
from tests.jpegs import make_jpeg, picture, srgb_profile
from tests.streams import behind_soi, segment

DISPLAY = srgb_profile()
# The primaries of Adobe RGB, adapted from D65 to D50 (Bradford), as x and y.
ADOBE_IN_D50 = [(0.6484, 0.3309), (0.2302, 0.7016), (0.1559, 0.0660)]
DERMOSCOPIC = "dermoscopic-photography-image"
CAMERA = {
    "Manufacturer": "Aleph",
    "ManufacturerModelName": "A-1",
    "DeviceSerialNumber": "SN-77",
    "SoftwareVersions": "2.1",
}
PICTURE = picture(64, 48)


def in_lab(profile: bytes) -> Pixels:
    """Return PICTURE's colours, measured in CIELAB, as a profile says them."""
    source = ImageCms.ImageCmsProfile(BytesIO(profile))
    lab = ImageCms.profileToProfile(
        PICTURE, source, ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert isinstance(lab, Image.Image)
    measured = np.asarray(lab).astype(np.int32)
    measured[..., 1:] = (measured[..., 1:] + 128) % 256 - 128  # a* and b* are signed
    return measured


def header(profile: bytes) -> tuple[bytes, bytes, bytes]:
    """Return device class, colour space and connection space (ICC.1 7.2)."""
    return profile[12:16], profile[16:20], profile[20:24]


def with_header(at: int, written: bytes, profile: bytes = DISPLAY) -> bytes:
    return profile[:at] + written + profile[at + len(written) :]


def wide_gamut() -> bytes:
    """Return a profile whose green is another one than sRGB's."""
    profile = icc.srgb()
    green = profile.index(b"XYZ \0\0\0\0" + struct.pack(">i", round(0.3851 * 65536)))
    return with_header(12, b"mntr", with_header(green + 8, struct.pack(">i", 10_000), profile))


def test_our_srgb_is_an_input_profile_that_littlecms_reads() -> None:
    profile = icc.srgb()
    assert header(profile) == (b"scnr", b"RGB ", b"XYZ ")
    assert struct.unpack_from(">I", profile) == (len(profile),)
    opened = ImageCms.ImageCmsProfile(BytesIO(profile)).profile
    assert opened.profile_description == "sRGB"
    assert opened.version == pytest.approx(4.3)
    made = icc.conformant(profile)
    assert made is not None
    assert furthest(in_lab(made), in_lab(profile)) == 0


def test_our_srgb_shows_the_colours_of_srgb() -> None:
    assert furthest(in_lab(icc.srgb()), in_lab(DISPLAY)) <= 1


def test_a_display_profile_becomes_an_input_profile_and_no_colour_changes() -> None:
    made = icc.conformant(DISPLAY)
    assert made is not None
    assert header(DISPLAY)[0] == b"mntr"
    assert header(made) == (b"scnr", b"RGB ", b"XYZ ")
    assert made[84:128] == bytes(44)
    assert furthest(in_lab(made), in_lab(DISPLAY)) == 0


def test_nothing_of_a_monitor_and_its_owner_stays_in_a_profile() -> None:
    """Apple's profiles have a private tag with the monitor's serial number, and a name for it."""
    tags = {b"desc": b"desc\0\0\0\0Zebedee's", b"mmod": b"mmod\0\0\0\0Zebedee 999"}
    count = struct.unpack_from(">I", DISPLAY, 128)[0]
    planted = bytearray(DISPLAY)
    for number in range(count):
        name = planted[132 + 12 * number : 136 + 12 * number]
        if bytes(name) in {b"desc", b"cprt"}:
            text = tags[b"desc" if name == b"desc" else b"mmod"]
            struct.pack_into(">4sII", planted, 132 + 12 * number, name, len(planted), len(text))
            planted += text
    struct.pack_into(">I", planted, 0, len(planted))
    assert planted.count(b"Zebedee") == 2
    made = icc.conformant(bytes(planted))
    assert made is not None
    assert b"Zebedee" not in made
    assert furthest(in_lab(made), in_lab(DISPLAY)) == 0


def test_another_gamut_stays_another_gamut() -> None:
    made = icc.conformant(wide_gamut())
    assert made is not None
    assert furthest(in_lab(made), in_lab(wide_gamut())) == 0
    assert furthest(in_lab(made), in_lab(DISPLAY)) > 10


@pytest.mark.parametrize(
    "profile",
    [
        b"",
        DISPLAY[:100],
        DISPLAY[:-1],
        with_header(36, b"acsq"),
        with_header(12, b"prtr"),
        with_header(12, b"link"),
        with_header(16, b"CMYK"),
        with_header(16, b"GRAY"),
        with_header(20, b"RGB "),
        with_header(0, b"\0\0\0\x40"),
        with_header(0, b"\xff\xff\xff\xff"),
        with_header(128, b"\0\0\0\0"),
        with_header(128, b"\0\0\1\0"),
        with_header(136, b"\x7f"),
        DISPLAY.replace(b"rTRC", b"rtrc"),
    ],
)
def test_what_can_not_be_an_input_profile_of_rgb_is_none(profile: bytes) -> None:
    assert icc.conformant(profile) is None


@given(st.binary(max_size=300))
def test_whatever_stands_there_it_is_whole_or_none(data: bytes) -> None:
    for profile in (data, DISPLAY[:36] + data, data + DISPLAY):
        made = icc.conformant(profile)
        assert made is None or header(made)[0] == b"scnr"


def test_padding_behind_a_profile_is_no_part_of_it() -> None:
    assert icc.conformant(DISPLAY + bytes(7)) == icc.conformant(DISPLAY)


def chunks(profile: bytes, *, numbers: tuple[int, ...] = (1, 2), count: int = 2) -> bytes:
    """Return a picture with a profile in two chunks (ICC.1 B.4)."""
    half = len(profile) // 2
    parts = {1: profile[:half], 2: profile[half:]}
    return behind_soi(
        make_jpeg(32, 16),
        *(segment(0xE2, b"ICC_PROFILE\0" + bytes([n, count]) + parts[n]) for n in numbers),
    )


DROPPED = "dropped an ICC profile that isn't a usable one for RGB"


@pytest.mark.parametrize("numbers", [(1, 2), (2, 1)])
def test_the_cameras_profile_comes_along_whole_in_whatever_order(numbers: tuple[int, ...]) -> None:
    made = described(chunks(wide_gamut(), numbers=numbers))
    dataset = made.instance.dataset
    assert dataset.ICCProfile == icc.conformant(wide_gamut())
    assert "ColorSpace" not in dataset
    assert b"ICC_PROFILE" not in bytes(made.instance.codestream)
    assert dicom_file(made).count(b"acsp") == 1


@pytest.mark.parametrize(
    "data",
    [
        chunks(DISPLAY, numbers=(1,)),
        chunks(DISPLAY, numbers=(1, 2), count=3),
        chunks(with_header(16, b"CMYK")),
        chunks(b"rubbish" * 20),
    ],
)
def test_an_unusable_profile_is_dropped(data: bytes) -> None:
    made = described(data)
    assert "ICCProfile" not in made.instance.dataset
    assert any(change.startswith("removed ICC profile (") for change in made.changes)


def test_a_whole_profile_that_is_none_of_rgb_is_named() -> None:
    assert DROPPED in described(chunks(with_header(16, b"CMYK"))).changes
    assert DROPPED not in described(chunks(DISPLAY)).changes


def test_grey_has_no_profile_of_colours() -> None:
    grey = behind_soi(make_jpeg(32, 16, "L"), segment(0xE2, b"ICC_PROFILE\0\1\1" + DISPLAY))
    for template in (PHOTOGRAPH, DERMOSCOPIC):
        dataset = described(grey, template, SAID | CAMERA).instance.dataset
        assert "ICCProfile" not in dataset
        assert "ColorSpace" not in dataset


def test_a_dermoscopic_picture_in_colour_always_has_one() -> None:
    """The ICC Profile module is mandatory there (PS3.3 A.32.11)."""
    plain = described(make_jpeg(32, 16), DERMOSCOPIC, SAID | CAMERA).instance.dataset
    assert (plain.ICCProfile, plain.ColorSpace) == (icc.srgb(), "SRGB")
    own = described(chunks(wide_gamut()), DERMOSCOPIC, SAID | CAMERA).instance.dataset
    assert own.ICCProfile == icc.conformant(wide_gamut())


def test_a_photograph_has_one_only_if_somebody_says_what_its_colours_are() -> None:
    assert "ICCProfile" not in described(make_jpeg(32, 16)).instance.dataset


def test_what_exif_declares_to_be_srgb_is_srgb() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 1
    data = behind_soi(make_jpeg(32, 16), segment(0xE1, exif.tobytes()))
    dataset = described(data).instance.dataset
    assert (dataset.ICCProfile, dataset.ColorSpace) == (icc.srgb(), "SRGB")


@pytest.mark.parametrize("template", [PHOTOGRAPH, DERMOSCOPIC])
def test_what_a_camera_declares_to_be_adobe_rgb_is_not_taken_for_srgb(template: str) -> None:
    """A camera writes no profile then, but the index of a DCF optional file."""
    dataset = described(indexed("R03"), template, SAID | CAMERA).instance.dataset
    assert (dataset.ICCProfile, dataset.ColorSpace) == (icc.adobe_rgb(), "ADOBERGB")
    assert "ICCProfile" not in described(indexed("R98")).instance.dataset


def indexed(index: str) -> bytes:
    exif = Image.Exif()
    exif.get_ifd(0x8769).update({0xA001: 0xFFFF, 0xA005: {0x0001: index}})
    return behind_soi(make_jpeg(32, 16), segment(0xE1, exif.tobytes()))


def test_our_adobe_rgb_has_its_primaries_and_its_gamma() -> None:
    """Adobe RGB (1998) 4.3.1: the primaries, the white of D65, and a gamma of 2 51/256."""
    opened = ImageCms.ImageCmsProfile(BytesIO(icc.adobe_rgb()))
    assert header(icc.adobe_rgb()) == (b"scnr", b"RGB ", b"XYZ ")
    told = opened.profile
    for found, adapted in zip(
        (told.red_primary, told.green_primary, told.blue_primary), ADOBE_IN_D50, strict=True
    ):
        assert found is not None
        assert found[1][:2] == pytest.approx(adapted, abs=5e-4)
    grey = Image.new("RGB", (1, 1), (128, 128, 128))
    lab = ImageCms.profileToProfile(grey, opened, ImageCms.createProfile("LAB"), outputMode="LAB")
    assert lab is not None
    measured = np.asarray(lab)[0, 0, 0]
    luminance = (128 / 255) ** (563 / 256)
    assert measured == pytest.approx((116 * luminance ** (1 / 3) - 16) * 255 / 100, abs=1)


def test_converted_ink_is_srgb() -> None:
    dataset = described(make_jpeg(32, 16, "CMYK"), CMYK="convert").instance.dataset
    assert (dataset.ICCProfile, dataset.ColorSpace) == (icc.srgb(), "SRGB")
