"""What is broken is mended without loss and named, or refused with its place: row by row."""

import struct
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from pydicom import dcmread

from service.dicom.huffman import STANDARD_TABLES
from service.dicom.jpeg import inspect
from service.dicom.soundness import MAX_SCANS
from service.errors import DamagedJpeg, JpegstowError, NotAJpeg, TooLarge, UnsupportedJpeg
from tests.coefficients import coefficients
from tests.decoding import READERS, furthest, jpegtran, psnr, sound
from tests.describing import CAPTURE, described, dicom_file, normalised
from tests.jpegs import make_jpeg
from tests.streams import (
    EOI,
    SOI,
    behind_soi,
    frame,
    of_process,
    put_together,
    relabelled,
    scan,
    segment,
    stream,
    take_apart,
    without,
)

WHOLE = make_jpeg(97, 61)
PROGRESSIVE = make_jpeg(97, 61, progressive=True)
CLEAN = bytes(normalised(WHOLE).codestream)
THUMBNAIL = make_jpeg(16, 12, seed=3)
SOS, DQT, DHT, DNL, SOF0 = 0xDA, 0xDB, 0xC4, 0xDC, 0xC0
JFIF = "removed JFIF (18 bytes)"


def with_payload(data: bytes, marker: int, change: Callable[[bytes], bytes]) -> bytes:
    pieces = [
        piece._replace(payload=change(piece.payload)) if piece.marker == marker else piece
        for piece in take_apart(data)
    ]
    return put_together(pieces)


def without_rows(data: bytes, *, lines: int = 0) -> bytes:
    """Leave the number of rows to a DNL segment behind the first scan (T.81 B.2.5)."""
    data = with_payload(data, SOF0, lambda payload: payload[:1] + b"\0\0" + payload[3:])
    return data[:-2] + (segment(DNL, struct.pack(">H", lines)) if lines else b"") + EOI


def with_fill_bytes(data: bytes) -> bytes:
    """Put FF in front of every marker, those of restarts and the end too (T.81 B.1.1.2)."""
    filled = bytearray(SOI)
    for piece in take_apart(data):
        coded = piece.coded
        for number in range(8):
            marker = bytes([0xFF, 0xD0 + number])
            coded = coded.replace(marker, b"\xff" + marker)
        filled += b"\xff\xff" + segment(piece.marker, piece.payload) + coded
    return bytes(filled) + b"\xff" + EOI


def wide(data: bytes, added: int = 0) -> bytes:
    """Write the quantization tables with 16 bits, and make their values larger."""

    def widened(payload: bytes) -> bytes:
        tables = [payload[at : at + 65] for at in range(0, len(payload), 65)]
        return b"".join(
            bytes([table[0] | 16]) + struct.pack(">64H", *(value + added for value in table[1:]))
            for table in tables
        )

    return with_payload(data, DQT, widened)


MENDED = {
    "no EOI": (WHOLE[:-2], ["added the missing EOI", JFIF]),
    "half of EOI": (WHOLE[:-1], ["added the missing EOI", JFIF]),
    "bytes in front": (
        b"\r\nContent: x\r\n\r\n" + WHOLE,
        ["removed 16 bytes in front of SOI", JFIF],
    ),
    "a film behind": (
        WHOLE + b"\0\0\0\x18ftypmp42" + bytes(500),
        [JFIF, "removed what stood behind EOI (512 bytes)"],
    ),
    "a second picture behind": (
        WHOLE + THUMBNAIL,
        [JFIF, f"removed what stood behind EOI ({len(THUMBNAIL)} bytes)"],
    ),
    "rows in DNL": (
        without_rows(WHOLE, lines=61),
        ["took the number of rows from the DNL segment", JFIF, "removed segment FFDC (6 bytes)"],
    ),
    "two SOI": (SOI + WHOLE, ["removed a second SOI", JFIF]),
    "a thumbnail": (
        behind_soi(WHOLE, segment(0xE1, b"Exif\0\0" + THUMBNAIL)),
        [
            f"removed Exif ({len(THUMBNAIL) + 10} bytes)",
            JFIF,
            "found nothing that can be read in Exif",
        ],
    ),
    "16-bit tables": (wide(WHOLE), [JFIF, "wrote quantization tables of 16 bits with 8"]),
    "extended": (
        relabelled(WHOLE, 0xC1),
        [JFIF, "relabelled extended sequential (SOF1) as baseline (SOF0)"],
    ),
}


@pytest.mark.parametrize("damage", MENDED)
def test_what_can_be_mended_without_loss_is_mended_and_named(damage: str) -> None:
    data, changes = MENDED[damage]
    made = normalised(data)
    assert bytes(made.codestream) == CLEAN
    assert sorted(made.changes) == sorted(changes)


def test_a_progressive_jpeg_without_eoi_is_whole_if_its_last_scan_is() -> None:
    made = normalised(PROGRESSIVE[:-2])
    assert made.codestream == normalised(PROGRESSIVE).codestream
    assert made.changes[0] == "added the missing EOI"


def test_a_progressive_jpeg_cut_between_two_scans_is_refused() -> None:
    """Each of these pictures decodes without a warning, and is a blurred one."""
    pieces = list(take_apart(PROGRESSIVE))
    ends = [number for number, piece in enumerate(pieces, 1) if piece.marker == SOS]
    assert len(ends) > 5
    for end in ends[:-1]:
        for cut in (put_together(pieces[:end]), put_together(pieces[:end])[:-2]):
            with pytest.raises(DamagedJpeg, match="don't code all coefficients") as caught:
                normalised(cut)
            assert caught.value.reason == "truncated"


def test_a_scan_for_each_component_is_whole_only_with_all_of_them() -> None:
    pieces = list(take_apart(make_jpeg(40, 24, "L")))
    tables = b"".join(segment(p.marker, p.payload) for p in pieces if p.marker in {DQT, DHT})
    (coded,) = (piece.coded for piece in pieces if piece.marker == SOS)
    head = tables + frame(size=(24, 40), sampling=[0x11] * 3)
    scans = [scan(bytes([n]), coded=coded) for n in (1, 2, 3)]
    assert normalised(stream(head, *scans)[:-2]).changes[0] == "added the missing EOI"
    with pytest.raises(DamagedJpeg, match="all components"):
        normalised(stream(head, *scans[:2]))


def test_a_huffman_table_that_a_film_leaves_out_is_put_in(tmp_path: Path) -> None:
    """Frames of MJPEG are decoded by libjpeg-turbo, and by nobody else without their tables."""
    plain = without(make_jpeg(97, 61), DHT)
    made = described(plain)
    assert "added the standard Huffman tables" in made.changes
    assert STANDARD_TABLES in bytes(made.instance.codestream)
    (tmp_path / "a.dcm").write_bytes(dicom_file(made))
    for name, reader in READERS.items():
        assert furthest(reader(tmp_path / "a.dcm"), sound(WHOLE)) <= 5, name


def test_a_single_missing_huffman_table_is_put_in_too() -> None:
    pieces = list(take_apart(WHOLE))
    last = max(number for number, piece in enumerate(pieces) if piece.marker == DHT)
    made = normalised(put_together(pieces[:last] + pieces[last + 1 :]))
    assert "added the standard Huffman tables" in made.changes
    assert furthest(sound(bytes(made.codestream)), sound(WHOLE)) == 0


def test_fill_bytes_are_no_damage() -> None:
    data = make_jpeg(97, 61, restart_blocks=3)
    made = normalised(with_fill_bytes(data))
    assert furthest(sound(bytes(made.codestream)), sound(data)) == 0
    assert all(
        (one == other).all()
        for one, other in zip(
            coefficients(bytes(normalised(data).codestream)), coefficients(data), strict=True
        )
    )


def test_a_frame_of_odd_length_is_padded_behind_eoi(tmp_path: Path) -> None:
    lengths = set()
    for seed in range(6):
        made = described(make_jpeg(40, 24, seed=seed))
        (tmp_path / "a.dcm").write_bytes(dicom_file(made))
        data = dcmread(tmp_path / "a.dcm").PixelData
        size = len(made.instance.codestream)
        frame_ = data[16 : 16 + size + size % 2]
        lengths.add(size % 2)
        assert struct.unpack_from("<I", data, 12)[0] == size + size % 2
        assert frame_ == bytes(made.instance.codestream) + b"\0" * (size % 2)
    assert lengths == {0, 1}


@pytest.mark.parametrize("kind", ["grey", "colour"])
def test_tables_that_need_16_bits_are_kept_where_dicom_has_a_place_for_them(kind: str) -> None:
    """JPEG Extended takes them, but grey only (PS3.5 Table 8.2.1-1)."""
    data = wide(make_jpeg(97, 61, "L" if kind == "grey" else "RGB"), added=250)
    for process in (0xC0, 0xC1):
        labelled = relabelled(data, process)
        made = normalised(labelled)
        said = made.encapsulation
        if kind == "grey":
            assert (said.transfer_syntax[-2:], said.bits_allocated) == ("51", 8)
            assert made.derivation == ""
            assert furthest(sound(bytes(made.codestream)), sound(labelled)) == 0
        else:
            assert said.transfer_syntax[-2:] == "50"
            assert "quantization tables have 16 bits" in made.derivation
            assert psnr(sound(bytes(made.codestream)), sound(labelled)) > 40


def only_frame(process: int, components: bytes = b"\1", precision: int = 8) -> bytes:
    return of_process(process, components, precision=precision)


def cut_in(marker: int, data: bytes = WHOLE) -> bytes:
    """End a file within a segment."""
    start = data.index(bytes([0xFF, marker]))
    return data[: start + 8]


def with_length(data: bytes, marker: int, length: int) -> bytes:
    start = data.index(bytes([0xFF, marker]))
    return data[: start + 2] + struct.pack(">H", length) + data[start + 4 :]


def bomb(width: int, height: int, *, process: int = 0xC0) -> bytes:
    return stream(frame(process, size=(height, width)), scan(coded=bytes(9000)))


def many_scans() -> bytes:
    pieces = list(take_apart(PROGRESSIVE))
    last = max(number for number, piece in enumerate(pieces) if piece.marker == SOS)
    return put_together([*pieces, *[pieces[last]] * 2000])


def hierarchical() -> bytes:
    return behind_soi(of_process(0xC1), segment(0xDE, frame(0xC1, b"\1")[4:]))


REFUSED: dict[str, tuple[bytes, type[JpegstowError], str]] = {
    "empty": (b"", NotAJpeg, "empty"),
    "cut in its headers": (cut_in(DQT), DamagedJpeg, "truncated"),
    "cut before its scan": (WHOLE[: WHOLE.index(b"\xff\xda")], DamagedJpeg, "truncated"),
    "cut in its scan": (WHOLE[: len(WHOLE) * 3 // 4].rstrip(b"\xff"), DamagedJpeg, "damaged-scan"),
    "cut and closed": (
        WHOLE[: len(WHOLE) * 3 // 4].rstrip(b"\xff") + EOI,
        DamagedJpeg,
        "damaged-scan",
    ),
    "too much in front": (bytes(300) + WHOLE, NotAJpeg, "not-a-jpeg"),
    "two starts in front": (b"x\xff\xd8\xffy" + WHOLE, NotAJpeg, "not-a-jpeg"),
    "no rows": (without_rows(WHOLE), DamagedJpeg, "no-rows"),
    "no columns": (stream(frame(size=(16, 0)), scan()), DamagedJpeg, "no-columns"),
    "no frame": (without(WHOLE, SOF0), DamagedJpeg, "no-frame"),
    "two frames": (behind_soi(WHOLE, frame()), DamagedJpeg, "malformed"),
    "no quantization": (without(WHOLE, DQT), DamagedJpeg, "damaged-scan"),
    "a length of 0": (with_length(WHOLE, DQT, 0), DamagedJpeg, "malformed"),
    "a length too long": (with_length(WHOLE, DQT, 60_000), DamagedJpeg, "truncated"),
    "a length too short": (with_length(WHOLE, DQT, 40), DamagedJpeg, "garbage"),
    "bytes between segments": (
        WHOLE.replace(b"\xff\xdb", b"junk\xff\xdb", 1),
        DamagedJpeg,
        "garbage",
    ),
    "a third SOI": (SOI * 2 + WHOLE, DamagedJpeg, "misplaced-marker"),
    "too many pixels": (bomb(65_500, 65_500), TooLarge, "too-many-pixels"),
    "too few bytes": (bomb(12_000, 12_000), DamagedJpeg, "truncated"),
    "too few progressive bytes": (bomb(12_000, 12_000, process=0xC2), DamagedJpeg, "truncated"),
    "too few arithmetic bytes": (bomb(20_000, 10_000, process=0xC9), DamagedJpeg, "truncated"),
    "too many scans": (many_scans(), TooLarge, "too-many-scans"),
    "too many samples in all scans": (
        stream(frame(0xC2, size=(8000, 12_000)), scan(coded=bytes(300_000)), *[scan()] * 6),
        TooLarge,
        "too-many-scans",
    ),
    "a scan of nobody": (
        with_payload(WHOLE, SOS, lambda p: p[:1] + b"\x07" + p[2:]),
        DamagedJpeg,
        "truncated",
    ),
    "two components alike": (
        with_payload(WHOLE, SOF0, lambda p: p[:9] + p[6:7] + p[10:]),
        DamagedJpeg,
        "malformed",
    ),
    "a table of half its values": (
        with_payload(WHOLE, DQT, lambda p: p[:40]),
        DamagedJpeg,
        "malformed",
    ),
    "9 bits": (only_frame(0xC0, precision=9), DamagedJpeg, "malformed"),
    "17 lossless bits": (only_frame(0xC3, precision=17), DamagedJpeg, "malformed"),
    "two components": (only_frame(0xC0, b"\1\2"), UnsupportedJpeg, "components"),
    "five components": (only_frame(0xC0, b"\1\2\3\4\5"), UnsupportedJpeg, "components"),
    "12 bits in colour": (only_frame(0xC1, b"\1\2\3", 12), UnsupportedJpeg, "12-bit"),
    "12 bits progressive": (only_frame(0xC2, precision=12), UnsupportedJpeg, "12-bit"),
    "hierarchical": (hierarchical(), UnsupportedJpeg, "hierarchical"),
    "differential": (only_frame(0xC5), UnsupportedJpeg, "hierarchical"),
    "lossless arithmetic": (only_frame(0xCB), UnsupportedJpeg, "arithmetic-lossless"),
    "lossless and cut": (only_frame(0xC3)[:-2], DamagedJpeg, "truncated"),
    "CMYK": (make_jpeg(24, 16, "CMYK"), UnsupportedJpeg, "cmyk"),
    "PNG": (b"\x89PNG\r\n\x1a\n" + bytes(20), NotAJpeg, "not-a-jpeg-png"),
    "HEIC": (b"\0\0\0\x18ftypheic" + bytes(20), NotAJpeg, "not-a-jpeg-heic"),
    "WebP": (b"RIFF\0\0\0\0WEBPVP8 ", NotAJpeg, "not-a-jpeg-webp"),
    "TIFF": (b"II*\0" + bytes(20), NotAJpeg, "not-a-jpeg-tiff"),
}


@pytest.mark.parametrize("damage", REFUSED)
def test_what_can_not_be_mended_is_refused_by_name(damage: str) -> None:
    data, kind, reason = REFUSED[damage]
    with pytest.raises(kind) as caught:
        described(data, CAPTURE)
    assert caught.value.reason == reason
    assert caught.value.http_status in {413, 415, 422}
    assert str(caught.value)[0].islower()


def test_the_most_scans_that_are_read_are_many_more_than_encoders_write() -> None:
    assert len([p for p in take_apart(PROGRESSIVE) if p.marker == SOS]) * 5 < MAX_SCANS


@pytest.mark.parametrize("name", ["too many pixels", "too few bytes", "too many scans"])
def test_a_bomb_is_refused_before_it_unfolds(name: str, tmp_path: Path) -> None:
    """With 300 MiB of address space beyond what an interpreter takes, and 2 seconds."""
    (tmp_path / "bomb.jpg").write_bytes(REFUSED[name][0])
    program = (
        "import resource, sys; from pathlib import Path; from tests.describing import normalised\n"
        "from service.errors import JpegstowError\n"
        "from tests.jpegs import make_jpeg; normalised(make_jpeg(progressive=True))\n"
        "pages = int(Path('/proc/self/statm').read_text().split()[0])\n"
        "limit = pages * resource.getpagesize() + 300 * 2**20\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (8, 8))\n"
        "used = resource.getrusage(resource.RUSAGE_SELF).ru_utime\n"
        "try: normalised(Path(sys.argv[1]).read_bytes())\n"
        "except JpegstowError as error: print(error.reason)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_utime - used < 2)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "bomb.jpg")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.split() == [REFUSED[name][2], "True"], done.stderr


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_picture_of_one_colour_has_bytes_enough(mode: str, progressive: bool) -> None:  # noqa: FBT001
    """The least that an encoder writes is not taken for a bomb."""
    file = BytesIO()
    Image.new(mode, (3000, 2000)).save(file, "JPEG", quality=1, progressive=progressive)
    assert normalised(file.getvalue()).encapsulation.rows == 2000


def test_stuffing_behind_fill_bytes_is_refused() -> None:
    """Most decoders read FF FF 00 as FF 00; one is off by 123 levels."""
    data = make_jpeg(97, 61, "L", quality=97)
    at = data.index(b"\xff\0", data.index(b"\xff\xda"))
    with pytest.raises(DamagedJpeg, match="FF00 is no marker"):
        inspect(data[:at] + b"\xff" + data[at:])


def test_a_cut_arithmetic_picture_is_refused() -> None:
    """Its decoder goes on with zeros, silently."""
    data = jpegtran(make_jpeg(160, 120), "-arithmetic")
    with pytest.raises(DamagedJpeg, match="can't be told"):
        normalised(data[: len(data) // 2])
