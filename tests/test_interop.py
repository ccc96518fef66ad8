"""Every colour case decodes right in pydicom, by each of its plugins, in dcmtk and in gdcm."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.decoding import READERS, Pixels, by_dcmtk, by_gdcm, by_pydicom, cjpeg, furthest, sound
from tests.describing import CAPTURE, PHOTOGRAPH, described, dicom_file
from tests.jpegs import make_jpeg, picture
from tests.streams import JFIF, adobe, behind_soi, segment, with_identifiers, without

SIZE = 96, 64
APP0, APP14 = 0xE0, 0xEE

# Levels by which a reader may differ from djpeg for a reason of its own. pydicom converts YCbCr to
# RGB itself, in floating point, for its gdcm and pillow plugins; it reads what gdcmconv has
# written likewise. pylibjpeg has an inverse DCT of its own, good for one level of each component
# and so for three of a colour, and interpolates chroma in its own way.
PLAIN = {"dcmtk": 0, "pydicom, gdcm": 0, "pydicom, pillow": 0, "gdcm": 0, "pydicom, pylibjpeg": 1}
CONVERTED = PLAIN | {"pydicom, gdcm": 1, "pydicom, pillow": 1, "gdcm": 1, "pydicom, pylibjpeg": 3}
INTERPOLATED = CONVERTED | {"pydicom, pylibjpeg": 5}
# The libjpegs repeat such chroma; pylibjpeg interpolates it, which at an edge is tens of levels.
REPEATED = CONVERTED | {"pydicom, pylibjpeg": 40}


class Case(NamedTuple):
    """A stream, the same picture as djpeg can't misread it, and what must come of it."""

    data: bytes
    reference: bytes
    interpretation: str
    levels: dict[str, int]
    template: str = PHOTOGRAPH


def as_photoshop(data: bytes) -> bytes:
    return behind_soi(without(data, APP0), adobe(1))


def case_of(sampling: str, levels: dict[str, int]) -> Case:
    """Return the case of a sampling; `sampling` is that of luminance, chrominance has 1x1."""
    data = cjpeg(picture(*SIZE), "-quality", "90", "-sample", sampling)
    return Case(data, data, "YBR_FULL_422", levels)


YCBCR = make_jpeg(*SIZE, subsampling="4:4:4", quality=90)
RGB = make_jpeg(*SIZE, keep_rgb=True, quality=90)
GREY = make_jpeg(*SIZE, "L", quality=90)
CASES = {
    "grey": Case(GREY, GREY, "MONOCHROME2", PLAIN),
    "4:4:4": case_of("1x1", CONVERTED),
    "4:2:2": case_of("2x1", INTERPOLATED),
    "4:2:0": case_of("2x2", INTERPOLATED),
    "4:1:1": case_of("4x1", REPEATED),
    "4:1:0": case_of("4x2", REPEATED),
    "a third": case_of("3x1", REPEATED),
    "YCbCr without JFIF": Case(without(YCBCR, APP0), YCBCR, "YBR_FULL_422", CONVERTED),
    "YCbCr of Photoshop": Case(as_photoshop(YCBCR), YCBCR, "YBR_FULL_422", CONVERTED),
    "YCbCr with JFIF and Adobe's RGB": Case(
        behind_soi(without(YCBCR, APP0), segment(APP0, JFIF), adobe(0)),
        YCBCR,
        "YBR_FULL_422",
        CONVERTED,
    ),
    "YCbCr with JFIF and the identifiers R, G, B": Case(
        with_identifiers(YCBCR, b"RGB"), YCBCR, "YBR_FULL_422", CONVERTED
    ),
    "YCbCr with the identifiers 0, 1, 2": Case(
        with_identifiers(YCBCR, b"\0\1\2"), YCBCR, "YBR_FULL_422", CONVERTED
    ),
    "RGB of Adobe": Case(RGB, RGB, "RGB", PLAIN),
    "RGB by its identifiers": Case(without(RGB, APP14), RGB, "RGB", PLAIN, CAPTURE),
    "RGB with the identifiers 1, 2, 3": Case(
        with_identifiers(RGB, b"\1\2\3"), RGB, "RGB", PLAIN, CAPTURE
    ),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_shows_the_colours_that_were_photographed(
    case: Case, reader: str, tmp_path: Path
) -> None:
    file = tmp_path / "image.dcm"
    file.write_bytes(dicom_file(described(case.data, case.template)))
    shown, reference = READERS[reader](file), sound(case.reference)
    assert furthest(shown, reference) <= case.levels[reader]
    assert mean_error(shown, reference) < 5


def test_the_photometric_interpretation_is_that_of_the_components(case: Case) -> None:
    dataset = described(case.data, case.template).instance.dataset
    assert dataset.PhotometricInterpretation == case.interpretation


def test_a_wrong_interpretation_would_be_seen() -> None:
    """These bounds tell right from wrong: a conversion too much is off by tens of levels."""
    painted = np.asarray(picture(*SIZE)).astype(np.int32)
    wrong = np.asarray(picture(*SIZE).convert("YCbCr")).astype(np.int32)
    assert mean_error(sound(YCBCR), painted) < 3
    assert mean_error(wrong, painted) > 30


def mean_error(one: Pixels, other: Pixels) -> float:
    return float(np.abs(one - other).mean())


def test_4_4_0_differs_only_by_how_readers_widen_chroma(tmp_path: Path) -> None:
    """Old libraries repeat rows of chroma where new ones interpolate; djpeg can do both."""
    data = make_jpeg(*SIZE, subsampling="4:2:2", quality=90, orientation=6)
    made = described(data)
    frame = bytes(made.instance.codestream)
    file = tmp_path / "image.dcm"
    file.write_bytes(dicom_file(made))
    assert furthest(by_pydicom(file, "pillow"), sound(frame)) <= 1
    repeating = sound(frame, "-nosmooth")
    assert furthest(by_dcmtk(file), repeating) == 0
    assert furthest(by_gdcm(file), repeating) <= 1
    assert furthest(by_pydicom(file, "gdcm"), repeating) <= 1
    assert furthest(by_pydicom(file, "pylibjpeg"), sound(frame)) <= 5
