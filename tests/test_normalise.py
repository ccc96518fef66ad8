"""What becomes of a picture, and what is refused before it is stored: pieces of pictures, bombs."""

from typing import Any

import pytest

from service.dicom.jpeg import inspect
from service.dicom.soundness import check_size
from service.errors import DamagedJpeg, TooLarge, UnsupportedJpeg
from tests.describing import normalised
from tests.jpegs import make_jpeg
from tests.streams import (
    behind_soi,
    entropy_coded,
    frame,
    huffman_table,
    of_process,
    scan,
    segment,
    stream,
)

WHOLE = make_jpeg(64, 48)
BASELINE = "1.2.840.10008.1.2.4.50"


@pytest.mark.parametrize("orientation", [None, 0, 1, 9])
def test_an_upright_picture_is_normalised(orientation: int | None) -> None:
    said = normalised(make_jpeg(32, 16, orientation=orientation)).encapsulation
    assert (said.rows, said.columns) == (16, 32)


def test_the_changes_are_told() -> None:
    assert normalised(make_jpeg(32, 16, comment=b"Zebedee") + b"film").changes == (
        "removed JFIF (18 bytes)",
        "removed comment (11 bytes)",
        "removed what stood behind EOI (4 bytes)",
    )


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_picture_that_lies_on_its_side_is_not_stored_lying(orientation: int) -> None:
    found = normalised(make_jpeg(32, 16, orientation=orientation))
    said = found.encapsulation
    assert (said.rows, said.columns) == ((16, 32) if orientation < 5 else (32, 16))
    assert inspect(bytes(found.codestream)).orientation == 1
    assert found.changes[-1].endswith("without loss")
    assert found.derivation == ""


UNMOVABLE = make_jpeg(33, 17, orientation=3)


@pytest.mark.parametrize(
    ("upright", "told"),
    [
        ("reencode", "decoded, turned by a half and encoded again at quality 98"),
        ("lossless-or-keep", "left as it lies: to be shown upright it would have to be turned by"),
    ],
)
def test_what_can_not_be_turned_without_loss_is_dealt_with_as_the_policy_says(
    upright: str, told: str
) -> None:
    found = normalised(UNMOVABLE, UPRIGHT=upright)
    assert found.changes[-1].startswith(told)
    assert (found.derivation != "") is (upright == "reencode")
    said = found.encapsulation
    assert (said.rows, said.columns) == (17, 33)


LYING = segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\3\0\0\0\0\0\0\0")


@pytest.mark.parametrize(
    "data", [UNMOVABLE, behind_soi(of_process(0xF7), LYING)], ids=["odd size", "JPEG-LS"]
)
def test_what_can_not_be_turned_is_refused_with_a_remedy_if_the_policy_says_so(data: bytes) -> None:
    with pytest.raises(UnsupportedJpeg, match="orientation 3") as caught:
        normalised(data, UPRIGHT="refuse")
    assert caught.value.reason == "rotated"
    assert "UPRIGHT=reencode" in caught.value.mend


@pytest.mark.parametrize("upright", ["reencode", "lossless-or-keep", "refuse"])
def test_what_can_be_turned_without_loss_is_turned_under_every_policy(upright: str) -> None:
    found = normalised(make_jpeg(32, 16, orientation=6), UPRIGHT=upright)
    assert (found.encapsulation.rows, found.derivation) == (32, "")


PARTS = {
    "cut in its scan": (WHOLE[:-200], "damaged-scan"),
    "cut in its scan, and closed": (WHOLE[:-200] + WHOLE[-2:], "damaged-scan"),
    "no rows": (stream(frame(size=(0, 16)), scan()), "no-rows"),
    "no rows in DNL": (stream(frame(size=(0, 16)), scan(), segment(0xDC, b"\0\0")), "no-rows"),
    "far too few bytes": (stream(frame(size=(4000, 4000)), scan()), "truncated"),
    "nothing coded": (stream(frame(), scan(coded=b"")), "truncated"),
}


@pytest.mark.parametrize(("data", "reason"), PARTS.values(), ids=PARTS)
def test_a_part_of_a_picture_is_not_stored(data: bytes, reason: str) -> None:
    with pytest.raises(DamagedJpeg) as caught:
        normalised(data)
    assert caught.value.reason == reason


@pytest.mark.parametrize("missing", [1, 2])
@pytest.mark.parametrize(
    "environment", [{}, {"VERIFY_SCAN": "off"}], ids=["verified", "unverified"]
)
def test_a_whole_scan_without_eoi_is_a_picture(missing: int, environment: dict[str, str]) -> None:
    found = normalised(WHOLE[:-missing], **environment)
    assert found.codestream == normalised(WHOLE).codestream
    assert found.changes[0] == "added the missing EOI"


@pytest.mark.parametrize("cut", [3, 10, 200])
def test_without_eoi_a_scan_is_read_to_its_end_even_unverified(cut: int) -> None:
    with pytest.raises(DamagedJpeg) as caught:
        normalised(WHOLE[:-cut], VERIFY_SCAN="off")
    assert caught.value.reason == "damaged-scan"


@pytest.mark.parametrize("process", [0xC1, 0xC3, 0xF7])
def test_where_nothing_can_read_the_scan_eoi_must_be_there(process: int) -> None:
    precision = 12 if process == 0xC1 else 8
    with pytest.raises(DamagedJpeg, match="without EOI") as caught:
        normalised(of_process(process, precision=precision, predictor=1)[:-2])
    assert caught.value.reason == "truncated"


def test_a_number_of_lines_behind_the_scan_is_that_of_the_rows() -> None:
    whole = bytes(normalised(make_jpeg(32, 16)).codestream)
    at = whole.index(b"\xff\xc0") + 5
    without_rows = whole[:at] + b"\0\0" + whole[at + 2 : -2] + segment(0xDC, b"\0\x10") + whole[-2:]
    found = normalised(without_rows)
    assert bytes(found.codestream) == whole
    assert found.encapsulation.rows == 16
    assert found.changes[0] == "took the number of rows from the DNL segment"


@pytest.mark.parametrize(
    ("sampling", "least"),
    [(0x11, 6), (0x21, 4), (0x22, 3), (0x41, 3)],
    ids=["4:4:4", "4:2:2", "4:2:0", "4:1:1"],
)
def test_a_scan_has_two_bits_for_each_block_at_least(sampling: int, least: int) -> None:
    """A picture of 32 x 16 pixels has 24 blocks at 4:4:4, 12 at 4:2:0 (T.81 A.2)."""
    header = frame(size=(16, 32), sampling=[sampling, 0x11, 0x11])
    enough = stream(header, scan(coded=b"a" * least))
    assert normalised(enough, VERIFY_SCAN="off").encapsulation.rows == 16
    scarce = stream(header, scan(coded=b"a" * (least - 1)))
    with pytest.raises(DamagedJpeg, match="too few"):
        normalised(scarce, VERIFY_SCAN="off")


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
def test_the_blackest_picture_has_enough_bytes(options: dict[str, Any]) -> None:
    """A plain picture at the lowest quality holds the least that an encoder writes."""
    plain = make_jpeg(1, 1, "L", quality=1, **options)
    assert normalised(plain).encapsulation.columns == 1


def test_lossless_processes_code_runs_and_have_no_least_size() -> None:
    data = stream(frame(0xF7, b"\1", size=(4000, 4000)), scan(b"\1"))
    assert normalised(data).encapsulation.rows == 4000


@pytest.mark.parametrize(
    ("size", "lines", "allowed"),
    [
        ((48, 64), 0, True),
        ((48, 65), 0, False),
        ((65_535, 65_535), 0, False),
        ((0, 64), 48, True),
        ((0, 64), 49, False),
        ((48, 64), 49, True),
    ],
)
def test_pixels_are_counted_before_anything_unfolds(
    size: tuple[int, int],
    lines: int,
    allowed: bool,  # noqa: FBT001
) -> None:
    defined = segment(0xDC, lines.to_bytes(2, "big")) if lines else b""
    header = inspect(stream(frame(size=size), scan(), defined))
    if allowed:
        check_size(header, 48 * 64)
        return
    with pytest.raises(TooLarge, match="3072 are allowed") as caught:
        check_size(header, 48 * 64)
    assert (caught.value.http_status, caught.value.reason) == (413, "too-many-pixels")
    assert "MAX_PIXELS" in caught.value.mend


def test_the_process_is_judged_before_the_orientation() -> None:
    rotated = behind_soi(of_process(0xCB), LYING)
    with pytest.raises(UnsupportedJpeg, match="arithmetic") as caught:
        normalised(rotated, UPRIGHT="refuse")
    assert caught.value.reason == "arithmetic-lossless"


def test_a_progressive_picture_is_turned_as_it_is_recoded() -> None:
    found = normalised(make_jpeg(32, 16, progressive=True, orientation=6))
    assert (found.encapsulation.transfer_syntax, found.encapsulation.rows) == (BASELINE, 32)
    assert found.changes[-2:] == (
        "recoded progressive as baseline",
        "turned a quarter clockwise without loss",
    )


def test_a_canonical_stream_passes_as_it_is() -> None:
    data = bytes(normalised(WHOLE).codestream)
    data = behind_soi(data, segment(0xDD, b"\0\0"))
    found = normalised(data)
    assert bytes(found.codestream) == data
    assert found.changes == ()


@pytest.mark.parametrize("identifiers", [b"\1", b"RGB"], ids=["grey", "RGB"])
def test_a_coefficient_too_large_to_be_recoded_is_not_made_another_one(identifiers: bytes) -> None:
    """The coefficient's own bits are read as the end of its block and as a block of their own."""
    small = "010"  # DC as before, end of block
    large = "0010100111100110"  # DC as before, one of 12 bits, end of block
    coded = entropy_coded(4 * small + large + small)
    count = len(identifiers)
    data = stream(
        segment(0xDB, b"\0" + b"\x40" * 64),
        huffman_table(0x00, {"0": 0}),
        huffman_table(0x12, {"0": 12, "10": 0}),  # a third one, which baseline doesn't have
        frame(0xC1, identifiers, size=(8, 48 // count), sampling=[0x11] * count),
        scan(identifiers, coded=coded, tables=0x02),
    )
    with pytest.raises(DamagedJpeg, match="a coefficient is out of range"):
        normalised(data)
