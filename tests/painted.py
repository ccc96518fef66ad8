"""Pictures as a clinic takes them, painted: an arm on a cloth with a mole, for screenshots too."""

from io import BytesIO
from random import Random

from PIL import Image, ImageDraw, ImageFilter

_CLOTH, _SKIN, _MOLE = (58, 96, 110), (222, 172, 142), (92, 56, 40)


def arm(seed: int, *, orientation: int = 0) -> bytes:
    """Return a JPEG of 1200 x 900; with an EXIF orientation of 6 it lies on its side."""
    random = Random(seed)
    image = Image.new("RGB", (1200, 900), _CLOTH)
    draw = ImageDraw.Draw(image)
    tilt = random.randrange(-120, 120)
    draw.polygon([(0, 240 + tilt), (1200, 200 - tilt), (1200, 700 - tilt), (0, 660 + tilt)], _SKIN)
    x, y, across = random.randrange(400, 800), random.randrange(400, 520), random.randrange(60, 110)
    draw.ellipse((x - across, y - across * 0.8, x + across, y + across * 0.8), _MOLE)
    image = image.filter(ImageFilter.GaussianBlur(9))
    grain = Image.frombytes("L", (300, 225), random.randbytes(300 * 225)).resize((1200, 900))
    image = Image.blend(image, Image.merge("RGB", [grain] * 3), 0.015)
    options: dict[str, object] = {}
    if orientation == 6:
        exif = Image.Exif()
        exif[0x0112] = orientation
        image, options = image.transpose(Image.Transpose.ROTATE_90), {"exif": exif}
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=88, **options)
    return buffer.getvalue()
