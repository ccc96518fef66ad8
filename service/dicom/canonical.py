"""The headers of a JPEG as DICOM readers agree on them; entropy-coded bytes stay untouched.

PS3.5 A.4.1 wants an interchange format with its tables and recommends against JFIF. Everything
else that may hide in a JPEG is private to the patient or contradicts the data set: Exif with GPS
and an un-redacted thumbnail, XMP, IPTC, comments, C2PA claims, a film behind EOI. What stays are
the tables, the frame header, the scans. The colour space is told once, by Photometric
Interpretation, and decoders that look into the stream are told the same: YCbCr by component
identifiers 1, 2, 3 and the absence of an Adobe segment, RGB by an Adobe segment with transform 0.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final, NamedTuple

from service.dicom import jpeg, scans, tables
from service.dicom.codestream import Buffer, Codestream
from service.dicom.huffman import STANDARD_TABLES
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


class Canonical(NamedTuple):
    """A codestream with canonical headers, the process it now has, and what was changed."""

    codestream: Codestream
    process: int
    changes: tuple[str, ...]


def canonicalise(data: bytes, header: JpegHeader) -> Canonical:
    """Rewrite the headers of a JPEG that is otherwise fit for DICOM.

    An extended (SOF1) JPEG of 8 bits that uses baseline's tables only is baseline but for its
    marker, and is labelled so; a baseline one with other tables is extended.

    Returns
    -------
    Canonical
        Views of `data` between a few new bytes, and a line for each thing removed or rewritten.

    Raises
    ------
    DamagedJpeg
        If the scan headers name components that the frame header doesn't have.
    """
    process = _process(data, header)
    identifiers = _identifiers(header)
    missing = _missing_tables(data, header)
    now = replace(header, process=process)
    used = scans.used_huffman_tables(data, header)
    pieces: list[Buffer] = [_SOI, _adobe(header), missing]
    for segment in header.segments:
        pieces += _kept(data, segment, now, identifiers, used)
    pieces.append(_EOI)
    changes = [
        *header.repairs,
        *(["added the standard Huffman tables"] if missing else []),
        *_removed(data, header),
        *_relabelled(header.process, process),
        *_rewritten(data, header, identifiers),
    ]
    return Canonical(Codestream(tuple(_joined(pieces))), process, tuple(changes))


def _process(data: bytes, header: JpegHeader) -> int:
    """Return the process that the tables of a sequential JPEG of 8 bits allow."""
    if header.process not in {0xC0, 0xC1} or header.precision != 8:
        return header.process
    return 0xC0 if _has_baseline_tables(data, header) else 0xC1


def _kept(
    data: bytes,
    segment: Segment,
    header: JpegHeader,
    identifiers: dict[int, int],
    used: set[tuple[int, int]],
) -> Iterator[Buffer]:
    """Yield what remains of a segment."""
    marker = segment.marker
    if marker in _TABLES:
        yield tables.kept(data, segment, header, used)
    elif _is_colour_transform(data, segment, header):
        yield data[segment.start : segment.end]
    elif marker in jpeg.SOF_MARKERS:
        yield _frame(data[segment.start : segment.end], header, identifiers)
    elif marker == jpeg.SOS:
        yield _scan(data[segment.start : segment.end], segment.start, identifiers)
        yield memoryview(data)[segment.end : segment.scan_end]


def _is_colour_transform(data: bytes, segment: Segment, header: JpegHeader) -> bool:
    """Tell whether this is HP's APP8 segment, which a JPEG-LS decoder needs for right colours."""
    payload = data[segment.payload] if segment.marker == jpeg.APP8 else b""
    return header.process == jpeg.SOF55 and len(payload) == 5 and payload[:4] == b"mrfx"


def _identifiers(header: JpegHeader) -> dict[int, int]:
    """Map each component identifier to its new one."""
    old = [component.identifier for component in header.components]
    if len(set(old)) != len(old):
        raise DamagedJpeg("two components have the same identifier", reason="malformed")
    return {value: value if header.rgb else index for index, value in enumerate(old, 1)}


def _adobe(header: JpegHeader) -> bytes:
    """Return the Adobe segment that decoders need: for RGB, and to tell YCCK from CMYK."""
    if len(header.components) == 4 and header.adobe_transform is not None:
        return ADOBE_RGB[:-1] + bytes([header.adobe_transform])
    return ADOBE_RGB if header.rgb and header.process != jpeg.SOF55 else b""


def _missing_tables(data: bytes, header: JpegHeader) -> bytes:
    """Return the Huffman tables that a frame of a film (MJPEG) leaves out; A.4.1 wants them in."""
    sequential = header.process in {0xC0, 0xC1} and header.precision == 8
    if not sequential:
        return b""
    defined = {
        (kind, destination)
        for segment in header.segments
        if segment.marker == jpeg.DHT
        for kind, destination, _ in tables.huffman_tables(data[segment.start : segment.end])
    }
    return b"" if scans.used_huffman_tables(data, header) <= defined else STANDARD_TABLES


def _frame(segment: bytes, header: JpegHeader, identifiers: dict[int, int]) -> bytes:
    """Rewrite ``FF SOF, Lf u16, P u8, Y u16, X u16, Nf u8, Nf x (C, HV, Tq)``."""
    frame = bytearray(segment)
    frame[1] = header.process
    frame[5:7] = header.rows.to_bytes(2, "big")
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


def _has_baseline_tables(data: bytes, header: JpegHeader) -> bool:
    """Tell whether all tables that are used are such as T.81 Table B.1 allows in baseline."""
    if any(destination > 1 for _, destination in scans.used_huffman_tables(data, header)):
        return False
    used = {component.quantization_table for component in header.components}
    return all(
        max(values) < 256
        for segment in header.segments
        if segment.marker == jpeg.DQT
        for _, destination, values in tables.quantization_tables(data[segment.start : segment.end])
        if destination in used
    )


def _removed(data: bytes, header: JpegHeader) -> Iterator[str]:
    """Name what goes, with its size."""
    sizes: dict[str, int] = {}
    for segment in header.segments:
        name = _removed_name(data, segment, header)
        if name:
            sizes[name] = sizes.get(name, 0) + segment.end - segment.start
    if header.trailing:
        sizes["what stood behind EOI"] = header.trailing
    yield from (f"removed {name} ({size} bytes)" for name, size in sizes.items())
    if "Exif" in sizes and not header.tags:
        yield "found nothing that can be read in Exif"


def _removed_name(data: bytes, segment: Segment, header: JpegHeader) -> str:
    kept = {jpeg.SOS, *_TABLES, *jpeg.SOF_MARKERS}
    if segment.marker in kept or _is_colour_transform(data, segment, header):
        return ""
    payload = data[segment.payload][:32]
    for marker, start, name in _APP_NAMES:
        if segment.marker == marker and payload.startswith(start):
            return name
    if jpeg.APP0 <= segment.marker <= jpeg.APP15:
        return f"APP{segment.marker - jpeg.APP0}"
    return f"segment FF{segment.marker:02X}"


def _relabelled(old: int, new: int) -> Iterator[str]:
    names = {0xC0: "baseline (SOF0)", 0xC1: "extended sequential (SOF1)"}
    if old != new:
        yield f"relabelled {names[old]} as {names[new]}"


def _rewritten(data: bytes, header: JpegHeader, identifiers: dict[int, int]) -> Iterator[str]:
    if _process(data, header) == 0xC0 and _has_wide_tables(data, header):
        yield "wrote quantization tables of 16 bits with 8"
    if any(old != new for old, new in identifiers.items()):
        yield "numbered the components from 1"
    if header.rgb and header.adobe_transform is None and header.process != jpeg.SOF55:
        yield "added an Adobe segment that says RGB"


def _has_wide_tables(data: bytes, header: JpegHeader) -> bool:
    return any(
        precision
        for segment in header.segments
        if segment.marker == jpeg.DQT
        for precision, _, _ in tables.quantization_tables(data[segment.start : segment.end])
    )


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
