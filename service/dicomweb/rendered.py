"""An image that a browser can show: the stored baseline JPEG itself wherever that will do."""

import re
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

from pydicom import Dataset
from werkzeug.exceptions import NotAcceptable

from service.dicom import decoding
from service.dicomweb import samples
from service.dicomweb.accept import Offer
from service.dicomweb.frames import frames, is_encapsulated
from service.dicomweb.transcoded import BUDGET
from service.errors import BadRequest

if TYPE_CHECKING:
    from PIL.Image import Image

JPEG = Offer("image/jpeg")
PNG = Offer("image/png")


class Viewport(NamedTuple):
    """What the image shall fit into, in pixels, and the region of it to show: x, y, w, h."""

    width: int
    height: int
    region: tuple[int, int, int, int] | None = None


_BASELINE = "1.2.840.10008.1.2.4.50"
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_NOT_AS_IT_IS = frozenset({"MONOCHROME1", "PALETTE COLOR"})
_MAX_SIDE = 10_000  # pixels
_MAX_PIXELS = 80_000_000
_COPIES = 8  # bytes for each pixel: Pillow's four, twice
_QUALITY = 90

_SIDE = "[1-9][0-9]{0,4}"
_VIEWPORT = re.compile(
    f"({_SIDE}),({_SIDE})(?:,([0-9]{{0,5}}),([0-9]{{0,5}}),((?:{_SIDE})?),((?:{_SIDE})?))?"
)


def read_viewport(text: str | None) -> Viewport | None:
    """Read the ``viewport`` parameter (PS3.18 8.3.5.1.3): the size that the image shall fit into.

    Behind it may stand the region of the image to show: left, top, width, height, each of which
    may be empty. A width or height of 0 here means up to the edge.

    Raises
    ------
    BadRequest
        If it isn't two numbers from 1 to 10,000, or two and four.
    """
    if text is None:
        return None
    found = _VIEWPORT.fullmatch(text)
    if not found or max(int(found[1]), int(found[2])) > _MAX_SIDE:
        raise BadRequest(
            f"not WIDTH,HEIGHT from 1 to {_MAX_SIDE}, or WIDTH,HEIGHT,LEFT,TOP,WIDTH,HEIGHT",
            where="viewport",
        )
    width, height, *region = (int(number or 0) for number in found.groups())
    left, top, across, down = region
    return Viewport(width, height, (left, top, across, down) if any(region) else None)


def render(dataset: Dataset, number: int, offer: Offer, viewport: Viewport | None) -> bytes:
    """Return a frame, counted from 1, as JPEG or PNG, with the ICC profile of its colours.

    Raises
    ------
    BadRequest
        If the viewport's region isn't within the image.
    NotAcceptable
        If it can't be decoded.
    Busy
        If there is no memory for it.
    """
    photometric = dataset.get("PhotometricInterpretation")
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    (data,) = frames(dataset, [number])
    as_it_is = syntax == _BASELINE and photometric not in _NOT_AS_IT_IS and viewport is None
    profile = decoding.profile(dataset)
    if as_it_is and offer.media_type == JPEG.media_type:
        return decoding.shown(data, syntax, photometric, profile)
    with BUDGET.take(_COPIES * _pixels(dataset)):
        try:
            return _encode(_within(_decode(dataset, data), viewport), offer, profile)
        except BadRequest:
            raise
        except Exception as error:  # what decoders raise: OS, syntax, value, decompression bomb
            raise _undecodable() from error


def _undecodable() -> NotAcceptable:
    return NotAcceptable("the stored image can't be decoded to be rendered")


def _pixels(dataset: Dataset) -> int:
    try:
        pixels = int(dataset.Rows * dataset.Columns)
    except (AttributeError, TypeError) as error:
        raise _undecodable() from error
    if not 0 < pixels <= _MAX_PIXELS:
        raise _undecodable()
    return pixels


def _decode(dataset: Dataset, data: bytes) -> "Image":
    photometric = str(dataset.get("PhotometricInterpretation"))
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    if not is_encapsulated(dataset):
        if syntax == _BIG_ENDIAN and dataset["PixelData"].VR == "OW":
            data = _swapped(data)
        planar = dataset.get("PlanarConfiguration") or 0
        return samples.picture(dataset, data, photometric, planar)
    if syntax in decoding.AS_SAMPLES:
        colours = decoding.coding(dataset).colours or photometric
        return samples.picture(dataset, decoding.frame(dataset, data), colours)
    if photometric == "PALETTE COLOR":
        raise ValueError("compressed with loss, indices are none any more")
    size = (dataset.Columns, dataset.Rows)
    return _opened(decoding.shown(data, syntax, photometric), size, photometric)


def _swapped(data: bytes) -> bytes:
    """Return words of 16 bits in little endian."""
    swapped = bytearray(len(data))
    swapped[0::2], swapped[1::2] = data[1::2], data[0::2]
    return bytes(swapped)


def _opened(codestream: bytes, size: tuple[int, int], photometric: str) -> "Image":
    """Open what tells its colours itself: any JPEG of DCT, whatever its transfer syntax is."""
    from PIL import Image, ImageOps  # noqa: PLC0415 - costs 60 ms that only rendering pays

    # Of the formats that Pillow would try, some run other programs.
    image = Image.open(BytesIO(codestream), formats=("JPEG", "JPEG2000"))
    if image.size != size:
        raise ValueError("another size")
    return ImageOps.invert(image) if photometric == "MONOCHROME1" else image


def _within(image: "Image", viewport: Viewport | None) -> "Image":
    """Cut out the region, and make it fit; nothing is enlarged."""
    if viewport and viewport.region:
        left, top, width, height = viewport.region
        right = left + width if width else image.width
        bottom = top + height if height else image.height
        if not (left < right <= image.width and top < bottom <= image.height):
            raise BadRequest("the region isn't within the image", where="viewport")
        image = image.crop((left, top, right, bottom))
    if viewport:
        image.thumbnail((viewport.width, viewport.height))
    return image


def _encode(image: "Image", offer: Offer, profile: bytes | None) -> bytes:
    image = image.convert("RGB") if image.mode == "YCbCr" else image
    profile = image.info.get("icc_profile", profile)
    buffer = BytesIO()
    if offer.media_type == PNG.media_type:
        image.save(buffer, "PNG", icc_profile=profile)
    else:
        image.save(buffer, "JPEG", quality=_QUALITY, icc_profile=profile)
    return buffer.getvalue()
