"""An image that a browser can show: the stored baseline JPEG itself wherever that will do."""

import re
from io import BytesIO
from typing import TYPE_CHECKING

from pydicom import Dataset
from werkzeug.exceptions import NotAcceptable

from service.dicomweb.accept import Offer
from service.dicomweb.frames import frames, is_encapsulated
from service.errors import BadRequest

if TYPE_CHECKING:
    from PIL.Image import Image

JPEG = Offer("image/jpeg")
PNG = Offer("image/png")

Viewport = tuple[int, int]

_BASELINE = "1.2.840.10008.1.2.4.50"
_MAX_SIDE = 10_000  # pixels
_MAX_PIXELS = 80_000_000
_QUALITY = 90

# Without it, decoders take three components for YCbCr: APP14 "Adobe", transform 0 (ITU-T T.872).
#    marker length  "Adobe"    version flags0 flags1 transform
_ADOBE_RGB = bytes.fromhex("ffee 000e 41646f6265 0064 0000 0000 00")


def read_viewport(text: str | None) -> Viewport | None:
    """Read the ``viewport`` parameter: width and height in pixels that the image shall fit into.

    Raises
    ------
    BadRequest
        If it isn't two numbers from 1 to 10,000.
    """
    if text is None:
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,4}),([1-9][0-9]{0,4})", text)
    if not found or max(map(int, found.groups())) > _MAX_SIDE:
        raise BadRequest(f"not WIDTH,HEIGHT from 1 to {_MAX_SIDE}", where="viewport")
    return int(found[1]), int(found[2])


def render(dataset: Dataset, offer: Offer, viewport: Viewport | None) -> bytes:
    """Return the first frame of an image as JPEG or PNG.

    Raises
    ------
    NotAcceptable
        If it can't be decoded.
    """
    photometric = dataset.get("PhotometricInterpretation")
    baseline = dataset.file_meta.TransferSyntaxUID == _BASELINE
    if baseline and offer == JPEG and viewport is None and photometric != "MONOCHROME1":
        return _shown(frames(dataset, [1])[0], photometric)
    try:
        return _encode(_decode(dataset, photometric), offer, viewport)
    except Exception as error:  # Pillow raises what it meets: OS, syntax, value, decompression bomb
        raise NotAcceptable("the stored image can't be decoded to be rendered") from error


def _shown(codestream: bytes, photometric: str | None) -> bytes:
    """Return a JPEG that shows its own colours without the data set beside it."""
    if photometric == "RGB" and b"Adobe" not in codestream[:4096]:
        return codestream[:2] + _ADOBE_RGB + codestream[2:]
    return codestream


def _decode(dataset: Dataset, photometric: str | None) -> "Image":
    from PIL import Image, ImageOps  # noqa: PLC0415 - costs 60 ms that only rendering pays

    (data,) = frames(dataset, [1])
    if is_encapsulated(dataset):
        image: Image.Image = Image.open(BytesIO(_shown(data, photometric)))
    else:
        modes = {"MONOCHROME1": "L", "MONOCHROME2": "L", "RGB": "RGB"}
        if dataset.BitsAllocated != 8 or dataset.get("PlanarConfiguration"):
            raise ValueError("not 8 bits, colour-by-pixel")
        image = Image.frombytes(modes[str(photometric)], (dataset.Columns, dataset.Rows), data)
    if image.width * image.height > _MAX_PIXELS:
        raise ValueError("too many pixels")
    return ImageOps.invert(image) if photometric == "MONOCHROME1" else image


def _encode(image: "Image", offer: Offer, viewport: Viewport | None) -> bytes:
    if viewport:
        image.thumbnail(viewport)
    buffer = BytesIO()
    if offer == PNG:
        image.save(buffer, "PNG")
    else:
        image.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
