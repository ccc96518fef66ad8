"""JPEG streams put together, and taken apart, marker by marker (ITU-T T.81 Annex B)."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
SOF_MARKERS = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
SOS = 0xDA

JFIF = b"JFIF\0\1\1\0\0\1\0\1\0\0"
CODED = bytes(64)
SUBSAMPLED = (0x22, 0x11, 0x11)


class Piece(NamedTuple):
    """A segment, or SOI, as it stands in a stream, and the entropy-coded bytes behind it."""

    marker: int
    payload: bytes
    coded: bytes


def segment(marker: int, payload: bytes = b"") -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def adobe(transform: int) -> bytes:
    return segment(0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, transform))


def frame(
    process: int = 0xC0,
    identifiers: bytes = b"\1\2\3",
    *,
    precision: int = 8,
    size: tuple[int, int] = (16, 16),
    sampling: Sequence[int] = SUBSAMPLED,
) -> bytes:
    """Write a frame header; `size` is rows and columns."""
    sampling = sampling if len(sampling) == len(identifiers) else [0x11] * len(identifiers)
    components = b"".join(
        bytes([identifier, factors, 0])
        for identifier, factors in zip(identifiers, sampling, strict=True)
    )
    head = struct.pack(">BHHB", precision, *size, len(identifiers))
    return segment(process, head + components)


def scan(
    identifiers: bytes = b"\1\2\3",
    start: int = 0,
    coded: bytes = CODED,
    *,
    low: int = 0,
    tables: int = 0,
) -> bytes:
    """Write a scan header and entropy-coded bytes.

    Ss (predictor, NEAR) is `start`, Al (point transform) `low`, and Td and Ta are `tables`.
    """
    selectors = b"".join(bytes([identifier, tables]) for identifier in identifiers)
    return segment(SOS, bytes([len(identifiers)]) + selectors + bytes([start, 63, low])) + coded


def huffman_table(which: int, codes: Mapping[str, int]) -> bytes:
    """Write a table, of class and destination `which`, from codes in bits to their symbols."""
    lengths = [sum(len(code) == length for code in codes) for length in range(1, 17)]
    return segment(0xC4, bytes([which, *lengths, *codes.values()]))


def entropy_coded(bits: str) -> bytes:
    """Fill bits up to bytes with ones, and stuff them."""
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8).replace(b"\xff", b"\xff\0")


def stream(*segments: bytes) -> bytes:
    return SOI + b"".join(segments) + EOI


def of_process(
    process: int, identifiers: bytes = b"\1", *, precision: int = 8, predictor: int = 0
) -> bytes:
    """Write the least stream of a process; nothing could decode its scan."""
    return stream(
        frame(process, identifiers, precision=precision, sampling=[0x11] * len(identifiers)),
        scan(identifiers[:4], predictor),
    )


def behind_soi(data: bytes, *segments: bytes) -> bytes:
    return SOI + b"".join(segments) + data[2:]


def take_apart(data: bytes) -> Iterator[Piece]:
    """Yield what stands between SOI and EOI of a sound stream; a second opinion on `inspect`."""
    position = 2
    in_scan = {0, 0xFF, *range(0xD0, 0xD8)}  # decoders pass over FF in front of a stuffed one
    while (marker := data[position + 1]) != 0xD9:
        (length,) = struct.unpack_from(">H", data, position + 2)
        payload = data[position + 4 : position + 2 + length]
        position = end = position + 2 + length
        if marker == 0xF7:  # JPEG-LS stuffs a bit and has no restart markers
            in_scan = set(range(0x80))
        if marker == SOS:
            while data[end] != 0xFF or data[end + 1] in in_scan:
                end += 1
        yield Piece(marker, payload, data[position:end])
        position = end


def put_together(pieces: Sequence[Piece]) -> bytes:
    return stream(*(segment(piece.marker, piece.payload) + piece.coded for piece in pieces))


def without(data: bytes, *markers: int) -> bytes:
    return put_together([piece for piece in take_apart(data) if piece.marker not in markers])


def with_identifiers(data: bytes, identifiers: bytes) -> bytes:
    """Rename the components of a stream whose own are numbered from 1, or are R, G and B."""
    old = next(piece.payload[6::3] for piece in take_apart(data) if piece.marker in SOF_MARKERS)
    new = dict(zip(old, identifiers, strict=True))
    return put_together([_renamed(piece, new) for piece in take_apart(data)])


def _renamed(piece: Piece, new: dict[int, int]) -> Piece:
    payload = bytearray(piece.payload)
    if piece.marker in SOF_MARKERS:
        payload[6::3] = bytes(new[identifier] for identifier in payload[6::3])
    elif piece.marker == SOS:
        payload[1:-3:2] = bytes(new[identifier] for identifier in payload[1:-3:2])
    return piece._replace(payload=bytes(payload))


def relabelled(data: bytes, process: int) -> bytes:
    """Give the frame header another marker."""
    return put_together(
        [
            piece._replace(marker=process) if piece.marker in SOF_MARKERS else piece
            for piece in take_apart(data)
        ]
    )
