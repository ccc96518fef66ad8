"""Files that are not JPEG are named by their first bytes, whatever they call themselves."""

import re
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from service.dicom.jpeg import inspect
from service.dicom.magic import find_start
from service.errors import NotAJpeg
from tests.jpegs import make_jpeg, picture


def saved(form: str) -> bytes:
    file = BytesIO()
    picture(8, 8).save(file, form)
    return file.getvalue()


FILES = [
    (saved("PNG"), "PNG"),
    (saved("GIF"), "GIF"),
    (saved("WEBP"), "WebP"),
    (saved("BMP"), "BMP"),
    (saved("TIFF"), "TIFF"),
    (b"MM\0*\0\0\0\x08", "TIFF"),
    (saved("JPEG2000"), "JPEG 2000 (JP2)"),
    (b"\xff\x4f\xff\x51\0\x2f", "JPEG 2000 (codestream)"),
    (b"\xff\x0a\xfa\x1f", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
    (b"\0\0\0\x18ftypmif1\0\0\0\0", "HEIC"),
    (b"\0\0\0\x1cftypavif\0\0\0\0", "AVIF"),
    (b"\0\0\0\x18ftypmp42\0\0\0\0", "MP4"),
    (b"\0\0\x0a\x18ftypheix", "HEIC"),
    (bytes(128) + b"DICM\2\0\0\0", "DICOM"),
    (b"\n" * 128 + b"DICM\2\0\0\0", "DICOM"),
    (b"%PDF-1.7\n", "PDF"),
    (b'<?xml version="1.0"?><Error/>', "XML or HTML"),
    (b"\r\n <!DOCTYPE html>", "XML or HTML"),
    (b"<html><body>403</body></html>", "XML or HTML"),
    (b"<svg xmlns=''/>", "XML or HTML"),
]


@pytest.mark.parametrize(("data", "name"), FILES)
def test_a_file_of_another_format_is_named(data: bytes, name: str) -> None:
    with pytest.raises(NotAJpeg, match=re.escape(f"the image is {name}, not JPEG")) as caught:
        inspect(data)
    assert caught.value.http_status == 415
    assert re.fullmatch(r"not-a-jpeg-[a-z0-9-]+[a-z0-9]", caught.value.reason)


def test_an_empty_file_is_empty() -> None:
    with pytest.raises(NotAJpeg, match="empty") as caught:
        inspect(b"")
    assert caught.value.reason == "empty"


@pytest.mark.parametrize(
    "data", [b"\xff", b"\xff\xd8", b"\xff\xd8\0", b"junk", bytes(300) + make_jpeg(8, 8), b"ftyp"]
)
def test_anything_else_does_not_begin_like_a_jpeg(data: bytes) -> None:
    with pytest.raises(NotAJpeg, match="doesn't begin like a JPEG") as caught:
        inspect(data)
    assert (caught.value.reason, caught.value.where) == ("not-a-jpeg", "byte 0")


def test_a_jpeg_passes() -> None:
    data = make_jpeg(8, 8)
    with Image.open(BytesIO(data)) as image:
        assert image.format == "JPEG"
    assert find_start(data) == 0


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_only_the_magic_bytes_pass(data: bytes) -> None:
    try:
        start = find_start(data)
    except NotAJpeg:
        assert not data.startswith(b"\xff\xd8\xff")
    else:
        assert data.startswith(b"\xff\xd8\xff", start)
        assert data.count(b"\xff\xd8\xff") == 1 or start == 0
