"""JPEG files made for tests: the same arguments give the same bytes."""

from collections.abc import Mapping
from io import BytesIO
from random import Random
from typing import Any

from PIL import Image, ImageCms, TiffImagePlugin

ORIENTATION, DATE_TIME_ORIGINAL, EXIF_IFD, GPS_IFD = 0x0112, 0x9003, 0x8769, 0x8825
GREENWICH = {
    1: "N",
    2: (51.0, 28.0, 40.0),
    3: "W",
    4: (0.0, 0.0, 5.0),
}


def make_jpeg(
    width: int = 64,
    height: int = 48,
    mode: str = "RGB",
    *,
    quality: int = 85,
    subsampling: str = "4:2:0",
    progressive: bool = False,
    keep_rgb: bool = False,
    restart_blocks: int = 0,
    orientation: int | None = None,
    taken: str = "",
    gps: bool = False,
    icc: bool = False,
    comment: bytes = b"",
    seed: int = 0,
) -> bytes:
    """Encode a picture without symmetry, so that every turn and flip of it differs.

    Parameters
    ----------
    mode
        ``RGB`` (stored as YCbCr unless `keep_rgb`), ``L``, or ``CMYK`` (Adobe, inverted).
    restart_blocks
        MCU blocks between restart markers; 0 for none.
    orientation, taken, gps
        EXIF Orientation, DateTimeOriginal (``2024:03:05 14:07:09``), and a position.
    """
    options: dict[str, Any] = {
        "quality": quality,
        "progressive": progressive,
        "restart_marker_blocks": restart_blocks,
        "comment": comment or None,
    }
    if mode == "RGB":
        options |= {"keep_rgb": True} if keep_rgb else {"subsampling": subsampling}
    if orientation is not None or taken or gps:
        options["exif"] = _exif(orientation, taken, gps=gps)
    if icc:
        options["icc_profile"] = srgb_profile()
    file = BytesIO()
    picture(width, height, mode, seed).save(file, "JPEG", **options)
    return file.getvalue()


def picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Paint smooth coloured noise at three scales, much as a photograph of skin or fabric."""
    random = Random(seed)
    bands = [_noise(width, height, random) for _ in Image.new(mode, (1, 1)).getbands()]
    return Image.merge(mode, bands)


def _noise(width: int, height: int, random: Random) -> Image.Image:
    band = Image.new("L", (width, height))
    for scale, share in ((64, 1.0), (16, 0.5), (4, 0.25)):
        cells = (width // scale + 2, height // scale + 2)
        coarse = Image.frombytes("L", cells, random.randbytes(cells[0] * cells[1]))
        layer = coarse.resize((width, height), Image.Resampling.BICUBIC)
        band = Image.blend(band, layer, share)
    return band


def _exif(orientation: int | None, taken: str, *, gps: bool) -> Image.Exif:
    exif = Image.Exif()
    if orientation is not None:
        exif[ORIENTATION] = orientation
    if taken:
        exif.get_ifd(EXIF_IFD)[DATE_TIME_ORIGINAL] = taken
    if gps:
        exif.get_ifd(GPS_IFD).update(_rationals(GREENWICH))
    return exif


def _rationals(tags: Mapping[int, Any]) -> dict[int, Any]:
    return {
        tag: tuple(map(TiffImagePlugin.IFDRational, value)) if isinstance(value, tuple) else value
        for tag, value in tags.items()
    }


def srgb_profile() -> bytes:
    """Return an sRGB profile with its time of creation (ICC.1 7.2.1, bytes 24 to 35) blanked."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:24] + bytes(12) + profile[36:]
