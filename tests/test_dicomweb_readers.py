"""Programs and libraries of others read what a real `jpegstow archive` gives, in every form."""

import json
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from dicomweb_client.api import DICOMwebClient
from PIL import Image
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.encaps import encapsulate
from pydicom.uid import UID

from tests.archive_instances import BASELINE, attributes, dicom_file, jpeg
from tests.archive_server import ArchiveServer, ask
from tests.decoding import Pixels, by_dcmtk, by_gdcm, by_pydicom, furthest, image
from tests.jpegs import make_jpeg, picture
from tests.judges import require_tool
from tests.native_model import breaches, content
from tests.processes import wait_until

EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
SIZE = 64, 48
STORE = "/v1/projects/p/locations/l/datasets/d/dicomStores/s/dicomWeb"
FILE = {"Accept": "application/dicom; transfer-syntax=*"}
DECODED = {"Accept": "application/dicom"}
XML = {"Accept": 'multipart/related; type="application/dicom+xml"'}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArchiveServer]:
    with ArchiveServer(tmp_path_factory.mktemp("readers") / "data") as running:
        yield running


def uids(number: int) -> dict[str, Any]:
    study = f"1.2.{number}"
    return {
        "StudyInstanceUID": study,
        "SeriesInstanceUID": f"{study}.1",
        "SOPInstanceUID": f"{study}.1.1",
    }


def put(server: ArchiveServer, file: bytes) -> str:
    """Store a file, and return the URL of its instance."""
    headers = {"Content-Type": "application/dicom", "Accept": "application/dicom+json"}
    answer = ask("POST", f"{server.url}{STORE}/studies", headers, file)
    assert answer.status == 200, answer.body
    (item,) = answer.json()["00081199"]["Value"]
    return str(item["00081190"]["Value"][0])


# --- files of every kind ------------------------------------------------------------------------


@cache
def painted(mode: str = "RGB") -> Image.Image:
    return picture(*SIZE, mode)


def native(number: int, mode: str = "RGB", syntax: str = EXPLICIT, bits: int = 8) -> bytes:
    """Return the file of an uncompressed picture; 16 bits have the 8 of the picture on top."""
    samples = np.asarray(painted(mode)).astype(np.uint16 if bits == 16 else np.uint8)
    if bits == 16:
        samples = samples * 257
    dataset = attributes(
        **uids(number),
        PhotometricInterpretation="RGB" if mode == "RGB" else "MONOCHROME2",
        SamplesPerPixel=len(painted(mode).getbands()),
        PlanarConfiguration=0 if mode == "RGB" else None,
        BitsAllocated=bits,
        BitsStored=bits,
        HighBit=bits - 1,
    )
    dataset.add_new(0x7FE00010, "OW" if bits == 16 else "OB", samples.tobytes())
    return written(dataset, syntax)


def written(dataset: Dataset, syntax: str) -> bytes:
    buffer = BytesIO()
    dataset.ensure_file_meta()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dcmwrite(
        buffer,
        dataset,
        implicit_vr=syntax == IMPLICIT,
        little_endian=True,
        enforce_file_format=True,
    )
    return buffer.getvalue()


def frames(number: int, count: int = 3) -> bytes:
    """Return the file of several baseline JPEGs."""
    dataset = attributes(**uids(number), NumberOfFrames=count)
    data = encapsulate([make_jpeg(*SIZE, seed=seed) for seed in range(count)])
    dataset.add_new(0x7FE00010, "OB", data)
    dataset["PixelData"].is_undefined_length = True
    return written(dataset, BASELINE)


def by_converter(*command: str) -> Callable[[bytes, Path], bytes]:
    def convert(file: bytes, folder: Path) -> bytes:
        source, target = folder / "native.dcm", folder / "converted.dcm"
        source.write_bytes(file)
        tool, *options = command
        run(tool, *options, source, target)
        return target.read_bytes()

    return convert


def run(tool: str, *arguments: Any) -> str:
    done = subprocess.run(
        [require_tool(tool), *map(str, arguments)], capture_output=True, check=False
    )
    output = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == 0, output
    return output


class Kind(NamedTuple):
    """How a file is made, what it shows, how far decoded pixels may be from it, and its syntax."""

    make: Callable[[int], bytes]
    convert: Callable[[bytes, Path], bytes] | None
    shows: Callable[[], Pixels]
    levels: int
    syntax: str
    decodable: bool = True


def shown(mode: str = "RGB") -> Pixels:
    return np.asarray(painted(mode)).astype(np.int16)


def coloured(number: int) -> bytes:
    return native(number)


def grey(number: int) -> bytes:
    return native(number, "L")


def deep(number: int) -> bytes:
    return native(number, "L", bits=16)


def implicit(number: int) -> bytes:
    return native(number, syntax=IMPLICIT)


def baseline(number: int) -> bytes:
    return dicom_file(**uids(number))


def shown_grey() -> Pixels:
    return shown("L")


def shown_deep() -> Pixels:
    return shown("L").astype(np.int32) * 257


def shown_baseline() -> Pixels:
    return image(jpeg())


J4 = "1.2.840.10008.1.2.4."
KINDS = {
    "baseline": Kind(baseline, None, shown_baseline, 1, BASELINE),
    "native": Kind(coloured, None, shown, 0, EXPLICIT),
    "native, implicit": Kind(implicit, None, shown, 0, IMPLICIT),
    "native, grey": Kind(grey, None, shown_grey, 0, EXPLICIT),
    "native, 16 bits": Kind(deep, None, shown_deep, 0, EXPLICIT),
    "lossless": Kind(grey, by_converter("dcmcjpeg", "+e1"), shown_grey, 0, f"{J4}70"),
    "lossless, process 14": Kind(grey, by_converter("dcmcjpeg", "+el"), shown_grey, 0, f"{J4}57"),
    "lossless, coloured": Kind(coloured, by_converter("dcmcjpeg", "+e1"), shown, 0, f"{J4}70"),
    "RLE": Kind(coloured, by_converter("dcmcrle"), shown, 0, "1.2.840.10008.1.2.5"),
    "RLE of gdcm": Kind(
        grey, by_converter("gdcmconv", "--rle"), shown_grey, 0, "1.2.840.10008.1.2.5"
    ),
    "JPEG 2000": Kind(grey, by_converter("gdcmconv", "--j2k"), shown_grey, 0, f"{J4}90"),
    "JPEG 2000, coloured": Kind(coloured, by_converter("gdcmconv", "--j2k"), shown, 0, f"{J4}90"),
    "JPEG-LS": Kind(grey, by_converter("dcmcjpls"), shown_grey, 0, f"{J4}80", decodable=False),
    "lossless, 16 bits": Kind(
        deep, by_converter("dcmcjpeg", "+e1"), shown_deep, 0, f"{J4}70", decodable=False
    ),
}


class Stored(NamedTuple):
    kind: Kind
    file: bytes
    url: str


@pytest.fixture(scope="module")
def stored(server: ArchiveServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Stored]:
    """Store one instance of each kind."""
    found = {}
    for number, (name, kind) in enumerate(KINDS.items(), 1000):
        file = kind.make(number)
        if kind.convert:
            file = kind.convert(file, tmp_path_factory.mktemp("made"))
        assert dcmread(BytesIO(file)).file_meta.TransferSyntaxUID == kind.syntax
        found[name] = Stored(kind, file, put(server, file))
    return found


DECODABLE = [name for name, kind in KINDS.items() if kind.decodable]


@pytest.mark.parametrize("name", KINDS)
def test_a_file_comes_back_as_it_was_and_every_reader_opens_it(
    stored: dict[str, Stored], name: str, tmp_path: Path
) -> None:
    one = stored[name]
    answer = ask("GET", one.url, FILE)
    assert (answer.status, answer.body) == (200, one.file)
    opens(answer.body, one.kind.syntax, tmp_path)


@pytest.mark.parametrize("name", DECODABLE)
def test_every_reader_opens_a_decoded_file_and_shows_the_same(
    stored: dict[str, Stored], name: str, tmp_path: Path
) -> None:
    one = stored[name]
    answer = ask("GET", one.url, DECODED)
    assert answer.status == 200, answer.body
    file = opens(answer.body, EXPLICIT, tmp_path)
    for read in (lambda path: by_pydicom(path, ""), by_gdcm):
        pixels = np.squeeze(read(file))
        assert (
            furthest(pixels.astype(np.int32), one.kind.shows().astype(np.int32)) <= one.kind.levels
        )
    if one.kind.make is not deep:
        assert furthest(by_dcmtk(file), one.kind.shows()) <= one.kind.levels


def opens(data: bytes, syntax: str, folder: Path) -> Path:
    """Let pydicom, dcmtk and gdcm open a file; return where it is."""
    file = folder / "retrieved.dcm"
    file.write_bytes(data)
    assert dcmread(file).file_meta.TransferSyntaxUID == syntax
    assert syntax in run("dcmdump", "+P", "0002,0010", "-Un", file)
    assert syntax in run("gdcminfo", file)
    return file


@pytest.mark.parametrize("name", DECODABLE)
def test_a_decoded_file_differs_in_its_pixels_only(stored: dict[str, Stored], name: str) -> None:
    one = stored[name]
    before = dcmread(BytesIO(one.file))
    after = dcmread(BytesIO(ask("GET", one.url, DECODED).body))
    assert changed(before, after) <= {
        "PixelData",
        "PhotometricInterpretation",
        "PlanarConfiguration",
    }
    assert after.file_meta.MediaStorageSOPInstanceUID == before.SOPInstanceUID


def changed(before: Dataset, after: Dataset) -> set[str]:
    tags = set(before.keys()) | set(after.keys())
    return {
        (before if tag in before else after)[tag].keyword
        for tag in tags
        if before.get(tag) != after.get(tag)
    }


@pytest.mark.parametrize("name", [name for name in KINDS if name not in DECODABLE])
def test_what_can_not_be_decoded_says_how_it_can_be_had(
    stored: dict[str, Stored], name: str
) -> None:
    answer = ask("GET", stored[name].url, DECODED)
    assert answer.status == 406
    assert f"transfer-syntax={KINDS[name].syntax}" in answer.json()["error"]["message"]


@pytest.mark.parametrize("name", DECODABLE)
def test_a_frame_is_the_pixels_of_the_decoded_file(stored: dict[str, Stored], name: str) -> None:
    one = stored[name]
    accept = {"Accept": "application/octet-stream"}
    answer = ask("GET", f"{one.url}/frames/1", accept)
    assert answer.status == 200
    samples = np.frombuffer(answer.body, "<u2" if one.kind.make is deep else np.uint8)
    shows = one.kind.shows().astype(np.int32)
    assert furthest(samples.astype(np.int32).reshape(shows.shape), shows) <= one.kind.levels


@pytest.mark.parametrize("name", [name for name in DECODABLE if KINDS[name].make is not deep])
def test_a_rendered_picture_shows_the_same(stored: dict[str, Stored], name: str) -> None:
    one = stored[name]
    for path in ("/rendered", "/frames/1/rendered"):
        answer = ask("GET", one.url + path, {"Accept": "image/png"})
        assert answer.status == 200
        assert furthest(image(answer.body), one.kind.shows()) <= one.kind.levels


# --- several frames -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def several(server: ArchiveServer) -> str:
    return put(server, frames(900))


def test_several_frames_are_decoded_each_to_its_own_picture(several: str, tmp_path: Path) -> None:
    answer = ask("GET", several, DECODED)
    assert answer.status == 200
    pixels = by_pydicom(opens(answer.body, EXPLICIT, tmp_path), "")
    assert pixels.shape == (3, SIZE[1], SIZE[0], 3)
    for seed in range(3):
        assert furthest(pixels[seed], image(make_jpeg(*SIZE, seed=seed))) <= 1


def test_bulk_data_of_several_frames_is_all_of_them(several: str) -> None:
    accept = {"Accept": "application/octet-stream"}
    answer = ask("GET", f"{several}/bulkdata/7FE00010", accept)
    assert answer.status == 200
    samples = np.frombuffer(answer.body, np.uint8).reshape(3, SIZE[1], SIZE[0], 3)
    assert furthest(samples[2].astype(np.int16), image(make_jpeg(*SIZE, seed=2))) <= 1


def test_frames_come_in_the_order_that_is_asked_for(several: str) -> None:
    accept = {"Accept": 'multipart/related; type="image/jpeg"; transfer-syntax=*'}
    answer = ask("GET", f"{several}/frames/3,1", accept)
    assert answer.status == 200
    bodies = [body.rstrip(b"\0") for _, body in answer.parts()]
    assert bodies == [make_jpeg(*SIZE, seed=seed) for seed in (2, 0)]


# --- a client that nobody here has written ------------------------------------------------------


@pytest.fixture
def client(server: ArchiveServer) -> DICOMwebClient:
    made = DICOMwebClient(f"{server.url}{STORE}")
    made.set_http_retry_params(retry=False)
    return made


def nested(number: int, **changes: Any) -> bytes:
    icons = []
    for data in (b"\0\1", b"\2\3"):
        icon = Dataset()
        icon.add_new(0x7FE00010, "OB", data)
        icons.append(icon)
    return dicom_file(**uids(number) | changes, IconImageSequence=icons, ICCProfile=b"a profile")


def test_an_independent_client_stores_and_searches(client: DICOMwebClient) -> None:
    datasets = [
        dcmread(BytesIO(nested(1, SOPInstanceUID=f"1.2.1.1.{n}", PatientID="Q1"))) for n in range(3)
    ]
    answer = client.store_instances(datasets)
    assert len(answer.ReferencedSOPSequence) == 3
    assert "FailedSOPSequence" not in answer
    (study,) = client.search_for_studies(search_filters={"PatientID": "Q1"})
    assert study["0020000D"]["Value"] == ["1.2.1"]
    (study,) = client.search_for_studies(
        fuzzymatching=True, search_filters={"PatientName": "mull", "PatientID": "Q1"}
    )
    assert study["00201208"]["Value"] == [3]
    (series,) = client.search_for_series("1.2.1", fields=["Modality"])
    assert series["00080060"]["Value"] == ["XC"]
    pages = [
        client.search_for_instances("1.2.1", "1.2.1.1", limit=2, offset=offset) for offset in (0, 2)
    ]
    found = [model["00080018"]["Value"][0] for page in pages for model in page]
    assert sorted(found) == [f"1.2.1.1.{n}" for n in range(3)]


def test_an_independent_client_reads_every_form(
    client: DICOMwebClient, server: ArchiveServer
) -> None:
    put(server, nested(2))
    three = ("1.2.2", "1.2.2.1", "1.2.2.1.1")
    for retrieved in (
        client.retrieve_instance(*three),
        *client.retrieve_series(*three[:2]),
        *client.iter_series(*three[:2]),
        *client.retrieve_study(three[0]),
        *client.iter_study(three[0]),
    ):
        assert retrieved.SOPInstanceUID == three[2]
    (stored,) = client.retrieve_study(three[0], (("application/dicom", "*"),))
    assert stored.file_meta.TransferSyntaxUID == BASELINE
    assert client.retrieve_instance_frames(*three, [1], (("image/jpeg", BASELINE),)) == [jpeg()]
    (decoded,) = client.retrieve_instance_frames(*three, [1])
    assert len(decoded) == SIZE[0] * SIZE[1] * 3
    rendered = client.retrieve_instance_frames_rendered(*three, [1], ("image/png",))
    assert furthest(image(rendered), image(jpeg())) <= 1
    rendered = client.retrieve_instance_rendered(*three, media_types=("image/jpeg",))
    assert rendered == jpeg()


def test_an_independent_client_follows_the_uris_of_metadata(
    client: DICOMwebClient, server: ArchiveServer
) -> None:
    put(server, nested(3))
    three = ("1.2.3", "1.2.3.1", "1.2.3.1.1")
    model = client.retrieve_instance_metadata(*three)
    assert client.retrieve_series_metadata(*three[:2]) == [model]
    assert client.retrieve_study_metadata(three[0]) == [model]
    uris = [model["00282000"]["BulkDataURI"]]
    uris += [item["7FE00010"]["BulkDataURI"] for item in model["00880200"]["Value"]]
    found = [client.retrieve_bulkdata(uri)[0] for uri in uris]
    assert [each.rstrip(b"\0") for each in found] == [b"a profile", b"\0\1".rstrip(b"\0"), b"\2\3"]
    (part,) = client.retrieve_bulkdata(uris[0], byte_range=(2, 8))
    assert part in [b"profile", b"a profile", b"a profile\0"]


@pytest.mark.parametrize("level", ["instance", "series", "study"])
def test_an_independent_client_deletes(
    client: DICOMwebClient, server: ArchiveServer, level: str
) -> None:
    number = {"instance": 4, "series": 5, "study": 6}[level]
    put(server, nested(number))
    three = list(uids(number).values())
    count = {"study": 1, "series": 2, "instance": 3}[level]
    delete = getattr(client, f"delete_{level}")
    delete(*three[:count])
    wait_until(lambda: client.search_for_instances(three[0]) == [])
    assert ask("GET", f"{server.url}{STORE}/studies/{three[0]}/metadata").status == 404


# --- XML ----------------------------------------------------------------------------------------


def manifold() -> bytes:
    """Return an instance whose attributes are of every shape that the model has."""
    site = Dataset()
    site.CodeValue = "40983000"
    site.CodeMeaning = 'Größe & <x> "y"'
    inner = Dataset()
    inner.ReferencedSOPInstanceUID = "1.2.3"
    site.ReferencedImageSequence = [inner, inner]
    return nested(
        50,
        AnatomicRegionSequence=[site],
        ProcedureCodeSequence=[],
        PixelSpacing=[0.5, 0.25],
        ImageType=["ORIGINAL", "PRIMARY", "", "X"],
        PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう",
        OtherPatientNames=["A^B^C^Dr.^Jr.", "Q^^X"],
        SeriesNumber=None,
        PatientComments="  two\r\nlines\tand more  ",
        LensMake=" ",
        RescaleSlope="1.50",
        NumberOfFrames="1",
        RecommendedDisplayFrameRateInFloat=0.1,
        FrameIncrementPointer=0x00181063,
        EventElapsedTimes=[1.5, -2],
        PatientBirthName="=山田^太郎",
        PatientMotherBirthName="^^^",
        AcquisitionDateTime="20240305101112.5+0100",
        LongCodeValue=["a b", "c"],
        URNCodeValue="http://x/?a=b&c=d ",
        TextValue="<b>text</b> & more  ",
        FrameAcquisitionDuration=float("inf"),
        SelectorSVValue=[-(2**62), 5],
        SelectorUVValue=2**63,
        PerFrameFunctionalGroupsSequence=[private(), Dataset()],
        SeriesDescription="a\\b",
    )


def private() -> Dataset:
    """Return an item with private attributes of two makers."""
    item = Dataset()
    block = item.private_block(0x0009, "ACME 1.1", create=True)
    block.add_new(1, "LO", "private text")
    block.add_new(2, "OB", b"\1\2")
    block.add_new(3, "SQ", [Dataset()])
    block.add_new(5, "PN", "A^B")
    item.private_block(0x0009, "OTHER", create=True).add_new(1, "LO", ["x", "y"])
    return item


@pytest.fixture(scope="module")
def documents(server: ArchiveServer, stored: dict[str, Stored]) -> dict[str, tuple[bytes, bytes]]:
    """Return, by name, files and the XML of their metadata."""
    files = {"manifold": manifold(), **{name: one.file for name, one in stored.items()}}
    urls = {"manifold": put(server, files["manifold"])}
    urls |= {name: one.url for name, one in stored.items()}
    found = {}
    for name, url in urls.items():
        ((_, document),) = ask("GET", f"{url}/metadata", XML).parts()
        found[name] = (files[name], document)
    return found


@pytest.mark.parametrize("name", ["manifold", *KINDS])
def test_xml_is_a_native_dicom_model(documents: dict[str, tuple[bytes, bytes]], name: str) -> None:
    assert breaches(documents[name][1]) == []


@pytest.mark.parametrize("name", ["manifold", *KINDS])
def test_xml_says_what_dcmtk_s_says(
    documents: dict[str, tuple[bytes, bytes]], name: str, tmp_path: Path
) -> None:
    file, ours = documents[name]
    (tmp_path / "image.dcm").write_bytes(file)
    run("dcm2xml", "--native-format", "+U8", tmp_path / "image.dcm", tmp_path / "image.xml")
    theirs = (tmp_path / "image.xml").read_bytes()
    assert content(ours) == content(theirs)


def test_xml_of_a_search_is_a_native_dicom_model(
    server: ArchiveServer, documents: dict[str, tuple[bytes, bytes]]
) -> None:
    for level in ("studies", "series", "instances"):
        answer = ask("GET", f"{server.url}{STORE}/{level}?includefield=all", XML)
        parts = answer.parts()
        assert len(parts) >= len(documents)
        assert [breaches(body) for _, body in parts] == [[]] * len(parts)


def test_a_breach_of_the_model_is_found() -> None:
    document = b"""<NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM"
        xml:space="preserve"><DicomAttribute tag="00100020" vr="LO" keyword="PatientID"><Value
        number="2">b</Value><Value number="1">a</Value></DicomAttribute><DicomAttribute
        tag="00100010" vr="PN" keyword="Name"><Value number="1">A</Value></DicomAttribute>
        <DicomAttribute tag="00091001" vr="LO"/></NativeDicomModel>"""
    found = "\n".join(breaches(document))
    for what in ("out of order", "numbers ['2', '1']", "called Name", "['Value']", "whose"):
        assert what in found


def test_metadata_is_what_pydicom_reads_as_json(
    documents: dict[str, tuple[bytes, bytes]], server: ArchiveServer
) -> None:
    """From JSON pydicom makes the data set of the file, bulk data apart."""
    file = documents["manifold"][0]
    url = f"{server.url}{STORE}/studies/1.2.50/metadata"
    (model,) = ask("GET", url).json()
    read = Dataset.from_json(json.dumps(model), lambda *_: b"bulk data")
    sent = dcmread(BytesIO(file))
    binary = {"PixelData", "ICCProfile", "IconImageSequence", "PerFrameFunctionalGroupsSequence"}
    assert changed(sent, read) <= binary | {"SeriesNumber"}
