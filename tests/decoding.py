"""Programs and libraries of others that encode JPEGs, and decode them and DICOM files."""

import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.pixels.utils import pixel_array

from tests.judges import require_tool

Pixels = NDArray[np.signedinteger[Any]]

# What turns a picture of each EXIF orientation upright: CIPA DC-008, tag 0112H.
_UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


def upright(pixels: Pixels, orientation: int) -> Pixels:
    turned: Pixels = _UPRIGHT[orientation](pixels)
    return turned


def djpeg(data: bytes, *options: str) -> tuple[Pixels | None, str]:
    """Decode with libjpeg-turbo's own program; return the pixels, and what it warned of.

    Pixels are rows x columns of grey, or rows x columns x 3.
    """
    command = [require_tool("djpeg"), *options]
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    pixels = image(done.stdout) if done.returncode == 0 else None
    return pixels, done.stderr.decode(errors="replace").strip()


def sound(data: bytes, *options: str) -> Pixels:
    """Decode with djpeg what gives it no reason to warn."""
    pixels, warning = djpeg(data, *options)
    assert pixels is not None, warning
    assert warning == ""
    return pixels


def cjpeg(picture: Image.Image, *options: str) -> bytes:
    """Encode with libjpeg-turbo's own program, which knows samplings that Pillow doesn't."""
    pnm = BytesIO()
    picture.save(pnm, "PPM")
    return _filtered(pnm.getvalue(), "cjpeg", *options)


def jpegtran(data: bytes, *options: str) -> bytes:
    """Transform with libjpeg-turbo's own program."""
    return _filtered(data, "jpegtran", *options)


def _filtered(data: bytes, tool: str, *options: str) -> bytes:
    command = [require_tool(tool), *options]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


def image(data: bytes) -> Pixels:
    """Decode with Pillow: JPEG, PNM."""
    with Image.open(BytesIO(data)) as opened:
        return _signed(np.asarray(opened))


def _signed(samples: NDArray[Any]) -> Pixels:
    """Return samples with room for their differences, but no more: large pictures have millions."""
    return samples.astype(np.int16 if samples.dtype == np.uint8 else np.int32)


def by_pydicom(file: Path, plugin: str) -> Pixels:
    """Decode with pydicom and one of its plugins: gdcm, pylibjpeg, pillow."""
    return _signed(pixel_array(file, decoding_plugin=plugin))


def by_dcmtk(file: Path) -> Pixels:
    """Decode with dcmj2pnm."""
    target = file.with_suffix(".pnm")
    _run("dcmj2pnm", file, target)
    return image(target.read_bytes())


def by_gdcm(file: Path) -> Pixels:
    """Decompress with gdcmconv; pydicom only reads the raw samples."""
    target = file.with_suffix(".raw.dcm")
    _run("gdcmconv", "--raw", file, target)
    dataset = dcmread(target)
    assert not dataset.file_meta.TransferSyntaxUID.is_compressed
    return _signed(pixel_array(dataset))


def _run(*command: Any) -> None:
    done = subprocess.run(
        [require_tool(command[0]), *map(str, command[1:])],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)


READERS = {
    "pydicom, gdcm": lambda file: by_pydicom(file, "gdcm"),
    "pydicom, pylibjpeg": lambda file: by_pydicom(file, "pylibjpeg"),
    "pydicom, pillow": lambda file: by_pydicom(file, "pillow"),
    "dcmtk": by_dcmtk,
    "gdcm": by_gdcm,
}


def furthest(one: Pixels, other: Pixels) -> int:
    """Return the greatest difference of two samples; the shapes must agree."""
    assert one.shape == other.shape
    return 0 if np.array_equal(one, other) else int(np.abs(one - other).max())


def psnr(one: Pixels, other: Pixels) -> float:
    """Return the peak signal-to-noise ratio in dB; infinite where all is the same."""
    assert one.shape == other.shape
    error = float(np.square(one - other, dtype=np.float64).mean())
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))
