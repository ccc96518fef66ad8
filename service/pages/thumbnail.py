"""Small pictures of large ones, which may be anything that somebody has sent."""

from io import BytesIO
from typing import TYPE_CHECKING, Final

from service.dicom.budget import Budget

if TYPE_CHECKING:
    from PIL import Image

SIDE: Final = 256  # pixels
NONE: Final = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 96 96" width="96" height="96">'
    b'<rect width="96" height="96" fill="#8883"/>'
    b'<path d="M24 66l16-20 12 14 8-9 14 15z" fill="#888"/></svg>'
)
_QUALITY: Final = 80
_MOST: Final = 80_000_000  # pixels
_MOST_SCANS: Final = 100  # each is another pass over all pixels
# Pillow knows many more, one of which it hands to another program (PostScript).
_FORMATS: Final = ("JPEG", "JPEG2000", "PNG")
_COPIES: Final = 8  # bytes for each pixel: Pillow's four, twice
_COEFFICIENTS: Final = 6  # bytes for each pixel of a progressive JPEG
_BUDGET: Final = Budget(256 * 2**20, patience=10.0)  # bytes, for all threads; seconds


def thumbnail(image: bytes) -> bytes | None:
    """Return a JPEG of at most 256 pixels a side; None of what can't be shown."""
    from PIL import Image  # noqa: PLC0415 - slow to import, and needed for this only

    if image.startswith(b"\xff\xd8") and image.count(b"\xff\xda") > _MOST_SCANS:
        return None
    try:
        opened = Image.open(BytesIO(image), formats=_FORMATS)
        whole = opened.width * opened.height
        if whole > _MOST:
            return None
        # A profile of grey or of inks isn't one of what they are made here.
        profile = opened.info.get("icc_profile") if opened.mode == "RGB" else None
        opened.draft("RGB", (SIDE, SIDE))
        size = _COPIES * opened.width * opened.height
        size += _COEFFICIENTS * whole if "progressive" in opened.info else 0
        with _BUDGET.take(size):
            return _small(opened, profile)
    except Exception:  # noqa: BLE001 - Pillow raises whatever it meets, and nothing hangs on it
        return None


def _small(opened: "Image.Image", profile: bytes | None) -> bytes:
    from PIL import ImageOps  # noqa: PLC0415

    small = ImageOps.exif_transpose(opened)
    small.thumbnail((SIDE, SIDE))
    buffer = BytesIO()
    small.convert("RGB").save(buffer, "JPEG", quality=_QUALITY, icc_profile=profile)
    return buffer.getvalue()
