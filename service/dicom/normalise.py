"""From the JPEG as it came to a codestream that DICOM allows, without loss."""

from dataclasses import dataclass, replace

from service.dicom.canonical import canonicalise
from service.dicom.codestream import Codestream
from service.dicom.encapsulation import Encapsulation, check_representable, encapsulate
from service.dicom.jpeg import JpegHeader
from service.errors import DamagedJpeg, TooLarge, UnsupportedJpeg


@dataclass(frozen=True, slots=True)
class Normalised:
    """A codestream fit for DICOM, how DICOM describes it, and what was changed to get there."""

    codestream: Codestream
    encapsulation: Encapsulation
    changes: tuple[str, ...]


def check_size(header: JpegHeader, max_pixels: int) -> None:
    """Raise `TooLarge` above `max_pixels` rows x columns: a small file can unfold to gigabytes."""
    rows = header.rows or header.number_of_lines
    if rows * header.columns > max_pixels:
        raise TooLarge(
            f"the image has {header.columns} x {rows} pixels, more than the {max_pixels} allowed",
            reason="too-many-pixels",
            mend="send a smaller picture, or raise MAX_PIXELS",
        )


def normalise(data: bytes, header: JpegHeader) -> Normalised:
    """Return the codestream of an upright picture whose headers say nothing but the picture.

    Raises
    ------
    UnsupportedJpeg
        If the JPEG would have to be transformed first.
    DamagedJpeg
        If it is not whole.
    """
    check_representable(header)
    _check_whole(header)
    if header.orientation != 1:
        raise UnsupportedJpeg(
            f"the picture lies on its side or is mirrored (EXIF orientation {header.orientation})",
            reason="rotated",
            mend="turn it upright and send it without an EXIF orientation",
        )
    canonical = canonicalise(data, header)
    encapsulation = encapsulate(replace(header, process=canonical.process))
    return Normalised(canonical.codestream, encapsulation, canonical.changes)


def _check_whole(header: JpegHeader) -> None:
    if header.rows == 0:
        raise DamagedJpeg(
            "the frame header gives no number of rows; a DNL segment would have to",
            reason="no-rows",
        )
    if not header.complete:
        raise DamagedJpeg(
            "the JPEG is truncated: it ends without EOI",
            reason="truncated",
            where=f"byte {header.size}",
            mend="send the whole file",
        )
    entropy_coded = sum(scan.scan_end - scan.end for scan in header.scans)
    if entropy_coded < _least_bytes(header):
        raise DamagedJpeg(
            f"the scans hold {entropy_coded} bytes, too few for so many pixels",
            reason="truncated",
            where=f"byte {header.end}",
            mend="send the whole file",
        )


def _least_bytes(header: JpegHeader) -> int:
    """Return the least that the entropy-coded bytes of a Huffman sequential JPEG can measure.

    Each 8 x 8 block takes a code for DC and one for AC at least, of one bit at least each.
    """
    if header.process not in {0xC0, 0xC1}:
        return 0
    across = max(component.horizontal for component in header.components)
    down = max(component.vertical for component in header.components)
    blocks = sum(
        -(-header.columns * c.horizontal // (8 * across))
        * -(-header.rows * c.vertical // (8 * down))
        for c in header.components
    )
    return blocks * 2 // 8
