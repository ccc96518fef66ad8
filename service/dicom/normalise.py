"""From the JPEG as it came to a codestream that DICOM allows: upright, and without loss."""

from dataclasses import dataclass, field, replace
from typing import Final, Literal

from service.dicom import icc, jpeg2000, jpegtran, raster
from service.dicom.budget import Budget
from service.dicom.canonical import Canonical, canonicalise
from service.dicom.codestream import Codestream
from service.dicom.encapsulation import Encapsulation, check_representable, encapsulate
from service.dicom.exif_attributes import Tags, says_adobe_rgb, says_srgb
from service.dicom.jpeg import DRI, JpegHeader, inspect
from service.dicom.jpegtran import NotPerfect, Pixels
from service.dicom.soundness import DCT, check_lossless, check_whole, sample_count
from service.dicom.values import decimal_string
from service.errors import DamagedJpeg, UnsupportedJpeg

Upright = Literal["reencode", "lossless-or-keep", "refuse"]
Cmyk = Literal["refuse", "convert"]

QUALITY: Final = 98

_LONG_INTERVAL: Final = b"\xff\xdd\x00\x04\xff\xff"  # DRI
_BYTES_PER_SAMPLE: Final = 5  # decoded, as a picture of Pillow's, turned, and encoded
_PROCESSES: Final = {
    0xC0: "baseline",
    0xC1: "extended sequential",
    0xC2: "progressive",
    0xC9: "arithmetic sequential",
    0xCA: "arithmetic progressive",
}
_DROPPED_PROFILE: Final = "dropped an ICC profile that isn't a usable one for RGB"
_TURNS: Final = {
    1: "mirrored left to right",
    2: "mirrored top to bottom",
    3: "mirrored along the diagonal",
    4: "mirrored along the other diagonal",
    5: "turned a quarter clockwise",
    6: "turned by a half",
    7: "turned a quarter counterclockwise",
}


@dataclass(frozen=True, slots=True)
class Policy:
    """What to do where several things would be right.

    Attributes
    ----------
    upright
        For a picture that can't be turned without loss: ``reencode`` it, keep it as it lies
        (``lossless-or-keep``), or ``refuse`` it.
    cmyk
        ``refuse`` four components, or ``convert`` them to RGB.
    verify
        Whether to read all entropy-coded data strictly.
    budget
        Memory for transforms.
    """

    upright: Upright
    cmyk: Cmyk
    verify: bool
    budget: Budget


@dataclass(frozen=True, slots=True)
class Normalised:
    """A codestream fit for DICOM.

    Attributes
    ----------
    changes
        One line for each thing that was removed, repaired or transformed.
    derivation
        Why and how the pixels were encoded again; empty where they weren't.
    original_ratio
        The compression ratio before that, as DS; empty where they weren't.
    aspect_ratio
        Height and width of a pixel, as Pixel Aspect Ratio has them; None of square ones.
    tags
        The EXIF tags of the JPEG as it came.
    icc_profile
        An RGB profile in the form that DICOM demands; None without one.
    """

    codestream: Codestream
    encapsulation: Encapsulation
    changes: tuple[str, ...]
    derivation: str = ""
    original_ratio: str = ""
    aspect_ratio: tuple[int, int] | None = None
    tags: Tags = field(default_factory=dict)
    icc_profile: bytes | None = None


def normalise(data: bytes, header: JpegHeader, policy: Policy) -> Normalised:
    """Return the codestream of an upright picture whose headers say nothing but the picture.

    Progressive, arithmetic and extended JPEGs of 8 bits become baseline, and a picture is turned
    as EXIF says, by moving its coefficients. Pixels are encoded again only where that can't be
    done, and as the policy says.

    Raises
    ------
    UnsupportedJpeg
        If DICOM can't carry the JPEG, or the policy doesn't let it be changed.
    DamagedJpeg
        If it is not whole.
    """
    check_representable(header)
    check_whole(data, header)
    check_lossless(data, header)
    canonical = canonicalise(data, header)
    now = replace(header, process=canonical.process)
    normalised = _upright(canonical, now, policy)
    profile, change = _profile(header)
    aspect_ratio = header.aspect_ratio
    quarter_turn = header.orientation >= 5 and _kept_lying(header) not in normalised.changes
    if aspect_ratio and quarter_turn:
        aspect_ratio = aspect_ratio[1], aspect_ratio[0]
    return replace(
        normalised,
        changes=(*normalised.changes, *change),
        tags=header.tags,
        icc_profile=profile,
        aspect_ratio=aspect_ratio,
    )


def assume_srgb(normalised: Normalised) -> Normalised:
    """Give colours without a profile that of sRGB, for a class that must have one; and say so.

    Raises
    ------
    UnsupportedJpeg
        If the JPEG had a profile that can't be used: its colours aren't sRGB's then.
    """
    if normalised.icc_profile or normalised.encapsulation.samples_per_pixel == 1:
        return normalised
    if _DROPPED_PROFILE in normalised.changes:
        raise UnsupportedJpeg(
            "the SOP class wants an ICC profile, and the JPEG's own can't be used",
            reason="icc",
            mend="convert the picture to sRGB, or use another template",
        )
    said = "assumed the colours to be sRGB, of which the picture says nothing"
    return replace(normalised, changes=(*normalised.changes, said), icc_profile=icc.srgb())


def compression_ratio(normalised: Normalised) -> str:
    """Return uncompressed to compressed size as DS (PS3.3 C.7.6.1.1.5.2)."""
    said = normalised.encapsulation
    size = said.rows * said.columns * said.samples_per_pixel * said.bits_allocated // 8
    return _ratio(size, len(normalised.codestream))


def _ratio(uncompressed: int, compressed: int) -> str:
    ratio = uncompressed / compressed
    return decimal_string(round(ratio, 2) if ratio >= 0.1 else float(f"{ratio:.2g}"))


def _profile(header: JpegHeader) -> tuple[bytes | None, list[str]]:
    """Return the profile that describes the colours, and what became of the JPEG's own."""
    colour = len(header.components) == 3
    if header.icc_profile is not None and colour:
        profile = icc.conformant(header.icc_profile)
        if profile is not None:
            return profile, []
    change = [_DROPPED_PROFILE] if header.icc_profile is not None and colour else []
    if colour and says_adobe_rgb(header.tags):
        return icc.adobe_rgb(), change
    srgb = colour and says_srgb(header.tags)
    return (icc.srgb() if srgb or len(header.components) == 4 else None), change


def from_jpeg2000(data: bytes) -> Normalised:
    """Return a JPEG 2000 codestream without the boxes and comments around it."""
    codestream, encapsulation, changes, colour = jpeg2000.read(data)
    if encapsulation.samples_per_pixel == 1:
        return Normalised(codestream, encapsulation, changes)
    profile = icc.srgb() if colour.is_srgb else icc.conformant(colour.profile or b"")
    changes += (_DROPPED_PROFILE,) if colour.profile and not profile else ()
    return Normalised(codestream, encapsulation, changes, icc_profile=profile)


def _upright(canonical: Canonical, header: JpegHeader, policy: Policy) -> Normalised:
    if header.process not in DCT or header.precision != 8:
        return _untransformed(canonical, header, policy)
    if len(header.components) == 4:
        return _converted(canonical, header, policy)
    if header.orientation == 1 and header.process == 0xC0:
        if policy.verify or not header.complete:
            _verify(canonical, header, policy)
        return _plain(canonical, header)
    try:
        return _transformed(canonical, header, policy, jpegtran.UPRIGHT[header.orientation])
    except NotPerfect:
        return _imperfect(canonical, header, policy)


def _verify(canonical: Canonical, header: JpegHeader, policy: Policy) -> None:
    """Read the scans strictly; a picture of several of them unfolds to all its coefficients."""
    size = len(canonical.codestream) + header.rows * header.columns // 16
    if len(header.scans) > 1:
        size += 2 * sample_count(header)
    with policy.budget.take(size):
        _eighth(canonical, header)


def _eighth(canonical: Canonical, header: JpegHeader) -> Pixels:
    """Verify a picture; return it at an eighth of its size.

    libjpeg-turbo reads Huffman codes fast where all data lies in memory, and takes a code that no
    table has for zero. With a restart interval, here one longer than the scans, it reads them one
    by one and warns. An interval counts 65535 units at most.
    """
    data = bytes(canonical.codestream)
    restarts = any(segment.marker == DRI for segment in header.segments)
    if not restarts and _units(header) <= 0xFFFF:
        data = data[:2] + _LONG_INTERVAL + data[2:]
    return jpegtran.verify(data, header.columns, header.rows, rgb=header.rgb)


def _units(header: JpegHeader) -> int:
    """Return how many units (T.81 A.2) the longest scan has at most."""
    interleaved = len(header.scans) == 1 and len(header.components) > 1
    across = max(c.horizontal for c in header.components) if interleaved else 1
    down = max(c.vertical for c in header.components) if interleaved else 1
    return -(-header.columns // (8 * across)) * -(-header.rows // (8 * down))


def _plain(canonical: Canonical, header: JpegHeader, *more: str) -> Normalised:
    changes = (*canonical.changes, *more)
    return Normalised(canonical.codestream, encapsulate(header), changes)


def _untransformed(canonical: Canonical, header: JpegHeader, policy: Policy) -> Normalised:
    """Take 12-bit, lossless and JPEG-LS codestreams as they are; none of these can be turned."""
    if header.orientation == 1:
        return _plain(canonical, header)
    if policy.upright == "lossless-or-keep":
        return _plain(canonical, header, _kept_lying(header))
    raise _lying(header)


def _transformed(
    canonical: Canonical, header: JpegHeader, policy: Policy, operation: int
) -> Normalised:
    """Move and recode the coefficients."""
    with policy.budget.take(4 * sample_count(header) + 2 * len(canonical.codestream)):
        data = jpegtran.transform(bytes(canonical.codestream), operation)
        again = inspect(data)
        if policy.verify:
            _check_moved(canonical, header, operation, data, again)
    result = canonicalise(data, again)
    if result.process != 0xC0 and len(header.components) > 1:
        # Quantization tables of 16 bits, which baseline doesn't have, nor Table 8.2.1-1 in colour.
        return _reencoded(canonical, header, policy, "its quantization tables have 16 bits")
    recoded = header.process != result.process
    how = [f"recoded {_PROCESSES[header.process]} as {_PROCESSES[result.process]}"] * recoded
    how += [f"{_TURNS[operation]} without loss"] if operation else []
    changes = (*canonical.changes, *how)
    return Normalised(result.codestream, encapsulate(again), changes)


def _check_moved(
    canonical: Canonical, header: JpegHeader, operation: int, data: bytes, again: JpegHeader
) -> None:
    """Compare a picture before and after a transform, block by block.

    The library recodes with the tables of T.81 Annex K. A coefficient too large for them, which
    a damaged scan may hold without a warning, would come out as another, and all behind it too.
    """
    before = _eighth(canonical, header)
    after = jpegtran.verify(data, again.columns, again.rows, rgb=again.rgb)
    subsampled = len({(c.horizontal, c.vertical) for c in header.components}) > 1
    if not (header.rgb and subsampled) and raster.turn(before, operation) != after:
        raise DamagedJpeg(
            "the entropy-coded data is damaged (a coefficient is out of range)",
            reason="damaged-scan",
            mend="send the file again from its source",
        )


def _imperfect(canonical: Canonical, header: JpegHeader, policy: Policy) -> Normalised:
    """Deal with a picture whose edge blocks, or chroma sampling, keep it from being moved."""
    if header.orientation == 1:
        why = "the chroma sampling keeps it from being recoded without loss"
        return _reencoded(canonical, header, policy, why)
    if policy.upright == "refuse":
        raise _lying(header)
    if policy.upright == "reencode":
        why = "it could not be turned upright without loss"
        return _reencoded(canonical, header, policy, why)
    without_orientation = replace(header, tags={})
    kept = _upright(canonical, without_orientation, policy)
    return replace(kept, changes=(*kept.changes, _kept_lying(header)))


def _reencoded(canonical: Canonical, header: JpegHeader, policy: Policy, why: str) -> Normalised:
    grey = len(header.components) == 1
    form = jpegtran.GREY if grey else jpegtran.RGB
    return _encoded_again(canonical, header, policy, why, form)


def _converted(canonical: Canonical, header: JpegHeader, policy: Policy) -> Normalised:
    if policy.cmyk == "refuse":
        raise UnsupportedJpeg(
            "the JPEG has four components (CMYK or YCCK); DICOM has no photometric interpretation "
            "for that",
            reason="cmyk",
            mend="save it as RGB, or set CMYK=convert",
        )
    why = "its four components (CMYK) were converted to sRGB"
    return _encoded_again(canonical, header, policy, why, jpegtran.CMYK)


def _encoded_again(
    canonical: Canonical, header: JpegHeader, policy: Policy, why: str, form: int
) -> Normalised:
    """Decode, turn, encode at a high quality without chroma subsampling, and say so."""
    operation = jpegtran.UPRIGHT[header.orientation]
    with policy.budget.take(_BYTES_PER_SAMPLE * sample_count(header, subsampled=False)):
        data = bytes(canonical.codestream)
        pixels = jpegtran.decode(data, header.columns, header.rows, form)
        if form == jpegtran.CMYK:
            inverted = header.adobe_transform is not None
            pixels = raster.cmyk_to_rgb(pixels, header.icc_profile, inverted=inverted)
        data = jpegtran.encode(raster.turn(pixels, operation), QUALITY)
    again = inspect(data)
    result = canonicalise(data, again)
    turned = f", {_TURNS[operation]}" if operation else ""
    how = f"decoded{turned} and encoded again at quality {QUALITY}, since {why}"
    return Normalised(
        result.codestream,
        encapsulate(again),
        (*canonical.changes, how),
        derivation=how[0].upper() + how[1:],
        original_ratio=_ratio(sample_count(header, subsampled=False), len(canonical.codestream)),
    )


def _kept_lying(header: JpegHeader) -> str:
    return f"left as it lies: to be shown upright it would have to be {_how_to_turn(header)}"


def _lying(header: JpegHeader) -> UnsupportedJpeg:
    return UnsupportedJpeg(
        f"to be upright the picture would have to be {_how_to_turn(header)} "
        f"(EXIF orientation {header.orientation}), which can't be done without loss",
        reason="rotated",
        mend="turn it upright and send it without an EXIF orientation, or set UPRIGHT=reencode",
    )


def _how_to_turn(header: JpegHeader) -> str:
    return _TURNS[jpegtran.UPRIGHT[header.orientation]]
