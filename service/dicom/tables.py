"""The tables of a JPEG: T.81 B.2.4. Only those that are used stay; others could hold anything."""

import struct
from collections.abc import Iterator

from service.dicom import jpeg
from service.dicom.jpeg import JpegHeader
from service.errors import DamagedJpeg, UnsupportedJpeg

_NARROW, _WIDE = struct.Struct(">64B"), struct.Struct(">64H")
# Four destinations of each kind; a segment that defines one twice makes work for nothing.
_LONGEST_DQT = 4 + 4 * (1 + _WIDE.size)  # bytes
_MOST_HUFFMAN_TABLES = 8


def kept(
    data: bytes, segment: jpeg.Segment, header: JpegHeader, used: set[tuple[int, int]]
) -> bytes:
    """Return what remains of a table segment, empty if nothing does.

    Quantization tables of 16 bits whose values all fit are written with 8 for baseline.

    Parameters
    ----------
    used
        The Huffman tables that the scans name (`scans.used_huffman_tables`).

    Raises
    ------
    DamagedJpeg
        If the segment's length doesn't fit its contents.
    UnsupportedJpeg
        If a JPEG-LS codestream maps its samples through a palette.
    """
    whole = data[segment.start : segment.end]
    match segment.marker:
        case jpeg.DQT:
            return _quantization(whole, header)
        case jpeg.DHT:
            return _huffman(whole, used)
        case jpeg.DRI if len(whole) == 6:
            return whole
        case jpeg.DAC if header.process in jpeg.ARITHMETIC_MARKERS:
            return whole
        case jpeg.LSE if header.process == jpeg.SOF55:
            if len(whole) == 15 and whole[4] == 1:  # thresholds
                return whole
            raise UnsupportedJpeg("the JPEG-LS codestream has a palette", reason="palette")
        case jpeg.DRI:
            raise _malformed("a restart interval (DRI)", segment.start)
    return b""


def _quantization(segment: bytes, header: JpegHeader) -> bytes:
    used = {component.quantization_table for component in header.components}
    lossless = header.process in jpeg.LOSSLESS_MARKERS
    body = b""
    for precision, destination, values in quantization_tables(segment):
        wide = precision and not (header.process == 0xC0 and max(values) < 256)
        form = _WIDE if wide else _NARROW
        if destination in used and not lossless:
            body += bytes([bool(wide) << 4 | destination]) + form.pack(*values)
    return _segment(jpeg.DQT, body)


def _huffman(segment: bytes, used: set[tuple[int, int]]) -> bytes:
    tables = huffman_tables(segment)
    body = b"".join(table for kind, destination, table in tables if (kind, destination) in used)
    return _segment(jpeg.DHT, body)


def _segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", 2 + len(body)) + body if body else b""


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
        form = _WIDE if precision else _NARROW
        end = position + 1 + form.size
        if precision > 1 or destination > 3 or end > min(len(segment), _LONGEST_DQT):
            raise _malformed("a quantization table (DQT)")
        yield precision, destination, form.unpack_from(segment, position + 1)
        position = end


def huffman_tables(segment: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield class (0 DC, 1 AC), destination and the bytes of each table in a DHT segment.

    ``FF C4, Lh u16, n x (Tc/Th u4 u4, 16 counts u8, symbols)``

    Raises
    ------
    DamagedJpeg
        If the segment's length doesn't fit its tables (T.81 B.2.4.2).
    """
    position, count = 4, 0
    while position < len(segment):
        count += 1
        end = position + 17 + sum(segment[position + 1 : position + 17])
        if end > len(segment) or count > _MOST_HUFFMAN_TABLES:
            raise _malformed("a Huffman table (DHT)")
        yield segment[position] >> 4, segment[position] & 15, segment[position:end]
        position = end


def _malformed(what: str, offset: int | None = None) -> DamagedJpeg:
    where = "" if offset is None else f"byte {offset}"
    return DamagedJpeg(f"{what} is malformed", reason="malformed", where=where)
