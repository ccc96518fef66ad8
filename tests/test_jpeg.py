"""What `inspect` reads from the markers of a JPEG, sound, odd, broken or hostile."""

import struct
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.dicom.jpeg import MAX_SEGMENTS, Component, JpegHeader, inspect
from service.dicom.normalise import Normalised, normalise
from service.errors import DamagedJpeg, JpegstowError, NotAJpeg
from tests.describing import rules
from tests.jpegs import make_jpeg, srgb_profile
from tests.quickness import quick
from tests.streams import (
    CODED,
    EOI,
    JFIF,
    SOI,
    adobe,
    behind_soi,
    frame,
    of_process,
    scan,
    segment,
    stream,
    take_apart,
    without,
)

PHOTOGRAPH = make_jpeg(
    40, 24, orientation=6, taken="2024:03:05 14:07:09", gps=True, icc=True, comment=b"Zebedee"
)
SOUND = {
    "4:2:0": make_jpeg(40, 24),
    "grey": make_jpeg(17, 9, "L"),
    "RGB": make_jpeg(40, 24, keep_rgb=True),
    "4:4:4, restarts": make_jpeg(40, 24, subsampling="4:4:4", restart_blocks=1),
    "progressive": make_jpeg(40, 24, progressive=True),
    "CMYK": make_jpeg(24, 16, "CMYK"),
    "a photograph": PHOTOGRAPH,
    "thumbnail": behind_soi(make_jpeg(24, 16), segment(0xE1, b"Exif\0\0" + make_jpeg(8, 8))),
    "12 bits": stream(
        frame(0xC1, b"\1", precision=12), segment(0xDB, b"\0" + bytes(64)), scan(b"\1")
    ),
    "lossless": of_process(0xC3, b"\1\2\3", predictor=1),
    "JPEG-LS": of_process(0xF7, b"\1\2\3", predictor=2),
}


def test_a_photograph_says_what_it_is() -> None:
    header = inspect(PHOTOGRAPH)
    assert (header.process, header.precision, header.rows, header.columns) == (0xC0, 8, 24, 40)
    assert header.components == (
        Component(1, 2, 2, 0),
        Component(2, 1, 1, 1),
        Component(3, 1, 1, 1),
    )
    assert header.jfif
    assert header.adobe_transform is None
    assert header.orientation == 6
    assert header.icc_profile == srgb_profile()
    assert (header.complete, header.end, header.trailing) == (True, len(PHOTOGRAPH), 0)
    assert header.repairs == ()


@pytest.mark.parametrize("data", SOUND.values(), ids=SOUND)
def test_the_segments_are_those_of_another_reader(data: bytes) -> None:
    ours = [(s.marker, data[s.payload], s.scan_end) for s in inspect(data).segments]
    assert [(marker, payload) for marker, payload, _ in ours] == [
        (piece.marker, piece.payload) for piece in take_apart(data)
    ]
    assert ours[-1][2] == len(data) - 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_orientation_is_read(orientation: int) -> None:
    assert inspect(make_jpeg(16, 16, orientation=orientation)).orientation == orientation


def test_the_thumbnail_in_the_exif_segment_is_not_the_picture() -> None:
    thumbnail = make_jpeg(8, 8, "L", progressive=True)
    data = behind_soi(make_jpeg(40, 24), segment(0xE1, b"Exif\0\0II*\0" + thumbnail * 3))
    header = inspect(data)
    assert (header.process, header.columns, len(header.scans)) == (0xC0, 40, 1)


def test_what_stands_behind_the_first_eoi_is_counted_and_not_read() -> None:
    film = b"\0\0\0\x18ftypmp42" + make_jpeg(80, 80) + EOI
    header = inspect(make_jpeg(40, 24) + film)
    assert header.columns == 40
    assert header.trailing == len(film)


def test_fill_bytes_may_stand_before_any_marker() -> None:
    data = SOI + b"\xff" * 3 + frame() + b"\xff" + scan() + b"\xff" * 5 + EOI
    header = inspect(data)
    assert [s.marker for s in header.segments] == [0xC0, 0xDA]
    assert header.complete
    assert header.segments[-1].scan_end == header.segments[-1].end + len(CODED)
    assert header.trailing == 0


def test_restart_markers_and_stuffed_bytes_belong_to_the_scan() -> None:
    coded = b"a\xff\0b\xff\xd0c\xff\xd7d"
    (only,) = inspect(stream(frame(), scan(coded=coded))).scans
    assert only.scan_end - only.end == len(coded)


def test_jpeg_ls_stuffs_a_bit_and_no_byte() -> None:
    coded = b"a\xff\x01b\xff\x7fc"
    (only,) = inspect(stream(frame(0xF7, b"\1"), scan(b"\1", coded=coded))).scans
    assert only.scan_end - only.end == len(coded)


def test_several_scans_are_all_found() -> None:
    header = inspect(stream(frame(), *(scan(bytes([n])) for n in (1, 2, 3))))
    assert len(header.scans) == 3


def test_a_number_of_lines_behind_the_scan_is_read() -> None:
    header = inspect(stream(frame(size=(0, 16)), scan(), segment(0xDC, b"\0\x30")))
    assert header.rows == 48
    assert header.repairs == ("took the number of rows from the DNL segment",)


def test_the_frame_header_knows_the_rows_better_than_dnl() -> None:
    header = inspect(stream(frame(size=(16, 16)), scan(), segment(0xDC, b"\0\x30")))
    assert (header.rows, header.repairs) == (16, ())


@pytest.mark.parametrize("payload", [b"", b"\0", b"\0\0", b"\0\x30\0"], ids=len)
def test_a_dnl_segment_that_says_nothing_leaves_the_rows_open(payload: bytes) -> None:
    header = inspect(stream(frame(size=(0, 16)), scan(), segment(0xDC, payload)))
    assert (header.rows, header.repairs) == (0, ())


@pytest.mark.parametrize("length", [1, 4, 256])
def test_a_jpeg_may_begin_a_little_late(length: int) -> None:
    data = b"\r" * length + PHOTOGRAPH
    header = inspect(data)
    assert (header.orientation, header.size, header.end) == (6, len(data), len(data))
    assert header.repairs == (f"removed {length} bytes in front of SOI",)
    shifted = [(s.start - length, s.end - length) for s in header.segments]
    assert shifted == [(s.start, s.end) for s in inspect(PHOTOGRAPH).segments]


def test_a_jpeg_that_begins_late_is_one_only_without_doubt() -> None:
    for prefix in (b"\r" * 257, b"\r\xff\xd8\xff\r"):
        with pytest.raises(NotAJpeg, match="doesn't begin like a JPEG"):
            inspect(prefix + PHOTOGRAPH)


def test_a_second_soi_at_the_start_is_passed_over() -> None:
    header = inspect(SOI + PHOTOGRAPH)
    assert header.orientation == 6
    assert header.repairs == ("removed a second SOI",)


def test_all_repairs_are_told() -> None:
    data = stream(frame(size=(0, 16)), scan(), segment(0xDC, b"\0\x30"))
    assert inspect(b"\r\n" + SOI + data[:-2]).repairs == (
        "removed 2 bytes in front of SOI",
        "removed a second SOI",
        "took the number of rows from the DNL segment",
        "added the missing EOI",
    )


def test_a_missing_eoi_is_told_apart_from_a_complete_jpeg() -> None:
    header = inspect(make_jpeg(40, 24)[:-2])
    assert not header.complete
    assert header.end == header.size
    assert header.repairs == ("added the missing EOI",)


PROFILE = bytes(range(256)) * 3


def chunk(number: int, count: int, data: bytes) -> bytes:
    return segment(0xE2, b"ICC_PROFILE\0" + bytes([number, count]) + data)


@pytest.mark.parametrize(
    ("chunks", "profile"),
    [
        ([chunk(1, 1, PROFILE)], PROFILE),
        ([chunk(2, 2, b"b"), chunk(1, 2, b"a")], b"ab"),
        ([chunk(1, 2, b"a")], None),
        ([chunk(1, 1, b"a"), chunk(2, 2, b"b")], None),
        ([chunk(0, 1, b"a")], None),
        ([segment(0xE2, b"ICC_PROFILE\0\1")], None),
        ([segment(0xE2, b"MPF\0" + PROFILE)], None),
    ],
)
def test_an_icc_profile_is_joined_from_all_its_chunks(
    chunks: list[bytes], profile: bytes | None
) -> None:
    assert inspect(stream(*chunks, frame(), scan())).icc_profile == profile


def hexadecimal(value: object) -> str | None:
    return " ".join(f"{byte:02x}" for byte in value) if isinstance(value, bytes) else None


@pytest.mark.parametrize(
    ("clues", "identifiers", "rgb"),
    [
        ([], b"\1\2\3", False),
        ([], b"\0\1\2", False),
        ([], b"RGB", True),
        ([], b"rgb", False),
        ([], b"BGR", False),
        ([segment(0xE0, JFIF)], b"\1\2\3", False),
        ([segment(0xE0, JFIF)], b"RGB", False),
        ([adobe(0)], b"\1\2\3", True),
        ([adobe(0)], b"RGB", True),
        ([adobe(1)], b"\1\2\3", False),
        ([adobe(1)], b"RGB", False),
        ([adobe(2)], b"\1\2\3", False),
        ([segment(0xE0, JFIF), adobe(0)], b"RGB", False),
        ([adobe(0), segment(0xE0, JFIF)], b"\1\2\3", False),
        ([segment(0xE0, b"JFXX\0\x10"), adobe(0)], b"\1\2\3", True),
        ([segment(0xEE, b"Adobe\0\x64")], b"RGB", True),
        ([segment(0xEE, b"Nikon\0\x64\0\0\0\0\1")], b"RGB", True),
        ([adobe(0)], b"\1", False),
        ([adobe(0)], b"CMYK", False),
    ],
    ids=hexadecimal,
)
def test_jfif_then_adobe_then_the_identifiers_decide_about_rgb(
    clues: list[bytes],
    identifiers: bytes,
    rgb: bool,  # noqa: FBT001
) -> None:
    assert inspect(stream(*clues, frame(0xC0, identifiers), scan(identifiers))).rgb is rgb


@pytest.mark.parametrize("process", [0xC3, 0xF7])
def test_a_lossless_process_without_a_clue_codes_rgb(process: int) -> None:
    assert inspect(of_process(process, b"\1\2\3")).rgb
    assert not inspect(behind_soi(of_process(process, b"\1\2\3"), adobe(1))).rgb


GREY = frame(0xC0, b"\1")
SCAN = scan(b"\1")
DAMAGED = [
    (SOI + b"\xff", "truncated", ""),
    (SOI + b"\xff" * 100, "truncated", ""),
    (SOI + SOI + b"\xff", "truncated", ""),
    (SOI + EOI, "no-frame", ""),
    (SOI + GREY, "truncated", ""),
    (SOI + GREY + EOI, "truncated", ""),
    (SOI + SCAN + EOI, "no-frame", ""),
    (SOI + GREY + b"\xff\xda", "truncated", "byte 15"),
    (SOI + GREY + b"\xff\xda\0\x0cabc", "truncated", "byte 15"),
    (SOI + GREY + b"\xff\xe1\0\1" + SCAN, "malformed", "byte 15"),
    (SOI + GREY + b"\xff\xe1\0\0" + SCAN, "malformed", "byte 15"),
    (SOI + GREY + b"junk" + SCAN, "garbage", "byte 15"),
    (SOI + GREY + b"\xff\0" + SCAN, "garbage", "byte 15"),
    (SOI + b"\xff\x02\0\2" + GREY + SCAN, "garbage", "byte 2"),
    (SOI + SOI + SOI + GREY + SCAN, "misplaced-marker", "byte 4"),
    (SOI + b"\xff" + SOI + GREY + SCAN, "misplaced-marker", "byte 3"),
    (SOI + GREY + SOI + SCAN, "misplaced-marker", "byte 15"),
    (b"\r\n" + SOI + GREY + b"junk" + SCAN, "garbage", "byte 17"),
    (SOI + GREY + b"\xff\xd3" + SCAN, "misplaced-marker", "byte 15"),
    (SOI + GREY + b"\xff\x01" + SCAN, "misplaced-marker", "byte 15"),
    (stream(GREY, GREY, SCAN), "malformed", "byte 15"),
    (stream(frame(0xC0, b""), SCAN), "malformed", "byte 2"),
    (stream(segment(0xC0, GREY[4:] + b"\0"), SCAN), "malformed", "byte 2"),
    (stream(segment(0xC0, GREY[4:8]), SCAN), "malformed", "byte 2"),
    (stream(frame(0xC0, b"\1", size=(16, 0)), SCAN), "no-columns", "byte 2"),
    (stream(frame(0xC0, b"\1", sampling=[0x01]), SCAN), "malformed", "byte 2"),
    (stream(frame(0xC0, b"\1", sampling=[0x15]), SCAN), "malformed", "byte 2"),
    (stream(GREY, scan(b"")), "malformed", "byte 15"),
    (stream(GREY, scan(b"\1\2\3\4\5")), "malformed", "byte 15"),
    (stream(GREY, segment(0xDA), CODED), "malformed", "byte 15"),
    (stream(GREY, segment(0xDA, b"\1\1\0\0\x3f"), CODED), "malformed", "byte 15"),
]


@pytest.mark.parametrize(
    ("data", "reason", "where"),
    DAMAGED,
    ids=[f"{n}, {len(data)} bytes" for n, (data, _, _) in enumerate(DAMAGED)],
)
def test_damage_is_named_with_its_place(data: bytes, reason: str, where: str) -> None:
    with pytest.raises(DamagedJpeg) as caught:
        inspect(data)
    assert (caught.value.reason, caught.value.where) == (reason, where)


@pytest.mark.parametrize("cut", range(2, 160))
def test_a_jpeg_cut_within_its_headers_is_damaged(cut: int) -> None:
    with pytest.raises((DamagedJpeg, NotAJpeg)):
        inspect(make_jpeg(40, 24)[:cut])


def test_without_a_frame_header_there_is_no_picture() -> None:
    with pytest.raises(DamagedJpeg, match="no frame header"):
        inspect(without(make_jpeg(40, 24), 0xC0))


def test_segments_are_counted_up_to_a_limit() -> None:
    comment = segment(0xFE)
    assert inspect(stream(comment * (MAX_SEGMENTS - 2), GREY, SCAN)).complete
    with pytest.raises(DamagedJpeg, match="more than 20000 segments"):
        inspect(stream(comment * (MAX_SEGMENTS - 1), GREY, SCAN))


@st.composite
def mutilated(draw: st.DrawFn) -> bytes:
    """Cut, overwrite, insert, delete or repeat bytes of a sound JPEG, up to four times."""
    data = draw(st.sampled_from(list(SOUND.values())))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 40))
        junk = draw(st.binary(max_size=8) | st.sampled_from([EOI, SOI, SCAN, GREY, b"\xff"]))
        data = draw(
            st.sampled_from(
                [
                    data[:start],
                    data[:start] + junk + data[start + len(junk) :],
                    data[:start] + junk + data[start:],
                    data[:start] + data[start + length :],
                    data[: start + length] + data[start:],
                ]
            )
        )
    return data


KEPT = {0xC0, 0xC1, 0xC3, 0xF7, 0xC4, 0xCC, 0xDA, 0xDB, 0xDD, 0xEE, 0xF8}
POLICY = rules().policy


def outcome(data: bytes) -> Normalised | JpegstowError:
    try:
        header = inspect(data)
        assert isinstance(header, JpegHeader)
        assert 0 <= header.end <= header.size == len(data)
        return normalise(data, header, POLICY)
    except JpegstowError as error:
        return error


@settings(deadline=None, max_examples=600)
@given(mutilated())
@quick(2)
def test_whatever_happens_to_a_jpeg_it_is_normalised_or_refused(data: bytes) -> None:
    found = outcome(data)
    if isinstance(found, JpegstowError):
        assert found.http_status in {413, 415, 422}
        assert found.detail
        return
    clean = bytes(found.codestream)
    again = normalise(clean, inspect(clean), POLICY)
    assert bytes(again.codestream) == clean
    assert again.encapsulation == found.encapsulation
    assert {piece.marker for piece in take_apart(clean)} <= KEPT


@settings(deadline=None)
@given(st.binary(max_size=400))
@quick(2)
def test_any_bytes_behind_the_magic_ones_are_read_or_refused(junk: bytes) -> None:
    found = outcome(b"\xff\xd8\xff" + junk)
    assert isinstance(found, Normalised) or found.http_status in {415, 422}


def exif_with_long_values() -> bytes:
    entries = [struct.pack("<HHII", tag, 2, 65_000, 0) for tag in range(512)]
    block = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries)
    return segment(0xE1, b"Exif\0\0" + block.ljust(65_500, b"\xfe"))


SIZE = 30_000_000
WORST: dict[str, Callable[[], bytes]] = {
    "fill bytes only": lambda: SOI + b"\xff" * SIZE,
    "fill bytes before a scan": lambda: stream(GREY, b"\xff" * SIZE, SCAN),
    "fill bytes in a scan": lambda: stream(GREY, SCAN + b"\xff" * SIZE),
    "a scan without end": lambda: SOI + GREY + SCAN + bytes(SIZE),
    "stuffed bytes": lambda: stream(GREY, scan(b"\1", coded=b"\xff\0" * (SIZE // 2))),
    "restart markers": lambda: stream(GREY, scan(b"\1", coded=b"\xff\xd0" * (SIZE // 2))),
    "segments of no bytes": lambda: SOI + segment(0xE1) * (SIZE // 4),
    "as many segments as allowed": lambda: stream(segment(0xFE, bytes(1490)) * 19_990, GREY, SCAN),
    "as many tables as allowed": lambda: stream(segment(0xC4, bytes(1490)) * 19_990, GREY, SCAN),
    "tables and scans": lambda: stream(
        GREY, SCAN * 400, segment(0xC4, b"\0" + bytes(16)) * 19_000, SCAN
    ),
    "as many scans as allowed": lambda: stream(GREY, SCAN * 19_990),
    "many frame headers": lambda: stream(GREY * 19_990, SCAN),
    "quantization tables": lambda: stream(segment(0xDB, bytes(4 * 65)) * 19_000, GREY, SCAN),
    "thumbnails in thumbnails": lambda: stream(
        segment(0xE1, b"Exif\0\0" + (SOI + GREY + SCAN + EOI) * 600) * 400, GREY, SCAN
    ),
    "profile chunks": lambda: stream(chunk(1, 1, bytes(65_000)) * 400, GREY, SCAN),
    "long EXIF values": lambda: stream(exif_with_long_values() * 400, GREY, SCAN),
    "JPEG-LS escapes": lambda: stream(
        frame(0xF7, b"\1"), scan(b"\1", coded=b"\xff\x7f" * (SIZE // 2))
    ),
}


@pytest.mark.parametrize("name", WORST)
def test_the_worst_jpeg_is_done_with_in_two_seconds(name: str) -> None:
    data = WORST[name]()
    began = time.process_time()
    found = outcome(data)
    assert time.process_time() - began < 2
    assert isinstance(found, Normalised | JpegstowError)
