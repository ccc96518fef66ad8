"""Explicit VR Little Endian from what is stored otherwise: decoded right, or refused with a way."""

import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.pixels.encoders.base import get_encoder
from pydicom.uid import UID

from service.archive import Archive
from service.dicom import decoding, multipart, part10, raster
from service.dicom.budget import Budget
from service.errors import Busy, NotDecodable
from tests.archive_instances import (
    BASELINE,
    INSTANCE,
    SERIES,
    STUDY,
    attributes,
    dicom_file,
    jpeg,
    put,
)
from tests.jpegs import picture
from tests.judges import require_tool
from tests.test_dicomweb_retrieve import uncompressed

EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
RLE = "1.2.840.10008.1.2.5"
LOSSLESS_J2K, J2K = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"
JPEG_LS = "1.2.840.10008.1.2.4.80"
EXTENDED = "1.2.840.10008.1.2.4.51"
PATH = f"/dicomWeb/studies/{STUDY}/series/{SERIES}/instances/{INSTANCE}"


def encapsulated(syntax: str, *codestreams: bytes, **changes: Any) -> bytes:
    """Return a file with these frames; no change of an attribute is checked."""
    dataset = part10.decode(dicom_file(syntax=syntax, NumberOfFrames=len(codestreams), **changes))
    dataset.PixelData = encapsulate(list(codestreams))
    buffer = BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def j2k(image: Image.Image, *, colour_transform: bool) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "JPEG2000", no_jp2=True, irreversible=False, mct=int(colour_transform))
    return buffer.getvalue()


def rle(samples: bytes, dataset: Dataset) -> bytes:
    encoded: bytes = get_encoder(UID(RLE)).encode(
        samples,
        rows=dataset.Rows,
        columns=dataset.Columns,
        samples_per_pixel=dataset.SamplesPerPixel,
        number_of_frames=1,
        bits_allocated=dataset.BitsAllocated,
        bits_stored=dataset.BitsStored,
        pixel_representation=0,
        photometric_interpretation=dataset.PhotometricInterpretation,
        planar_configuration=0,
        encoding_plugin="pydicom",
    )
    return encoded


def retrieved(client: FlaskClient, path: str = PATH) -> Dataset:
    response = client.get(path, headers={"Accept": "application/dicom"})
    assert response.status_code == 200, response.data
    assert response.content_length == len(response.data)
    assert response.content_type == f"application/dicom; transfer-syntax={EXPLICIT}"
    return part10.decode(response.data)


def explicit(file: bytes) -> Dataset:
    length, pieces = decoding.explicit(part10.decode(file))
    whole = b"".join(pieces)
    assert len(whole) == length
    return dcmread(BytesIO(whole))


def test_a_photograph_comes_uncompressed_with_all_else_as_it_was(
    client: FlaskClient, archive: Archive
) -> None:
    put(archive, dicom_file(LossyImageCompression="01", ImageType=["ORIGINAL", "PRIMARY"]))
    found = retrieved(client)
    assert found.file_meta.TransferSyntaxUID == EXPLICIT
    assert found.file_meta.MediaStorageSOPInstanceUID == found.SOPInstanceUID == INSTANCE
    assert (found.PhotometricInterpretation, found.PlanarConfiguration) == ("RGB", 0)
    assert (found.LossyImageCompression, found.PatientName) == ("01", "Müller^José")
    expected = np.asarray(Image.open(BytesIO(jpeg())), dtype=int)
    pixels = np.frombuffer(found.PixelData, np.uint8).reshape(48, 64, 3)
    assert np.abs(pixels - expected).max() <= 1


@pytest.mark.parametrize(
    ("syntax", "photometric", "transform"),
    [
        (LOSSLESS_J2K, "YBR_RCT", True),
        (LOSSLESS_J2K, "RGB", False),
        (J2K, "RGB", False),
    ],
)
def test_jpeg_2000_is_decoded_exactly_and_rendered(
    client: FlaskClient, archive: Archive, syntax: str, photometric: str, *, transform: bool
) -> None:
    image = picture(64, 48)
    codestream = j2k(image, colour_transform=transform)
    put(archive, encapsulated(syntax, codestream, PhotometricInterpretation=photometric))
    found = retrieved(client)
    assert found.PixelData == image.tobytes()
    assert found.PhotometricInterpretation == "RGB"
    shown = client.get(f"{PATH}/rendered", headers={"Accept": "image/png"})
    assert Image.open(BytesIO(shown.data)).tobytes() == image.tobytes()


@pytest.mark.parametrize("option", ["+e1", "+el"])
@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL", "MONOCHROME2"])
def test_lossless_jpeg_is_decoded_exactly(tmp_path: Path, option: str, photometric: str) -> None:
    image = picture(64, 48, "L" if photometric == "MONOCHROME2" else "RGB")
    (tmp_path / "native.dcm").write_bytes(uncompressed(photometric, image))
    command = [require_tool("dcmcjpeg"), option, "+cn", "native.dcm", "coded.dcm"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=30)
    found = explicit((tmp_path / "coded.dcm").read_bytes())
    assert found.PixelData == image.tobytes()
    assert found.PhotometricInterpretation == photometric


def test_jpeg_2000_of_ycbcr_stays_ycbcr() -> None:
    image = picture(64, 48)
    codestream = j2k(image, colour_transform=False)
    found = explicit(encapsulated(LOSSLESS_J2K, codestream, PhotometricInterpretation="YBR_FULL"))
    assert found.PixelData == image.tobytes()
    assert found.PhotometricInterpretation == "YBR_FULL"


def test_extended_jpeg_of_8_bits_is_decoded_as_baseline_is() -> None:
    extended = jpeg().replace(b"\xff\xc0\0\x11", b"\xff\xc1\0\x11")
    assert extended != jpeg()
    assert explicit(encapsulated(EXTENDED, extended)).PixelData == explicit(dicom_file()).PixelData


@pytest.mark.parametrize(
    ("photometric", "bits"), [("RGB", 8), ("MONOCHROME2", 8), ("MONOCHROME2", 16), ("YBR_FULL", 8)]
)
def test_rle_is_decoded_exactly(photometric: str, bits: int) -> None:
    colour = photometric in ("RGB", "YBR_FULL")
    described = {
        "PhotometricInterpretation": photometric,
        "SamplesPerPixel": 3 if colour else 1,
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
    }
    samples = np.random.default_rng(1).integers(0, 9, 64 * 48 * (3 if colour else 1) * bits // 8)
    data = samples.astype(np.uint8).tobytes()
    found = explicit(encapsulated(RLE, rle(data, attributes(**described)), **described))
    assert found.PixelData == data
    assert found.PhotometricInterpretation == photometric
    assert ("OW" if bits == 16 else "OB") == found["PixelData"].VR


def test_rle_is_rendered(client: FlaskClient, archive: Archive) -> None:
    image = picture(64, 48)
    described = {"PhotometricInterpretation": "RGB"}
    codestream = rle(image.tobytes(), attributes(**described))
    put(archive, encapsulated(RLE, codestream, **described))
    shown = client.get(f"{PATH}/rendered", headers={"Accept": "image/png"})
    assert Image.open(BytesIO(shown.data)).tobytes() == image.tobytes()


def test_several_frames_of_odd_length_are_one_value_of_even_length() -> None:
    images = [picture(5, 3, "L", seed=seed) for seed in range(3)]
    codestreams = [j2k(image, colour_transform=False) for image in images]
    file = encapsulated(
        LOSSLESS_J2K,
        *codestreams,
        Rows=3,
        Columns=5,
        SamplesPerPixel=1,
        PlanarConfiguration=None,
        PhotometricInterpretation="MONOCHROME2",
    )
    found = explicit(file)
    assert found.PixelData == b"".join(image.tobytes() for image in images) + b"\0"
    assert found.NumberOfFrames == 3
    assert "PlanarConfiguration" not in found


def test_what_is_implicit_becomes_explicit() -> None:
    dataset = attributes()
    dataset.add_new(0x00091001, "LO", "private")
    dataset.add_new(0x00090010, "LO", "SOMEBODY")
    dataset.add_new(0x7FE00010, "OW", bytes(48 * 64 * 3))
    dataset.file_meta = part10.decode(dicom_file()).file_meta
    dataset.file_meta.TransferSyntaxUID = UID(IMPLICIT)
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    found = explicit(buffer.getvalue())
    assert found.file_meta.TransferSyntaxUID == EXPLICIT
    assert found == dcmread(BytesIO(buffer.getvalue()))


def test_what_stands_behind_the_pixels_stays_behind_them() -> None:
    dataset = part10.decode(dicom_file())
    dataset.add_new(0xFFFCFFFC, "OB", bytes(10))
    buffer = BytesIO()
    dataset.save_as(buffer)
    assert explicit(buffer.getvalue())[0xFFFCFFFC].value == bytes(10)


def test_what_is_native_has_no_table_of_encapsulated_frames() -> None:
    dataset = part10.decode(encapsulated(BASELINE, jpeg(0), jpeg(1)))
    data, offsets, lengths = encapsulate_extended([jpeg(0), jpeg(1)])
    dataset.PixelData = data
    dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = offsets, lengths
    buffer = BytesIO()
    dataset.save_as(buffer)
    found = explicit(buffer.getvalue())
    assert not {"ExtendedOffsetTable", "ExtendedOffsetTableLengths"} & set(found.dir())
    assert len(found.PixelData) == 2 * 64 * 48 * 3


def test_a_codestream_larger_than_the_data_set_says_is_not_decoded() -> None:
    image = picture(64, 48)
    with pytest.raises(ValueError, match="another size"):
        raster.decode(j2k(image, colour_transform=False)[:200], 4, 4)  # decoding would fail


def test_a_study_comes_as_parts_of_one_transfer_syntax(
    client: FlaskClient, archive: Archive
) -> None:
    native = b"".join(decoding.explicit(part10.decode(dicom_file(SOPInstanceUID="9.9")))[1])
    put(archive, dicom_file())
    put(archive, native)
    response = client.get(f"/dicomWeb/studies/{STUDY}")
    parts = multipart.decode(response.data, response.content_type)
    kinds = {part.headers["content-type"] for part in parts}
    assert kinds == {f"application/dicom; transfer-syntax={EXPLICIT}"}
    assert part10.decode(bytes(parts[0].body)).SOPInstanceUID == INSTANCE
    assert bytes(parts[1].body) == native


@pytest.mark.parametrize(
    "accept", [None, "*/*", 'multipart/related; type="application/octet-stream"']
)
@pytest.mark.parametrize("path", ["/frames/1", "/bulkdata/7FE00010"])
def test_frames_are_decoded_by_default(
    client: FlaskClient, archive: Archive, path: str, accept: str | None
) -> None:
    put(archive, dicom_file())
    response = client.get(PATH + path, headers={"Accept": accept} if accept else {})
    (part,) = multipart.decode(response.data, response.content_type)
    expected = f"application/octet-stream; transfer-syntax={EXPLICIT}"
    assert part.headers["content-type"] == expected
    assert bytes(part.body) == explicit(dicom_file()).PixelData


def test_bulk_data_of_several_frames_is_one_value_only_if_it_is_decoded(
    client: FlaskClient, archive: Archive
) -> None:
    put(archive, encapsulated(BASELINE, jpeg(0), jpeg(1)))
    url = f"{PATH}/bulkdata/7FE00010"
    response = client.get(url, headers={"Accept": "application/octet-stream"})
    assert response.data == explicit(encapsulated(BASELINE, jpeg(0), jpeg(1))).PixelData
    refused = client.get(url, headers={"Accept": "image/jpeg"})
    assert refused.status_code == 406


@pytest.mark.parametrize(
    ("syntax", "changes"),
    [
        (JPEG_LS, {}),
        (EXTENDED, {"BitsAllocated": 16}),
        (LOSSLESS_J2K, {"BitsAllocated": 16}),
        (LOSSLESS_J2K, {"PixelRepresentation": 1}),
        (BASELINE, {"PhotometricInterpretation": "HSV"}),
        (BASELINE, {"SamplesPerPixel": 4, "PhotometricInterpretation": "CMYK"}),
        ("1.2.840.10008.1.2.4.59", {}),
    ],
)
def test_what_cannot_be_decoded_here_comes_as_it_is_stored(
    client: FlaskClient, archive: Archive, syntax: str, changes: dict[str, object]
) -> None:
    file = encapsulated(syntax, jpeg(), **changes)
    put(archive, file)
    response = client.get(PATH, headers={"Accept": "application/dicom"})
    assert response.status_code == 406
    assert f"transfer-syntax={syntax}" in response.get_json()["error"]["message"]
    anything = client.get(PATH, headers={"Accept": "*/*"})
    (part,) = multipart.decode(anything.data, anything.content_type)
    assert bytes(part.body) == file


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (dicom_file(Rows=47), "can't be decoded"),
        (dicom_file(Rows=None), "Rows"),
        (dicom_file(Rows=60_000, Columns=60_000), "too long"),
        (encapsulated(BASELINE, jpeg()[:-200]), "damaged"),
        (encapsulated(LOSSLESS_J2K, b"\xff\x4f\xff\x51 and nothing else"), "damaged"),
        (encapsulated(RLE, b"\0" * 64), "damaged"),
        (dicom_file(NumberOfFrames=2), "fewer frames"),
        (dicom_file(PhotometricInterpretation="HSV"), "can't be decoded"),
    ],
)
def test_what_turns_out_not_to_be_decodable_is_refused_with_the_way_out(
    file: bytes, text: str
) -> None:
    with pytest.raises(NotDecodable) as refusal:
        b"".join(decoding.explicit(part10.decode(file))[1])
    assert text in str(refusal.value)
    assert "transfer-syntax=*" in refusal.value.mend


def test_a_damaged_frame_is_told_before_anything_is_sent(
    client: FlaskClient, archive: Archive
) -> None:
    put(archive, encapsulated(BASELINE, jpeg()[:-200]))
    for path in (PATH, f"{PATH}/frames/1", f"/dicomWeb/studies/{STUDY}"):
        assert client.get(path).status_code == 406


def test_an_answer_whose_later_frame_is_damaged_breaks_off(
    client: FlaskClient, archive: Archive
) -> None:
    put(archive, encapsulated(BASELINE, jpeg(), jpeg()[:-200]))
    with pytest.raises(ConnectionResetError, match="can't be completed"):
        client.get(f"{PATH}/frames/1,2", buffered=True)


def test_who_waits_for_memory_too_long_is_told_to_come_again() -> None:
    budget = Budget(10, patience=0.01)
    with budget.take(6), pytest.raises(Busy), budget.take(6):
        pass
    with budget.take(10):
        pass
