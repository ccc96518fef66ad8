"""Small pictures of whatever somebody has sent."""

import os
from io import BytesIO, StringIO
from pathlib import Path

import pytest
from PIL import Image

from service import census
from service.pages.thumbnail import thumbnail
from tests.jpegs import make_jpeg, picture

POSTSCRIPT = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 64 48
%%EndComments
showpage
"""


def saved(kind: str) -> bytes:
    buffer = BytesIO()
    picture(400, 300).save(buffer, kind)
    return buffer.getvalue()


def size_of(image: bytes | None) -> tuple[int, int]:
    assert image
    return Image.open(BytesIO(image), formats=["JPEG"]).size


@pytest.mark.parametrize(
    "image",
    [make_jpeg(400, 300), make_jpeg(400, 300, progressive=True), saved("PNG"), saved("JPEG2000")],
)
def test_what_a_browser_or_the_store_may_show_has_a_small_picture(image: bytes) -> None:
    assert size_of(thumbnail(image)) == (256, 192)


def test_a_picture_that_lies_on_its_side_is_upright() -> None:
    assert size_of(thumbnail(make_jpeg(400, 300, orientation=6))) == (192, 256)


@pytest.mark.parametrize("kind", ["TIFF", "PCX", "PPM", "ICO"])
def test_what_is_no_photograph_has_none(kind: str) -> None:
    assert thumbnail(saved(kind)) is None


def test_no_other_program_is_run_for_postscript(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, mark = tmp_path / "gs", tmp_path / "run"
    program.write_text(f"#!/bin/sh\ntouch {mark}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    file = tmp_path / "photo.jpg"
    file.write_bytes(POSTSCRIPT)
    refused = census.Found(str(file), census.REFUSED)
    assert thumbnail(POSTSCRIPT) is None
    assert census.write_sheet(StringIO(), [(refused, None)]) == [refused]
    assert not mark.exists()


def test_a_picture_of_very_many_scans_has_none() -> None:
    image = make_jpeg(64, 48, progressive=True)
    scan = image[image.rindex(b"\xff\xda") : -2]
    assert thumbnail(image[:-2] + 5 * scan + image[-2:])
    assert thumbnail(image[:-2] + 200 * scan + image[-2:]) is None
