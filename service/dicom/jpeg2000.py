"""JPEG 2000 codestreams (ITU-T T.800 Annex A), bare or in a JP2 file, which is a run of boxes.

    FF4F SOC, FF51 SIZ: size, components     JP2 boxes: length u32, type, contents
    FF52 COD: transforms, FF5C QCD, ...        "jP  " signature, "ftyp"
    FF90 SOT, FF93 SOD, data   per tile-part   "jp2h" header: "colr" the colour space
    FFD9 EOC                                   "jp2c" the codestream

DICOM takes the codestream without the file's boxes (PS3.5 A.4.4).
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from service.dicom.codestream import Buffer, Codestream
from service.dicom.encapsulation import Encapsulation
from service.errors import DamagedJpeg, UnsupportedJpeg

JPEG_2000_LOSSLESS: Final = "1.2.840.10008.1.2.4.90"
JPEG_2000: Final = "1.2.840.10008.1.2.4.91"

_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
_SOC_SIZ = b"\xff\x4f\xff\x51"
_SOT, _SOD, _COD, _COM = 0x90, 0x93, 0x52, 0x64
# SIZ COD RGN QCD QCC POC TLM PLM PPM, and in tile-parts QCD QCC RGN POC PLT PPT: T.800 Table A.1.
# COC would override the transform that COD names; CAP is Part 2's and 15's.
_MAIN_HEADER = frozenset({0x51, _COD, 0x5E, 0x5C, 0x5D, 0x5F, 0x55, 0x57, 0x60})
_TILE_HEADER = frozenset({0x5C, 0x5D, 0x5E, 0x5F, 0x58, 0x61})
_DROPPED = {_COM: "comment", 0x63: "component registration"}
_MAX_SEGMENTS = 20_000
_SRGB, _SYCC = 16, 18  # enumerated colour spaces of the colr box


class Colour(NamedTuple):
    """What a colr box says: an enumerated colour space, 0 without one, or an ICC profile."""

    space: int = 0
    profile: bytes | None = None

    @property
    def is_srgb(self) -> bool:
        """Whether the colours are those of sRGB, as RGB or as YCbCr."""
        return self.space in {_SRGB, _SYCC}


class Stream(NamedTuple):
    """A codestream without comments, how DICOM describes it, and what was removed."""

    codestream: Codestream
    encapsulation: Encapsulation
    changes: tuple[str, ...]
    colour: Colour


def is_jpeg2000(data: bytes) -> bool:
    """Tell whether data begins like a JP2 file or a bare codestream."""
    return data.startswith((_SIGNATURE, _SOC_SIZ))


def read(data: bytes) -> Stream:
    """Read a JP2 file or a bare codestream.

    The structure is checked to its end; the entropy-coded data is not.

    Raises
    ------
    DamagedJpeg
        If boxes, markers or tile-parts don't fit together.
    UnsupportedJpeg
        If DICOM can't say what the components are.
    """
    start, end, colour = _codestream_of(data)
    segments = list(_main_header(data, start, end))
    coding = next((data[at : at + size] for marker, at, size in segments if marker == _COD), b"")
    if len(coding) < 14:
        raise _damaged("the codestream has no coding style (COD)", start)
    pieces, stop = _without_comments(data, start, end, segments)
    changes = [
        f"removed {size} bytes of {name}"
        for dropped, name in _DROPPED.items()
        if (size := sum(n for marker, _, n in segments if marker == dropped))
    ]
    if start or stop < len(data):
        changes.append(f"removed {start + len(data) - stop} bytes around the codestream")
    encapsulation = _describe(data[start + 4 :], coding, colour.space)
    return Stream(Codestream(pieces), encapsulation, tuple(changes), colour)


def _codestream_of(data: bytes) -> tuple[int, int, Colour]:
    """Return where the codestream begins and ends, and what the first colr box says."""
    if data.startswith(_SOC_SIZ):
        return 0, len(data), Colour()
    colours: list[Colour] = []
    for kind, start, end in _boxes(data, 0, len(data)):
        if kind == b"jp2h":
            for inner, at, stop in _boxes(data, start, end):
                if inner == b"pclr":
                    raise UnsupportedJpeg("the samples are numbers of a palette", reason="jpeg2000")
                if inner == b"colr":
                    colours.append(_colour(data[at:stop]))
        elif kind == b"jp2c":
            if not data.startswith(_SOC_SIZ, start):
                raise _damaged("the jp2c box holds no codestream", start)
            return start, end, next((c for c in colours if any(c)), Colour())
    raise _damaged("the JP2 file has no codestream (jp2c)", len(data))


def _colour(box: bytes) -> Colour:
    """Read ``METH u8, PREC i8, APPROX u8`` and a number (1) or a profile (2): T.800 I.5.3.3."""
    match box[:1]:
        case b"\1":
            return Colour(space=int.from_bytes(box[3:7], "big"))
        case b"\2":
            return Colour(profile=box[3:])
    return Colour()


def _boxes(data: bytes, position: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield type, start and end of the contents of each box."""
    while position + 8 <= end:
        length, kind = struct.unpack_from(">I4s", data, position)
        header = 8
        if length == 1 and position + 16 <= end:
            (length,) = struct.unpack_from(">Q", data, position + 8)
            header = 16
        length = length or end - position
        if length < header or position + length > end:
            raise _damaged("a JP2 box has an impossible length", position)
        yield kind, position + header, position + length
        position += length


def _main_header(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield marker, offset and size of each segment between SOC and the first SOT."""
    position, count = start + 2, 0
    while position + 4 <= end and data[position] == 0xFF and count < _MAX_SEGMENTS:
        marker, count = data[position + 1], count + 1
        if marker == _SOT:
            return
        size = 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if size < 4 or position + size > end:
            raise _damaged("a segment has an impossible length", position)
        if marker not in _MAIN_HEADER and marker not in _DROPPED:
            raise _unknown(marker, position)
        yield marker, position, size
        position += size
    raise _damaged("the codestream has no tile-part", position)


def _without_comments(
    data: bytes, start: int, end: int, segments: list[tuple[int, int, int]]
) -> tuple[tuple[Buffer, ...], int]:
    """Return the codestream without COM segments, and where it ended in the data."""
    head = [data[start : start + 2]]
    position = start + 2
    for marker, at, size in segments:
        head += [] if marker in _DROPPED else [data[at : at + size]]
        position = at + size
    stop = position
    while data.startswith(b"\xff\x90", stop):
        stop = _tile_part_end(data, stop, end)
    if not data.startswith(b"\xff\xd9", stop) or stop + 2 > end:
        raise DamagedJpeg(
            "the codestream is truncated", reason="truncated", where=f"byte {min(stop, end)}"
        )
    return (b"".join(head), memoryview(data)[position : stop + 2]), stop + 2


def _tile_part_end(data: bytes, position: int, end: int) -> int:
    """Return the end of a tile-part: ``FF90, Lsot u16 = 10, Isot u16, Psot u32, ...``."""
    size = int.from_bytes(data[position + 6 : position + 10], "big")
    size = size or end - 2 - position  # 0: the last one, up to EOC
    if size < 14 or position + size > end:
        raise DamagedJpeg(
            "the codestream is truncated", reason="truncated", where=f"byte {position}"
        )
    _check_tile_header(data, position + 12, position + size)
    return position + size


def _check_tile_header(data: bytes, position: int, end: int) -> None:
    """Walk a tile-part's header up to SOD; what isn't a table of the decoder's is refused."""
    while position + 4 <= end and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == _SOD:
            return
        if marker not in _TILE_HEADER:
            raise _unknown(marker, position)
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    if not data.startswith(bytes([0xFF, _SOD]), position) or position + 2 > end:
        raise _damaged("a tile-part has no start of data (SOD)", position)


def _unknown(marker: int, position: int) -> UnsupportedJpeg:
    return UnsupportedJpeg(
        f"the JPEG 2000 has a segment FF{marker:02X}, which can't be passed on",
        reason="jpeg2000",
        where=f"byte {position}",
        mend="save it as a JPEG, or as a plain JPEG 2000",
    )


def _describe(siz: bytes, coding: bytes, colour_space: int) -> Encapsulation:
    """Describe ``Lsiz, Rsiz u16, X, Y, XO, YO, 4 x tile u32, Csiz u16, n x (Ssiz, XR, YR u8)``."""
    if len(siz) < 38:
        raise _damaged("the size segment (SIZ) is cut", 4)
    (capabilities,) = struct.unpack_from(">H", siz, 2)
    if capabilities & 0xC000:  # Part 2, or Part 15 (high throughput), of other transfer syntaxes
        raise UnsupportedJpeg("the JPEG 2000 needs more than Part 1", reason="jpeg2000")
    width, height, left, top = struct.unpack_from(">4I", siz, 4)
    (count,) = struct.unpack_from(">H", siz, 36)
    components = [siz[38 + 3 * n : 41 + 3 * n] for n in range(min(count, 4))]
    if count not in {1, 3} or len({*components}) != 1 or components[0][1:] != b"\1\1":
        raise UnsupportedJpeg(
            "the components of the JPEG 2000 aren't one or three alike", reason="jpeg2000"
        )
    bits = (components[0][0] & 127) + 1
    if components[0][0] & 128 or bits > 16:
        raise UnsupportedJpeg("the samples are signed or above 16 bits", reason="jpeg2000")
    rows, columns = height - top, width - left
    if not (0 < rows < 65_536 and 0 < columns < 65_536):
        raise UnsupportedJpeg("DICOM holds 65535 rows and columns at most", reason="jpeg2000")
    multi_component, reversible = coding[8] == 1, coding[13] == 1
    return Encapsulation(
        transfer_syntax=JPEG_2000_LOSSLESS if reversible else JPEG_2000,
        photometric_interpretation=_interpretation(
            count, colour_space, multi=multi_component, reversible=reversible
        ),
        rows=rows,
        columns=columns,
        samples_per_pixel=count,
        bits_allocated=8 if bits <= 8 else 16,
        bits_stored=bits,
        lossy_method="" if reversible else "ISO_15444_1",
    )


def _interpretation(count: int, colour_space: int, *, multi: bool, reversible: bool) -> str:
    """Name the components: PS3.5 8.2.4."""
    if count == 1:
        return "MONOCHROME2"
    if multi:
        return "YBR_RCT" if reversible else "YBR_ICT"
    return "YBR_FULL" if colour_space == _SYCC else "RGB"


def _damaged(detail: str, offset: int) -> DamagedJpeg:
    return DamagedJpeg(detail, reason="malformed", where=f"byte {offset}")
