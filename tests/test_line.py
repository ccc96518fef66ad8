"""The whole way: curl, the service, the archive, WADO, and the judgement of others' programs."""

import json
import struct
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.encaps import generate_frames

from tests.jpegs import make_jpeg
from tests.judges import require_tool
from tests.peers import BOUND
from tests.processes import wait_until
from tests.serving import UPLOAD, Serving

TEMPLATES = {
    "vl-photographic-image": "1.2.840.10008.5.1.4.1.1.77.1.4",
    "secondary-capture-image": "1.2.840.10008.5.1.4.1.1.7",
}
SAID = {
    "PatientID": "Rocinante-7",
    "PatientName": "Quixote^Alonso",
    "PatientBirthDate": "19470929",
    "PatientSex": "M",
    "AccessionNumber": "A-1605",
    "StudyDate": "20240305",
    "StudyTime": "140709",
    "ImageComments": "Windmühlen",
}
# What cameras and programs leave in a JPEG, and must not reach the archive.
COMMENT, XMP, IPTC = b"Dulcinea del Toboso", b"<x:xmpmeta>Sancho</x:xmpmeta>", b"Barataria"
THUMBNAIL, TRAILER, TAKEN = b"Micomicona", b"ftypmp42 Aldonza", "2024:03:05 14:07:09"
PRIVATE = [COMMENT, b"xmpmeta", b"Sancho", IPTC, THUMBNAIL, b"Aldonza", TAKEN.encode(), b"Exif"]
PRIVATE += [b"ICC_PROFILE", b"Photoshop", b"JFXX"]


def segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def photograph(**options: Any) -> bytes:
    """Make a JPEG as a telephone does, with everything in it that is nobody's business."""
    jpeg = make_jpeg(199, 101, comment=COMMENT, gps=True, taken=TAKEN, icc=True, **options)
    private = segment(0xE0, b"JFXX\0\x10" + THUMBNAIL)
    private += segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)
    private += segment(0xED, b"Photoshop 3.0\0" + IPTC)
    jfif_end = 2 + 2 + struct.unpack_from(">H", jpeg, 4)[0]
    return jpeg[:jfif_end] + private + jpeg[jfif_end:] + TRAILER


def entropy_coded(jpeg: bytes) -> bytes:
    """Return what lies between the only scan header and EOI."""
    start = jpeg.rindex(b"\xff\xda")
    start += 2 + struct.unpack_from(">H", jpeg, start + 2)[0]
    return jpeg[start : jpeg.index(b"\xff\xd9", start)]


@dataclass(frozen=True)
class Trip:
    """One picture's way: as it was sent, what was answered, and the file that came back."""

    jpeg: bytes
    sop_class: str
    answer: dict[str, Any]
    file: Path

    @property
    def dataset(self) -> Dataset:
        return dcmread(self.file)

    @property
    def codestream(self) -> bytes:
        return next(generate_frames(self.dataset.PixelData, number_of_frames=1))


def run(tool: str, *arguments: str | Path) -> str:
    """Run a program of others; return what it says of both kinds."""
    command = [require_tool(tool), *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, check=True, timeout=BOUND)
    return (ended.stdout + ended.stderr).decode(errors="replace")


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with Serving(tmp_path_factory.mktemp("line") / "data") as service:
        yield service


PICTURES: dict[str, dict[str, Any]] = {
    "4:2:0": {},
    "4:4:4": {"subsampling": "4:4:4"},
    "grey": {"mode": "L"},
    "RGB": {"keep_rgb": True},
    "with restart markers": {"restart_blocks": 3},
}
# dciodvfy misses that PS3.3 C.8.12.1.1.1 allows RGB in visible light images, hence the second.
TRIPS = [
    ("4:2:0", "vl-photographic-image"),
    ("4:2:0", "secondary-capture-image"),
    ("4:4:4", "vl-photographic-image"),
    ("grey", "vl-photographic-image"),
    ("RGB", "secondary-capture-image"),
    ("with restart markers", "vl-photographic-image"),
]


@pytest.fixture(scope="module", params=TRIPS, ids=" as ".join)
def trip(
    request: pytest.FixtureRequest, serving: Serving, tmp_path_factory: pytest.TempPathFactory
) -> Trip:
    """Send a picture with curl, and fetch it back with curl."""
    picture, template = request.param
    folder = tmp_path_factory.mktemp("trip")
    source, target = folder / "Quixote Alonso.jpg", folder / "back.dcm"
    source.write_bytes(photograph(**PICTURES[picture]))
    fields = [f"{name}={value}" for name, value in {**SAID, "template": template}.items()]
    form = [word for field in (f"image=@{source}", *fields) for word in ("-F", field)]
    answer = json.loads(run("curl", "-sS", "--fail-with-body", *form, serving.url + UPLOAD))
    (instance,) = answer["instances"]
    accept = "Accept: application/dicom; transfer-syntax=*"
    run("curl", "-sS", "--fail", "-H", accept, "-o", target, instance["RetrieveURL"])
    return Trip(source.read_bytes(), TEMPLATES[template], instance, target)


def test_what_comes_back_is_what_was_answered_and_said(trip: Trip) -> None:
    dataset = trip.dataset
    assert trip.answer["status"] == 201
    assert dataset.file_meta.TransferSyntaxUID == trip.answer["TransferSyntaxUID"]
    assert dataset.file_meta.MediaStorageSOPInstanceUID == trip.answer["SOPInstanceUID"]
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "Rows", "Columns"):
        assert dataset[keyword].value == trip.answer[keyword]
    assert dataset.SOPClassUID == trip.answer["SOPClassUID"] == trip.sop_class
    assert {keyword: str(dataset[keyword].value) for keyword in SAID} == SAID
    assert dataset.SpecificCharacterSet == "ISO_IR 192"


def test_the_file_tells_when_it_was_taken_and_in_what_colours(trip: Trip) -> None:
    dataset = trip.dataset
    assert dataset.AcquisitionDateTime == "20240305140709"
    assert (dataset.ContentDate, dataset.ContentTime) == ("20240305", "140709")
    assert ("ICCProfile" in dataset) is (dataset.SamplesPerPixel == 3)
    assert dataset.get("ICCProfile", b"")[12:24] in {b"scnrRGB XYZ ", b""}


def test_the_entropy_coded_bytes_are_those_of_the_upload(trip: Trip) -> None:
    assert entropy_coded(trip.codestream) == entropy_coded(trip.jpeg)
    assert len(entropy_coded(trip.jpeg)) > 1000


def test_nothing_private_is_left(trip: Trip) -> None:
    stored = trip.file.read_bytes()
    assert [each for each in PRIVATE if each not in trip.jpeg] == []
    assert [each for each in [*PRIVATE, b"JFIF"] if each in stored] == []
    assert trip.codestream.rstrip(b"\0").endswith(b"\xff\xd9")


def test_exiftool_finds_nothing_but_the_picture(trip: Trip, tmp_path: Path) -> None:
    jpeg = tmp_path / "frame.jpg"
    jpeg.write_bytes(trip.codestream)
    (found,) = json.loads(run("exiftool", "-json", "-G", "-a", "-U", jpeg))
    groups = {name.partition(":")[0] for name in found}
    # The colour transform of RGB is told by an Adobe segment, and by nothing else.
    allowed = {"SourceFile", "ExifTool", "File", "Composite"}
    allowed |= {"APP14"} if b"Adobe" in trip.codestream else set()
    assert groups <= allowed


def test_dciodvfy_finds_no_error(trip: Trip) -> None:
    for option in ("-new", "-filename"):
        said = run("dciodvfy", option, trip.file)
        assert [line for line in said.splitlines() if "Error" in line] == []
        assert "Image" in said


def pixels_of(jpeg: bytes, folder: Path) -> NDArray[np.int16]:
    """Decode a JPEG with libjpeg's own program."""
    (folder / "upload.jpg").write_bytes(jpeg)
    run("djpeg", "-pnm", "-outfile", folder / "upload.ppm", folder / "upload.jpg")
    return read(folder / "upload.ppm")


def read(path: Path) -> NDArray[np.int16]:
    with Image.open(path) as image:
        return np.asarray(image, np.int16)


def test_dcmtk_decodes_the_pixels_of_the_upload(trip: Trip, tmp_path: Path) -> None:
    run("dcmj2pnm", trip.file, tmp_path / "dcmtk.ppm")
    assert np.array_equal(read(tmp_path / "dcmtk.ppm"), pixels_of(trip.jpeg, tmp_path))


def test_pydicom_decodes_the_pixels_of_the_upload(trip: Trip, tmp_path: Path) -> None:
    decoded = trip.dataset.pixel_array.astype(np.int16)
    # Its conversion from YCbCr rounds otherwise than libjpeg's.
    assert np.abs(decoded - pixels_of(trip.jpeg, tmp_path)).max() <= 1


def test_gdcm_decodes_the_pixels_of_the_upload(trip: Trip, tmp_path: Path) -> None:
    run("gdcmconv", "--raw", trip.file, tmp_path / "raw.dcm")
    raw = dcmread(tmp_path / "raw.dcm")
    assert not raw.file_meta.TransferSyntaxUID.is_compressed
    decoded = raw.pixel_array.astype(np.int16)
    assert np.abs(decoded - pixels_of(trip.jpeg, tmp_path)).max() <= 1


def test_a_browser_sees_the_picture(trip: Trip, tmp_path: Path) -> None:
    url = trip.answer["RetrieveURL"] + "/rendered"
    rendered = requests.get(url, headers={"Accept": "image/png"}, timeout=BOUND)
    assert rendered.headers["Content-Type"] == "image/png"
    with Image.open(BytesIO(rendered.content)) as image:
        seen = np.asarray(image, np.int16)
    assert np.abs(seen - pixels_of(trip.jpeg, tmp_path)).max() <= 1


TRANSFORMED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "progressive": ({"progressive": True}, ["recoded progressive as baseline"]),
    "on its side": (
        {"orientation": 6, "mode": "L"},
        ["turned a quarter clockwise without loss"],
    ),
    "on its side and progressive": (
        {"orientation": 8, "mode": "L", "progressive": True},
        ["recoded progressive as baseline", "turned a quarter counterclockwise without loss"],
    ),
}


@pytest.mark.parametrize(("options", "told"), TRANSFORMED.values(), ids=TRANSFORMED)
def test_what_is_transformed_comes_back_upright_with_the_same_pixels(
    options: dict[str, Any], told: list[str], serving: Serving, tmp_path: Path
) -> None:
    jpeg = make_jpeg(200, 104, comment=COMMENT, gps=True, **options)
    (instance,) = serving.post(jpeg, PatientID="P-7").json()["instances"]
    assert [line for line in instance["normalised"] if "removed" not in line] == told
    accept = {"Accept": "application/dicom; transfer-syntax=*"}
    file = requests.get(instance["RetrieveURL"], headers=accept, timeout=BOUND).content
    trip = Trip(jpeg, instance["SOPClassUID"], instance, tmp_path / "back.dcm")
    trip.file.write_bytes(file)
    assert trip.dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.50"
    assert [each for each in PRIVATE if each in file] == []
    run("dcmj2pnm", trip.file, tmp_path / "dcmtk.ppm")
    turns = {6: -1, 8: 1}.get(options.get("orientation", 1), 0)
    expected = np.rot90(pixels_of(jpeg, tmp_path), turns)
    # Rows first or columns first, the inverse DCT of a turned block rounds otherwise.
    assert np.abs(read(tmp_path / "dcmtk.ppm") - expected).max() <= abs(turns)


def instances_of(serving: Serving, study: str) -> list[Any]:
    url = f"{serving.archive_url}/studies/{study}/instances"
    return list(requests.get(url, timeout=BOUND).json())


def test_the_same_request_again_makes_no_second_instance(serving: Serving) -> None:
    first, second = (serving.post(make_jpeg(seed=1), PatientID="P-7") for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 200)
    (one,), (again,) = (answer.json()["instances"] for answer in (first, second))
    assert (one["outcome"], again["outcome"]) == ("stored", "already stored")
    assert one["SOPInstanceUID"] == again["SOPInstanceUID"]
    assert one["RetrieveURL"] == again["RetrieveURL"]
    assert len(instances_of(serving, one["StudyInstanceUID"])) == 1


def test_parallel_posts_of_the_same_make_one_instance(serving: Serving) -> None:
    start = threading.Barrier(8)

    def post(_: int) -> requests.Response:
        start.wait(BOUND)
        return serving.post(make_jpeg(seed=2), PatientID="P-7")

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(post, range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    (study,) = {answer.json()["instances"][0]["StudyInstanceUID"] for answer in answers}
    assert len(instances_of(serving, study)) == 1


def test_several_images_of_one_request_are_one_study(serving: Serving) -> None:
    answer = serving.post(*(make_jpeg(seed=n) for n in range(3, 8)), PatientID="P-7")
    assert answer.status_code == 201
    studies = {one["StudyInstanceUID"] for one in answer.json()["instances"]}
    assert len(studies) == 1
    assert len(instances_of(serving, studies.pop())) == 5


def test_what_was_only_queued_arrives_all_the_same(serving: Serving, tmp_path: Path) -> None:
    image = tmp_path / "photo.jpg"
    image.write_bytes(make_jpeg(seed=9))
    form = ["-F", f"image=@{image}", "-F", "PatientID=P-9", "-H", "Prefer: respond-async"]
    (told,) = json.loads(run("curl", "-sS", *form, serving.url + UPLOAD))["instances"]
    assert (told["status"], told["outcome"]) == (202, "queued")
    entry = serving.url + told["queue"]
    wait_until(lambda: requests.get(entry, timeout=BOUND).status_code == 404)
    (found,) = instances_of(serving, told["StudyInstanceUID"])
    assert found["00080018"]["Value"] == [told["SOPInstanceUID"]]
    again = serving.post(image.read_bytes(), PatientID="P-9")
    assert (again.status_code, again.json()["instances"][0]["outcome"]) == (200, "already stored")


def test_what_the_archive_has_can_be_found_by_its_patient(serving: Serving, trip: Trip) -> None:
    query = {"PatientID": SAID["PatientID"], "StudyDate": SAID["StudyDate"]}
    url = f"{serving.archive_url}/studies"
    found = requests.get(url, query, timeout=BOUND).json()
    assert trip.answer["StudyInstanceUID"] in [item["0020000D"]["Value"][0] for item in found]


def test_neither_log_nor_file_name_holds_a_patients_value(serving: Serving, trip: Trip) -> None:
    log = serving.log.read_text()
    names = "\n".join(str(path) for path in serving.data_dir.rglob("*"))
    assert trip.answer["SOPInstanceUID"] in log
    assert trip.answer["SOPInstanceUID"] in names
    words = log + names + json.dumps(trip.answer)
    planted = ["Quixote", "Rocinante", "A-1605", "Windm", "Dulcinea", "19470929"]
    assert [value for value in planted if value in words] == []
