"""What a JPEG says of itself, read from its markers; no pixel is ever decoded.

A JPEG (ITU-T T.81 Annex B) is a run of segments, each ``FF marker`` and, but for the few that
stand alone, a length and a payload:

    FFD8                      SOI, start of image
    FFE0..FFEF, FFFE          APPn and COM: JFIF, Exif, ICC, Adobe, everything private
    FFDB FFC4 FFDD            DQT, DHT, DRI: tables
    FFC0..FFCF (not C4 C8 CC) SOFn: the process, precision, rows, columns, components
    FFDA                      SOS: a scan header, and behind it the entropy-coded bytes, in which
                              FF is followed by 00 (stuffing) or D0..D7 (restart) only
    FFD9                      EOI, end of image

Segments are walked by their lengths. Searching for a marker's bytes would find those of the
thumbnail that hides in the Exif segment.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import gcd
from typing import Final, NamedTuple

from service.dicom import exif
from service.dicom.magic import find_start
from service.errors import DamagedJpeg

SOI: Final = 0xD8
EOI: Final = 0xD9
SOS: Final = 0xDA
DQT: Final = 0xDB
DNL: Final = 0xDC
DRI: Final = 0xDD
DHP: Final = 0xDE
EXP: Final = 0xDF
DHT: Final = 0xC4
DAC: Final = 0xCC
APP0: Final = 0xE0
APP1: Final = 0xE1
APP2: Final = 0xE2
APP8: Final = 0xE8
APP14: Final = 0xEE
APP15: Final = 0xEF
COM: Final = 0xFE
SOF55: Final = 0xF7  # JPEG-LS (ITU-T T.87)
LSE: Final = 0xF8  # JPEG-LS parameters

SOF_MARKERS: Final = frozenset(range(0xC0, 0xD0)) - {DHT, 0xC8, DAC} | {SOF55}
LOSSLESS_MARKERS: Final = frozenset({0xC3, 0xC7, 0xCB, 0xCF, SOF55})
ARITHMETIC_MARKERS: Final = frozenset(range(0xC9, 0xD0)) - {DAC}
HIERARCHICAL_MARKERS: Final = frozenset({0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF})

MAX_SEGMENTS: Final = 20_000

_STANDALONE = frozenset({0x01, SOI, EOI, *range(0xD0, 0xD8)})
# FF FF 00 is no marker, but decoders disagree on it, and nothing writes it.
_MARKER_IN_SCAN = re.compile(rb"\xff(?:[^\xff\x00\xd0-\xd7]|\xff\x00)")
_LS_MARKER_IN_SCAN = re.compile(rb"\xff[\x80-\xff]")  # T.87 stuffs a bit, not a byte
_SOI = b"\xff\xd8"
_NOT_FILL = re.compile(rb"[^\xff]")


class Component(NamedTuple):
    """One colour component of the frame header; sampling factors are 1 to 4."""

    identifier: int
    horizontal: int
    vertical: int
    quantization_table: int


class Segment(NamedTuple):
    """One marker segment: bytes ``start`` (its FF) to ``end``.

    Behind a scan header the entropy-coded bytes run on to `scan_end`; elsewhere `scan_end` is
    `end`.
    """

    marker: int
    start: int
    end: int
    scan_end: int

    @property
    def payload(self) -> slice:
        """The bytes behind marker and length."""
        return slice(self.start + 4, self.end)


@dataclass(frozen=True)
class JpegHeader:
    """Everything that the markers of one JPEG say.

    Attributes
    ----------
    process
        The SOF marker's second byte: 0xC0 baseline, 0xC2 progressive, 0xF7 JPEG-LS, ...
    precision
        Bits per sample.
    rows, columns
        As coded, before any turn by `orientation`; `rows` is 0 if neither the frame header nor a
        DNL segment says how many there are.
    adobe_transform
        The colour transform of the Adobe APP14 segment: 0 none, 1 YCbCr, 2 YCCK; None without.
    aspect_ratio
        Height and width of a pixel by the JFIF segment; None where they are alike or unknown.
    predictor
        Ss of the first scan header: the predictor of a lossless process; NEAR for JPEG-LS.
    orientation
        EXIF, 1 to 8; 1 where it is absent or invalid.
    icc_profile
        The joined APP2 chunks; None without them or with one missing.
    end
        Offset behind EOI; the length of the file where EOI is missing (`complete` tells).
    size
        Length of the file in bytes.
    repairs
        What has to be mended, without loss, to make it a JPEG by the book.
    """

    process: int
    precision: int
    rows: int
    columns: int
    components: tuple[Component, ...]
    jfif: bool
    adobe_transform: int | None
    aspect_ratio: tuple[int, int] | None
    predictor: int
    tags: dict[tuple[int, int], exif.Value]
    icc_profile: bytes | None
    segments: tuple[Segment, ...]
    complete: bool
    end: int
    size: int
    repairs: tuple[str, ...]

    @property
    def trailing(self) -> int:
        """Number of bytes behind EOI."""
        return self.size - self.end

    @cached_property
    def orientation(self) -> int:
        """EXIF orientation, 1 to 8."""
        return exif.orientation(self.tags)

    @property
    def hierarchical(self) -> bool:
        """Whether the JPEG is a pyramid of frames (T.81 Annex J)."""
        return any(
            s.marker in HIERARCHICAL_MARKERS or s.marker in {DHP, EXP} for s in self.segments
        )

    @property
    def lossless(self) -> bool:
        """Whether the process reproduces the samples exactly."""
        return self.process in LOSSLESS_MARKERS and not (self.process == SOF55 and self.predictor)

    @property
    def scans(self) -> tuple[Segment, ...]:
        """The scan headers, in order."""
        return tuple(segment for segment in self.segments if segment.marker == SOS)

    @property
    def rgb(self) -> bool:
        """Whether three components are red, green and blue rather than YCbCr.

        The rule of libjpeg and dcm4che: JFIF means YCbCr, else the Adobe transform decides, else
        the identifiers. A lossless process without any clue codes RGB.
        """
        if len(self.components) != 3 or self.jfif:
            return False
        if self.adobe_transform is not None:
            return self.adobe_transform == 0
        identifiers = bytes(component.identifier for component in self.components)
        return identifiers == b"RGB" or self.process in LOSSLESS_MARKERS


def inspect(data: bytes) -> JpegHeader:
    """Read the markers of a JPEG.

    Time and memory are linear in the length of `data`.

    Raises
    ------
    NotAJpeg
        If the bytes are of another format, which the text names where it is known.
    DamagedJpeg
        If a segment is cut, has an impossible length or contents, or if there is no frame or no
        scan; `where` is the byte offset.
    """
    start = find_start(data)
    behind_soi = start + 4 if data.startswith(_SOI * 2, start) else start + 2
    segments, end = _walk(data, behind_soi)
    frame = _frame(segments)
    scan = next((s for s in segments if s.marker == SOS), None)
    if scan is None:
        raise DamagedJpeg("the JPEG ends before its first scan", reason="truncated")
    precision, rows, columns, components = _frame_header(data, frame)
    return JpegHeader(
        process=frame.marker,
        precision=precision,
        rows=rows or _number_of_lines(data, segments),
        columns=columns,
        components=components,
        jfif=any(s.marker == APP0 and data[s.payload][:5] == b"JFIF\0" for s in segments),
        adobe_transform=_adobe_transform(data, segments),
        aspect_ratio=_aspect_ratio(data, segments),
        predictor=_predictor(data, scan),
        tags=_tags(data, segments),
        icc_profile=_icc_profile(data, segments),
        segments=segments,
        complete=end is not None,
        end=len(data) if end is None else end,
        size=len(data),
        repairs=tuple(_repairs(data, start, segments, complete=end is not None, rows=rows)),
    )


def _walk(data: bytes, position: int) -> tuple[tuple[Segment, ...], int | None]:
    """Return the segments between SOI and EOI, and the offset behind EOI, None without one."""
    segments: list[Segment] = []
    marker_in_scan = _MARKER_IN_SCAN
    while (start := _marker(data, position, segments)) is not None:
        marker = data[start + 1]
        if marker == EOI:
            return tuple(segments), start + 2
        segment = _segment(data, start, marker_in_scan)
        if len(segments) >= MAX_SEGMENTS:
            raise _damaged(f"there are more than {MAX_SEGMENTS} segments", start)
        if marker == SOF55:
            marker_in_scan = _LS_MARKER_IN_SCAN
        segments.append(segment)
        position = segment.scan_end
    if not any(segment.marker == SOS for segment in segments):
        raise DamagedJpeg("the JPEG ends before its first scan", reason="truncated")
    return tuple(segments), None


def _marker(data: bytes, position: int, segments: list[Segment]) -> int | None:
    """Return the offset of the next marker's FF, over fill bytes; None at the end of the data."""
    if position >= len(data) - 1:
        return None
    if data[position] != 0xFF:
        raise _damaged("bytes stand between two segments", position, reason="garbage")
    behind_fill = _NOT_FILL.search(data, position)
    if not behind_fill:
        return None
    start = behind_fill.start()
    marker = data[start]
    if marker in _STANDALONE and marker != EOI:
        name = "a second SOI" if marker == SOI else f"marker FF{marker:02X}"
        raise _damaged(f"{name} stands where it can't", start - 1, reason="misplaced-marker")
    if marker == 0 or (marker < 0xC0 and not segments):
        raise _damaged(f"FF{marker:02X} is no marker", start - 1, reason="garbage")
    return start - 1


def _segment(data: bytes, start: int, marker_in_scan: re.Pattern[bytes]) -> Segment:
    marker = data[start + 1]
    if start + 4 > len(data):
        raise DamagedJpeg("the JPEG ends within a segment", reason="truncated", where=_at(start))
    (length,) = struct.unpack_from(">H", data, start + 2)
    end = start + 2 + length
    if length < 2:
        raise _damaged(f"segment FF{marker:02X} has an impossible length", start)
    if end > len(data):
        raise DamagedJpeg("the JPEG ends within a segment", reason="truncated", where=_at(start))
    if marker != SOS:
        return Segment(marker, start, end, end)
    found = marker_in_scan.search(data, end)
    scan_end = found.start() if found else len(data)
    if scan_end > end and data[scan_end - 1] == 0xFF:  # fill bytes before the marker
        scan_end = end + len(data[end:scan_end].rstrip(b"\xff"))
    return Segment(marker, start, end, scan_end)


def _repairs(
    data: bytes, start: int, segments: tuple[Segment, ...], *, complete: bool, rows: int
) -> Iterator[str]:
    if start:
        yield f"removed {start} bytes in front of SOI"
    if data.startswith(_SOI * 2, start):
        yield "removed a second SOI"
    if not rows and _number_of_lines(data, segments):
        yield "took the number of rows from the DNL segment"
    if not complete:
        yield "added the missing EOI"


def _frame(segments: tuple[Segment, ...]) -> Segment:
    """Return the frame header; only a hierarchical JPEG, headed by DHP, may have several."""
    frames = [s for s in segments if s.marker in SOF_MARKERS]
    if not frames:
        raise DamagedJpeg("the JPEG has no frame header (SOF)", reason="no-frame")
    if len(frames) > 1 and not any(s.marker == DHP for s in segments):
        raise _damaged("the JPEG has a second frame header (SOF)", frames[1].start)
    return frames[0]


def _frame_header(data: bytes, frame: Segment) -> tuple[int, int, int, tuple[Component, ...]]:
    """Read ``P u8, Y u16, X u16, Nf u8, Nf x (C u8, H/V u4 u4, Tq u8)``: T.81 B.2.2."""
    payload = data[frame.payload]
    if len(payload) < 6 or len(payload) != 6 + 3 * payload[5] or not payload[5]:
        raise _damaged("the frame header (SOF) has an impossible length", frame.start)
    precision, rows, columns, count = struct.unpack_from(">BHHB", payload)
    components = tuple(
        Component(identifier, sampling >> 4, sampling & 15, table)
        for identifier, sampling, table in struct.iter_unpack("BBB", payload[6 : 6 + 3 * count])
    )
    if columns == 0:
        raise _damaged("the image has no columns", frame.start, reason="no-columns")
    if not all(1 <= c.horizontal <= 4 and 1 <= c.vertical <= 4 for c in components):
        raise _damaged("a sampling factor isn't 1 to 4", frame.start)
    return precision, rows, columns, components


def _predictor(data: bytes, scan: Segment) -> int:
    """Check ``Ns u8, Ns x (Cs u8, Td/Ta u4 u4), Ss u8, Se u8, Ah/Al`` (T.81 B.2.3); return Ss."""
    payload = data[scan.payload]
    if not payload or len(payload) != 4 + 2 * payload[0] or not 1 <= payload[0] <= 4:
        raise _damaged("the scan header (SOS) has an impossible length", scan.start)
    return payload[1 + 2 * payload[0]]


def _number_of_lines(data: bytes, segments: tuple[Segment, ...]) -> int:
    payloads = (data[s.payload] for s in segments if s.marker == DNL)
    return next((struct.unpack(">H", p)[0] for p in payloads if len(p) == 2), 0)


def _aspect_ratio(data: bytes, segments: tuple[Segment, ...]) -> tuple[int, int] | None:
    r"""Return height : width of a pixel from ``"JFIF\0" version u16 units u8 X u16 Y u16``.

    X and Y are densities, so that the pixel's height is to its width as X is to Y; above 8 : 1
    they are taken for an error.
    """
    payloads = [data[s.payload] for s in segments if s.marker == APP0]
    jfif = next((p for p in payloads if p[:5] == b"JFIF\0" and len(p) >= 12), None)
    if jfif is None:
        return None
    across, down = struct.unpack_from(">HH", jfif, 8)
    common = gcd(across, down)
    if not across or not down or across == down or not 1 / 8 <= across / down <= 8:
        return None
    return across // common, down // common


def _adobe_transform(data: bytes, segments: tuple[Segment, ...]) -> int | None:
    """Return the last byte of ``"Adobe" version u16 flags0 u16 flags1 u16 transform u8``."""
    payloads = (data[s.payload] for s in segments if s.marker == APP14)
    return next((p[11] for p in payloads if len(p) >= 12 and p[:5] == b"Adobe"), None)


def _tags(data: bytes, segments: tuple[Segment, ...]) -> dict[tuple[int, int], exif.Value]:
    payloads = (data[s.payload] for s in segments if s.marker == APP1)
    block = next((p[6:] for p in payloads if p[:6] == b"Exif\0\0"), b"")
    return dict(exif.parse(block))


def _icc_profile(data: bytes, segments: tuple[Segment, ...]) -> bytes | None:
    r"""Join the chunks ``"ICC_PROFILE\0" number u8 count u8 data`` (ICC.1 B.4)."""
    payloads = [data[s.payload] for s in segments if s.marker == APP2]
    chunks = {p[12]: p[14:] for p in payloads if len(p) > 14 and p[:12] == b"ICC_PROFILE\0"}
    counts = {p[13] for p in payloads if len(p) > 14 and p[:12] == b"ICC_PROFILE\0"}
    if not chunks or counts != {len(chunks)} or set(chunks) != set(range(1, len(chunks) + 1)):
        return None
    return b"".join(chunks[number] for number in sorted(chunks))


def _at(offset: int) -> str:
    return f"byte {offset}"


def _damaged(detail: str, offset: int, reason: str = "malformed") -> DamagedJpeg:
    return DamagedJpeg(detail, reason=reason, where=_at(offset))
