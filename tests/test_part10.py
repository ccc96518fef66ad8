"""DICOM files: written as others read them, read whole or not at all."""

import math
import struct
import subprocess
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from service.dicom import part10
from service.dicom.attributes import parse
from service.dicom.codestream import Codestream
from service.dicom.dataset import Instance, describe, merge
from service.dicom.json_model import to_json
from service.dicom.template import Template
from service.dicom.template import parse as parse_template
from service.dicom.uid import Identity
from service.errors import BadRequest
from tests.describing import normalised
from tests.jpegs import make_jpeg
from tests.judges import require_tool
from tests.quickness import quick
from tests.streams import adobe, behind_soi, with_identifiers, without

FILE = Path(__file__).parents[1] / "templates" / "secondary-capture-image.json"
TEMPLATE: Template = parse_template(FILE.stem, FILE.read_bytes())
SAID = {"PatientName": "Yamada^Tarou=山田^太郎", "PatientID": "P-7", "PatientWeight": 70.5}


def instance(data: bytes) -> Instance:
    merged = merge(TEMPLATE, {}, parse(SAID))
    identity = Identity("2.25.1", "2.25.2", "2.25.3", "2.25.4")
    return describe(normalised(data, VERIFY_SCAN="off"), merged, identity)


def file_of(made: Instance) -> bytes:
    return b"".join(part10.encode(made.dataset, made.codestream, made.transfer_syntax))


def of_length(parity: int) -> Instance:
    made = (instance(make_jpeg(32, 16, "L", seed=seed)) for seed in range(50))
    return next(each for each in made if len(each.codestream) % 2 == parity)


EVEN, ODD = of_length(0), of_length(1)


@pytest.mark.parametrize("made", [EVEN, ODD], ids=["even", "odd"])
def test_a_file_comes_back_as_it_was(made: Instance) -> None:
    data = file_of(made)
    found = part10.decode(data)
    assert len(data) % 2 == 0
    assert part10.frame(found) == bytes(made.codestream)
    assert part10.holds(found, made.dataset, made.codestream)
    del found.PixelData
    assert to_json(found) == to_json(made.dataset)


@pytest.mark.parametrize("made", [EVEN, ODD], ids=["even", "odd"])
def test_the_pixel_data_is_encapsulated_as_the_standard_draws_it(made: Instance) -> None:
    data = file_of(made)
    start = data.index(bytes.fromhex("e07f1000 4f420000 ffffffff"))
    frame = bytes(made.codestream) + bytes(len(made.codestream) % 2)
    assert data[start + 12 :] == (
        bytes.fromhex("feff00e0 00000000 feff00e0")
        + struct.pack("<I", len(frame))
        + frame
        + bytes.fromhex("feffdde0 00000000")
    )
    assert frame in encapsulate([bytes(made.codestream)], has_bot=False)


def test_the_file_meta_information_names_the_instance() -> None:
    meta = part10.decode(file_of(EVEN)).file_meta
    assert meta.MediaStorageSOPClassUID == EVEN.sop_class_uid
    assert meta.MediaStorageSOPInstanceUID == EVEN.sop_instance_uid
    assert meta.TransferSyntaxUID == EVEN.transfer_syntax
    assert meta.ImplementationClassUID == "2.25.218998527620871074081579097138094456875"
    assert meta.ImplementationVersionName == "JPEGSTOW"


def test_writing_a_file_changes_nothing_and_gives_the_same_bytes_again() -> None:
    made = instance(make_jpeg(32, 16))
    before = made.dataset.to_json()
    assert file_of(made) == file_of(made) == file_of(instance(make_jpeg(32, 16)))
    assert made.dataset.to_json() == before
    assert not hasattr(made.dataset, "file_meta")
    assert "PixelData" not in made.dataset


def test_the_scan_is_not_copied() -> None:
    pieces = part10.encode(EVEN.dataset, EVEN.codestream, EVEN.transfer_syntax)
    assert [piece for piece in pieces if isinstance(piece, memoryview)]


@pytest.mark.parametrize("made", [EVEN, ODD], ids=["even", "odd"])
@pytest.mark.parametrize("judge", ["dcmdump", "dcmftest", "gdcminfo", "dcmdjpeg"])
def test_others_read_the_file(made: Instance, judge: str, tmp_path: Path) -> None:
    path = tmp_path / "instance.dcm"
    path.write_bytes(file_of(made))
    arguments = [str(path), str(tmp_path / "decoded.dcm")][: 2 if judge == "dcmdjpeg" else 1]
    said = subprocess.run(
        [require_tool(judge), *arguments], capture_output=True, check=True, text=True
    )
    assert not said.stderr
    if judge == "dcmdump":
        assert "[P-7]" in said.stdout
        assert "=JPEGBaseline" in said.stdout


COLOURS = {
    "4:2:0": make_jpeg(64, 48),
    "4:4:4": make_jpeg(64, 48, subsampling="4:4:4"),
    "grey": make_jpeg(64, 48, "L"),
    "RGB": make_jpeg(64, 48, keep_rgb=True),
    "RGB by identifiers": without(make_jpeg(64, 48, keep_rgb=True), 0xEE),
    "Adobe 1": behind_soi(without(make_jpeg(64, 48), 0xE0), adobe(1)),
    "JFIF against Adobe 0": behind_soi(make_jpeg(64, 48), adobe(0)),
    "JFIF against identifiers": with_identifiers(make_jpeg(64, 48), b"RGB"),
}


@pytest.mark.parametrize("name", COLOURS)
@pytest.mark.parametrize("decoder", ["gdcm", "pylibjpeg", "pillow"])
def test_every_decoder_sees_the_colours_of_the_jpeg(name: str, decoder: str) -> None:
    found = dcmread(BytesIO(file_of(instance(COLOURS[name]))))
    decode = get_decoder(found.file_meta.TransferSyntaxUID)
    seen, _ = decode.as_array(found, decoding_plugin=decoder)
    with Image.open(BytesIO(COLOURS[name])) as image:
        expected = np.asarray(image).astype(int)
    assert abs(seen.astype(int) - expected).mean() < 2


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"junk",
        bytes(128) + b"DICM",
        file_of(EVEN)[:140],
        file_of(EVEN)[:800],
        file_of(EVEN)[:-9],
        file_of(EVEN)[132:],
        make_jpeg(8, 8),
    ],
)
def test_a_part_of_a_file_is_no_file(data: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        part10.decode(data)
    assert caught.value.reason == "not-dicom"


def test_a_deflated_file_is_not_unfolded() -> None:
    deflated = replace(EVEN, transfer_syntax="1.2.840.10008.1.2.1.99")
    meta = file_of(EVEN)[:400].replace(b"4.50", b"1.99")
    for data in (meta, file_of(deflated)):
        with pytest.raises(BadRequest, match="deflated"):
            part10.decode(data)


def test_a_long_version_does_not_hide_that_a_file_is_deflated() -> None:
    version = bytes.fromhex("02000100 4f420000 00200000") + bytes(0x2000)
    syntax = bytes.fromhex("02001000 55491600") + b"1.2.840.10008.1.2.1.99"
    with pytest.raises(BadRequest, match="deflated"):
        part10.decode(bytes(128) + b"DICM" + version + syntax + bytes(100))


def saved(dataset: Dataset, syntax: UID) -> bytes:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID, dataset.SOPInstanceUID = EVEN.sop_class_uid, EVEN.sop_instance_uid
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def ending(tag: int, vr: str, value: object, *, undefined: bool = False) -> Dataset:
    dataset = Dataset()
    dataset.add_new(tag, vr, value)
    dataset[tag].is_undefined_length = undefined
    return dataset


ICON = ending(0x7FE00010, "OB", bytes(20))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize(
    "dataset",
    [
        ending(0x7FE00010, "OW", bytes(1000)),
        ending(0x00204000, "LT", "words " * 200),
        ending(0x00880200, "SQ", [ICON]),
        ending(0x00880200, "SQ", [ICON], undefined=True),
        ending(0xFFFCFFFC, "OB", bytes(1000)),
        ending(0x00102110, "LO", ""),
    ],
    ids=["pixels", "text", "items", "delimited items", "padding", "empty"],
)
def test_a_file_that_ends_within_an_element_is_no_file(dataset: Dataset, syntax: UID) -> None:
    data = saved(dataset, syntax)
    part10.decode(data)
    for cut in (1, 2, 3, 4, 5, 6, 7):
        with pytest.raises(BadRequest, match="DICOM file"):
            part10.decode(data[:-cut])
    for cut in (500, 990, 1000, 1005):
        if cut < len(data) - 400:
            with pytest.raises(BadRequest, match="DICOM file"):
                part10.decode(data[:-cut])


def test_a_file_cut_between_two_elements_holds_no_pixels() -> None:
    """Nothing in a DICOM file says how many elements there should be."""
    data = file_of(EVEN)
    found = part10.decode(data[: data.index(bytes.fromhex("e07f1000 4f420000 ffffffff"))])
    assert "PixelData" not in found
    assert not part10.holds(found, EVEN.dataset, EVEN.codestream)


FILE_BYTES = file_of(ODD)


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(deadline=None)
@given(st.data())
@quick(2)
def test_a_damaged_file_is_read_or_refused(data: st.DataObject) -> None:
    damaged = bytearray(FILE_BYTES)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, 1000))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    for file in (bytes(damaged), bytes(damaged[:cut])):
        try:
            found = part10.decode(file)
        except BadRequest as error:
            said = error.reason
        else:
            said = str(part10.holds(found, ODD.dataset, ODD.codestream))
        assert said in {"True", "False", "not-dicom"}


def changed(change: Callable[[Dataset], None]) -> Dataset:
    dataset = dcmread(BytesIO(file_of(ODD)))
    change(dataset)
    return dataset


def setting(**values: object) -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        for keyword, value in values.items():
            setattr(dataset, keyword, value)

    return change


def without_keyword(keyword: str) -> Callable[[Dataset], None]:
    return lambda dataset: delattr(dataset, keyword)


FRAME = bytes(ODD.codestream)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (setting(), True),
        (setting(InstitutionName="added by the store"), True),
        (without_keyword("StudyDate"), True),
        (setting(PatientWeight="70.50"), True),
        (setting(PixelData=encapsulate([FRAME], has_bot=True)), True),
        (setting(PixelData=encapsulate([FRAME], fragments_per_frame=3)), True),
        (setting(PatientID="P-8"), False),
        (setting(PatientID=""), False),
        (setting(PatientID=["P-7", "P-7"]), False),
        (without_keyword("PatientID"), False),
        (setting(StudyDate="20240305"), False),
        (setting(Rows=17), False),
        (setting(SOPInstanceUID="2.25.4"), False),
        (setting(PixelData=encapsulate([FRAME[:-3] + b"x\xff\xd9"])), False),
        (setting(PixelData=encapsulate([FRAME + b"more\xff\xd9"])), False),
        (setting(PixelData=b""), False),
        (setting(PixelData=None), False),
        (setting(PixelData=bytes(32 * 16)), False),
        (setting(PixelData=b"\xfe\xff\x00\xe0"), False),
        (setting(PixelData=b"\xfe\xff\x00\xe0\xff\0\0\0ab"), False),
        (without_keyword("PixelData"), False),
    ],
)
def test_a_stored_instance_holds_this_one_or_does_not(
    change: Callable[[Dataset], None],
    same: bool,  # noqa: FBT001
) -> None:
    assert part10.holds(changed(change), ODD.dataset, ODD.codestream) is same


@pytest.mark.parametrize(
    ("tag", "vr", "value", "other"),
    [
        (0x00101001, "PN", ["A^B", ""], ["A^C", ""]),
        (0x00280030, "DS", ["", "1"], ["", "2"]),
        (0x00189073, "FD", math.nan, 1.0),
    ],
)
def test_what_the_json_model_has_no_word_for_is_the_same_as_itself(
    tag: int, vr: str, value: object, other: object
) -> None:
    changes: list[Callable[[Dataset], None]] = [
        lambda dataset: dataset.add_new(tag, vr, value),
        lambda dataset: dataset.add_new(tag, vr, value),
        lambda dataset: dataset.add_new(tag, vr, other),
    ]
    one, same, another = map(changed, changes)
    assert part10.differences(one, same) == []
    assert part10.differences(another, same) == [keyword_for_tag(tag)]


def test_only_a_padding_byte_is_left_out_of_a_frame() -> None:
    for frame in (b"ab\xff\xd9", b"a\xff\xd9", b"a\xff\xd9\0\0", b"a\0"):
        dataset = Dataset()
        dataset.PixelData = encapsulate([frame], has_bot=False)
        assert part10.frame(dataset).rstrip(b"\0") == frame.rstrip(b"\0")
    assert part10.frame(changed(setting())) == bytes(Codestream((FRAME,)))
