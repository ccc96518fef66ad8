"""Twelve bits, lossless JPEG, JPEG-LS, four components: what no telephone makes and people send."""

import ctypes
import struct
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps
from pydicom import dcmread, dcmwrite
from pydicom.encaps import generate_frames

from service.dicom import jpegtran
from service.errors import DamagedJpeg, UnsupportedJpeg
from tests.decoding import (
    Pixels,
    by_dcmtk,
    by_gdcm,
    by_pydicom,
    furthest,
    psnr,
    sound,
)
from tests.describing import CAPTURE, described, dicom_file, normalised
from tests.jpegs import make_jpeg, picture
from tests.judges import require_tool
from tests.streams import SOF_MARKERS, behind_soi, segment, take_apart, without

SIZE = 60, 44
GREY = np.asarray(picture(*SIZE, "L")).astype(np.int32)
COLOUR = np.asarray(picture(*SIZE)).astype(np.int32)
DEEP = GREY * 16 + GREY // 16  # 12 bits


def encoded(folder: Path, pixels: Pixels, bits: int, *command: str) -> bytes:
    """Encode pixels with a program of dcmtk's; return the frame."""
    plain, compressed = folder / "plain.dcm", folder / "compressed.dcm"
    dataset = described(make_jpeg(*SIZE), CAPTURE).instance.dataset.copy()
    for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        del dataset[keyword]
    dataset.SamplesPerPixel = pixels.shape[2] if pixels.ndim == 3 else 1
    dataset.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    if pixels.ndim == 2:
        del dataset.PlanarConfiguration
    dataset.BitsAllocated = 8 if bits == 8 else 16
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.LossyImageCompression = "00"
    dataset.PixelData = pixels.astype(np.uint8 if bits == 8 else "<u2").tobytes()
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    dcmwrite(plain, dataset, implicit_vr=False, little_endian=True, force_encoding=False)
    tool, *options = command
    run(tool, *options, plain, compressed)
    return next(generate_frames(dcmread(compressed, force=True).PixelData, number_of_frames=1))


def run(tool: str, *arguments: Any) -> None:
    done = subprocess.run(
        [require_tool(tool), *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# Encoder, transfer syntax, lossy method, and who else decodes it.
LOSSLESS = {
    "SOF3, first order": (("dcmcjpeg", "+e1"), "70", ["pylibjpeg", "gdcm"]),
    "SOF3, selection value 6": (("dcmcjpeg", "+el", "+sv", "6"), "57", ["pylibjpeg", "gdcm"]),
    "JPEG-LS": (("dcmcjpls", "+el", "+il"), "80", ["pylibjpeg", "gdcm"]),
    "JPEG-LS by sample": (("dcmcjpls", "+el", "+is"), "80", ["pylibjpeg", "gdcm"]),
}
PIXELS = {
    "grey": (GREY, 8),
    "colour": (COLOUR, 8),
    "12 bits": (DEEP, 12),
    "16 bits": (DEEP * 16, 16),
}


@pytest.mark.parametrize("kind", PIXELS)
@pytest.mark.parametrize("process", LOSSLESS)
def test_a_lossless_jpeg_is_stored_as_it_is_and_decodes_to_every_bit(
    process: str, kind: str, tmp_path: Path
) -> None:
    command, syntax, plugins = LOSSLESS[process]
    pixels, bits = PIXELS[kind]
    frame = encoded(tmp_path, pixels, bits, *command)
    made = described(frame, CAPTURE)
    dataset = made.instance.dataset
    assert made.instance.transfer_syntax == f"1.2.840.10008.1.2.4.{syntax}"
    assert dataset.PhotometricInterpretation == ("RGB" if kind == "colour" else "MONOCHROME2")
    precision = next(p.payload[0] for p in take_apart(frame) if p.marker in SOF_MARKERS)
    assert precision == (8 if bits == 8 else 16)  # dcmtk codes all that are allocated
    assert (dataset.BitsAllocated, dataset.BitsStored) == (precision, precision)
    assert dataset.LossyImageCompression == "00"
    assert "LossyImageCompressionRatio" not in dataset
    file = tmp_path / "a.dcm"
    file.write_bytes(dicom_file(made))
    for plugin in plugins:
        assert furthest(by_pydicom(file, plugin), pixels) == 0, plugin
    assert furthest(by_gdcm(file), pixels) == 0


def test_jpeg_ls_that_has_lost_says_so(tmp_path: Path) -> None:
    frame = encoded(tmp_path, GREY, 8, "dcmcjpls", "+en", "+md", "3")
    made = described(frame)
    dataset = made.instance.dataset
    assert made.instance.transfer_syntax == "1.2.840.10008.1.2.4.81"
    assert dataset.LossyImageCompression == "01"
    assert dataset.LossyImageCompressionMethod == "ISO_14495_1"
    (tmp_path / "a.dcm").write_bytes(dicom_file(made))
    assert 0 < furthest(by_pydicom(tmp_path / "a.dcm", "gdcm"), GREY) <= 3


@pytest.fixture
def twelve_bits(tmp_path: Path) -> bytes:
    return encoded(tmp_path, DEEP, 12, "dcmcjpeg", "+ee", "+q", "98")


def test_twelve_bits_of_grey_are_a_secondary_capture(twelve_bits: bytes, tmp_path: Path) -> None:
    made = described(twelve_bits, CAPTURE)
    dataset = made.instance.dataset
    assert made.instance.transfer_syntax == "1.2.840.10008.1.2.4.51"
    assert (dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit) == (16, 12, 11)
    assert (dataset.PhotometricInterpretation, dataset.PixelRepresentation) == ("MONOCHROME2", 0)
    ratio = 2 * SIZE[0] * SIZE[1] / len(made.instance.codestream)
    assert float(dataset.LossyImageCompressionRatio) == pytest.approx(ratio, abs=0.01)
    (tmp_path / "a.dcm").write_bytes(dicom_file(made))
    shown = by_pydicom(tmp_path / "a.dcm", "pylibjpeg")
    # dcmcjpeg moves the least sample to 0.
    assert furthest(shown - shown.min(), DEEP - DEEP.min()) <= 8
    assert furthest(by_gdcm(tmp_path / "a.dcm"), shown) <= 1
    run("dcmdjpeg", tmp_path / "a.dcm", tmp_path / "raw.dcm")
    assert furthest(dcmread(tmp_path / "raw.dcm").pixel_array.astype(np.int32), shown) <= 1


def test_twelve_bits_are_no_photograph(twelve_bits: bytes) -> None:
    with pytest.raises(UnsupportedJpeg, match="secondary-capture-image") as caught:
        described(twelve_bits)
    assert caught.value.reason == "sop-class"


def test_what_has_no_blocks_can_not_be_turned(tmp_path: Path, twelve_bits: bytes) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    lossless = encoded(tmp_path, GREY, 8, "dcmcjpeg", "+e1")
    for frame in (lossless, twelve_bits):
        data = behind_soi(frame, segment(0xE1, exif.tobytes()))
        with pytest.raises(UnsupportedJpeg, match="orientation 3"):
            normalised(data)
        kept = normalised(data, UPRIGHT="lossless-or-keep")
        assert kept.codestream == normalised(frame).codestream
        assert kept.changes[-1].startswith("left as it lies")


def test_a_cut_lossless_jpeg_is_refused(tmp_path: Path) -> None:
    frame = encoded(tmp_path, GREY, 8, "dcmcjpeg", "+e1")
    with pytest.raises(DamagedJpeg, match="ends without EOI"):
        normalised(frame[: len(frame) // 2])


INK = picture(*SIZE, "CMYK", seed=5)


def cmyk(*, adobe: bool = True, profile: bytes = b"") -> bytes:
    """Return INK as Adobe writes it, 255 without ink, or else 0 without ink."""
    file = BytesIO()
    image = INK if adobe else Image.merge("CMYK", [ImageOps.invert(b) for b in INK.split()])
    image.save(file, "JPEG", quality=97, subsampling="4:4:4", icc_profile=profile or None)
    return file.getvalue() if adobe else without(file.getvalue(), 0xEE)


def ycck() -> bytes:
    """Return INK as Photoshop writes it: YCbCr of inverted CMY, and inverted K."""
    inverted = Image.merge("CMYK", [ImageOps.invert(band) for band in INK.split()])
    pixels = jpegtran.Pixels(inverted.tobytes(), *SIZE, samples=4)
    library = jpegtran.load()
    with jpegtran._handle("tjInitCompress") as handle, jpegtran._output() as (buffer, size):
        failed = library.tjCompress2(
            handle, pixels.data, *(SIZE[0], 0, SIZE[1]), jpegtran.CMYK, buffer, size, 0, 97, 0
        )
        assert not failed
        return ctypes.string_at(buffer.contents.value or 0, size.contents.value)


def without_profile(image: Image.Image) -> Pixels:
    return np.asarray(image.convert("RGB")).astype(np.int32)


@pytest.mark.parametrize("kind", ["Adobe", "YCCK", "not inverted"])
def test_four_components_become_the_colours_they_print(kind: str, tmp_path: Path) -> None:
    data = {"Adobe": cmyk(), "YCCK": ycck(), "not inverted": cmyk(adobe=False)}[kind]
    made = described(data, CMYK="convert")
    dataset = made.instance.dataset
    assert made.instance.transfer_syntax == "1.2.840.10008.1.2.4.50"
    assert (dataset.PhotometricInterpretation, dataset.SamplesPerPixel) == ("YBR_FULL_422", 3)
    assert psnr(sound(bytes(made.instance.codestream)), without_profile(INK)) > 35
    assert dataset.ImageType[0] == "DERIVED"
    assert "four components (CMYK) were converted to sRGB" in dataset.DerivationDescription
    assert len(dataset.LossyImageCompressionRatio) == 2
    assert len(dataset.LossyImageCompressionMethod) == 2
    (tmp_path / "a.dcm").write_bytes(dicom_file(made))
    assert psnr(by_dcmtk(tmp_path / "a.dcm"), without_profile(INK)) > 35


@pytest.mark.parametrize("adobe", [True, False])
def test_four_components_are_refused_by_default(adobe: bool) -> None:  # noqa: FBT001
    with pytest.raises(UnsupportedJpeg, match="CMYK") as caught:
        normalised(cmyk(adobe=adobe))
    assert "CMYK=convert" in caught.value.mend


def printer_profile() -> bytes:
    """Write the ICC profile of an odd printer, whose cyan ink is red.

    An eight-bit lookup table (ICC.1 10.10) of two points for each ink, and so 16 colours in CIELAB.
    """
    white, red, black = (255, 128, 128), (136, 208, 195), (0, 128, 128)
    grid = bytearray()
    for node in range(16):
        cyan, key = node >> 3 & 1, node & 1
        grid += bytes(black if key else red if cyan else white)
    unit = struct.pack(">9i", *(65536 if n % 4 == 0 else 0 for n in range(9)))
    lookup = b"mft1\0\0\0\0\4\3\2\0" + unit + bytes(range(256)) * 4 + grid + bytes(range(256)) * 3
    text = b"desc\0\0\0\0" + struct.pack(">I", 4) + b"odd\0" + bytes(78)
    tags = {b"desc": text, b"cprt": b"text\0\0\0\0none\0", b"A2B0": lookup}
    tags[b"wtpt"] = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    offset, table, body = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    start = struct.pack(">I4s4s4s4s4s", offset + len(body), b"\0\0\0\0", b"\x02\x10\0\0", b"prtr",
                        b"CMYK", b"Lab ")  # fmt: skip
    middle = bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061) + bytes(48)
    return start + middle + table + body


def test_an_embedded_profile_decides_the_colours() -> None:
    profile = printer_profile()
    source = ImageCms.ImageCmsProfile(BytesIO(profile))
    by_profile = ImageCms.profileToProfile(
        INK, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert isinstance(by_profile, Image.Image)
    wanted = np.asarray(by_profile).astype(np.int32)
    assert psnr(wanted, without_profile(INK)) < 20
    shown = sound(bytes(normalised(cmyk(profile=profile), CMYK="convert").codestream))
    assert psnr(shown, wanted) > 35


@pytest.mark.parametrize("profile", [b"rubbish" * 40, printer_profile()[:200]])
def test_a_broken_profile_is_as_none(profile: bytes) -> None:
    made = normalised(cmyk(profile=profile), CMYK="convert")
    assert psnr(sound(bytes(made.codestream)), without_profile(INK)) > 35


def test_a_profile_of_rgb_says_nothing_of_ink() -> None:
    of_rgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    chunk = segment(0xE2, b"ICC_PROFILE\0\1\1" + of_rgb)
    made = normalised(behind_soi(cmyk(), chunk), CMYK="convert")
    assert psnr(sound(bytes(made.codestream)), without_profile(INK)) > 35
