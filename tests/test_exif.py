"""EXIF as cameras write it, and as they shouldn't."""

import struct
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from service.dicom import exif
from service.dicom.exif import IMAGE, ORIENTATION, PHOTO
from service.dicom.jpeg import inspect
from tests.jpegs import make_jpeg
from tests.quickness import quick
from tests.streams import behind_soi, segment

BYTE_ORDERS = ["<", ">"]


def entry(order: str, tag: int, kind: int, count: int, value: bytes) -> bytes:
    return struct.pack(order + "HHI", tag, kind, count) + value.ljust(4, b"\0")


def block(order: str, *entries: bytes, behind: bytes = b"", first: int = 8) -> bytes:
    """Write a TIFF structure of one directory; `behind` stands at offset 8 + 6 + 12 n."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", first)
    directory = struct.pack(order + "H", len(entries)) + b"".join(entries) + bytes(4)
    return head + directory + behind


def turned(order: str, value: int, kind: int = 3) -> bytes:
    code = {1: "B", 3: "H", 4: "I"}[kind]
    return block(order, entry(order, 0x0112, kind, 1, struct.pack(order + code, value)))


@pytest.mark.parametrize("order", BYTE_ORDERS)
@pytest.mark.parametrize("kind", [1, 3, 4])
@pytest.mark.parametrize(("value", "expected"), [(0, 1), (1, 1), (6, 6), (8, 8), (9, 1), (255, 1)])
def test_an_orientation_is_1_to_8_in_either_byte_order(
    order: str, kind: int, value: int, expected: int
) -> None:
    assert exif.orientation(exif.parse(turned(order, value, kind))) == expected


@pytest.mark.parametrize("value", ["6", b"\6", (), (6.0,), ((6, 1),), (-1,)], ids=repr)
def test_an_orientation_of_another_type_is_none(value: exif.Value) -> None:
    assert exif.orientation({ORIENTATION: value}) == 1


@pytest.mark.parametrize("order", BYTE_ORDERS)
@pytest.mark.parametrize(
    ("kind", "count", "raw", "expected"),
    [
        (1, 3, "BBB", (1, 2, 3)),
        (3, 2, "HH", (1, 2)),
        (4, 1, "I", (1,)),
        (4, 2, "II", (1, 2)),
        (5, 1, "II", ((1, 2),)),
        (5, 2, "IIII", ((1, 2), (3, 4))),
        (6, 2, "bb", (1, 2)),
        (8, 3, "hhh", (1, 2, 3)),
        (9, 1, "i", (1,)),
        (10, 1, "ii", ((1, 2),)),
        (11, 1, "f", (1.0,)),
        (12, 2, "dd", (1.0, 2.0)),
    ],
)
def test_numbers_of_every_type_are_read(
    order: str, kind: int, count: int, raw: str, expected: exif.Value
) -> None:
    data = struct.pack(order + raw, *range(1, len(raw) + 1))
    behind = data if len(data) > 4 else b""
    value = struct.pack(order + "I", 26) if behind else data
    parsed = exif.parse(block(order, entry(order, 0x1234, kind, count, value), behind=behind))
    assert parsed == {(IMAGE, 0x1234): expected}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [(b"ab\0", "ab"), (b"ab\0c", "ab"), (b"a ", "a"), (b"\0", ""), (b"\xffa\0", "\ufffda")],
)
def test_text_ends_at_its_first_zero(raw: bytes, expected: str) -> None:
    parsed = exif.parse(block("<", entry("<", 0x010F, 2, len(raw), raw)))
    assert parsed == {(IMAGE, 0x010F): expected}


def test_undefined_bytes_stay_bytes() -> None:
    assert exif.parse(block("<", entry("<", 0x9000, 7, 4, b"0232"))) == {(IMAGE, 0x9000): b"0232"}


def test_the_directory_of_the_photo_is_followed() -> None:
    with Image.open(BytesIO(make_jpeg(8, 8, taken="2024:03:05 14:07:09", gps=True))) as image:
        taken = image.getexif().get_ifd(0x8769)[0x9003]
    data = make_jpeg(8, 8, orientation=3, taken="2024:03:05 14:07:09", gps=True)
    header = inspect(data)
    assert header.tags[PHOTO, 0x9003] == taken
    assert header.orientation == 3


def test_the_first_exif_segment_counts() -> None:
    plain = make_jpeg(8, 8)
    blocks = [segment(0xE1, b"Exif\0\0" + turned("<", value)) for value in (6, 3)]
    assert inspect(behind_soi(plain, *blocks)).orientation == 6
    assert inspect(behind_soi(plain, segment(0xE1, b"http://x\0"), *blocks)).orientation == 6


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"II*\0",
        b"II*\0\x08\0\0",
        b"IM*\0\x08\0\0\0\1\0",
        b"II\0*" + turned("<", 6)[4:],
        turned("<", 6)[:20],
        block("<", first=0xFFFFFFFF),
        block("<", first=100),
        block("<", entry("<", 0x0112, 0, 1, b"\6")),
        block("<", entry("<", 0x0112, 13, 1, b"\6")),
        block("<", entry("<", 0x0112, 3, 0, b"\6")),
        block("<", entry("<", 0x0112, 3, 0xFFFFFFFF, b"\6")),
        block("<", entry("<", 0x0112, 3, 3, b"\xff\xff\xff\xff")),
    ],
)
def test_what_cannot_be_read_is_absent(broken: bytes) -> None:
    assert exif.orientation(exif.parse(broken)) == 1


def test_a_directory_that_points_at_itself_is_read_once() -> None:
    parsed = exif.parse(block("<", entry("<", 0x8769, 4, 1, struct.pack("<I", 8))))
    assert parsed == {(IMAGE, 0x8769): (8,), (PHOTO, 0x8769): (8,)}


@settings(deadline=None)
@given(st.sampled_from([b"II*\0", b"MM\0*", b""]), st.binary(max_size=400))
@quick(2)
def test_any_bytes_are_a_block_of_tags(start: bytes, junk: bytes) -> None:
    tags = exif.parse(start + junk)
    assert all(directory in {IMAGE, PHOTO} and 0 <= tag < 65_536 for directory, tag in tags)
    assert 1 <= exif.orientation(tags) <= 8


@settings(deadline=None)
@given(st.data())
@quick(2)
def test_a_flipped_byte_of_a_real_block_raises_nothing(data: st.DataObject) -> None:
    real = bytearray(turned(">", 6) + b"\0\1\2\3" * 20)
    for _ in range(3):
        real[data.draw(st.integers(0, len(real) - 1))] = data.draw(st.integers(0, 255))
    assert 1 <= exif.orientation(exif.parse(bytes(real))) <= 8


def test_entries_that_share_their_bytes_do_not_unfold() -> None:
    """1024 entries over the same 32 kB once took half a gigabyte."""
    count = 512
    shared = bytes(64 * 8)
    at = 8 + 2 + 12 * count + 4
    entries = [entry("<", 0x9000 + number, 5, 64, struct.pack("<I", at)) for number in range(count)]
    found = exif.parse(block("<", *entries, behind=shared))
    assert 0 < sum(len(value) for value in found.values()) <= at + len(shared)
    endless = entry("<", 0x9000, 5, 65, struct.pack("<I", at))
    assert exif.parse(block("<", endless, behind=bytes(65 * 8 + at))) == {}
