"""Rendered pictures show what the data set says, and only what has the form that it says."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image
from pydicom.data import get_testdata_file

from service.archive import Archive
from service.dicom import icc, part10
from service.dicomweb.accept import Offer
from service.dicomweb.rendered import render
from service.dicomweb.samples import picture as picture_of
from service.dicomweb.transcoded import BUDGET
from service.pages.thumbnail import thumbnail
from tests.archive_instances import BASELINE, attributes, client_of, dicom_file, jpeg, put
from tests.decoding import furthest
from tests.jpegs import make_jpeg, picture
from tests.judges import require_tool
from tests.peers import BOUND
from tests.test_dicomweb_retrieve import uncompressed
from tests.test_transcoding import EXTENDED, LOSSLESS_J2K, PATH, encapsulated, j2k

PNG = {"Accept": "image/png"}
XML = 'multipart/related; type="application/dicom+xml"'


def ycbcr(image: Image.Image) -> Image.Image:
    """Return a picture whose three samples are called RGB and are YCbCr."""
    return Image.frombytes("RGB", image.size, image.convert("YCbCr").tobytes())


def assert_shows(client: FlaskClient, expected: Image.Image, tolerance: int) -> None:
    shown = client.get(f"{PATH}/rendered", headers=PNG)
    assert shown.status_code == 200, shown.data
    found = np.asarray(Image.open(BytesIO(shown.data)), dtype=int)
    assert np.abs(found - np.asarray(expected, dtype=int)).max() <= tolerance


def test_jpeg_2000_of_ycbcr_is_rendered_in_its_colours(
    client: FlaskClient, archive: Archive
) -> None:
    image = picture(64, 48)
    codestream = j2k(ycbcr(image), colour_transform=False)
    put(archive, encapsulated(LOSSLESS_J2K, codestream, PhotometricInterpretation="YBR_FULL"))
    assert_shows(client, image, 3)


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_lossless_jpeg_is_rendered_in_its_colours(
    client: FlaskClient, archive: Archive, tmp_path: Path, photometric: str
) -> None:
    image = picture(64, 48)
    samples = ycbcr(image) if photometric == "YBR_FULL" else image
    (tmp_path / "native.dcm").write_bytes(uncompressed(photometric, samples))
    command = [require_tool("dcmcjpeg"), "+e1", "+cn", "native.dcm", "coded.dcm"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=30)
    put(archive, (tmp_path / "coded.dcm").read_bytes())
    assert_shows(client, image, 3)


@pytest.mark.parametrize("syntax", [BASELINE, LOSSLESS_J2K])
@pytest.mark.parametrize("kind", ["image/jpeg", "image/png"])
def test_the_indices_of_a_palette_are_not_shown_as_grey(
    client: FlaskClient, archive: Archive, syntax: str, kind: str
) -> None:
    codestream = j2k(picture(64, 48, "L"), colour_transform=False)
    palette = {"SamplesPerPixel": 1, "PhotometricInterpretation": "PALETTE COLOR"}
    put(archive, encapsulated(syntax, codestream, PlanarConfiguration=None, **palette))
    assert client.get(f"{PATH}/rendered", headers={"Accept": kind}).status_code == 406


@pytest.mark.parametrize("syntax", [BASELINE, EXTENDED, LOSSLESS_J2K, "1.2.840.10008.1.2.4.80"])
@pytest.mark.parametrize("other", ["PNG", "EPS", "BMP"])
def test_another_format_in_a_codestreams_place_is_not_opened(
    client: FlaskClient, archive: Archive, syntax: str, other: str
) -> None:
    # To open PostScript, Pillow runs an interpreter of it.
    buffer = BytesIO()
    picture(64, 48).save(buffer, other)
    put(archive, encapsulated(syntax, buffer.getvalue(), PhotometricInterpretation="RGB"))
    assert client.get(f"{PATH}/rendered", headers=PNG).status_code == 406


def test_a_codestream_of_another_size_is_not_rendered(
    client: FlaskClient, archive: Archive
) -> None:
    put(archive, dicom_file(Rows=4, Columns=4))
    assert client.get(f"{PATH}/rendered", headers=PNG).status_code == 406


def test_rendering_waits_for_the_memory_that_decoding_has(
    client: FlaskClient, archive: Archive
) -> None:
    put(archive, encapsulated(BASELINE, jpeg()))
    with ThreadPoolExecutor() as pool:
        with BUDGET.take(BUDGET.total):
            assert client.get(f"{PATH}/rendered").data == jpeg()  # the stored one needs none
            waiting = pool.submit(client_of(archive).get, f"{PATH}/rendered", headers=PNG)
            with pytest.raises(TimeoutError):
                waiting.result(0.2)
        assert waiting.result(BOUND).status_code == 200


@pytest.mark.parametrize("kind", ["image/jpeg", "image/png"])
@pytest.mark.parametrize("query", ["", "?viewport=32,32"])
@pytest.mark.parametrize("size", [1000, 70_001])
def test_what_is_shown_has_the_profile_of_its_colours(
    client: FlaskClient, archive: Archive, kind: str, query: str, size: int
) -> None:
    # Without it a browser takes the colours of a telephone, Display P3, for those of sRGB.
    profile = icc.srgb()
    profile = size.to_bytes(4, "big") + profile[4:] + bytes(size - len(profile))
    put(archive, dicom_file(ICCProfile=profile + bytes(size % 2)))
    shown = client.get(f"{PATH}/rendered{query}", headers={"Accept": kind})
    opened = Image.open(BytesIO(shown.data))
    assert opened.info["icc_profile"] == profile
    assert opened.size == ((32, 24) if query else (64, 48))
    small = thumbnail(shown.data)
    assert small is not None
    assert Image.open(BytesIO(small)).info["icc_profile"] == profile


def test_a_profile_that_a_jpeg_has_itself_is_the_one_that_is_shown(
    client: FlaskClient, archive: Archive
) -> None:
    own = icc.embed(jpeg(), icc.srgb())
    put(archive, encapsulated(BASELINE, own, ICCProfile=icc.srgb()[:-4] + b"else"))
    assert client.get(f"{PATH}/rendered").data == own


def test_grey_has_no_profile_of_colours(client: FlaskClient, archive: Archive) -> None:
    grey = make_jpeg(mode="L")
    changes = {"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"}
    put(archive, encapsulated(BASELINE, grey, ICCProfile=icc.srgb(), **changes))
    assert client.get(f"{PATH}/rendered").data == grey


@pytest.mark.parametrize(
    "name",
    [
        "CT_small",
        "MR_small",  # with a window
        "MR_small_RLE",
        "MR_small_bigendian",
        "MR_small_padded",
        "examples_palette",
        "SC_ybr_full_422_uncompressed",
        "ExplVR_BigEnd",  # colour by plane
        "SC_rgb_small_odd",
        "SC_rgb_small_odd_big_endian",
    ],
)
def test_what_others_made_is_rendered_as_dcmtk_does(name: str, tmp_path: Path) -> None:
    path = get_testdata_file(f"{name}.dcm", download=False)
    assert isinstance(path, str)
    dataset = part10.decode(Path(path).read_bytes())
    window = ["+Wi", "1"] if "WindowCenter" in dataset else ["+Wm"]
    command = [require_tool("dcmj2pnm"), *window, path, str(tmp_path / "shown.pnm")]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    shown = Image.open(BytesIO(render(dataset, 1, Offer("image/png"), None)))
    expected = np.asarray(Image.open(tmp_path / "shown.pnm"), dtype=int)
    assert furthest(np.asarray(shown, dtype=int), expected) <= 1


@pytest.mark.parametrize(
    ("function", "levels"),
    [
        # PS3.3 C.11.2.1.2 and C.11.2.1.3 of 50, 75, 100 and 150
        ("LINEAR", [0, 64, 129, 255]),  # 0.0, 0.2525, 0.505, 1.01
        ("LINEAR_EXACT", [0, 64, 128, 255]),  # 0.0, 0.25, 0.5, 1.0
        ("SIGMOID", [30, 69, 128, 225]),  # 0.1192, 0.2689, 0.5, 0.8808
    ],
)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_window_is_that_of_its_function(
    function: str, levels: list[int], photometric: str
) -> None:
    stored = [-100, -50, 0, 100]
    samples = np.array(stored, dtype="<i2").tobytes()
    dataset = attributes(
        SamplesPerPixel=1,
        PhotometricInterpretation=photometric,
        Rows=1,
        Columns=4,
        BitsAllocated=16,
        BitsStored=12,
        HighBit=11,
        PixelRepresentation=1,
        RescaleSlope="0.5",
        RescaleIntercept="100",
        WindowCenter=["100", "3"],
        WindowWidth=["100", "4"],
        VOILUTFunction=function,
    )
    shown = np.asarray(picture_of(dataset, samples, photometric))[0]
    expected = [255 - level for level in levels] if photometric == "MONOCHROME1" else levels
    assert np.abs(shown.astype(int) - expected).max() == 0


def test_the_padding_of_a_native_frame_is_not_part_of_it(
    client: FlaskClient, archive: Archive
) -> None:
    path = get_testdata_file("SC_rgb_small_odd.dcm", download=False)
    assert isinstance(path, str)
    file = Path(path).read_bytes()
    put(archive, file)
    dataset = part10.decode(file)
    uids = dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID
    instance = "/dicomWeb/studies/{}/series/{}/instances/{}".format(*uids)
    octets = {"Accept": "application/octet-stream"}
    assert len(client.get(f"{instance}/frames/1", headers=octets).data) == 3 * 3 * 3


@pytest.mark.parametrize(
    ("path", "asked", "kind"),
    [
        (f"{PATH}/rendered", "image/png", "image/png"),
        (f"{PATH}/rendered", "image/gif", "image/jpeg"),  # the header's, if it can't be had
        (f"{PATH}", "application/dicom; transfer-syntax=*", "application/dicom"),
        (
            f"{PATH}/metadata",
            'multipart/related; type="application/dicom+xml"',
            "multipart/related",
        ),
        (
            "/dicomWeb/studies",
            'multipart/related; type="application/dicom+xml"',
            "multipart/related",
        ),
    ],
)
def test_a_link_can_say_what_it_wants(
    client: FlaskClient, archive: Archive, path: str, asked: str, kind: str
) -> None:
    put(archive, dicom_file())
    browser = {"Accept": "text/html, */*;q=0.8"}
    answer = client.get(path, query_string={"accept": asked}, headers=browser)
    assert (answer.status_code, answer.mimetype) == (200, kind)
    answer.close()
