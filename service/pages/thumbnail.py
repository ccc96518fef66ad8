"""Small pictures of large ones."""

from io import BytesIO
from typing import Final

SIDE: Final = 256  # pixels
NONE: Final = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 96 96" width="96" height="96">'
    b'<rect width="96" height="96" fill="#8883"/>'
    b'<path d="M24 66l16-20 12 14 8-9 14 15z" fill="#888"/></svg>'
)
_QUALITY: Final = 80
_MOST: Final = 80_000_000  # pixels


def thumbnail(image: bytes) -> bytes | None:
    """Return a JPEG of at most 256 pixels a side; None of what can't be shown."""
    from PIL import Image, ImageOps  # noqa: PLC0415 - slow to import, and needed for this only

    try:
        opened = Image.open(BytesIO(image))
        if opened.width * opened.height > _MOST:
            return None
        # A profile of grey or of inks isn't one of what they are made here.
        profile = opened.info.get("icc_profile") if opened.mode == "RGB" else None
        opened.draft("RGB", (SIDE, SIDE))
        small = ImageOps.exif_transpose(opened)
        small.thumbnail((SIDE, SIDE))
        buffer = BytesIO()
        small.convert("RGB").save(buffer, "JPEG", quality=_QUALITY, icc_profile=profile)
    except Exception:  # noqa: BLE001 - Pillow raises whatever it meets, and nothing hangs on it
        return None
    return buffer.getvalue()
