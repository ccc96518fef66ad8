"""Lossless transforms and the strict integrity check: libturbojpeg, called through ctypes.

A transform moves DCT coefficients and codes them again; none of them changes its value but for
its place and sign. Debian's `libturbojpeg0` is the library, of version 2.1 or later. Without it
the service starts, but refuses what would have to be transformed or, under VERIFY_SCAN, read; the
refusal says what is missing.

A warning of the library's means that it guessed at damaged data, so a warning is an error here.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final, NamedTuple

from service.errors import DamagedJpeg, JpegstowError

# The operation that makes a picture of each EXIF orientation upright.
UPRIGHT: Final = {1: 0, 2: 1, 3: 6, 4: 2, 5: 3, 6: 5, 7: 4, 8: 7}

# Pixel formats.
RGB: Final = 0
GREY: Final = 6
CMYK: Final = 11

_NAMES = {
    "darwin": ("libturbojpeg.0.dylib", "/opt/homebrew/lib/libturbojpeg.0.dylib"),
    "win32": ("turbojpeg.dll", "libturbojpeg.dll"),
}.get(sys.platform, ("libturbojpeg.so.0",))
_PERFECT, _COPY_NONE = 1, 64
_STOP_ON_WARNING, _LIMIT_SCANS = 8192, 32768
_SAMPLES = {RGB: 3, GREY: 1, CMYK: 4}
_FLAGS = _STOP_ON_WARNING | _LIMIT_SCANS
_SAMPLING_444 = 0
# An edge has incomplete blocks; a chroma sampling for which the library has no name.
_NOT_MOVABLE = ("Transform is not perfect", "Could not determine subsampling type")


class NotPerfect(JpegstowError):
    """The coefficients can't be moved as they are: incomplete blocks, or an odd chroma sampling."""

    reason = "not-perfect"


class NoLibrary(JpegstowError):
    """libturbojpeg isn't there."""

    http_status = 503
    transient = True
    title = "Transform not available"
    reason = "no-libturbojpeg"


class _Transform(ctypes.Structure):
    """``tjtransform``: region x, y, w, h; operation; options; data and filter for callbacks."""

    _fields_ = (
        ("region", ctypes.c_int * 4),
        ("op", ctypes.c_int),
        ("options", ctypes.c_int),
        ("data", ctypes.c_void_p),
        ("filter", ctypes.c_void_p),
    )


class Pixels(NamedTuple):
    """Decoded samples, interleaved, row by row; `samples` is 1, 3 (RGB) or 4 (CMYK)."""

    data: bytes
    columns: int
    rows: int
    samples: int


@cache
def load(names: tuple[str, ...] = _NAMES) -> Any:
    """Return the library, the first of `names` that can be loaded and has all functions.

    Raises
    ------
    NoLibrary
        If there is none.
    """
    for name in names:
        try:
            return _declared(ctypes.CDLL(name))
        except (OSError, AttributeError):
            continue
    raise NoLibrary(
        "libturbojpeg can't be loaded",
        mend="install it (Debian: apt-get install libturbojpeg0)",
    )


def _declared(library: Any) -> Any:
    """Declare what the functions take and give; AttributeError where one is missing."""
    pointer, integer, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_ulong
    p_size = ctypes.POINTER(size)
    data = [pointer, ctypes.c_char_p, size]
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "tjInitTransform": (pointer, []),
        "tjInitDecompress": (pointer, []),
        "tjInitCompress": (pointer, []),
        "tjDestroy": (integer, [pointer]),
        "tjFree": (None, [pointer]),
        "tjGetErrorStr2": (ctypes.c_char_p, [pointer]),
        "tjTransform": (
            integer,
            [*data, integer, ctypes.POINTER(pointer), p_size, ctypes.POINTER(_Transform), integer],
        ),
        "tjDecompress2": (
            integer,
            [*data, pointer, *[integer] * 5],
        ),
        "tjCompress2": (
            integer,
            [pointer, ctypes.c_char_p, *[integer] * 4, ctypes.POINTER(pointer), p_size]
            + [integer] * 3,
        ),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def transform(data: bytes, operation: int) -> bytes:
    """Return a baseline JPEG of the same coefficients, turned or mirrored.

    Takes baseline, extended, progressive and arithmetic JPEGs of 8 bits.

    Parameters
    ----------
    operation
        0 none, 1 mirror left-right, 2 mirror top-bottom, 3 transpose, 4 transverse, 5 a quarter
        clockwise, 6 a half, 7 a quarter counterclockwise (`UPRIGHT`).

    Raises
    ------
    NotPerfect
        If an edge that would have to become another edge isn't made of whole blocks, or if the
        chroma sampling is one that libturbojpeg has no name for.
    DamagedJpeg
        If the library warns of anything.
    NoLibrary
        If the library is missing.
    """
    library = load()
    wanted = _Transform(op=operation, options=_PERFECT | _COPY_NONE)
    with _handle("tjInitTransform") as handle, _output() as (buffer, size):
        failed = library.tjTransform(
            handle, data, len(data), 1, buffer, size, ctypes.byref(wanted), _FLAGS
        )
        if failed:
            _fail(handle)
        return ctypes.string_at(buffer.contents.value or 0, size.contents.value)


def verify(data: bytes, columns: int, rows: int, *, rgb: bool) -> Pixels:
    """Read all entropy-coded data strictly; return the picture at an eighth of its size.

    A pixel is the mean of a block, which its first coefficient tells.

    Parameters
    ----------
    columns, rows
        The size that the frame header says.
    rgb
        Whether the components are RGB; grey can't be had from these.

    Raises
    ------
    DamagedJpeg
        If the library warns of anything.
    """
    return decode(data, -(-columns // 8), -(-rows // 8), RGB if rgb else GREY)


def decode(data: bytes, columns: int, rows: int, pixel_format: int = RGB) -> Pixels:
    """Decode strictly to interleaved samples.

    The library's own question for the size fails for chroma samplings that it has no name for.

    Parameters
    ----------
    columns, rows
        The size of the picture, or that of a smaller one: half, a quarter, an eighth.

    Raises
    ------
    DamagedJpeg
        If the library warns of anything.
    """
    library = load()
    with _handle("tjInitDecompress") as handle:
        samples = _SAMPLES[pixel_format]
        pixels = ctypes.create_string_buffer(columns * rows * samples)
        failed = library.tjDecompress2(
            handle, data, len(data), pixels, columns, 0, rows, pixel_format, _FLAGS
        )
        if failed:
            _fail(handle)
        return Pixels(pixels.raw, columns, rows, samples)


def encode(pixels: Pixels, quality: int) -> bytes:
    """Encode RGB or grey samples as a baseline JPEG without chroma subsampling."""
    library = load()
    form, sampling = (GREY, 3) if pixels.samples == 1 else (RGB, _SAMPLING_444)
    with _handle("tjInitCompress") as handle, _output() as (buffer, size):
        failed = library.tjCompress2(
            handle, pixels.data, pixels.columns, 0, pixels.rows, form, buffer, size, sampling,
            quality, 0,
        )  # fmt: skip
        if failed:
            _fail(handle)
        return ctypes.string_at(buffer.contents.value or 0, size.contents.value)


@contextmanager
def _handle(kind: str) -> Iterator[int]:
    library = load()
    handle = getattr(library, kind)()
    if not handle:
        raise MemoryError(kind)
    try:
        yield handle
    finally:
        library.tjDestroy(handle)


@contextmanager
def _output() -> Iterator[tuple[Any, Any]]:
    """Yield pointers to a buffer that the library allocates, and to its size."""
    buffer, size = ctypes.c_void_p(None), ctypes.c_ulong(0)
    try:
        yield ctypes.pointer(buffer), ctypes.pointer(size)
    finally:
        if buffer.value:
            load().tjFree(buffer)


def _fail(handle: int) -> None:
    text = load().tjGetErrorStr2(handle).decode("ascii", "replace")
    if any(reason in text for reason in _NOT_MOVABLE):
        raise NotPerfect(f"the picture can't be transformed without loss ({text})")
    raise DamagedJpeg(
        f"the entropy-coded data is damaged ({text})",
        reason="damaged-scan",
        mend="send the file again from its source",
    )
