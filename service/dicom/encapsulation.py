"""How DICOM describes a JPEG codestream: PS3.5 8.2.1 and A.4.1 as one decision."""

from dataclasses import dataclass
from typing import Final

from service.dicom.jpeg import LOSSLESS_MARKERS, JpegHeader
from service.errors import DamagedJpeg, UnsupportedJpeg

JPEG_BASELINE: Final = "1.2.840.10008.1.2.4.50"
JPEG_EXTENDED: Final = "1.2.840.10008.1.2.4.51"
JPEG_LOSSLESS: Final = "1.2.840.10008.1.2.4.57"
JPEG_LOSSLESS_SV1: Final = "1.2.840.10008.1.2.4.70"
JPEG_LS_LOSSLESS: Final = "1.2.840.10008.1.2.4.80"
JPEG_LS_NEAR_LOSSLESS: Final = "1.2.840.10008.1.2.4.81"


@dataclass(frozen=True, slots=True)
class Encapsulation:
    """The transfer syntax of a codestream, and the pixel attributes that it implies.

    Attributes
    ----------
    bits_allocated, bits_stored
        Per sample; the high bit is ``bits_stored - 1``, and samples are unsigned.
    lossy_method
        A term of Lossy Image Compression Method (PS3.3 C.7.6.1.1.5.1); empty where the process
        is lossless.
    """

    transfer_syntax: str
    photometric_interpretation: str
    rows: int
    columns: int
    samples_per_pixel: int
    bits_allocated: int
    bits_stored: int
    lossy_method: str = ""


def encapsulate(header: JpegHeader) -> Encapsulation:
    """Choose transfer syntax and photometric interpretation for a codestream as it is.

    Lossy rows are exhaustive: MONOCHROME2, YBR_FULL_422 (whatever the chroma sampling) and RGB
    in JPEG Baseline, MONOCHROME2 in JPEG Extended (PS3.5 Table 8.2.1-1). Lossless ones allow
    YBR_FULL and RGB for colour (Table 8.2.1-2). All progressive, hierarchical and arithmetic
    syntaxes are retired (PS3.5 A.4.1, PS3.6 Table A-1).

    Raises
    ------
    UnsupportedJpeg
        If no transfer syntax can carry the codestream; `reason` names the kind.
    DamagedJpeg
        If process and precision contradict each other.
    """
    check_representable(header)
    match header.process:
        case 0xC0 if len(header.components) < 4:
            return _lossy(header, JPEG_BASELINE)
        case 0xC1 if len(header.components) == 1:
            return _lossy(header, JPEG_EXTENDED)
        case 0xC3:
            first_order = header.predictor == 1
            return _lossless(header, JPEG_LOSSLESS_SV1 if first_order else JPEG_LOSSLESS)
        case 0xF7:
            return _jpeg_ls(header)
        case process:
            raise _unsupported(f"sof{process & 15}", f"has the process SOF{process & 15}")


def check_representable(header: JpegHeader) -> None:
    """Raise `UnsupportedJpeg` or `DamagedJpeg` for what no transfer syntax fits.

    What a lossless transform can mend passes: progressive and arithmetic JPEGs of 8 bits, extended
    ones in colour; so do four components, which a conversion of colours can mend.
    """
    colour = len(header.components) > 1
    if header.hierarchical:
        raise _unsupported("hierarchical", "is hierarchical")
    if header.process in {0xCB, 0xCF}:
        raise _unsupported("arithmetic-lossless", "is lossless with arithmetic coding")
    lossy = header.process not in LOSSLESS_MARKERS
    if len(header.components) not in ({1, 3, 4} if lossy else {1, 3}):
        raise _unsupported("components", f"has {len(header.components)} components, not 1 or 3")
    if header.precision == 12 and lossy and header.process != 0xC0:
        if colour or header.process != 0xC1:
            kind = "in colour" if colour else "progressive or arithmetic"
            raise _unsupported("12-bit", f"has 12-bit samples and is {kind}")
    elif lossy and header.precision != 8:
        raise DamagedJpeg(
            f"samples of this process have 8 or 12 bits, these {header.precision}",
            reason="malformed",
        )
    if not 2 <= header.precision <= 16:
        raise DamagedJpeg(
            f"samples have 2 to 16 bits, these {header.precision}", reason="malformed"
        )


def _lossy(header: JpegHeader, transfer_syntax: str) -> Encapsulation:
    return _encapsulation(header, transfer_syntax, "YBR_FULL_422", "ISO_10918_1")


def _lossless(header: JpegHeader, transfer_syntax: str) -> Encapsulation:
    if len({(c.horizontal, c.vertical) for c in header.components}) > 1:
        raise _unsupported("lossless-subsampled", "is lossless with subsampled components")
    return _encapsulation(header, transfer_syntax, "YBR_FULL")


def _jpeg_ls(header: JpegHeader) -> Encapsulation:
    """Describe JPEG-LS, which has no colour transform of its own; Ss is NEAR."""
    if header.predictor:
        return _encapsulation(header, JPEG_LS_NEAR_LOSSLESS, "RGB", "ISO_14495_1")
    return _encapsulation(header, JPEG_LS_LOSSLESS, "RGB")


def _encapsulation(
    header: JpegHeader, transfer_syntax: str, not_rgb: str, lossy_method: str = ""
) -> Encapsulation:
    samples = len(header.components)
    colour = "RGB" if header.rgb else not_rgb
    return Encapsulation(
        transfer_syntax=transfer_syntax,
        photometric_interpretation="MONOCHROME2" if samples == 1 else colour,
        rows=header.rows,
        columns=header.columns,
        samples_per_pixel=samples,
        bits_allocated=8 if header.precision <= 8 else 16,
        bits_stored=header.precision,
        lossy_method=lossy_method,
    )


def _unsupported(reason: str, what: str) -> UnsupportedJpeg:
    return UnsupportedJpeg(
        f"the JPEG {what}; DICOM has no transfer syntax for that",
        reason=reason,
        mend="save it as a baseline JPEG",
    )
