"""Real pictures of cameras, telephones and programs come out as they are meant to be seen.

JPEGSTOW_CORPUS names a folder of them; none is part of this project.
"""

import os
import warnings
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from pydicom import dcmread

from service.dicom import icc
from service.dicom.jpeg import JpegHeader, inspect
from service.errors import (
    DamagedJpeg,
    JpegstowError,
    NotAJpeg,
    TooLarge,
    UnsupportedJpeg,
)
from service.ingest import Described
from tests.coefficients import coefficients, turned
from tests.decoding import READERS, Pixels, djpeg, furthest, psnr, sound, upright
from tests.describing import described, dicom_file
from tests.streams import take_apart
from tests.test_templates import assert_honest, errors

REPAIRS = ("added the missing", "added the standard", "removed a second", "took the number")
SMALL = 300_000  # pixels; the reader of coefficients is no fast one
LARGE = 1_000_000  # pixels; what is larger is decoded once with each library
ONCE = ("dcmtk", "gdcm", "pydicom, pillow")
LIKENESS = 45  # dB, of a picture that had to be encoded again

# Levels by which a reader may differ from djpeg's decoding of the same frame: by its own
# conversion to RGB, and for pylibjpeg its own inverse DCT. With subsampled chroma pylibjpeg
# interpolates otherwise, and so do the old libraries of dcmtk and gdcm at 4:4:0.
LEVELS = {"dcmtk": 0, "gdcm": 1, "pydicom, gdcm": 1, "pydicom, pillow": 1, "pydicom, pylibjpeg": 3}


def corpus_files() -> list[Any]:
    folder = os.environ.get("JPEGSTOW_CORPUS")
    if not folder:
        skip = pytest.mark.skip("JPEGSTOW_CORPUS names no folder of real JPEGs")
        return [pytest.param(Path("none"), marks=skip)]
    return sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in {".jpg", ".jpeg"})


@pytest.fixture(params=corpus_files(), ids=lambda path: path.name)
def picture(request: pytest.FixtureRequest) -> bytes:
    path: Path = request.param
    return path.read_bytes()


def convert(data: bytes) -> tuple[Described | None, str]:
    """Return the instance, or the reason of the refusal."""
    try:
        return described(data, CMYK="convert"), ""
    except (TooLarge, NotAJpeg, UnsupportedJpeg, DamagedJpeg) as error:
        return None, error.reason


def test_what_decodes_without_a_warning_is_stored_as_it_is_meant_to_be_seen(
    picture: bytes, tmp_path: Path
) -> None:
    shown, warning = photographed(picture)
    made, reason = convert(picture)
    if made is None:
        assert shown is None or warning, f"refused for {reason}"
        return
    header = inspect(picture)
    if shown is None or warning:
        assert any(change.startswith(REPAIRS) for change in made.changes), warning
        shown, warning = photographed(picture + b"\xff\xd9")
        assert shown is not None
        assert warning == ""
    file = tmp_path / "a.dcm"
    file.write_bytes(dicom_file(made))
    frame = bytes(made.instance.codestream)
    stored = sound(frame)
    assert_frame(stored, made, picture, upright(shown, header.orientation))
    assert_read_by_all(file, frame, stored)
    assert errors(file) == []
    assert_honest(dcmread(file), frame)
    assert {piece.marker for piece in take_apart(frame)} <= {
        0xC0, 0xC4, 0xDA, 0xDB, 0xDD, 0xEE,
    }  # fmt: skip


def photographed(data: bytes) -> tuple[Pixels | None, str]:
    """Decode with djpeg; four components, which it doesn't take, with Pillow and LittleCMS."""
    pixels, warning = djpeg(data)
    if "Unsupported color conversion" not in warning and "must be" not in warning:
        return pixels, warning
    with Image.open(BytesIO(data)) as image:
        profile = image.info.get("icc_profile")
        if not profile:
            return np.asarray(image.convert("RGB")).astype(np.int32), ""
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        target = ImageCms.ImageCmsProfile(BytesIO(icc.srgb()))
        converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    return np.asarray(converted).astype(np.int32), ""


def assert_frame(stored: Pixels, made: Described, picture: bytes, shown: Pixels) -> None:
    """Compare what is stored with the original upright: the same coefficients, or much alike."""
    frame = bytes(made.instance.codestream)
    if "DerivationDescription" in made.instance.dataset:
        assert psnr(stored, shown) >= LIKENESS
        return
    header = inspect(picture)
    if header.orientation == 1:
        assert furthest(stored, shown) == 0
    else:  # the integer inverse DCT and the interpolation of chroma depend on the way up
        exact = "-dct", "float", "-nosmooth"
        other, _ = djpeg(picture, *exact)
        assert other is not None
        assert furthest(sound(frame, *exact), upright(other, header.orientation)) <= 2
        assert furthest(stored, shown) <= 5
    if is_readable(header):
        wanted = [turned(blocks, header.orientation) for blocks in coefficients(whole(picture))]
        assert all(map(np.array_equal, coefficients(frame), wanted))


def is_readable(header: JpegHeader) -> bool:
    """Tell whether the test's own reader of coefficients takes it, and soon."""
    plain = header.complete and not header.repairs
    return plain and header.rows * header.columns <= SMALL


def whole(data: bytes) -> bytes:
    """Return the JPEG without what stands in front of it and behind it."""
    header = inspect(data)
    return data[: header.end]


def assert_read_by_all(file: Path, frame: bytes, plain: Pixels) -> None:
    samplings = {(c.horizontal, c.vertical) for c in inspect(frame).components}
    pixels = plain.shape[0] * plain.shape[1]
    repeating = sound(frame, "-nosmooth") if widened(samplings) else plain
    for name in READERS if pixels < LARGE else ONCE:
        shown = READERS[name](file)
        if name == "pydicom, pylibjpeg" and len(samplings) > 1:
            assert pixels < 100 or float(np.abs(shown - plain).mean()) < 5, name
        else:
            own = plain if name == "pydicom, pillow" else repeating
            assert furthest(shown, own) <= LEVELS[name], name


def widened(samplings: set[tuple[int, int]]) -> bool:
    """Tell whether chroma has all columns and half of the rows (4:4:0)."""
    return len(samplings) > 1 and len({horizontal for horizontal, _ in samplings}) == 1


@pytest.fixture(autouse=True)
def _without_warnings_of_pillow() -> Iterator[None]:
    """Pillow warns of MPO files that aren't, which is nobody's fault here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*malformed MPO", category=UserWarning)
        yield


def test_four_components_are_refused_by_name_where_they_are_not_converted(picture: bytes) -> None:
    try:
        components = len(inspect(picture).components)
    except JpegstowError:
        return
    if components == 4:
        with pytest.raises(UnsupportedJpeg, match="CMYK"):
            described(picture, CMYK="refuse")


@pytest.mark.parametrize("shape", ["Landscape", "Portrait"])
def test_the_eight_orientations_show_one_picture(shape: str) -> None:
    folder = os.environ.get("JPEGSTOW_CORPUS")
    if not folder:
        pytest.skip("JPEGSTOW_CORPUS names no folder of real JPEGs")
    files = sorted(Path(folder).rglob(f"{shape}_[1-8].jpg"))
    assert len(files) == 8
    one, *others = (sound(frame_of(file.read_bytes())) for file in files)
    for file, other in zip(files[1:], others, strict=True):
        # Each was encoded for itself from one scene, with its number written in it.
        assert other.shape == one.shape
        assert float(np.median(np.abs(other - one))) <= 4, file.name


def frame_of(data: bytes) -> bytes:
    return bytes(described(data).instance.codestream)
