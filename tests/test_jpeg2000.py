"""JPEG 2000 in a JP2 file or bare: the codestream alone is stored, and named for what it is."""

import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from service.dicom import icc, jpeg2000
from service.errors import DamagedJpeg, JpegstowError, TooLarge, UnsupportedJpeg
from tests.decoding import Pixels, by_gdcm, by_pydicom, furthest, psnr
from tests.describing import CAPTURE, PHOTOGRAPH, SAID, described, dicom_file, normalised
from tests.jpegs import picture
from tests.test_icc import CAMERA, DERMOSCOPIC, DROPPED, wide_gamut

SIZE = 93, 61
COMMENT = b"\xff\x64\0\x0c\0\1Zebedee!"


def encoded(image: Image.Image, form: str = "jp2", **options: Any) -> bytes:
    """Return a JP2 file, or with ``j2k`` a bare codestream."""
    file = BytesIO()
    image.save(file, "JPEG2000", no_jp2=form == "j2k", **options)
    return file.getvalue()


def samples(image: Image.Image) -> Pixels:
    return np.asarray(image).astype(np.int32)


COLOUR, GREY = picture(*SIZE), picture(*SIZE, "L")
DEEP = Image.fromarray((samples(GREY) * 256 + 7).astype(np.uint16))
LOSSLESS: dict[str, tuple[Image.Image, dict[str, Any], str]] = {
    "colour": (COLOUR, {"mct": 1}, "YBR_RCT"),
    "colour without a transform": (COLOUR, {"mct": 0}, "RGB"),
    "grey": (GREY, {}, "MONOCHROME2"),
    "tiles": (COLOUR, {"tile_size": (32, 32), "mct": 1}, "YBR_RCT"),
    "16 bits": (DEEP, {}, "MONOCHROME2"),
}


@pytest.mark.parametrize("form", ["jp2", "j2k"])
@pytest.mark.parametrize("kind", LOSSLESS)
def test_a_reversible_codestream_is_lossless_in_every_reader(
    kind: str, form: str, tmp_path: Path
) -> None:
    image, options, interpretation = LOSSLESS[kind]
    made = described(encoded(image, form, **options), CAPTURE)
    dataset = made.instance.dataset
    assert made.instance.transfer_syntax == "1.2.840.10008.1.2.4.90"
    assert dataset.PhotometricInterpretation == interpretation
    assert dataset.LossyImageCompression == "00"
    assert "LossyImageCompressionMethod" not in dataset
    assert (dataset.Columns, dataset.Rows) == SIZE
    assert bytes(made.instance.codestream).startswith(b"\xff\x4f\xff\x51")
    assert bytes(made.instance.codestream).endswith(b"\xff\xd9")
    (tmp_path / "a.dcm").write_bytes(dicom_file(made))
    for plugin in ("gdcm", "pillow"):
        assert furthest(by_pydicom(tmp_path / "a.dcm", plugin), samples(image)) == 0, plugin
    assert furthest(by_gdcm(tmp_path / "a.dcm"), samples(image)) == 0


@pytest.mark.parametrize(
    ("image", "mct", "interpretation"),
    [(COLOUR, 1, "YBR_ICT"), (COLOUR, 0, "RGB"), (GREY, 0, "MONOCHROME2")],
)
def test_an_irreversible_codestream_says_that_it_has_lost(
    image: Image.Image, mct: int, interpretation: str, tmp_path: Path
) -> None:
    data = encoded(image, irreversible=True, mct=mct, quality_mode="rates", quality_layers=[6])
    made = described(data)
    dataset = made.instance.dataset
    assert made.instance.transfer_syntax == "1.2.840.10008.1.2.4.91"
    assert dataset.PhotometricInterpretation == interpretation
    assert dataset.LossyImageCompression == "01"
    assert dataset.LossyImageCompressionMethod == "ISO_15444_1"
    assert float(dataset.LossyImageCompressionRatio) > 4
    (tmp_path / "a.dcm").write_bytes(dicom_file(made))
    with Image.open(BytesIO(data)) as opened:
        decoded = samples(opened)
    assert psnr(decoded, samples(image)) > 25
    for plugin in ("gdcm", "pillow"):
        assert furthest(by_pydicom(tmp_path / "a.dcm", plugin), decoded) <= 1, plugin


def test_the_boxes_and_the_comments_are_removed_and_named() -> None:
    bare = encoded(GREY, "j2k", comment="Zebedee")
    assert b"Zebedee" in bare
    in_file = encoded(GREY, "jp2", comment="Zebedee") + box(b"uuid", b"Dougal" * 9)
    one, other = normalised(bare), normalised(in_file)
    assert one.codestream == other.codestream
    assert b"Zebedee" not in bytes(one.codestream)
    assert [change.split(" bytes ")[1] for change in other.changes] == [
        "of comment",
        "around the codestream",
    ]


def box(kind: bytes, contents: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(contents), kind) + contents


def enumerated(colour_space: int) -> bytes:
    return box(b"colr", b"\1\0\0" + struct.pack(">I", colour_space))


def in_boxes(codestream: bytes, colour_space: int, *more: bytes) -> bytes:
    return in_header(codestream, enumerated(colour_space), *more)


def in_header(codestream: bytes, *boxes: bytes) -> bytes:
    head = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
    return head + box(b"jp2h", b"".join(boxes)) + box(b"jp2c", codestream)


@pytest.mark.parametrize(("colour_space", "interpretation"), [(16, "RGB"), (18, "YBR_FULL")])
def test_the_colour_space_is_the_files_where_the_codestream_has_no_transform(
    colour_space: int, interpretation: str
) -> None:
    data = in_boxes(encoded(COLOUR, "j2k", mct=0), colour_space)
    assert normalised(data).encapsulation.photometric_interpretation == interpretation


@pytest.mark.parametrize("template", [PHOTOGRAPH, DERMOSCOPIC])
def test_the_colours_of_a_file_are_told_beside_its_codestream(template: str) -> None:
    codestream, profile = encoded(COLOUR, "j2k"), box(b"colr", b"\2\0\0" + wide_gamut())
    for boxes, expected in (
        ([enumerated(16)], icc.srgb()),
        ([profile], icc.conformant(wide_gamut())),
        ([profile, enumerated(16)], icc.conformant(wide_gamut())),  # the first one counts
        ([box(b"colr", b"\3\0\0else"), enumerated(16)], icc.srgb()),
    ):
        made = described(in_header(codestream, *boxes), template, SAID | CAMERA)
        assert made.instance.dataset.ICCProfile == expected
        assert made.instance.dataset.get("ColorSpace") == (
            "SRGB" * (expected == icc.srgb()) or None
        )
    assert "ICCProfile" not in described(codestream).instance.dataset


def test_a_file_whose_colours_cannot_be_told_is_not_taken_for_srgb() -> None:
    data = in_header(encoded(COLOUR, "j2k"), box(b"colr", b"\2\0\0" + wide_gamut()[:99]))
    assert DROPPED in described(data).changes
    with pytest.raises(UnsupportedJpeg, match="ICC"):
        described(data, DERMOSCOPIC, SAID | CAMERA)


def test_grey_has_no_colours_to_be_told() -> None:
    for boxes in (enumerated(16), box(b"colr", b"\2\0\0" + wide_gamut())):
        assert (
            "ICCProfile" not in described(in_header(encoded(GREY, "j2k"), boxes)).instance.dataset
        )


def test_numbers_of_a_palette_are_no_grey() -> None:
    data = in_boxes(encoded(GREY, "j2k"), 16, box(b"pclr", b"\1\0\3\7\7\7"))
    with pytest.raises(UnsupportedJpeg, match="palette"):
        normalised(data)


def test_transparency_is_refused() -> None:
    for image in (COLOUR.convert("RGBA"), GREY.convert("LA")):
        with pytest.raises(UnsupportedJpeg) as caught:
            normalised(encoded(image))
        assert caught.value.reason == "jpeg2000"


def test_more_than_eight_bits_are_no_photograph() -> None:
    with pytest.raises(UnsupportedJpeg, match="16 bits"):
        described(encoded(DEEP))


def test_pixels_are_counted_first() -> None:
    with pytest.raises(TooLarge):
        normalised(encoded(GREY), MAX_PIXELS="5000")


BARE = encoded(COLOUR, "j2k", tile_size=(32, 32))


@pytest.mark.parametrize("left", [3, 20, 60, len(BARE) // 2, len(BARE) - 2, len(BARE) - 1])
def test_a_part_of_a_codestream_is_refused(left: int) -> None:
    for data in (BARE[:left], in_boxes(BARE[:left], 16)):
        with pytest.raises(JpegstowError):
            normalised(data)


def with_open_end() -> bytes:
    """Leave the length of the only tile-part open (Psot 0, T.800 A.4.2)."""
    data = bytearray(encoded(GREY, "j2k"))
    start = data.index(b"\xff\x90")
    data[start + 6 : start + 10] = bytes(4)
    return bytes(data)


def test_a_tile_part_without_a_length_reaches_to_the_end() -> None:
    data = with_open_end()
    assert bytes(normalised(data).codestream).endswith(data[-200:])


def test_a_tile_part_without_a_length_and_without_an_end_is_refused() -> None:
    data = with_open_end()[:-2] + b"\xff\x90"
    with pytest.raises(DamagedJpeg, match="truncated"):
        normalised(data)


@given(st.integers(0, 300), st.binary(min_size=1, max_size=12))
def test_whatever_stands_in_the_headers_it_is_read_or_refused(at: int, written: bytes) -> None:
    for data in (BARE, in_boxes(BARE, 16)):
        try:
            found = jpeg2000.read(data[:at] + written + data[at + len(written) :])
        except JpegstowError:
            continue
        assert found.encapsulation.rows > 0
        assert len(found.codestream) <= len(data)


def test_a_header_of_many_small_segments_is_read_in_one_go() -> None:
    """300,000 of them once took 25 seconds, and as many comments a line each of the answer."""
    data = encoded(COLOUR, "j2k")
    comments = normalised(
        data[:2] + data[2:].replace(b"\xff\x52", COMMENT * 10_000 + b"\xff\x52", 1)
    )
    (change,) = [line for line in comments.changes if "comment" in line]
    assert change.startswith("removed 14")
    with pytest.raises(DamagedJpeg):
        normalised(data.replace(b"\xff\x52", b"\xff\x5d\0\2" * 300_000 + b"\xff\x52", 1))
