"""The headers are rewritten, the entropy-coded bytes are not, and nothing private is left."""

import struct
import subprocess
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from service.dicom.canonical import Canonical, canonicalise
from service.dicom.codestream import Codestream
from service.dicom.jpeg import inspect
from service.errors import DamagedJpeg
from tests.jpegs import make_jpeg
from tests.judges import require_tool
from tests.streams import (
    EOI,
    JFIF,
    Piece,
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
    with_identifiers,
    without,
)

YCBCR = make_jpeg(40, 24)
RGB = make_jpeg(40, 24, keep_rgb=True)
GREY = make_jpeg(40, 24, "L")
RESTARTS = make_jpeg(40, 24, restart_blocks=1)


def dht(*destinations: int) -> bytes:
    return segment(0xC4, b"".join(bytes([n]) + bytes(15) + b"\2ab" for n in destinations))


# The tables that the scans of `scan` use: with these, none is missing.
HUFFMAN = dht(0x00, 0x10)


def canonical(data: bytes) -> Canonical:
    return canonicalise(data, inspect(data))


def rewritten(data: bytes) -> bytes:
    return bytes(canonical(data).codestream)


def coded(data: bytes) -> list[bytes]:
    return [piece.coded for piece in take_apart(data) if piece.marker == 0xDA]


def markers(data: bytes) -> list[int]:
    return [piece.marker for piece in take_apart(data)]


def pixels(data: bytes) -> bytes:
    with Image.open(BytesIO(data)) as image:
        return image.tobytes()


def noninterleaved(*, restarts: bool = False) -> bytes:
    """Split a 4:4:4 picture into a scan for each component: three grey pictures of one size."""
    greys = [
        make_jpeg(40, 24, "L", seed=seed, restart_blocks=int(restarts)) for seed in range(1, 4)
    ]
    pieces = list(take_apart(greys[0]))
    tables = [piece for piece in pieces if piece.marker in {0xDB, 0xC4, 0xDD}]
    head = b"".join(segment(piece.marker, piece.payload) for piece in tables)
    scans = [scan(bytes([n]), coded=coded(grey)[0]) for n, grey in enumerate(greys, 1)]
    return stream(
        segment(0xE0, JFIF), head, frame(size=(24, 40), sampling=[0x11, 0x11, 0x11]), *scans
    )


PLAIN = {
    "4:2:0": YCBCR,
    "4:2:2": make_jpeg(40, 24, subsampling="4:2:2"),
    "4:4:4": make_jpeg(40, 24, subsampling="4:4:4"),
    "odd size": make_jpeg(41, 23),
    "grey": GREY,
    "RGB": RGB,
    "RGB by identifiers": without(RGB, 0xEE),
    "RGB by Adobe alone": with_identifiers(RGB, b"\1\2\3"),
    "restarts": RESTARTS,
    "a scan for each component": noninterleaved(),
    "a scan for each component, restarts": noninterleaved(restarts=True),
    "Adobe, no JFIF": behind_soi(without(YCBCR, 0xE0), adobe(1)),
    "no JFIF": without(YCBCR, 0xE0),
    "JFIF beside Adobe that says RGB": behind_soi(YCBCR, adobe(0)),
    "JFIF beside identifiers that say RGB": with_identifiers(YCBCR, b"RGB"),
    "identifiers from 0": with_identifiers(YCBCR, b"\0\1\2"),
    "identifiers backwards": with_identifiers(YCBCR, b"\3\2\1"),
    "grey with an odd identifier": with_identifiers(GREY, b"\x4d"),
    "extended": relabelled(YCBCR, 0xC1),
    "everything planted": make_jpeg(
        40, 24, orientation=6, taken="2024:03:05 14:07:09", gps=True, icc=True, comment=b"Zebedee"
    ),
}


@pytest.mark.parametrize("name", PLAIN)
def test_the_pixels_stay_what_they_were(name: str) -> None:
    data = PLAIN[name]
    # Pillow itself decodes with JFIF and the identifiers of a file that contradicts itself.
    assert pixels(rewritten(data)) == pixels(data)


@pytest.mark.parametrize("name", PLAIN)
def test_entropy_coded_bytes_are_not_touched(name: str) -> None:
    assert coded(rewritten(PLAIN[name])) == coded(PLAIN[name])


@pytest.mark.parametrize("name", PLAIN)
def test_a_canonical_stream_is_canonical(name: str) -> None:
    once = rewritten(PLAIN[name])
    twice = canonical(once)
    assert bytes(twice.codestream) == once
    assert [line for line in twice.changes if "Adobe (16 bytes)" not in line] == []


@pytest.mark.parametrize("name", PLAIN)
def test_the_colour_is_told_in_one_way(name: str) -> None:
    before, after = inspect(PLAIN[name]), inspect(rewritten(PLAIN[name]))
    assert after.rgb is before.rgb
    assert not after.jfif
    assert after.adobe_transform == (0 if after.rgb else None)
    identifiers = [component.identifier for component in after.components]
    if not after.rgb:
        assert identifiers == [1, 2, 3][: len(identifiers)]


@pytest.mark.parametrize("name", ["4:2:0", "grey", "RGB", "restarts", "extended"])
def test_djpeg_sees_the_same_pixels(name: str) -> None:
    djpeg = require_tool("djpeg")
    before, after = (
        subprocess.run([djpeg, "-pnm"], input=data, capture_output=True, check=True).stdout
        for data in (PLAIN[name], rewritten(PLAIN[name]))
    )
    assert before == after


SECRET = b"Zebedee^Xanthippe"
PLANTED = [
    (segment(0xE0, b"JFXX\0\x10" + SECRET), "JFIF thumbnail"),
    (segment(0xE1, b"Exif\0\0II*\0" + SECRET), "Exif"),
    (segment(0xE1, b"Exif\0\0" + GREY + SECRET), "Exif"),
    (segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + SECRET), "XMP"),
    (segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + SECRET), "XMP"),
    (segment(0xE2, b"ICC_PROFILE\0\1\1" + SECRET), "ICC profile"),
    (segment(0xE2, b"MPF\0" + SECRET), "multi-picture index"),
    (segment(0xE2, b"FPXR\0" + SECRET), "APP2"),
    (segment(0xE4, SECRET), "APP4"),
    (segment(0xE8, SECRET), "APP8"),
    (segment(0xEB, b"JP\0\1" + SECRET), "JUMBF (C2PA)"),
    (segment(0xED, b"Photoshop 3.0\x008BIM" + SECRET), "IPTC (Photoshop)"),
    (segment(0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, 1) + SECRET), "Adobe"),
    (segment(0xEE, SECRET), "APP14"),
    (segment(0xEF, SECRET), "APP15"),
    (segment(0xFE, SECRET), "comment"),
    (segment(0xF0, SECRET), "segment FFF0"),
    (segment(0x7A, SECRET), "segment FF7A"),
    (segment(0xDC, SECRET), "segment FFDC"),
]


@pytest.mark.parametrize(("planted", "name"), PLANTED, ids=[name for _, name in PLANTED])
@pytest.mark.parametrize("place", ["behind SOI", "behind the scan"])
def test_what_is_planted_goes_and_is_named(planted: bytes, name: str, place: str) -> None:
    sound = without(YCBCR, 0xE0)
    start = segment(0xDD, b"\0\0") if place == "behind SOI" else b""  # no segment under FFC0 first
    data = (
        behind_soi(sound, start, planted) if place == "behind SOI" else sound[:-2] + planted + EOI
    )
    found = canonical(data)
    assert bytes(found.codestream) == rewritten(behind_soi(sound, start))
    assert f"removed {name} ({len(planted)} bytes)" in found.changes
    assert SECRET.decode() not in "".join(found.changes)


def test_several_of_a_kind_are_counted_together() -> None:
    data = behind_soi(without(YCBCR, 0xE0), segment(0xFE, b"one"), segment(0xFE, b"two"))
    assert canonical(data).changes == ("removed comment (14 bytes)",)


@pytest.mark.parametrize(
    "film",
    [b"\0\0\0\x18ftypmp42" + SECRET, YCBCR + SECRET, b"\0", EOI],
    ids=["a film", "a second picture", "a zero", "EOI"],
)
def test_what_stands_behind_eoi_goes(film: bytes) -> None:
    found = canonical(YCBCR + film)
    assert bytes(found.codestream) == rewritten(YCBCR)
    assert f"removed what stood behind EOI ({len(film)} bytes)" in found.changes


def test_exiftool_finds_nothing_but_the_picture() -> None:
    data = behind_soi(PLAIN["everything planted"], *(planted for planted, _ in PLANTED[:16]))
    printed = subprocess.run(
        [require_tool("exiftool"), "-G", "-a", "-ee", "-u", "-"],
        input=rewritten(data),
        capture_output=True,
        check=True,
    ).stdout.decode()
    assert {line.split("]")[0] for line in printed.splitlines()} == {
        "[ExifTool",
        "[File",
        "[Composite",
    }
    assert "Zebedee" not in printed


@pytest.mark.parametrize("identifiers", [b"RGB", b"\1\2\3", b"RGA"], ids=["RGB", "123", "RGA"])
def test_rgb_keeps_its_identifiers_and_has_one_adobe_segment(identifiers: bytes) -> None:
    data = with_identifiers(behind_soi(RGB, adobe(0)), identifiers)
    clean = rewritten(data)
    assert [piece for piece in take_apart(clean) if piece.marker == 0xEE] == [
        Piece(0xEE, b"Adobe\0\x64\0\0\0\0\0", b"")
    ]
    assert bytes(c.identifier for c in inspect(clean).components) == identifiers


def test_an_adobe_segment_is_added_where_only_the_identifiers_said_rgb() -> None:
    found = canonical(without(RGB, 0xEE))
    assert markers(bytes(found.codestream))[0] == 0xEE
    assert "added an Adobe segment that says RGB" in found.changes


def test_a_selector_follows_its_component() -> None:
    scans = [scan(b"\x2c"), scan(b"\x16"), scan(b"\x21")]
    found = canonical(stream(HUFFMAN, frame(identifiers=b"\x16\x21\x2c"), *scans))
    _, *pieces = take_apart(bytes(found.codestream))
    assert pieces[0].payload[6::3] == b"\1\2\3"
    assert [piece.payload[1] for piece in pieces[1:]] == [3, 1, 2]
    assert found.changes == ("numbered the components from 1",)


def test_a_scan_of_a_component_that_is_not_there_is_damage() -> None:
    with pytest.raises(DamagedJpeg, match="names a component") as caught:
        canonical(stream(frame(), scan(), scan(b"\4")))
    assert caught.value.where == f"byte {2 + len(frame()) + len(scan())}"


def test_two_components_of_one_name_are_damage() -> None:
    with pytest.raises(DamagedJpeg, match="same identifier"):
        canonical(stream(frame(identifiers=b"\1\1\2"), scan(b"\1\1\2")))


def dqt(*tables: tuple[int, list[int]]) -> bytes:
    """Write a DQT segment of 16-bit tables: destination and values."""
    return segment(0xDB, b"".join(struct.pack(">B64H", 0x10 | n, *v) for n, v in tables))


SMALL = list(range(1, 65))
LARGE = [300, *range(1, 64)]


@pytest.mark.parametrize("process", [0xC0, 0xC1])
def test_16_bit_quantization_tables_of_small_values_become_8_bit_ones(process: int) -> None:
    found = canonical(stream(HUFFMAN, dqt((0, SMALL), (1, SMALL)), frame(process), scan()))
    assert found.process == 0xC0
    _, table, *_ = take_apart(bytes(found.codestream))
    assert table.payload == bytes([0, *SMALL])  # nobody uses the other


def widened(piece: Piece) -> Piece:
    number, *table = piece.payload
    return piece._replace(payload=struct.pack(">B64H", 0x10 | number, *table))


def test_a_narrowed_table_means_the_same_pixels() -> None:
    data = put_together([widened(p) if p.marker == 0xDB else p for p in take_apart(GREY)])
    assert rewritten(data) == rewritten(GREY)
    assert pixels(rewritten(data)) == pixels(data)


@pytest.mark.parametrize("process", [0xC0, 0xC1])
def test_16_bit_quantization_tables_of_large_values_mean_sof1(process: int) -> None:
    found = canonical(stream(HUFFMAN, dqt((0, LARGE)), frame(process, b"\1"), scan(b"\1")))
    assert found.process == 0xC1
    assert markers(bytes(found.codestream)) == [0xC4, 0xDB, 0xC1, 0xDA]
    assert any("relabelled" in line for line in found.changes) == (process == 0xC0)


@pytest.mark.parametrize(
    ("tables", "used", "process"),
    [
        ([dht(0x00, 0x10, 0x01, 0x11)], 0x11, 0xC0),
        ([dht(0x00), dht(0x12)], 0x02, 0xC1),
        ([dht(0x00, 0x10, 0x03)], 0x30, 0xC1),
        ([dht(0x00, 0x10, 0x03)], 0x00, 0xC0),
    ],
)
def test_sof1_is_relabelled_where_it_uses_the_tables_of_baseline(
    tables: list[bytes], used: int, process: int
) -> None:
    """Which tables a scan uses stands in its header: Td and Ta of each component."""
    header = segment(0xDA, bytes([1, 1, used, 0, 63, 0]))
    found = canonical(stream(*tables, frame(0xC1, b"\1"), header + b"\0" * 64))
    assert found.process == process
    assert any("relabelled" in line for line in found.changes) == (process == 0xC0)


def test_12_bit_sof1_is_left_alone() -> None:
    found = canonical(stream(frame(0xC1, b"\1", precision=12), scan(b"\1")))
    assert (found.process, found.changes) == (0xC1, ())


def test_relabelling_changes_one_byte() -> None:
    assert rewritten(relabelled(YCBCR, 0xC1)) == rewritten(YCBCR)


@pytest.mark.parametrize(
    "payload",
    [b"\0" + bytes(63), b"\x20" + bytes(200), bytes(66)],
    ids=["63 values", "values of 24 bits", "one byte too many"],
)
def test_a_malformed_quantization_table_is_damage(payload: bytes) -> None:
    with pytest.raises(DamagedJpeg, match="quantization table"):
        canonical(stream(segment(0xDB, payload), frame(), scan()))


def test_restart_interval_and_restart_markers_stay() -> None:
    clean = rewritten(RESTARTS)
    assert [p.payload for p in take_apart(clean) if p.marker == 0xDD] == [b"\0\1"]
    assert b"\xff\xd0" in coded(clean)[0]


def test_tables_between_scans_stay_in_their_place() -> None:
    first, interval = dht(0x00, 0x10), segment(0xDD, b"\0\1")
    data = stream(frame(), first, scan(b"\1"), dht(0x00), interval, scan(b"\2\3"))
    assert markers(rewritten(data)) == [0xC0, 0xC4, 0xDA, 0xC4, 0xDD, 0xDA]


@pytest.mark.parametrize("process", [0xC0, 0xC1])
def test_huffman_tables_that_are_missing_are_added_in_front_of_all(process: int) -> None:
    found = canonical(stream(dht(0x00), frame(process), scan()))
    assert markers(bytes(found.codestream)) == [0xC4, 0xC4, 0xC0, 0xDA]
    assert "added the standard Huffman tables" in found.changes


@pytest.mark.parametrize("process", [0xC2, 0xC3, 0xC9, 0xF7])
def test_no_tables_are_added_where_others_than_the_standard_ones_are_meant(process: int) -> None:
    assert 0xC4 not in markers(rewritten(of_process(process)))


def test_what_was_repaired_is_told_first_and_written_anew() -> None:
    bare = without(YCBCR, 0xE0)
    for broken, repair in (
        (bare[:-2], "added the missing EOI"),
        (b"\xff\xd8" + bare, "removed a second SOI"),
        (b"\r\n" + bare, "removed 2 bytes in front of SOI"),
    ):
        found = canonical(broken)
        assert found.changes == (repair,)
        assert bytes(found.codestream) == rewritten(bare)


def test_the_number_of_lines_goes_into_the_frame_header() -> None:
    lines = segment(0xDC, b"\0\x10")
    found = canonical(stream(HUFFMAN, frame(size=(0, 16)), scan(), lines))
    assert bytes(found.codestream) == stream(HUFFMAN, frame(size=(16, 16)), scan())
    assert found.changes == (
        "took the number of rows from the DNL segment",
        "removed segment FFDC (6 bytes)",
    )


@pytest.mark.parametrize("transform", [0, 2])
def test_an_adobe_segment_tells_ycck_from_cmyk(transform: int) -> None:
    """Nothing else does, and what decodes four components for a conversion has to know."""
    clean = rewritten(behind_soi(without(make_jpeg(24, 16, "CMYK"), 0xEE), adobe(transform)))
    assert [piece.payload for piece in take_apart(clean) if piece.marker == 0xEE] == [
        b"Adobe\0\x64\0\0\0\0" + bytes([transform])
    ]


def test_jpeg_ls_keeps_its_parameters_and_the_colour_transform_of_hp() -> None:
    parameters, transform = segment(0xF8, b"\1" + bytes(10)), segment(0xE8, b"mrfx\1")
    data = behind_soi(of_process(0xF7, b"\1\2\3"), parameters, transform, segment(0xE8, SECRET))
    found = canonical(data)
    assert markers(bytes(found.codestream)) == [0xF8, 0xE8, 0xF7, 0xDA]
    assert found.changes == (f"removed APP8 ({len(SECRET) + 4} bytes)",)


def test_lossless_rgb_has_an_adobe_segment_and_jpeg_ls_has_none() -> None:
    assert markers(rewritten(of_process(0xC3, b"\1\2\3"))) == [0xEE, 0xC3, 0xDA]
    assert markers(rewritten(of_process(0xF7, b"\1\2\3"))) == [0xF7, 0xDA]


def test_the_scans_are_views_of_the_upload() -> None:
    views = [piece for piece in canonical(YCBCR).codestream if isinstance(piece, memoryview)]
    assert [view.obj is YCBCR for view in views] == [True]


@settings(deadline=None)
@given(st.lists(st.binary(max_size=20)), st.integers(0, 30))
def test_a_codestream_is_its_bytes_wherever_it_is_cut(pieces: list[bytes], cut: int) -> None:
    whole = b"".join(pieces)
    one, other = Codestream(tuple(pieces)), Codestream((whole[:cut], memoryview(whole)[cut:]))
    assert one == other
    assert hash(one) == hash(other)
    assert (len(one), bytes(one), b"".join(one)) == (len(whole), whole, whole)
    assert one != Codestream((whole, b"\0"))
    assert one != whole


SECRET = b"DOE^JANE"


@pytest.mark.parametrize(
    "hidden",
    [
        segment(0xDB, b"\3" + SECRET * 8),
        segment(0xC4, b"\x13" + bytes(7) + b"\x08" + bytes(8) + SECRET),
        segment(0xE8, b"mrfx" + SECRET),
        segment(0xF8, b"\1" + SECRET),
        segment(0xCC, SECRET),
    ],
    ids=["an unused DQT", "an unused DHT", "APP8", "LSE", "DAC"],
)
def test_tables_that_nobody_uses_hide_nothing(hidden: bytes) -> None:
    clean = rewritten(behind_soi(make_jpeg(16, 16), hidden))
    assert SECRET not in clean
    assert clean == rewritten(make_jpeg(16, 16))


def test_a_restart_interval_is_two_bytes() -> None:
    with pytest.raises(DamagedJpeg, match="restart interval"):
        canonical(behind_soi(make_jpeg(16, 16), segment(0xDD, b"\0\0" + SECRET)))
