"""What is refused before it is stored: lying pictures, pieces of pictures, bombs."""

import pytest

from service.dicom.jpeg import inspect
from service.dicom.normalise import check_size, normalise
from service.errors import DamagedJpeg, TooLarge, UnsupportedJpeg
from tests.jpegs import make_jpeg
from tests.streams import behind_soi, frame, of_process, scan, segment, stream

WHOLE = make_jpeg(64, 48)


@pytest.mark.parametrize("orientation", [None, 0, 1, 9])
def test_an_upright_picture_is_normalised(orientation: int | None) -> None:
    data = make_jpeg(32, 16, orientation=orientation)
    said = normalise(data, inspect(data)).encapsulation
    assert (said.rows, said.columns) == (16, 32)


def test_the_changes_are_told() -> None:
    data = make_jpeg(32, 16, comment=b"Zebedee") + b"film"
    changes = normalise(data, inspect(data)).changes
    assert changes == (
        "removed JFIF (18 bytes)",
        "removed comment (11 bytes)",
        "removed what stood behind EOI (4 bytes)",
    )


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_picture_that_lies_on_its_side_is_not_stored_lying(orientation: int) -> None:
    data = make_jpeg(24, 16, orientation=orientation)
    with pytest.raises(UnsupportedJpeg, match=f"orientation {orientation}") as caught:
        normalise(data, inspect(data))
    assert caught.value.reason == "rotated"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (WHOLE[:-1], "truncated"),
        (WHOLE[:-2], "truncated"),
        (WHOLE[:-200], "truncated"),
        (stream(frame(size=(0, 16)), scan()), "no-rows"),
        (stream(frame(size=(0, 16)), scan(), segment(0xDC, b"\0\x10")), "no-rows"),
        (stream(frame(size=(4000, 4000)), scan()), "truncated"),
        (stream(frame(), scan(coded=b"")), "truncated"),
    ],
)
def test_a_part_of_a_picture_is_not_stored(data: bytes, reason: str) -> None:
    with pytest.raises(DamagedJpeg) as caught:
        normalise(data, inspect(data))
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("sampling", "least"),
    [([0x11, 0x11, 0x11], 3), ([0x22, 0x11, 0x11], 1), ([0x41, 0x11, 0x11], 2)],
)
def test_a_scan_has_two_bits_for_each_block_at_least(sampling: list[int], least: int) -> None:
    """A picture of 16 x 16 pixels has 12 blocks at 4:4:4, 6 at 4:2:0 (T.81 A.2)."""
    enough = stream(frame(sampling=sampling), scan(coded=b"a" * least))
    assert normalise(enough, inspect(enough)).encapsulation.rows == 16
    scarce = stream(frame(sampling=sampling), scan(coded=b"a" * (least - 1)))
    with pytest.raises(DamagedJpeg, match="too few"):
        normalise(scarce, inspect(scarce))


def test_the_blackest_picture_has_enough_bytes() -> None:
    """A plain picture at the lowest quality holds the least that an encoder writes."""
    plain = make_jpeg(1, 1, "L", quality=1)
    assert normalise(plain, inspect(plain)).encapsulation.columns == 1


def test_lossless_processes_code_runs_and_have_no_least_size() -> None:
    data = stream(frame(0xF7, b"\1", size=(4000, 4000)), scan(b"\1"))
    assert normalise(data, inspect(data)).encapsulation.rows == 4000


@pytest.mark.parametrize(
    ("size", "lines", "allowed"),
    [
        ((48, 64), 0, True),
        ((48, 65), 0, False),
        ((65_535, 65_535), 0, False),
        ((0, 64), 48, True),
        ((0, 64), 49, False),
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
    with pytest.raises(TooLarge, match="more than the 3072 allowed") as caught:
        check_size(header, 48 * 64)
    assert (caught.value.http_status, caught.value.reason) == (413, "too-many-pixels")


def test_the_process_is_judged_before_the_orientation() -> None:
    rotated = make_jpeg(16, 16, progressive=True, orientation=6)
    with pytest.raises(UnsupportedJpeg, match="progressive"):
        normalise(rotated, inspect(rotated))


def test_a_canonical_stream_passes_as_it_is() -> None:
    data = behind_soi(of_process(0xC0), segment(0xDD, b"\0\0"))
    assert bytes(normalise(data, inspect(data)).codestream) == data
