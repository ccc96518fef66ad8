"""Retrieve: files, metadata, frames, bulk data and pictures, as they were stored."""

from io import BytesIO

import pytest
from flask.testing import FlaskClient
from PIL import Image
from pydicom import DataElement, Dataset, dcmread
from pydicom.encaps import encapsulate
from werkzeug.test import TestResponse

from service.archive import Archive
from service.dicom import multipart, part10
from service.dicom.codestream import Codestream
from service.dicom.json_model import to_json
from service.dicomweb.bulk_data import BulkData, write
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
from tests.jpegs import make_jpeg, picture

PATH = f"/dicomWeb/studies/{STUDY}/series/{SERIES}/instances/{INSTANCE}"
UNKNOWN = "1.2.840.10008.1.2.4.59"
LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
DICOM_PARTS = 'multipart/related; type="application/dicom"'


def get(client: FlaskClient, path: str = PATH, accept: str | None = None) -> TestResponse:
    response = client.get(path, headers={"Accept": accept} if accept else {})
    response.get_data()
    response.close()
    return response


def bodies(response: TestResponse) -> list[bytes]:
    assert response.status_code == 200
    return [bytes(part.body) for part in multipart.decode(response.data, response.content_type)]


def refusal(response: TestResponse) -> tuple[int, str]:
    return response.status_code, response.get_json()["error"]["message"]


def uncompressed(photometric: str, image: Image.Image, bits: int = 8) -> bytes:
    """Return the file of an uncompressed picture."""
    dataset = attributes(
        PhotometricInterpretation=photometric,
        SamplesPerPixel=len(image.getbands()),
        Rows=image.height,
        Columns=image.width,
        BitsAllocated=bits,
    )
    pixels = BulkData("7FE00010", "OB", "", Codestream((image.tobytes(),)))
    return b"".join(write(to_json(dataset), pixels, LITTLE_ENDIAN))


@pytest.mark.parametrize(
    "accept",
    [
        "multipart/related; transfer-syntax=*",
        "multipart/related; type=application/dicom; transfer-syntax=*",
        f"{DICOM_PARTS}; transfer-syntax=*",
        DICOM_PARTS + f"; transfer-syntax={BASELINE}",
        f"{DICOM_PARTS}; transfer-syntax=*; q=0.1, text/html; q=0.5",
    ],
)
@pytest.mark.parametrize(
    "path", [PATH, PATH.rpartition("/instances")[0], f"/dicomWeb/studies/{STUDY}"]
)
def test_instance_series_and_study_come_as_parts(
    client: FlaskClient, archive: Archive, path: str, accept: str | None
) -> None:
    put(archive, dicom_file())
    response = get(client, path, accept)
    assert bodies(response) == [dicom_file()]
    assert response.content_length == len(response.data)


@pytest.mark.parametrize("syntax", ["*", BASELINE])
def test_one_instance_comes_as_the_very_file(
    client: FlaskClient, archive: Archive, syntax: str
) -> None:
    put(archive, dicom_file())
    response = get(client, PATH, f"application/dicom; transfer-syntax={syntax}")
    assert response.data == dicom_file()
    assert response.content_type == f"application/dicom; transfer-syntax={BASELINE}"


@pytest.mark.parametrize(
    "accept",
    [
        "application/dicom; transfer-syntax=1.2.840.10008.1.2.4.90",
        "application/dicom; transfer-syntax=*; q=0",
        "image/jpeg",
        "text/html",
    ],
)
def test_a_transfer_syntax_that_cannot_be_had_is_not_acceptable(
    client: FlaskClient, archive: Archive, accept: str
) -> None:
    put(archive, dicom_file())
    status, message = refusal(get(client, PATH, accept))
    assert status == 406
    assert f"application/dicom; transfer-syntax={BASELINE}" in message


def test_explicit_little_endian_is_the_default_transfer_syntax(
    client: FlaskClient, archive: Archive
) -> None:
    file = uncompressed("RGB", picture(4, 4))
    put(archive, file)
    assert get(client, PATH, "application/dicom").data == file


def test_a_series_of_two_transfer_syntaxes_comes_only_as_it_is(
    client: FlaskClient, archive: Archive
) -> None:
    files = [dicom_file(SOPInstanceUID="1.1"), dicom_file(syntax="1.2.840.10008.1.2.4.51")]
    for file in files:
        put(archive, file)
    path = f"/dicomWeb/studies/{STUDY}"
    assert bodies(get(client, path, f"{DICOM_PARTS}; transfer-syntax=*")) == files
    assert get(client, path, f"{DICOM_PARTS}; transfer-syntax={BASELINE}").status_code == 406


def test_metadata_has_everything_but_the_pixels_for_which_it_has_urls(
    client: FlaskClient, archive: Archive
) -> None:
    put(archive, dicom_file())
    put(archive, dicom_file(SOPInstanceUID="9.9"))
    for path, expected in ((f"{PATH}/metadata", 1), (f"/dicomWeb/studies/{STUDY}/metadata", 2)):
        response = get(client, path)
        assert response.content_type == "application/dicom+json"
        models = response.get_json(force=True)
        assert len(models) == expected
        pixels = models[0]["7FE00010"]
        assert pixels == {"vr": "OB", "BulkDataURI": f"http://localhost{PATH}/bulkdata/7FE00010"}
        assert Dataset.from_json(models[0], lambda *_: b"").PatientID == "P1"
    xml = get(client, f"{PATH}/metadata", 'multipart/related; type="application/dicom+xml"')
    assert b'<BulkData uri="http://localhost' in bodies(xml)[0]


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ('multipart/related; type="image/jpeg"', "image/jpeg"),
        (f'multipart/related; type="image/jpeg"; transfer-syntax={BASELINE}', "image/jpeg"),
        ('multipart/related; type="image/*"', "image/jpeg"),
        (
            'multipart/related; type="application/octet-stream"; transfer-syntax=*',
            "application/octet-stream",
        ),
    ],
)
@pytest.mark.parametrize("path", [f"{PATH}/frames/1", f"{PATH}/bulkdata/7FE00010"])
def test_a_frame_is_the_codestream_that_came(
    client: FlaskClient, archive: Archive, path: str, accept: str | None, media_type: str
) -> None:
    put(archive, dicom_file())
    response = get(client, path, accept)
    (part,) = multipart.decode(response.data, response.content_type)
    assert bytes(part.body) == jpeg()
    assert part.headers["content-type"] == f"{media_type}; transfer-syntax={BASELINE}"


def test_one_frame_comes_without_parts_too(client: FlaskClient, archive: Archive) -> None:
    put(archive, dicom_file())
    response = get(client, f"{PATH}/frames/1", "image/jpeg")
    assert response.data == jpeg()


def test_frames_in_a_transfer_syntax_that_nobody_knows_come_as_octets(
    client: FlaskClient, archive: Archive
) -> None:
    put(archive, dicom_file().replace(BASELINE.encode(), UNKNOWN.encode()))
    response = get(client, f"{PATH}/frames/1", "*/*")
    (part,) = multipart.decode(response.data, response.content_type)
    assert part.headers["content-type"] == f"application/octet-stream; transfer-syntax={UNKNOWN}"
    assert bytes(part.body) == jpeg()
    assert get(client, f"{PATH}/rendered").status_code == 200


@pytest.mark.parametrize(
    ("frames", "status"),
    [
        ("2", 404),
        ("0", 400),
        ("1,x", 400),
        ("-1", 400),
        ("1,", 400),
        ("9999999999", 400),
        ("1,1", 400),
    ],
)
def test_frames_that_are_not_there_are_not_found(
    client: FlaskClient, archive: Archive, frames: str, status: int
) -> None:
    put(archive, dicom_file())
    assert refusal(get(client, f"{PATH}/frames/{frames}"))[0] == status


@pytest.mark.parametrize("offsets", [True, False])
def test_frames_of_a_multi_frame_image_come_one_by_one(
    client: FlaskClient, archive: Archive, *, offsets: bool
) -> None:
    dataset = part10.decode(dicom_file(NumberOfFrames=3))
    dataset.PixelData = encapsulate([jpeg(n) for n in range(3)], has_bot=offsets)
    buffer = BytesIO()
    dataset.save_as(buffer)
    put(archive, buffer.getvalue())
    accept = 'multipart/related; type="image/jpeg"'
    assert bodies(get(client, f"{PATH}/frames/3,1", accept)) == [jpeg(2), jpeg(0)]
    assert bodies(get(client, f"{PATH}/bulkdata/7FE00010", accept)) == [jpeg(n) for n in range(3)]


def test_bulk_data_is_found_by_its_path(client: FlaskClient, archive: Archive) -> None:
    icons = [Dataset(), Dataset()]
    for number, icon in enumerate(icons):
        icon.add_new(0x7FE00010, "OB", b"icon %d" % number)
    put(archive, dicom_file(IconImageSequence=icons, EncapsulatedDocument=b"%PDF"))
    (model,) = get(client, f"{PATH}/metadata").get_json(force=True)
    uris = [model["00420011"], *(item["7FE00010"] for item in model["00880200"]["Value"])]
    values = [get(client, uri["BulkDataURI"], "application/octet-stream").data for uri in uris]
    assert values == [b"%PDF", b"icon 0", b"icon 1"]
    assert uris[1]["BulkDataURI"].endswith("/bulkdata/00880200/0/7FE00010")


@pytest.mark.parametrize(
    "where",
    ["00880200/-1/7FE00010", "00880200/2/7FE00010", "00880200/+0/7FE00010", "00880200/0/7fe0_0010"],
)
def test_no_item_but_the_one_at_its_index_from_0_is_found(
    client: FlaskClient, archive: Archive, where: str
) -> None:
    icon = Dataset()
    icon.add_new(0x7FE00010, "OB", b"icon")
    put(archive, dicom_file(IconImageSequence=[icon, icon]))
    assert get(client, f"{PATH}/bulkdata/{where}").status_code == 404
    found = get(client, f"{PATH}/bulkdata/00880200/1/7fe00010", "application/octet-stream")
    assert found.data == b"icon"


@pytest.mark.parametrize(
    "where",
    [
        "00420011",
        "00100020",
        "x",
        "00880200/1",
        "00880200/1/7FE00010",
        "0/../..",
        "%2e%2e",
        "00100020/1/0",
        "f" * 99,
    ],
)
def test_bulk_data_that_is_not_there_is_not_found(
    client: FlaskClient, archive: Archive, where: str
) -> None:
    put(archive, dicom_file())
    assert get(client, f"{PATH}/bulkdata/{where}").status_code == 404


def test_metadata_keeps_the_values_beside_an_empty_one(
    client: FlaskClient, archive: Archive
) -> None:
    changes: dict[str, object] = {
        "OtherPatientNames": ["A^B", "", "=C"],
        "PixelSpacing": ["", "0.5"],
        "ImageType": ["ORIGINAL", "PRIMARY", "", "X"],
    }
    put(archive, dicom_file(0, BASELINE, **changes))
    (model,) = get(client, f"{PATH}/metadata").get_json(force=True)
    found = [model[tag]["Value"] for tag in ("00101001", "00280030", "00080008")]
    # PS3.18 F.2.5: null stands for an empty value.
    assert found == [
        [{"Alphabetic": "A^B"}, None, {"Ideographic": "C"}],
        [None, 0.5],
        ["ORIGINAL", "PRIMARY", None, "X"],
    ]
    xml = get(client, f"{PATH}/metadata", 'multipart/related; type="application/dicom+xml"').data
    assert b'<Value number="3" /><Value number="4">X<' in xml
    assert b'<PersonName number="2" /><PersonName number="3"><Ideographic>' in xml


def test_a_rendered_baseline_jpeg_is_the_stored_one(client: FlaskClient, archive: Archive) -> None:
    put(archive, dicom_file())
    response = get(client, f"{PATH}/rendered", "image/*")
    assert response.content_type == "image/jpeg"
    assert response.data == jpeg()


def near(shown: bytes, expected: Image.Image, tolerance: int) -> bool:
    image = Image.open(BytesIO(shown))
    assert image.size == expected.size
    differences = zip(image.tobytes(), expected.tobytes(), strict=True)
    return max(abs(one - other) for one, other in differences) <= tolerance


def test_a_rendered_rgb_jpeg_shows_its_colours_without_the_data_set(
    client: FlaskClient, archive: Archive
) -> None:
    # Components numbered 1, 2, 3 and no Adobe marker: nothing in the codestream says RGB.
    codestream = make_jpeg(keep_rgb=True, quality=95)
    for one, letter in ((1, b"R"), (2, b"G"), (3, b"B")):
        codestream = codestream.replace(letter + b"\x11\x00", bytes((one,)) + b"\x11\x00")
        codestream = codestream.replace(letter + b"\x00", bytes((one,)) + b"\x00", 1)
    anonymous = part10.encode(
        attributes(PhotometricInterpretation="RGB"),
        Codestream((codestream,)),
        BASELINE,
    )
    put(archive, b"".join(anonymous))
    shown = get(client, f"{PATH}/rendered", "image/jpeg").data
    assert near(shown, picture(64, 48), 40)


@pytest.mark.parametrize("photometric", ["RGB", "MONOCHROME2", "MONOCHROME1"])
def test_uncompressed_images_are_rendered_as_png(
    client: FlaskClient, archive: Archive, photometric: str
) -> None:
    image = picture(20, 10, "RGB" if photometric == "RGB" else "L")
    put(archive, uncompressed(photometric, image))
    shown = get(client, f"{PATH}/rendered", "image/png")
    assert shown.content_type == "image/png"
    expected = image.point(lambda value: 255 - value) if photometric == "MONOCHROME1" else image
    assert near(shown.data, expected, 0)


def test_a_viewport_makes_a_picture_fit(client: FlaskClient, archive: Archive) -> None:
    put(archive, dicom_file())
    response = get(client, f"{PATH}/rendered?viewport=32,32")
    assert Image.open(BytesIO(response.data)).size == (32, 24)


@pytest.mark.parametrize(
    "viewport",
    ["", "32", "0,1", "x,1", "10001,1", "1,1,1", "9,9,64,0,1,1", "9,9,0,0,65,1", "9,9,0,-1,1,1"],
)
def test_a_viewport_that_is_none_is_refused(
    client: FlaskClient, archive: Archive, viewport: str
) -> None:
    put(archive, dicom_file())
    assert refusal(get(client, f"{PATH}/rendered?viewport={viewport}"))[0] == 400


@pytest.mark.parametrize(
    ("viewport", "box"),
    [
        ("64,64,32,16,32,16", (32, 16, 64, 32)),
        ("64,64,,,10,12", (0, 0, 10, 12)),
        ("64,64,5,6,,", (5, 6, 64, 48)),
        ("64,64,,,,", (0, 0, 64, 48)),
    ],
)
def test_a_viewport_can_show_a_region(
    client: FlaskClient, archive: Archive, viewport: str, box: tuple[int, int, int, int]
) -> None:
    image = picture(64, 48)
    put(archive, uncompressed("RGB", image))
    shown = get(client, f"{PATH}/rendered?viewport={viewport}", "image/png").data
    assert near(shown, image.crop(box), 0)


def test_frames_are_rendered_one_by_one_or_as_parts(client: FlaskClient, archive: Archive) -> None:
    dataset = part10.decode(dicom_file(NumberOfFrames=3))
    dataset.PixelData = encapsulate([jpeg(n) for n in range(3)])
    buffer = BytesIO()
    dataset.save_as(buffer)
    put(archive, buffer.getvalue())
    one = get(client, f"{PATH}/frames/2/rendered")
    assert (one.content_type, one.data) == ("image/jpeg", jpeg(1))
    small = get(client, f"{PATH}/frames/3/rendered?viewport=32,32", "image/png")
    assert Image.open(BytesIO(small.data)).size == (32, 24)
    several = get(client, f"{PATH}/frames/3,1/rendered", "*/*")
    assert several.content_type.startswith('multipart/related; type="image/jpeg"')
    assert bodies(several) == [jpeg(2), jpeg(0)]
    assert get(client, f"{PATH}/frames/3,1/rendered", "image/jpeg").status_code == 406
    assert refusal(get(client, f"{PATH}/frames/4/rendered"))[0] == 404
    assert refusal(get(client, f"{PATH}/frames/0/rendered"))[0] == 400


def test_an_image_that_cannot_be_decoded_is_not_rendered(
    client: FlaskClient, archive: Archive
) -> None:
    put(archive, uncompressed("RGB", picture(4, 4), bits=16))
    assert refusal(get(client, f"{PATH}/rendered")) == (
        406,
        "the stored image can't be decoded to be rendered",
    )


@pytest.mark.parametrize("what", ["rendered", "frames/1", "bulkdata/7FE00010"])
def test_an_instance_without_pixels_has_no_picture(
    client: FlaskClient, archive: Archive, what: str
) -> None:
    dataset = part10.decode(dicom_file())
    del dataset.PixelData
    buffer = BytesIO()
    dataset.save_as(buffer)
    put(archive, buffer.getvalue())
    assert refusal(get(client, f"{PATH}/{what}"))[0] == 404


@pytest.mark.parametrize("what", ["", "/metadata", "/rendered", "/frames/1", "/bulkdata/7FE00010"])
def test_what_is_not_stored_is_not_found(client: FlaskClient, what: str) -> None:
    response = get(client, PATH + what)
    assert response.status_code == 404
    assert response.get_json()["error"]["status"] == "NOT_FOUND"


def test_pydicom_reads_what_is_retrieved(client: FlaskClient, archive: Archive) -> None:
    put(archive, dicom_file())
    (body,) = bodies(get(client))
    assert dcmread(BytesIO(body)).PatientName == "Müller^José"


def native(pixels: object, vr: str, frames: int) -> bytes:
    dataset = part10.decode(uncompressed("RGB", picture(4, 4)))
    dataset.NumberOfFrames = frames
    dataset[0x7FE00010] = DataElement(0x7FE00010, vr, pixels)
    buffer = BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("what", ["rendered", "frames/1", "bulkdata/7FE00010"])
def test_pixel_data_that_is_text_is_no_picture(
    client: FlaskClient, archive: Archive, what: str
) -> None:
    put(archive, native("text", "LO", 1))
    assert refusal(get(client, f"{PATH}/{what}"))[0] == 404


@pytest.mark.parametrize(("frames", "status"), [(20_000_000, 404), (20_001, 400), (20_000, 200)])
def test_only_as_many_frames_are_made_as_pixel_data_and_an_answer_can_hold(
    client: FlaskClient, archive: Archive, frames: int, status: int
) -> None:
    put(archive, native(bytes(30_000), "OB", frames))
    assert get(client, f"{PATH}/bulkdata/7FE00010").status_code == status
