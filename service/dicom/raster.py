"""Pixels: decoding and turning them, CMYK to sRGB. Pillow does it, and is imported only then."""

from io import BytesIO
from typing import TYPE_CHECKING, Any

from service.dicom import icc
from service.dicom.jpegtran import Pixels

if TYPE_CHECKING:
    from PIL.Image import Image

_MODES = {1: "L", 3: "RGB", 4: "CMYK"}


def turn(pixels: Pixels, operation: int) -> Pixels:
    """Turn or mirror pixels; the operations are those of `jpegtran.transform`."""
    if operation == 0:
        return pixels
    from PIL.Image import Transpose  # noqa: PLC0415 - 40 ms that most uploads don't need

    method = {
        1: Transpose.FLIP_LEFT_RIGHT,
        2: Transpose.FLIP_TOP_BOTTOM,
        3: Transpose.TRANSPOSE,
        4: Transpose.TRANSVERSE,
        5: Transpose.ROTATE_270,
        6: Transpose.ROTATE_180,
        7: Transpose.ROTATE_90,
    }[operation]
    return _pixels(_image(pixels).transpose(method))


def decode(codestream: bytes, columns: int, rows: int) -> Pixels:
    """Decode a JPEG or JPEG 2000 codestream of one or three components of 8 bits.

    Raises
    ------
    ValueError, OSError
        If Pillow can't decode it, or to something else, or if its size is another; then nothing is
        decoded, since there is memory for the size that was told.
    """
    from PIL import Image  # noqa: PLC0415

    with Image.open(BytesIO(codestream), formats=("JPEG", "JPEG2000")) as image:
        if image.mode not in ("L", "RGB"):
            raise ValueError("not 8-bit grey or RGB")
        if image.size != (columns, rows):
            raise ValueError("another size")
        return _pixels(image)


def cmyk_to_rgb(pixels: Pixels, profile: bytes | None, *, inverted: bool) -> Pixels:
    """Convert CMYK to sRGB, by its ICC profile where there is a usable one.

    Parameters
    ----------
    inverted
        Whether 255 means no ink, as Adobe writes it.
    """
    from PIL import ImageChops  # noqa: PLC0415

    image = _image(pixels)
    if inverted:
        image = ImageChops.invert(image)
    return _pixels(_by_profile(image, profile) or image.convert("RGB"))


def _by_profile(image: "Image", profile: bytes | None) -> Any:
    from PIL import ImageCms  # noqa: PLC0415

    if profile is None or profile[16:20] != b"CMYK":
        return None
    try:
        target = ImageCms.ImageCmsProfile(BytesIO(icc.srgb()))
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        return ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None


def _image(pixels: Pixels) -> "Image":
    from PIL import Image  # noqa: PLC0415

    return Image.frombytes(_MODES[pixels.samples], (pixels.columns, pixels.rows), pixels.data)


def _pixels(image: "Image") -> Pixels:
    return Pixels(image.tobytes(), image.width, image.height, len(image.getbands()))
