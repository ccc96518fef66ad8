"""The headers of a JPEG as DICOM readers agree on them; entropy-coded bytes stay untouched.

PS3.5 A.4.1 wants an interchange format with its tables and recommends against JFIF. Everything
else that may hide in a JPEG is private to the patient or contradicts the data set: Exif with GPS
and an un-redacted thumbnail, XMP, IPTC, comments, C2PA claims, a film behind EOI. What stays are
the tables, the frame header, the scans. The colour space is told once, by Photometric
Interpretation, and decoders that look into the stream are told the same: YCbCr by component
identifiers 1, 2, 3 and the absence of an Adobe segment, RGB by an Adobe segment with transform 0.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from service.dicom import jpeg
from service.dicom.codestream import Buffer, Codestream
from service.dicom.jpeg import JpegHeader, Segment
from service.errors import DamagedJpeg

ADOBE_RGB: Final = bytes.fromhex("ffee000e") + b"Adobe" + bytes.fromhex("0064 0000 0000 00")

_TABLES = frozenset({jpeg.DQT, jpeg.DHT, jpeg.DAC, jpeg.DRI, jpeg.LSE})
_SOI = b"\xff\xd8"
_EOI = b"\xff\xd9"
_APP_NAMES = (
    (jpeg.APP0, b"JFIF\0", "JFIF"),
    (jpeg.APP0, b"JFXX\0", "JFIF thumbnail"),
    (jpeg.APP1, b"Exif\0", "Exif"),
    (jpeg.APP1, b"http://ns.adobe.com/x", "XMP"),
    (jpeg.APP2, b"ICC_PROFILE\0", "ICC profile"),
    (jpeg.APP2, b"MPF\0", "multi-picture index"),
    (0xEB, b"JP", "JUMBF (C2PA)"),
    (0xED, b"Photoshop", "IPTC (Photoshop)"),
    (jpeg.APP14, b"Adobe", "Adobe"),
    (jpeg.COM, b"", "comment"),
)


@dataclass(frozen=True, slots=True)
class Canonical:
    """A codestream with canonical headers, the process it now has, and what was changed."""

    codestream: Codestream
    process: int
    changes: tuple[str, ...]


def canonicalise(data: bytes, header: JpegHeader) -> Canonical:
    """Rewrite the headers of a JPEG that is otherwise fit for DICOM.

    An extended (SOF1) JPEG of 8 bits that uses baseline's tables only is baseline but for its
    marker, and is labelled so.

    Returns
    -------
    Canonical
        Views of `data` between a few new bytes, and a line for each thing removed or rewritten.

    Raises
    ------
    DamagedJpeg
        If the scan headers name components that the frame header doesn't have.
    """
    baseline = (
        header.process == 0xC1 and header.precision == 8 and _has_baseline_tables(data, header)
    )
    process = 0xC0 if baseline else header.process
    identifiers = _identifiers(header)
    pieces: list[Buffer] = [_SOI]
    if header.rgb and header.process != jpeg.SOF55:
        pieces.append(ADOBE_RGB)
    view = memoryview(data)
    for segment in header.segments:
        pieces += _kept(view, segment, process, identifiers)
    pieces.append(_EOI)
    changes = [*_removed(data, header), *_rewritten(header, baseline, identifiers)]
    return Canonical(Codestream(tuple(_joined(pieces))), process, tuple(changes))


def _kept(
    view: memoryview, segment: Segment, process: int, identifiers: dict[int, int]
) -> Iterator[Buffer]:
    """Yield what remains of a segment."""
    marker = segment.marker
    if marker in _TABLES or _is_colour_transform(view, segment):
        table = bytes(view[segment.start : segment.end])
        yield _narrowed(table) if marker == jpeg.DQT and process == 0xC0 else table
    elif marker in jpeg.SOF_MARKERS:
        yield _frame(bytes(view[segment.start : segment.end]), process, identifiers)
    elif marker == jpeg.SOS:
        yield _scan(bytes(view[segment.start : segment.end]), segment.start, identifiers)
        yield view[segment.end : segment.scan_end]


def _is_colour_transform(view: memoryview, segment: Segment) -> bool:
    """Tell whether this is HP's APP8 segment, which a JPEG-LS decoder needs for right colours."""
    return segment.marker == jpeg.APP8 and bytes(view[segment.payload])[:4] == b"mrfx"


def _identifiers(header: JpegHeader) -> dict[int, int]:
    """Map each component identifier to its new one."""
    old = [component.identifier for component in header.components]
    if len(set(old)) != len(old):
        raise DamagedJpeg("two components have the same identifier", reason="malformed")
    return {value: value if header.rgb else index for index, value in enumerate(old, 1)}


def _frame(segment: bytes, process: int, identifiers: dict[int, int]) -> bytes:
    """Rewrite ``FF SOF, Lf u16, P u8, Y u16, X u16, Nf u8, Nf x (C, HV, Tq)``."""
    frame = bytearray(segment)
    frame[1] = process
    for index in range(10, len(frame), 3):
        frame[index] = identifiers[frame[index]]
    return bytes(frame)


def _scan(segment: bytes, start: int, identifiers: dict[int, int]) -> bytes:
    """Rewrite the selectors in ``FF DA, Ls u16, Ns u8, Ns x (Cs, TdTa), Ss, Se, AhAl``."""
    scan = bytearray(segment)
    for index in range(5, len(scan) - 3, 2):
        if scan[index] not in identifiers:
            detail = "a scan header names a component that the frame header doesn't have"
            raise DamagedJpeg(detail, reason="malformed", where=f"byte {start}")
        scan[index] = identifiers[scan[index]]
    return bytes(scan)


def quantization_tables(segment: bytes) -> Iterator[tuple[int, int, tuple[int, ...]]]:
    """Yield precision (0 or 1), destination and the 64 values of each table in a DQT segment.

    Raises
    ------
    DamagedJpeg
        If the segment's length doesn't fit its tables (T.81 B.2.4.1).
    """
    position = 4
    while position < len(segment):
        precision, destination = segment[position] >> 4, segment[position] & 15
        form = struct.Struct(">64H" if precision else ">64B")
        if precision > 1 or position + 1 + form.size > len(segment):
            raise DamagedJpeg("a quantization table (DQT) is malformed", reason="malformed")
        yield precision, destination, form.unpack_from(segment, position + 1)
        position += 1 + form.size


def _narrowed(segment: bytes) -> bytes:
    """Write 16-bit quantization tables whose values all fit as 8-bit ones (T.81 B.2.4.1)."""
    tables = list(quantization_tables(segment))
    if not any(precision for precision, _, _ in tables):
        return segment
    body = b"".join(bytes([number, *values]) for _, number, values in tables)
    return b"\xff\xdb" + struct.pack(">H", 2 + len(body)) + body


def _has_baseline_tables(data: bytes, header: JpegHeader) -> bool:
    """Tell whether all tables are such as T.81 Table B.1 allows in baseline."""
    for segment in header.segments:
        whole = data[segment.start : segment.end]
        if segment.marker == jpeg.DQT:
            if any(max(values) > 255 for _, _, values in quantization_tables(whole)):
                return False
        elif segment.marker == jpeg.DHT and not _huffman_destinations(whole) <= {0, 1}:
            return False
    return True


def _huffman_destinations(segment: bytes) -> set[int]:
    """Return the destinations in ``FF C4, Lh u16, n x (TcTh u8, 16 counts u8, values)``."""
    destinations = set()
    position = 4
    while position + 17 <= len(segment):
        destinations.add(segment[position] & 15)
        position += 17 + sum(segment[position + 1 : position + 17])
    return destinations


def _removed(data: bytes, header: JpegHeader) -> Iterator[str]:
    """Name what goes, with its size."""
    sizes: dict[str, int] = {}
    for segment in header.segments:
        name = _removed_name(data, segment)
        if name:
            sizes[name] = sizes.get(name, 0) + segment.end - segment.start
    if header.trailing:
        sizes["what stood behind EOI"] = header.trailing
    yield from (f"removed {name} ({size} bytes)" for name, size in sizes.items())


def _removed_name(data: bytes, segment: Segment) -> str:
    kept = {jpeg.SOS, *_TABLES, *jpeg.SOF_MARKERS}
    if segment.marker in kept or _is_colour_transform(memoryview(data), segment):
        return ""
    payload = data[segment.payload][:32]
    for marker, start, name in _APP_NAMES:
        if segment.marker == marker and payload.startswith(start):
            return name
    if jpeg.APP0 <= segment.marker <= jpeg.APP15:
        return f"APP{segment.marker - jpeg.APP0}"
    return f"segment FF{segment.marker:02X}"


def _rewritten(header: JpegHeader, baseline: bool, identifiers: dict[int, int]) -> Iterator[str]:  # noqa: FBT001
    if baseline:
        yield "relabelled extended sequential (SOF1) as baseline (SOF0)"
    if any(old != new for old, new in identifiers.items()):
        yield "numbered the components from 1"
    if header.rgb and header.adobe_transform is None and header.process != jpeg.SOF55:
        yield "added an Adobe segment that says RGB"


def _joined(pieces: list[Buffer]) -> Iterator[Buffer]:
    """Join the runs of headers between the scans' bytes."""
    headers: list[Buffer] = []
    for piece in pieces:
        if isinstance(piece, bytes):
            headers.append(piece)
        else:
            yield b"".join(headers)
            yield piece
            headers = []
    yield b"".join(headers)
