"""What the first bytes of a file say that it is."""

import re

from service.errors import NotAJpeg

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


def check_magic(data: bytes) -> None:
    """Raise `NotAJpeg`, naming the format where it is known, unless the bytes begin like a JPEG."""
    if data[:3] == b"\xff\xd8\xff":
        return
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
    raise NotAJpeg("the image doesn't begin like a JPEG (FF D8 FF)", where="byte 0")
