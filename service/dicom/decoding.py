"""Compressed Pixel Data made native: Explicit VR Little Endian (PS3.5 A.2), frame by frame.

What needs no other package than those that are there already can be decoded: 8-bit JPEG and JPEG
2000, and RLE. The SOP Instance UID and all other attributes stay, those of lossy compression too.
"""

import struct
from collections.abc import Iterator
from copy import deepcopy
from io import BytesIO
from typing import Final, NamedTuple

from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID

from service.dicom import icc, jpeg, jpegtran, raster
from service.errors import JpegstowError, NotDecodable

EXPLICIT: Final = "1.2.840.10008.1.2.1"
MAX_FRAME: Final = 150 << 20  # bytes, decoded
MAX_PIXEL_DATA: Final = 1 << 30

_NATIVE = frozenset({"1.2.840.10008.1.2", EXPLICIT})
_RLE = "1.2.840.10008.1.2.5"
_DCT = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51))
_LOSSLESS = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (57, 70))
_JPEG_2000 = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91))
JPEGS: Final = _DCT | _LOSSLESS
# What hasn't its colours in its codestream: they are the data set's to say.
AS_SAMPLES: Final = _LOSSLESS | _JPEG_2000 | {_RLE}
_PIXEL_DATA = 0x7FE00010
# The Extended Offset Table and its Lengths, of encapsulated Pixel Data only: PS3.3 C.7.6.3.1.8.
_OFFSETS = (0x7FE00001, 0x7FE00002)
# Pixel Data in Explicit VR: tag, VR, two reserved bytes, length (PS3.5 7.1.2).
_HEAD = struct.Struct("<HH2s2xI")

# The colours of three samples: what the decoders make of what is stored.
_RGB = {"RGB": "RGB", "YBR_FULL": "RGB", "YBR_FULL_422": "RGB"}
_UNCHANGED = {"RGB": "RGB", "YBR_FULL": "YBR_FULL"}
_COLOURS: dict[str, dict[str, str]] = (
    dict.fromkeys(_DCT, _RGB)
    | dict.fromkeys(_LOSSLESS, _UNCHANGED)
    | dict.fromkeys(_JPEG_2000, _UNCHANGED | {"YBR_RCT": "RGB", "YBR_ICT": "RGB"})
)

# Without it, decoders take three components for YCbCr: APP14 "Adobe", transform 0 (ITU-T T.872).
#    marker length  "Adobe"    version flags0 flags1 transform
_ADOBE_RGB = bytes.fromhex("ffee 000e 41646f6265 0064 0000 0000 00")


class Coding(NamedTuple):
    """What tells whether an image can be decoded here, if it isn't damaged."""

    transfer_syntax: str
    photometric: object
    samples: object
    bits_allocated: object
    representation: object

    @property
    def is_decodable(self) -> bool:
        """Whether the image can be had in Explicit VR Little Endian."""
        if self.transfer_syntax in _NATIVE or self.transfer_syntax == _RLE:
            return True
        if (self.bits_allocated, self.representation or 0) != (8, 0):
            return False
        grey = self.transfer_syntax in _COLOURS and self.samples == 1
        return grey or (self.samples == 3 and bool(self.colours))

    @property
    def colours(self) -> str:
        """The photometric interpretation of three decoded samples; empty if it isn't known."""
        return _COLOURS.get(self.transfer_syntax, {}).get(str(self.photometric), "")


def coding(dataset: Dataset) -> Coding:
    """Return how the Pixel Data of a data set that was read from a file is coded."""
    keywords = (
        *("PhotometricInterpretation", "SamplesPerPixel"),
        *("BitsAllocated", "PixelRepresentation"),
    )
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    return Coding(syntax, *(dataset.get(keyword) for keyword in keywords))


def shown(
    codestream: bytes, transfer_syntax: str, photometric: str | None, profile: bytes | None = None
) -> bytes:
    """Return a frame that shows its own colours without the data set beside it.

    Parameters
    ----------
    profile
        The ICC Profile (0028,2000), which a JPEG can carry.
    """
    is_jpeg = transfer_syntax in JPEGS and codestream.startswith(b"\xff\xd8")
    if is_jpeg and photometric == "RGB" and b"Adobe" not in codestream[:4096]:
        # A JFIF segment, which says YCbCr, would count for more than Adobe's.
        jfif = codestream[2:4] == b"\xff\xe0"
        behind = 4 + int.from_bytes(codestream[4:6], "big") if jfif else 2
        codestream = codestream[:2] + _ADOBE_RGB + codestream[behind:]
    return icc.embed(codestream, profile) if is_jpeg and profile else codestream


def profile(dataset: Dataset) -> bytes | None:
    """Return the ICC Profile (0028,2000) of an image in colour; None without one for RGB."""
    found = dataset.get("ICCProfile")
    if dataset.get("SamplesPerPixel") != 3 or not isinstance(found, bytes):
        return None
    # A byte may pad it to an even length.
    return found[: int.from_bytes(found[:4], "big")] if icc.is_rgb(found) else None


def number_of_frames(dataset: Dataset) -> int:
    """Return the NumberOfFrames of a data set with Pixel Data; 1 if it has no usable one."""
    try:
        return max(1, int(dataset.get("NumberOfFrames") or 1))
    except (TypeError, ValueError):
        return 1


def frame_size(dataset: Dataset) -> int:
    """Return how many bytes a native frame has.

    Raises
    ------
    NotDecodable
        If an attribute of the Image Pixel module is missing, or the frame or all frames together
        are longer than what is decoded here.
    """
    try:
        size = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel * dataset.BitsAllocated
        sound = size > 0 and size % 8 == 0
    except (AttributeError, TypeError) as error:
        raise _refusal("Rows, Columns, SamplesPerPixel or BitsAllocated is missing") from error
    if not sound or size // 8 > MAX_FRAME or size // 8 * number_of_frames(dataset) > MAX_PIXEL_DATA:
        raise _refusal("the decoded frames would be too long")
    return int(size) // 8


def frame(dataset: Dataset, codestream: bytes) -> bytes:
    """Decode one frame of a compressed image to samples in colour-by-pixel order.

    Three samples of JPEG and JPEG 2000 have the colours that `Coding.colours` says; those of RLE
    stay as they are. 16 bits and more are little endian.

    Raises
    ------
    NotDecodable
        If it is damaged, compressed in another way, or not of the size that the data set says.
    NoLibrary
        If libturbojpeg is missing.
    """
    size = frame_size(dataset)
    try:
        decoded = _decoded(dataset, codestream)
    except jpegtran.NoLibrary:
        raise
    except JpegstowError as error:
        raise _refusal(error.detail) from error
    except Exception as error:  # what decoders raise: OS, syntax, value, decompression bomb
        raise _refusal("it is damaged, or compressed in a way that isn't known here") from error
    if len(decoded) != size:
        raise _refusal("the codestream hasn't the size that Rows and Columns say")
    return decoded


def _refusal(detail: str) -> NotDecodable:
    return NotDecodable(
        f"Pixel Data (7FE0,0010) can't be decoded: {detail}",
        mend="ask for it as it is stored, with transfer-syntax=*",
    )


def _decoded(dataset: Dataset, codestream: bytes) -> bytes:
    coded = coding(dataset)
    syntax = coded.transfer_syntax
    if syntax == _RLE:
        return _from_rle(dataset, codestream)
    if not coded.is_decodable:
        raise ValueError("not for the decoders that are here")
    colour = dataset.SamplesPerPixel == 3
    # What is to stay unchanged is called RGB, which the decoders leave alone.
    visible = shown(codestream, syntax, "RGB" if syntax in _LOSSLESS else str(coded.photometric))
    if syntax in _DCT:
        header = jpeg.inspect(visible)  # the library would decode to another size
        if (header.columns, header.rows) != (dataset.Columns, dataset.Rows):
            raise ValueError("another size")
        form = jpegtran.RGB if colour else jpegtran.GREY
        return jpegtran.decode(visible, dataset.Columns, dataset.Rows, form).data
    return raster.decode(visible, dataset.Columns, dataset.Rows).data


def _from_rle(dataset: Dataset, codestream: bytes) -> bytes:
    """Decode RLE (PS3.5 Annex G), which gives one plane for each sample."""
    from pydicom.pixels.decoders.base import get_decoder  # noqa: PLC0415 - for who decodes

    alone = _copy(dataset)
    alone.add_new(0x00280008, "IS", 1)
    alone.add_new(_PIXEL_DATA, "OB", encapsulate([codestream], has_bot=False))
    alone["PixelData"].is_undefined_length = True
    planes, _ = get_decoder(UID(_RLE)).as_buffer(alone, index=0, decoding_plugin="pydicom")
    samples, width = dataset.SamplesPerPixel, dataset.BitsAllocated // 8
    return _by_pixel(bytes(planes), samples, width)


def _by_pixel(planes: bytes, samples: int, width: int) -> bytes:
    """Turn planes into pixels (Planar Configuration 0); `width` is that of a sample in bytes."""
    if samples == 1:
        return planes
    pixels, length = bytearray(len(planes)), len(planes) // samples
    for sample in range(samples):
        plane = planes[sample * length : (sample + 1) * length]
        for byte in range(width):
            pixels[sample * width + byte :: samples * width] = plane[byte::width]
    return bytes(pixels)


def native_length(dataset: Dataset) -> int:
    """Return how many bytes all frames have when they are native, without padding."""
    return frame_size(dataset) * number_of_frames(dataset)


def explicit(dataset: Dataset) -> tuple[int, Iterator[bytes]]:
    """Return the length of a file in Explicit VR Little Endian, and its pieces.

    Frames are decoded while the pieces are taken, one at a time.

    Raises
    ------
    NotDecodable
        Here if the attributes don't allow it, and from the iterator if a frame doesn't.
    """
    if "PixelData" not in dataset or not dataset["PixelData"].is_undefined_length:
        whole = _file(dataset, _headed(dataset))
        return len(whole), iter([whole])
    length = native_length(dataset)
    head, tail = _headed(dataset), Dataset()
    for tag in list(head.keys()):
        if tag > _PIXEL_DATA:
            tail.add(head[tag])
        if tag >= _PIXEL_DATA or tag in _OFFSETS:
            del head[tag]
    if dataset.SamplesPerPixel == 3:
        # New elements: those that are there belong to `dataset`, too.
        head.add_new(0x00280006, "US", 0)
        if coding(dataset).colours:
            head.add_new(0x00280004, "CS", coding(dataset).colours)
    padding = bytes(length % 2)
    vr = b"OB" if dataset.BitsAllocated <= 8 else b"OW"
    start = _file(dataset, head) + _HEAD.pack(0x7FE0, 0x0010, vr, length + len(padding))
    end = padding + _bytes(tail)
    return len(start) + length + len(end), _pieces(start, dataset, end)


def _pieces(start: bytes, dataset: Dataset, end: bytes) -> Iterator[bytes]:
    frames = decoded_frames(dataset)
    yield start + next(frames)  # together, so that a file that can't be had doesn't begin
    yield from frames
    yield end


def decoded_frames(dataset: Dataset) -> Iterator[bytes]:
    """Decode the frames of encapsulated Pixel Data one after the other.

    Raises
    ------
    NotDecodable
        If one is missing or can't be decoded.
    """
    count = number_of_frames(dataset)
    found = 0
    try:
        for codestream in generate_frames(dataset.PixelData, number_of_frames=count):
            yield frame(dataset, codestream)
            found += 1
            if found == count:
                return
    except (ValueError, struct.error) as error:
        raise _refusal("it isn't encapsulated as it should be") from error
    raise _refusal("it has fewer frames than NumberOfFrames says")


def _headed(dataset: Dataset) -> Dataset:
    """Return a data set with the same elements, and file meta information of its own."""
    headed = _copy(dataset)
    headed.file_meta.TransferSyntaxUID = UID(EXPLICIT)
    return headed


def _copy(dataset: Dataset) -> Dataset:
    """Return a data set of the same elements, to which others can be added."""
    copy = Dataset({tag: dataset[tag] for tag in dataset.keys()})  # noqa: SIM118 - a Dataset
    meta = dataset.file_meta
    copy.file_meta = FileMetaDataset({tag: deepcopy(meta[tag]) for tag in meta.keys()})  # noqa: SIM118
    return copy


def _file(dataset: Dataset, headed: Dataset) -> bytes:
    buffer = BytesIO()
    headed.preamble = getattr(dataset, "preamble", None)
    dcmwrite(buffer, headed, enforce_file_format=True)
    return buffer.getvalue()


def _bytes(dataset: Dataset) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, dataset)
    return buffer.getvalue()
