"""The eight orientations, landscape and portrait, of every kind, become one upright picture."""

from collections.abc import Callable
from functools import cache, partial

import numpy as np
import pytest
from PIL import Image

from service.dicom.jpeg import inspect
from service.dicom.normalise import Normalised
from service.errors import UnsupportedJpeg
from tests.coefficients import Blocks, coefficients, turned
from tests.decoding import Pixels, cjpeg, furthest, image, psnr, sound, upright
from tests.describing import described, normalised
from tests.jpegs import make_jpeg, picture
from tests.streams import behind_soi, segment, without

LANDSCAPE, PORTRAIT = (96, 64), (64, 96)
ODD = ((93, 61), (61, 93), (96, 61), (93, 64), (40, 72), (17, 1), (1, 17))
JPEG_OF: dict[str, Callable[[int, int], bytes]] = {
    "grey": lambda w, h: make_jpeg(w, h, "L"),
    "4:4:4": partial(make_jpeg, subsampling="4:4:4"),
    "4:2:2": partial(make_jpeg, subsampling="4:2:2"),
    "4:2:0": partial(make_jpeg, subsampling="4:2:0"),
    "4:4:0": lambda w, h: cjpeg(picture(w, h), "-sample", "1x2"),
    "4:1:1": lambda w, h: cjpeg(picture(w, h), "-sample", "4x1"),
    "RGB": partial(make_jpeg, keep_rgb=True),
    "progressive": partial(make_jpeg, progressive=True),
    "progressive grey": lambda w, h: make_jpeg(w, h, "L", progressive=True),
    "restarts": partial(make_jpeg, restart_blocks=2),
}
MCU = {"4:2:2": (16, 8), "4:4:0": (8, 16), "4:1:1": (32, 8)} | dict.fromkeys(
    ("4:2:0", "progressive", "restarts"), (16, 16)
)
# Which of columns and rows must be whole MCUs; the other edges stay where they are, or move as a
# whole. A quarter turn as telephones need it (6) wants whole rows only.
WHOLE = {1: "", 2: "c", 3: "cr", 4: "r", 5: "", 6: "r", 7: "cr", 8: "c"}


@cache
def upright_jpeg(kind: str, size: tuple[int, int]) -> bytes:
    return without(JPEG_OF[kind](*size), 0xE0)


@cache
def decoded(jpeg: bytes, *options: str) -> Pixels:
    return sound(jpeg, *options)


@cache
def coefficients_of(jpeg: bytes) -> list[Blocks]:
    return coefficients(jpeg)


def lying(kind: str, size: tuple[int, int], orientation: int) -> bytes:
    """Return a picture with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return behind_soi(upright_jpeg(kind, size), segment(0xE1, exif.tobytes()))


def can_be_turned(kind: str, size: tuple[int, int], orientation: int) -> bool:
    across, down = MCU.get(kind, (8, 8))
    whole = {"c": size[0] % across == 0, "r": size[1] % down == 0}
    return all(whole[edge] for edge in WHOLE[orientation])


def pixels(made: Normalised, *options: str) -> Pixels:
    return sound(bytes(made.codestream), *options)


def assert_moved_without_loss(jpeg: bytes, made: Normalised, orientation: int) -> None:
    """Compare coefficients, which decide, and pixels, which show that they are in their places.

    The integer inverse DCT rounds columns before rows, so that a transposed block may decode to
    the next level; interpolated between chroma samples and converted to RGB, one becomes up to
    five. With a floating inverse DCT and repeated chroma the pictures agree, but for ties: samples
    so near the middle between two levels that the order of additions decides.
    """
    wanted = [turned(blocks, orientation) for blocks in coefficients_of(jpeg)]
    found = coefficients(bytes(made.codestream))
    assert all(map(np.array_equal, found, wanted))
    exact = "-dct", "float", "-nosmooth"
    shown, photographed = pixels(made, *exact), upright(decoded(jpeg, *exact), orientation)
    assert furthest(shown, photographed) <= 2
    assert np.mean(shown != photographed) < 0.002
    if min(shown.shape[:2]) > 8:  # narrower chroma is repeated
        assert furthest(pixels(made), upright(decoded(jpeg), orientation)) <= 5


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", JPEG_OF)
@pytest.mark.parametrize("size", [LANDSCAPE, PORTRAIT])
def test_a_picture_of_whole_blocks_is_turned_without_loss(
    kind: str, size: tuple[int, int], orientation: int
) -> None:
    data = lying(kind, size, orientation)
    made = normalised(data)
    assert made.derivation == ""
    assert_moved_without_loss(upright_jpeg(kind, size), made, orientation)


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("kind", ["grey", "4:4:4", "4:2:2", "4:2:0", "RGB", "progressive"])
@pytest.mark.parametrize("size", ODD)
def test_a_picture_of_any_size_stands_upright_and_whole(
    kind: str, size: tuple[int, int], orientation: int
) -> None:
    """It is turned without loss where the edges allow it, and else encoded again; never cropped."""
    data = lying(kind, size, orientation)
    made = normalised(data)
    said = made.encapsulation
    assert (said.columns, said.rows) == (size if orientation < 5 else size[::-1])
    if can_be_turned(kind, size, orientation):
        assert made.derivation == ""
        assert_moved_without_loss(upright_jpeg(kind, size), made, orientation)
    else:
        assert "encoded again at quality 98" in made.derivation
        shown = decoded(upright_jpeg(kind, size))
        assert psnr(pixels(made), upright(shown, orientation)) >= 40


@pytest.mark.parametrize("size", [(96, 64), (93, 61)])
def test_all_eight_orientations_show_the_same_picture(size: tuple[int, int]) -> None:
    """Each is made as a camera held that way would make it, of one and the same scene."""
    scene = np.asarray(picture(*size)).astype(np.int32)
    back = {6: 8, 8: 6}
    for orientation in range(1, 9):
        turned_scene = upright(scene, back.get(orientation, orientation))
        camera = Image.fromarray(turned_scene.astype(np.uint8))
        exif = Image.Exif()
        exif[0x0112] = orientation
        jpeg = cjpeg(camera, "-quality", "95", "-sample", "1x1")
        data = behind_soi(without(jpeg, 0xE0), segment(0xE1, exif.tobytes()))
        assert psnr(pixels(normalised(data)), scene) > 38, orientation


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_is_none_means_upright(orientation: int) -> None:
    made = normalised(make_jpeg(*LANDSCAPE, orientation=orientation))
    assert (made.encapsulation.columns, made.encapsulation.rows) == LANDSCAPE
    assert not any("turned" in change for change in made.changes)


@pytest.mark.parametrize("policy", ["reencode", "lossless-or-keep", "refuse"])
def test_every_policy_turns_without_loss_what_can_be_turned(policy: str) -> None:
    made = normalised(make_jpeg(*LANDSCAPE, orientation=6), UPRIGHT=policy)
    assert made.derivation == ""
    assert "turned a quarter clockwise without loss" in made.changes


def test_encoding_again_is_told_in_the_answer_and_in_the_instance() -> None:
    made = described(make_jpeg(93, 61, orientation=6))
    dataset = made.instance.dataset
    how = (
        "decoded, turned a quarter clockwise and encoded again at quality 98, since it could not "
        "be turned upright without loss"
    )
    assert made.changes[-1] == how
    assert how[1:] in dataset.DerivationDescription
    assert list(dataset.ImageType) == ["DERIVED", "PRIMARY"]
    assert dataset.LossyImageCompression == "01"
    assert list(dataset.LossyImageCompressionMethod) == ["ISO_10918_1"] * 2
    original, again = map(float, dataset.LossyImageCompressionRatio)
    assert original > again > 1
    assert (dataset.Rows, dataset.Columns) == (93, 61)


def test_a_picture_encoded_again_has_no_subsampled_chroma() -> None:
    header = inspect(bytes(normalised(make_jpeg(93, 61, orientation=6)).codestream))
    assert {(c.horizontal, c.vertical) for c in header.components} == {(1, 1)}


@pytest.mark.parametrize("progressive", [False, True])
def test_kept_as_it_lies_it_keeps_every_coefficient_and_says_so(progressive: bool) -> None:  # noqa: FBT001
    data = make_jpeg(93, 61, orientation=6, progressive=progressive)
    made = normalised(data, UPRIGHT="lossless-or-keep")
    assert (made.encapsulation.columns, made.encapsulation.rows) == (93, 61)
    assert made.derivation == ""
    assert all(map(np.array_equal, coefficients(bytes(made.codestream)), coefficients(data)))
    assert made.changes[-1] == (
        "left as it lies: to be shown upright it would have to be turned a quarter clockwise"
    )


@pytest.mark.parametrize("orientation", [2, 3, 6, 7, 8])
def test_refused_it_is_told_what_to_do(orientation: int) -> None:
    with pytest.raises(UnsupportedJpeg, match=f"orientation {orientation}") as caught:
        normalised(make_jpeg(93, 61, orientation=orientation), UPRIGHT="refuse")
    assert caught.value.reason == "rotated"
    assert "UPRIGHT=reencode" in caught.value.mend


@pytest.mark.parametrize("policy", ["lossless-or-keep", "refuse", "reencode"])
@pytest.mark.parametrize("progressive", [(), ("-progressive",)])
def test_a_sampling_without_a_name_is_no_damage(policy: str, progressive: tuple[str, ...]) -> None:
    """libturbojpeg moves the usual samplings only; others are wrapped, or go the policy's way."""
    jpeg = cjpeg(picture(96, 64), "-quality", "90", "-sample", "4x2", *progressive)
    made = normalised(jpeg, UPRIGHT=policy)
    assert bool(made.derivation) == bool(progressive)
    assert psnr(pixels(made), sound(jpeg)) > 40
    exif = Image.Exif()
    exif[0x0112] = 6
    data = behind_soi(without(jpeg, 0xE0), segment(0xE1, exif.tobytes()))
    if policy == "refuse":
        with pytest.raises(UnsupportedJpeg, match="orientation 6"):
            normalised(data, UPRIGHT=policy)
        return
    made = normalised(data, UPRIGHT=policy)
    shown = sound(jpeg) if policy == "lossless-or-keep" else upright(sound(jpeg), 6)
    assert psnr(pixels(made), shown) > 40


@pytest.mark.parametrize("size", [(64, 64), (64, 48), (61, 47)])
def test_pixels_that_are_not_square_are_turned_with_the_picture(size: tuple[int, int]) -> None:
    """Twice as many of them across an inch as down it are twice as high as wide."""
    jfif = segment(0xE0, b"JFIF\0\1\1\0\0\2\0\1\0\0")
    for orientation, ratio in ((1, [2, 1]), (3, [2, 1]), (5, [1, 2]), (6, [1, 2])):
        data = behind_soi(without(make_jpeg(*size, orientation=orientation), 0xE0), jfif)
        assert described(data).instance.dataset.PixelAspectRatio == ratio
    kept = described(data, UPRIGHT="lossless-or-keep").instance.dataset
    assert kept.PixelAspectRatio == ([2, 1] if size == (61, 47) else [1, 2])


def test_cmyk_is_turned_as_it_is_converted() -> None:
    data = make_jpeg(93, 61, "CMYK", orientation=6, quality=95)
    made = normalised(data, CMYK="convert")
    assert (made.encapsulation.columns, made.encapsulation.rows) == (61, 93)
    with_pillow = np.asarray(Image.fromarray(image(data).astype(np.uint8), "CMYK").convert("RGB"))
    assert psnr(pixels(made), upright(with_pillow.astype(np.int32), 6)) > 40
