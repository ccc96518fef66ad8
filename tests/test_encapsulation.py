"""Which transfer syntax and pixel attributes a JPEG has: PS3.5 8.2.1 and A.4.1, row by row."""

import struct
from typing import NamedTuple

import pytest

from service.dicom.codestream import Codestream
from service.dicom.encapsulation import Encapsulation, encapsulate
from service.dicom.jpeg import inspect
from service.dicom.normalise import Normalised, compression_ratio
from service.errors import DamagedJpeg, UnsupportedJpeg
from tests.describing import normalised
from tests.jpegs import make_jpeg
from tests.streams import (
    JFIF,
    adobe,
    behind_soi,
    frame,
    of_process,
    put_together,
    relabelled,
    scan,
    segment,
    stream,
    take_apart,
)

JPEG, JPEG_LS = "ISO_10918_1", "ISO_14495_1"
BASELINE, EXTENDED = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"
LOSSLESS, LOSSLESS_SV1 = "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"
LS, LS_NEAR = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"

YCC = segment(0xE0, JFIF)
SMALL_TABLE = segment(0xDB, struct.pack(">B64H", 0x10, *[30] * 64))
THIRD_HUFFMAN_TABLE = segment(0xC4, b"\2" + bytes(15) + b"\1a")


def colour(process: int, sampling: int = 0x22, precision: int = 8) -> bytes:
    return stream(frame(process, precision=precision, sampling=[sampling, 0x11, 0x11]), scan())


def extended(mode: str, *segments: bytes) -> bytes:
    """Encode a picture whose quantization tables don't fit into baseline's 8 bits."""
    pieces = [
        piece._replace(payload=struct.pack(">B64H", 0x10 | piece.payload[0], *[300] * 64))
        if piece.marker == 0xDB
        else piece
        for piece in take_apart(relabelled(make_jpeg(16, 16, mode), 0xC1))
    ]
    return behind_soi(put_together(pieces), *segments)


class Row(NamedTuple):
    data: bytes
    transfer_syntax: str
    photometric_interpretation: str
    bits: tuple[int, int]
    lossy_method: str


B8, B12, B16 = (8, 8), (16, 12), (16, 16)
ROWS = {
    "baseline grey": Row(of_process(0xC0), BASELINE, "MONOCHROME2", B8, JPEG),
    "baseline grey, JFIF": Row(
        behind_soi(of_process(0xC0), YCC), BASELINE, "MONOCHROME2", B8, JPEG
    ),
    "baseline grey, Adobe 0": Row(
        behind_soi(of_process(0xC0), adobe(0)), BASELINE, "MONOCHROME2", B8, JPEG
    ),
    "4:4:4": Row(colour(0xC0, 0x11), BASELINE, "YBR_FULL_422", B8, JPEG),
    "4:2:2": Row(colour(0xC0, 0x21), BASELINE, "YBR_FULL_422", B8, JPEG),
    "4:2:0": Row(colour(0xC0, 0x22), BASELINE, "YBR_FULL_422", B8, JPEG),
    "4:4:0": Row(colour(0xC0, 0x12), BASELINE, "YBR_FULL_422", B8, JPEG),
    "4:1:1": Row(colour(0xC0, 0x41), BASELINE, "YBR_FULL_422", B8, JPEG),
    "JFIF": Row(behind_soi(colour(0xC0), YCC), BASELINE, "YBR_FULL_422", B8, JPEG),
    "Adobe 1": Row(behind_soi(colour(0xC0), adobe(1)), BASELINE, "YBR_FULL_422", B8, JPEG),
    "Adobe 0": Row(behind_soi(colour(0xC0), adobe(0)), BASELINE, "RGB", B8, JPEG),
    "identifiers R, G, B": Row(of_process(0xC0, b"RGB"), BASELINE, "RGB", B8, JPEG),
    "JFIF against Adobe 0": Row(
        behind_soi(of_process(0xC0, b"RGB"), YCC, adobe(0)), BASELINE, "YBR_FULL_422", B8, JPEG
    ),
    "16-bit table of small values": Row(
        behind_soi(colour(0xC0), SMALL_TABLE), BASELINE, "YBR_FULL_422", B8, JPEG
    ),
    "SOF1 as baseline": Row(colour(0xC1), BASELINE, "YBR_FULL_422", B8, JPEG),
    "SOF1 grey as baseline": Row(of_process(0xC1), BASELINE, "MONOCHROME2", B8, JPEG),
    "SOF1 RGB as baseline": Row(of_process(0xC1, b"RGB"), BASELINE, "RGB", B8, JPEG),
    "SOF1 grey, 16-bit table": Row(extended("L"), EXTENDED, "MONOCHROME2", B8, JPEG),
    "SOF1 grey, 16-bit and third table": Row(
        extended("L", THIRD_HUFFMAN_TABLE), EXTENDED, "MONOCHROME2", B8, JPEG
    ),
    "12-bit grey": Row(of_process(0xC1, precision=12), EXTENDED, "MONOCHROME2", B12, JPEG),
    "lossless, first order": Row(
        of_process(0xC3, predictor=1, precision=16), LOSSLESS_SV1, "MONOCHROME2", B16, ""
    ),
    "lossless, sixth predictor": Row(
        of_process(0xC3, predictor=6, precision=12), LOSSLESS, "MONOCHROME2", B12, ""
    ),
    "lossless RGB": Row(of_process(0xC3, b"\1\2\3", predictor=1), LOSSLESS_SV1, "RGB", B8, ""),
    "lossless YCbCr": Row(
        behind_soi(of_process(0xC3, b"\1\2\3", predictor=7), adobe(1)),
        LOSSLESS,
        "YBR_FULL",
        B8,
        "",
    ),
    "JPEG-LS": Row(of_process(0xF7, precision=12), LS, "MONOCHROME2", B12, ""),
    "JPEG-LS near": Row(of_process(0xF7, predictor=2), LS_NEAR, "MONOCHROME2", B8, JPEG_LS),
    "JPEG-LS RGB": Row(of_process(0xF7, b"\1\2\3"), LS, "RGB", B8, ""),
    "JPEG-LS near, RGB": Row(of_process(0xF7, b"\1\2\3", predictor=1), LS_NEAR, "RGB", B8, JPEG_LS),
    "JPEG-LS, JFIF": Row(behind_soi(of_process(0xF7, b"\1\2\3"), YCC), LS, "RGB", B8, ""),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_jpeg_has_one_description(name: str) -> None:
    row = ROWS[name]
    header = inspect(row.data)
    allocated, stored = row.bits
    # Nothing could decode most of these scans.
    assert normalised(row.data, VERIFY_SCAN="off").encapsulation == Encapsulation(
        transfer_syntax=row.transfer_syntax,
        photometric_interpretation=row.photometric_interpretation,
        rows=16,
        columns=16,
        samples_per_pixel=len(header.components),
        bits_allocated=allocated,
        bits_stored=stored,
        lossy_method=row.lossy_method,
    )


PROGRESSIVE = make_jpeg(16, 16, progressive=True)
THIRD = behind_soi(relabelled(make_jpeg(16, 16), 0xC1), THIRD_HUFFMAN_TABLE)
RECODED = {
    "progressive": Row(PROGRESSIVE, BASELINE, "YBR_FULL_422", B8, JPEG),
    "progressive grey": Row(
        make_jpeg(16, 16, "L", progressive=True), BASELINE, "MONOCHROME2", B8, JPEG
    ),
    "progressive RGB": Row(
        make_jpeg(16, 16, keep_rgb=True, progressive=True), BASELINE, "RGB", B8, JPEG
    ),
    "SOF1 grey, third table": Row(
        behind_soi(relabelled(make_jpeg(16, 16, "L"), 0xC1), THIRD_HUFFMAN_TABLE),
        *(BASELINE, "MONOCHROME2", B8, JPEG),
    ),
    "SOF1 colour, third table": Row(THIRD, BASELINE, "YBR_FULL_422", B8, JPEG),
}


@pytest.mark.parametrize("row", RECODED.values(), ids=RECODED)
def test_what_baseline_can_say_without_loss_is_recoded(row: Row) -> None:
    found = normalised(row.data)
    said = found.encapsulation
    assert (said.transfer_syntax, said.photometric_interpretation) == row[1:3]
    assert ((said.bits_allocated, said.bits_stored), said.lossy_method) == row[3:]
    assert any(" as baseline" in change for change in found.changes)
    assert (found.derivation, found.original_ratio) == ("", "")


@pytest.mark.parametrize(
    ("data", "environment"),
    [(extended("RGB"), {}), (make_jpeg(16, 16, "CMYK"), {"CMYK": "convert"})],
    ids=["16-bit tables in colour", "CMYK"],
)
def test_what_it_can_not_say_is_encoded_again_and_says_so(
    data: bytes, environment: dict[str, str]
) -> None:
    found = normalised(data, **environment)
    said = found.encapsulation
    assert (said.transfer_syntax, said.photometric_interpretation) == (BASELINE, "YBR_FULL_422")
    assert found.derivation.startswith("Decoded and encoded again at quality 98")
    assert float(found.original_ratio) > 0


REFUSED = {
    "two components": (of_process(0xC0, b"\1\2"), "components"),
    "five components": (of_process(0xF7, b"\1\2\3\4\5"), "components"),
    "lossless CMYK": (of_process(0xC3, b"\1\2\3\4", predictor=1), "components"),
    "JPEG-LS CMYK": (of_process(0xF7, b"\1\2\3\4"), "components"),
    "12-bit colour": (colour(0xC1, precision=12), "12-bit"),
    "12-bit progressive": (of_process(0xC2, precision=12), "12-bit"),
    "12-bit arithmetic": (of_process(0xC9, precision=12), "12-bit"),
    "12-bit arithmetic progressive": (of_process(0xCA, precision=12), "12-bit"),
    "lossless, subsampled": (
        stream(frame(0xC3, sampling=[0x22, 0x11, 0x11]), scan(start=1)),
        "lossless-subsampled",
    ),
    "lossless arithmetic": (of_process(0xCB), "arithmetic-lossless"),
    **{
        f"hierarchical, SOF{process & 15}": (of_process(process), "hierarchical")
        for process in (0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF)
    },
    "hierarchical, DHP": (
        stream(segment(0xDE, bytes(9)), frame(), scan(), frame(), scan()),
        "hierarchical",
    ),
    "hierarchical, EXP": (stream(frame(), scan(), segment(0xDF, b"\x11")), "hierarchical"),
}


@pytest.mark.parametrize(("data", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_no_transfer_syntax_can_carry_is_refused_with_a_remedy(
    data: bytes, reason: str
) -> None:
    with pytest.raises(UnsupportedJpeg, match="no transfer syntax") as caught:
        normalised(data, VERIFY_SCAN="off")
    assert caught.value.reason == reason
    assert caught.value.mend


def lossless(process: int, *scans: tuple[int, int]) -> bytes:
    """Write a scan for each component, with this Ss (predictor, NEAR) and Al (point transform)."""
    identifiers = bytes(range(1, len(scans) + 1))
    written = [
        scan(bytes([identifier]), start, low=low)
        for identifier, (start, low) in zip(identifiers, scans, strict=True)
    ]
    return stream(frame(process, identifiers, sampling=[0x11] * len(scans)), *written)


LIES = {
    "predictors that differ": lossless(0xC3, (1, 0), (7, 0), (1, 0)),
    "a point transform": lossless(0xC3, (1, 1)),
    "no predictor": lossless(0xC3, (0, 0)),
    "NEAR that differs": lossless(0xF7, (0, 0), (2, 0), (2, 0)),
}


@pytest.mark.parametrize("data", LIES.values(), ids=LIES)
def test_what_is_not_as_lossless_as_its_transfer_syntax_says_is_refused(data: bytes) -> None:
    with pytest.raises(UnsupportedJpeg) as caught:
        normalised(data)
    assert caught.value.reason == "lossless-parameters"


@pytest.mark.parametrize(
    ("data", "syntax"),
    [(lossless(0xC3, *[(7, 0)] * 3), LOSSLESS), (lossless(0xF7, *[(2, 0)] * 3), LS_NEAR)],
    ids=["JPEG", "JPEG-LS"],
)
def test_scans_that_agree_are_what_they_say(data: bytes, syntax: str) -> None:
    assert normalised(data).encapsulation.transfer_syntax == syntax


CMYK = {
    "Adobe's": make_jpeg(16, 16, "CMYK"),
    "YCCK": behind_soi(of_process(0xC0, b"\1\2\3\4"), adobe(2)),
    "progressive": make_jpeg(16, 16, "CMYK", progressive=True),
}


@pytest.mark.parametrize("data", CMYK.values(), ids=CMYK)
def test_four_components_are_refused_with_a_remedy(data: bytes) -> None:
    with pytest.raises(UnsupportedJpeg, match="no photometric interpretation") as caught:
        normalised(data, VERIFY_SCAN="off")
    assert caught.value.reason == "cmyk"
    assert "CMYK=convert" in caught.value.mend


@pytest.mark.parametrize(
    ("data", "reason"),
    [(PROGRESSIVE, "sof2"), (THIRD, "sof1"), (of_process(0xC9), "sof9"), (CMYK["YCCK"], "sof0")],
    ids=["progressive", "extended colour", "arithmetic", "four components"],
)
def test_what_was_not_recoded_has_no_transfer_syntax(data: bytes, reason: str) -> None:
    """The retired syntaxes are never chosen, whoever forgets to recode a codestream."""
    with pytest.raises(UnsupportedJpeg, match="no transfer syntax") as caught:
        encapsulate(inspect(data))
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("process", "precision"),
    [(0xC0, 12), (0xC0, 0), (0xC1, 10), (0xC1, 16), (0xC3, 1), (0xC3, 17), (0xF7, 255)],
)
def test_process_and_precision_may_not_contradict_each_other(process: int, precision: int) -> None:
    with pytest.raises(DamagedJpeg, match="bit"):
        encapsulate(inspect(of_process(process, precision=precision, predictor=1)))


@pytest.mark.parametrize(
    ("rows", "columns", "samples", "allocated", "compressed", "ratio"),
    [
        (48, 64, 3, 8, 1000, "9.22"),
        (48, 64, 1, 8, 3072, "1"),
        (48, 64, 1, 16, 100, "61.44"),
        (65_535, 65_535, 3, 8, 1, "12884508675"),
        (1, 1, 1, 8, 700, "0.0014"),
    ],
)
def test_the_compression_ratio_is_a_decimal_string(
    rows: int, columns: int, samples: int, allocated: int, compressed: int, ratio: str
) -> None:
    said = Encapsulation("", "", rows, columns, samples, allocated, allocated)
    assert compression_ratio(Normalised(Codestream((bytes(compressed),)), said, ())) == ratio
    assert len(ratio) <= 16
