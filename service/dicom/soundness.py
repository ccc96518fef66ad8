"""Whether a JPEG is whole, of a bearable size, and what its process says it is."""

from typing import Final

from service.dicom import scans
from service.dicom.encapsulation import Encapsulation
from service.dicom.jpeg import ARITHMETIC_MARKERS, SOF55, JpegHeader
from service.errors import DamagedJpeg, TooLarge, UnsupportedJpeg

MAX_SCANS: Final = 64  # a progressive JPEG has about 10; each one more is another pass
MAX_WORK: Final = 1_000_000_000  # samples in all scans; some 20 s of a processor at worst

# The processes of 8 bits that baseline can say without loss.
DCT: Final = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
_HUFFMAN_DCT = DCT - ARITHMETIC_MARKERS


def check_size(said: JpegHeader | Encapsulation, max_pixels: int) -> None:
    """Raise `TooLarge` above `max_pixels` rows x columns: a small file can unfold to gigabytes."""
    if said.rows * said.columns > max_pixels:
        raise TooLarge(
            f"the image has {said.columns} x {said.rows} pixels, {max_pixels} are allowed",
            reason="too-many-pixels",
            mend="send a smaller picture, or raise MAX_PIXELS",
        )


def sample_count(header: JpegHeader, *, subsampled: bool = True) -> int:
    """Return how many samples the components have together."""
    pixels = header.rows * header.columns
    if not subsampled:
        return pixels * len(header.components)
    across = max(component.horizontal for component in header.components)
    down = max(component.vertical for component in header.components)
    return sum(pixels * c.horizontal * c.vertical // (across * down) for c in header.components)


def check_whole(data: bytes, header: JpegHeader) -> None:
    """Raise `DamagedJpeg` for a JPEG of which a part is missing, `TooLarge` for too many scans.

    Whether a scan of the `DCT` processes that ends without EOI is whole is for libturbojpeg to
    say; nothing can tell it of the others.
    """
    if header.rows == 0:
        raise DamagedJpeg(
            "neither the frame header nor a DNL segment gives the number of rows",
            reason="no-rows",
        )
    entropy_coded = sum(scan.scan_end - scan.end for scan in header.scans)
    if entropy_coded < _least_bytes(header):
        raise DamagedJpeg(
            f"the scans hold {entropy_coded} bytes, too few for so many pixels",
            reason="truncated",
            where=f"byte {header.end}",
            mend="send the whole file",
        )
    # An arithmetic decoder goes on with zeros behind the end, and has nothing to warn of.
    if not header.complete and (header.process not in _HUFFMAN_DCT or header.precision != 8):
        raise DamagedJpeg(
            "the JPEG ends without EOI, and whether its scan is whole can't be told",
            reason="truncated",
            where=f"byte {header.size}",
            mend="send the whole file",
        )
    if not scans.are_all_there(data, header):
        raise DamagedJpeg(
            "the scans don't code all coefficients of all components",
            reason="truncated",
            where=f"byte {header.end}",
            mend="send the whole file",
        )
    if len(header.scans) > MAX_SCANS or len(header.scans) * sample_count(header) > MAX_WORK:
        raise TooLarge(
            f"the JPEG has {len(header.scans)} scans of {sample_count(header)} samples; "
            f"{MAX_SCANS} scans and {MAX_WORK} samples in all of them are allowed",
            reason="too-many-scans",
            mend="save it as a baseline JPEG",
        )


def check_lossless(data: bytes, header: JpegHeader) -> None:
    """Refuse lossless codestreams that aren't what their transfer syntax says they are.

    .70 is first-order prediction in every scan, .57 any of T.81 Table H.1's; a point transform
    drops bits, so that nothing is lossless about it (T.81 H.1.2.1).
    """
    parameters = scans.parameters(data, header)
    if header.process == 0xC3:
        mixed = len(parameters) > 1
        if mixed or not all(1 <= predictor <= 7 and not low for predictor, low in parameters):
            raise UnsupportedJpeg(
                "the lossless JPEG mixes predictors, or drops bits by a point transform",
                reason="lossless-parameters",
                mend="save it as a baseline JPEG",
            )
    if header.process == SOF55 and len({near for near, _ in parameters}) > 1:
        raise UnsupportedJpeg(
            "the scans of the JPEG-LS codestream differ in NEAR", reason="lossless-parameters"
        )


def _least_bytes(header: JpegHeader) -> int:
    """Return the least that the entropy-coded bytes of a Huffman JPEG can measure.

    Each 8 x 8 block takes a code for DC of one bit at least, and a sequential one as much for AC.
    """
    if header.process in ARITHMETIC_MARKERS:
        return sample_count(header) // 64 // 512  # no bound of the format's, but a bomb's
    codes = {0xC0: 2, 0xC1: 2, 0xC2: 1}.get(header.process, 0)
    return sample_count(header) // 64 * codes // 8
