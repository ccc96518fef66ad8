"""What the first bytes of a file say that it is."""

import re

from service.errors import NotAJpeg

_JPEG = b"\xff\xd8\xff"
_MAX_PREFIX = 256  # bytes

# What people send under the name .jpg, by the first bytes.
_MAGIC = (
    (rb"\x89PNG\r\n\x1a\n", "PNG"),
    (rb"GIF8[79]a", "GIF"),
    (rb"RIFF....WEBP", "WebP"),
    (rb"....ftyp(?:hei|hev|mif1|msf1)", "HEIC"),
    (rb"....ftypavi[fs]", "AVIF"),
    (rb"....ftyp", "MP4"),
    (rb"BM.{4}\0\0\0\0", "BMP"),
    (rb"II\*\0|MM\0\*", "TIFF"),
    (rb"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000 (JP2)"),
    (rb"\xff\x4f\xff\x51", "JPEG 2000 (codestream)"),
    (rb"\0\0\0\x0cJXL \r\n\x87\n|\xff\x0a", "JPEG XL"),
    (rb".{128}DICM", "DICOM"),
    (rb"%PDF-", "PDF"),
    (rb"\s*(?:<\?xml|<svg|<!DOCTYPE|<html)", "XML or HTML"),
)


def find_start(data: bytes) -> int:
    """Return the offset of SOI: 0, or a little more where something was written in front of it.

    Raises
    ------
    NotAJpeg
        If the bytes are of another format, which the text names where it is known.
    """
    if data.startswith(_JPEG):
        return 0
    if not data:
        raise NotAJpeg("the image is empty", reason="empty", mend="send the bytes of a JPEG")
    for pattern, name in _MAGIC:
        if re.match(pattern, data, re.DOTALL):
            slug = "not-a-jpeg-" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
            raise NotAJpeg(
                f"the image is {name}, not JPEG, whatever its name or Content-Type says",
                reason=slug,
                mend="convert it to JPEG before sending it",
            )
    # A prefix is taken for one only if there is no doubt where the picture begins.
    head = data[: _MAX_PREFIX + len(_JPEG)]
    if head.count(_JPEG) == 1:
        return head.index(_JPEG)
    raise NotAJpeg("the image doesn't begin like a JPEG (FF D8 FF)", where="byte 0")
