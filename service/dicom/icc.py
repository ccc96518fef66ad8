"""ICC profiles in the form that the ICC Profile module demands (PS3.3 C.11.15)."""

import struct
from typing import Final

_HEADER: Final = 128
_INPUT_CLASS = b"scnr"
_MAX_TAGS = 100
_MATRIX = frozenset({b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC", b"gTRC", b"bTRC"})
_COLOUR_TAGS = (
    _MATRIX | {b"wtpt", b"bkpt", b"chad"} | {b"A2B0", b"A2B1", b"A2B2", b"B2A0", b"B2A1", b"B2A2"}
)
_CLASSES = frozenset({b"scnr", b"mntr", b"spac"})
_SPACES = frozenset({b"XYZ ", b"Lab "})
_MARK = b"ICC_PROFILE\0"
_CHUNK = 0xFFFF - 16  # bytes of a profile in an APP2 segment


def conformant(profile: bytes) -> bytes | None:
    """Return an RGB profile as an input device's; None if it can't be one.

    PS3.3 C.11.15.1.1 wants the device class scnr, the colour space RGB and a connection space of
    XYZ or Lab. Cameras embed display profiles (mntr), which differ by that word alone; the profile
    ID, a hash over the whole, is cleared.

        0 size u32 | 12 class | 16 colour space | 20 connection space | 36 "acsp" | 84..100 ID
    """
    if not is_rgb(profile):
        return None
    if profile[12:16] not in _CLASSES or profile[20:24] not in _SPACES:
        return None
    tags = _tags(profile[: int.from_bytes(profile[:4], "big")])
    return None if tags is None else _joined(profile[:12] + _INPUT_CLASS + profile[16:84], tags)


def is_rgb(profile: bytes) -> bool:
    """Tell whether bytes begin like a whole profile for RGB."""
    if len(profile) < _HEADER + 4 or profile[36:40] != b"acsp" or profile[16:20] != b"RGB ":
        return False
    return _HEADER < int.from_bytes(profile[:4], "big") <= len(profile)


def _tags(profile: bytes) -> dict[bytes, bytes] | None:
    """Return the tags that say what the colours are, others left out; None if they don't say it.

    A monitor's profile tells its make, model and serial number, and its owner's name for it.
    """
    (count,) = struct.unpack_from(">I", profile, _HEADER)
    if count > _MAX_TAGS or _HEADER + 4 + 12 * count > len(profile):
        return None
    tags = {b"desc": _text("RGB"), b"cprt": _text("unknown")}
    for number in range(count):
        name, offset, size = struct.unpack_from(">4sII", profile, _HEADER + 4 + 12 * number)
        if offset + size > len(profile):
            return None
        if name in _COLOUR_TAGS:
            tags[name] = profile[offset : offset + size]
    return tags if b"A2B0" in tags or tags.keys() >= _MATRIX else None


def _joined(header: bytes, tags: dict[bytes, bytes]) -> bytes:
    """Write a profile: header, table of tags, tags at multiples of four; no profile ID."""
    offset = _HEADER + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for signature, data in tags.items():
        table += struct.pack(">4sII", signature, offset + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = struct.pack(">I", _HEADER + len(table) + len(body))
    return size + header[4:84] + bytes(_HEADER - 84) + table + body


def embed(jpeg: bytes, profile: bytes) -> bytes:
    r"""Return a JPEG that carries a profile behind its SOI, unless it has one (ICC.1 B.4).

    A segment is ``FFE2, length u16, "ICC_PROFILE\0", number u8, count u8`` and a part of it.
    """
    chunks = [profile[start : start + _CHUNK] for start in range(0, len(profile), _CHUNK)]
    if _MARK in jpeg or len(chunks) > 0xFF:
        return jpeg
    segments = [
        struct.pack(">HH12s2B", 0xFFE2, len(chunk) + 16, _MARK, number, len(chunks)) + chunk
        for number, chunk in enumerate(chunks, 1)
    ]
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def srgb() -> bytes:
    """Return an sRGB profile (IEC 61966-2-1) of our own making; always the same bytes."""
    curve = _parametric(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    red, green, blue = (0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7139)
    return _matrix("sRGB", red, green, blue, curve)


def adobe_rgb() -> bytes:
    """Return an Adobe RGB (1998) profile of our own making; always the same bytes."""
    curve = _parametric(563 / 256)
    red, green, blue = (0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446)
    return _matrix("Adobe RGB (1998)", red, green, blue, curve)


_Xyz = tuple[float, float, float]


def _matrix(name: str, red: _Xyz, green: _Xyz, blue: _Xyz, curve: bytes) -> bytes:
    """Write a profile of three primaries, adapted to D50, and the curve of all of them."""
    tags = {
        b"desc": _text(name),
        b"cprt": _text("public domain"),
        b"wtpt": _xyz(0.9642, 1.0, 0.8249),
        b"rXYZ": _xyz(*red),
        b"gXYZ": _xyz(*green),
        b"bXYZ": _xyz(*blue),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    return _joined(_header(), tags)


def _header() -> bytes:
    """Write the start of an ICC.1:2010 header of version 4.3, created 2026-01-01."""
    start = struct.pack(">8x4s4s4s4s", b"\x04\x30\0\0", _INPUT_CLASS, b"RGB ", b"XYZ ")
    date = struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp")
    illuminant = struct.pack(">3i", *map(_fixed, (0.9642, 1.0, 0.8249)))
    return start + date + bytes(28) + illuminant + bytes(4)


def _fixed(value: float) -> int:
    return round(value * 65536)


def _xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *map(_fixed, values))


def _parametric(*values: float) -> bytes:
    """Write a parametric curve: a power, and with five values one with a linear start."""
    kind = {1: 0, 5: 3}[len(values)]
    return b"para\0\0\0\0" + struct.pack(f">HH{len(values)}i", kind, 0, *map(_fixed, values))


def _text(text: str) -> bytes:
    coded = text.encode("utf-16-be")
    return b"mluc\0\0\0\0" + struct.pack(">II4sII", 1, 12, b"enUS", len(coded), 28) + coded
