"""The file of an entry: what is read from it makes the same bytes, and damage never goes unseen."""

import json
import re
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset

from service.dicom import consistency
from service.dicom.codestream import Codestream
from service.dicom.dataset import overlay
from service.dicom.exif import PHOTO
from service.dicom.exif_attributes import used
from service.errors import JpegstowError
from service.ingest import Rules, describe_normalised
from service.retry import kept
from tests.describing import CAPTURE, PHOTOGRAPH, SAID, rules
from tests.jpegs import make_jpeg, picture
from tests.queues import NOW, Made, bodies, decoded, describe, numbered
from tests.streams import of_process

RULES: Final[Rules] = rules()
WANTED = {
    "Manufacturer": "Acme",
    "ManufacturerModelName": "Dermatoscope",
    "DeviceSerialNumber": "7",
    "SoftwareVersions": ["1.0", "2"],
    "ImageLaterality": "L",
    "AnatomicRegionSequence": "hand",
    "AcquisitionDeviceTypeCodeSequence": "external camera",
    "ContentDate": "20240305",
    "ContentTime": "140709",
    "AcquisitionDateTime": "20240305140709.120000+0100",
}
RICH = SAID | {
    "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "PatientWeight": "70.50",
    "PatientSize": "0.10",
    "SeriesNumber": "03",
    "PatientComments": 'two\r\nlines; a \\ and a "quote"',
    "OtherPatientNames": ["Müller^José", "Doe^Jane=朶^ジェーン"],
    "EthnicGroup": "",
    "PregnancyStatus": 4,
    "ProcedureCodeSequence": [
        {"CodeValue": "1", "CodingSchemeDesignator": "99X", "CodeMeaning": "Ätzung"},
        {"CodeValue": "2", "CodingSchemeDesignator": "99X", "CodeMeaning": "x"},
    ],
    "RequestAttributesSequence": [
        {
            "ScheduledProcedureStepID": "S-1",
            "ScheduledProtocolCodeSequence": [
                {"CodeValue": "3", "CodingSchemeDesignator": "99X", "CodeMeaning": "y"}
            ],
        }
    ],
}


def jpeg2000() -> bytes:
    file = BytesIO()
    picture(16, 16).save(file, "JPEG2000")
    return file.getvalue()


PICTURES = {
    "colour": make_jpeg(17, 13),
    "grey": make_jpeg(16, 16, "L"),
    "rgb": make_jpeg(16, 16, keep_rgb=True),
    "profile": make_jpeg(16, 16, icc=True),
    "camera": make_jpeg(16, 16, orientation=6, taken="2024:03:05 14:07:09", gps=True),
    "progressive": make_jpeg(32, 16, progressive=True, comment=b"Zebedee"),
    "twelve bits": of_process(0xC1, precision=12),
    "lossless": of_process(0xC3, precision=16, predictor=1),
    "jpeg2000": jpeg2000(),
}


def written(put: Made) -> bytes:
    return b"".join(kept.encode(*put, NOW))


def check(put: Made) -> Made:
    """Hold what is read from an entry's file to what was written."""
    read = decoded(written(put))
    assert bodies(read.described.instance) == bodies(put.described.instance)
    assert read.described.instance.transfer_syntax == put.described.instance.transfer_syntax
    assert read.described.changes == put.described.changes
    # An empty value may come back as another kind of emptiness: `written` has the last word.
    nothing = Dataset()
    assert replace(read.upload, attributes=nothing) == replace(
        put.upload, image=b"", attributes=nothing
    )
    found, expected = read.described.normalised, put.described.normalised
    assert b"".join(found.codestream) == b"".join(expected.codestream)
    assert replace(found, codestream=Codestream(())) == replace(
        expected, codestream=Codestream(()), tags=used(expected.tags)
    )
    assert written(read) == written(put)
    return read


@pytest.mark.parametrize("template", sorted(RULES.templates))
def test_an_instance_of_every_template_comes_back_as_it_was(template: str) -> None:
    wanted = consistency.WANTED.get(RULES.templates[template].sop_class, ())
    for said in (SAID, RICH):
        check(
            describe(PICTURES["colour"], template, said | {name: WANTED[name] for name in wanted})
        )


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("template", [PHOTOGRAPH, CAPTURE])
def test_an_instance_of_every_picture_comes_back_as_it_was(name: str, template: str) -> None:
    try:
        put = describe(PICTURES[name], template, RICH)
    except JpegstowError:
        assert (name, template) in {("twelve bits", PHOTOGRAPH), ("lossless", PHOTOGRAPH)}
        return
    check(put)


TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn"], exclude_characters="\\=^"),
    min_size=1,
    max_size=12,
)
DECIMAL = st.from_regex(r"[+-]?[0-9]{1,6}(\.[0-9]{1,4})?([eE][+-]?[0-9])?", fullmatch=True)
INTEGER = st.from_regex(r"[+-]?0{0,3}[0-9]{1,7}", fullmatch=True)
CODE = st.fixed_dictionaries(
    {"CodeValue": TEXT, "CodingSchemeDesignator": st.just("99X"), "CodeMeaning": TEXT}
)
ATTRIBUTES = st.fixed_dictionaries(
    {},
    optional={
        "PatientName": st.lists(TEXT, min_size=1, max_size=3).map("=".join),
        "PatientComments": TEXT,
        "PatientWeight": DECIMAL,
        "PatientSize": DECIMAL,
        "InstanceNumber": INTEGER,
        "SeriesNumber": INTEGER,
        "PregnancyStatus": st.integers(1, 4),
        "ReferencedTimeOffsets": st.lists(DECIMAL, min_size=1, max_size=3),
        "RescaleSlope": DECIMAL,
        "ExposureTimeInSeconds": st.floats(0, 1e9, allow_nan=False),
        "ProcedureCodeSequence": st.lists(CODE, min_size=1, max_size=2),
        "OtherPatientNames": st.lists(TEXT, min_size=1, max_size=3),
    },
)


@settings(deadline=None, max_examples=30)
@given(ATTRIBUTES)
def test_whatever_is_said_comes_back_as_it_was(said: dict[str, Any]) -> None:
    try:
        put = describe(PICTURES["colour"], CAPTURE, said)
    except JpegstowError:
        return
    check(put)


def test_hypothesis_describes_something() -> None:
    check(
        describe(PICTURES["colour"], CAPTURE, {"PatientWeight": "+0.10E1", "SeriesNumber": "+03"})
    )


def with_elements(**values: Any) -> Made:
    """Describe a picture, and give its data set what only a template could say so."""
    put = numbered()
    above = Dataset()
    for keyword, value in values.items():
        setattr(above, keyword, value)
    instance = put.described.instance
    changed = replace(instance, dataset=overlay(instance.dataset, above))
    return Made(put.upload, replace(put.described, instance=changed))


def test_numbers_are_kept_as_they_were_written() -> None:
    read = check(with_elements(PatientSize="0.10", SeriesNumber="03", PatientWeight="+7.0E1"))
    file = bodies(read.described.instance)[2]
    for text in (b"DS\x04\x000.10", b"IS\x02\x0003", b"DS\x06\x00+7.0E1"):
        assert text in file


@settings(deadline=None, max_examples=30)
@given(
    st.lists(DECIMAL, min_size=1, max_size=4),
    st.lists(INTEGER, min_size=1, max_size=3),
)
def test_any_number_is_kept_as_it_was_written(decimals: list[str], integers: list[str]) -> None:
    put = with_elements(
        PixelSpacing=decimals if len(decimals) > 1 else decimals[0],
        ReferencedFrameNumber=integers if len(integers) > 1 else integers[0],
    )
    file = bodies(check(put).described.instance)[2]
    assert "\\".join(decimals).encode() in file
    assert "\\".join(integers).encode() in file


def without_boundary(body: bytes) -> bytes:
    """Return a body whose boundary, which says how its parts were cut, is left out."""
    return re.sub(rb"--jpegstow-[0-9a-f]{40}", b"--", body)


def test_a_large_instance_is_packaged_to_the_same_bytes() -> None:
    check(describe(make_jpeg(700, 600, quality=97, comment=b"x", restart_blocks=4)))


def test_real_pictures_come_back_as_they_were(corpus: list[Path]) -> None:
    checked = 0
    for path in corpus[::8]:
        data = path.read_bytes()
        if len(data) > 2_000_000:
            continue
        try:
            put = describe(data, PHOTOGRAPH, RICH)
        except JpegstowError:
            continue
        read = decoded(written(put))
        pairs = zip(bodies(read.described.instance), bodies(put.described.instance), strict=True)
        assert all(without_boundary(one) == without_boundary(other) for one, other in pairs)
        checked += 1
    assert checked


@pytest.mark.parametrize("name", PICTURES)
def test_what_is_kept_can_be_described_again(name: str) -> None:
    read = decoded(written(describe(PICTURES[name], CAPTURE)))
    again = describe_normalised(read.upload, read.described.normalised, RULES)
    assert bodies(again.instance) == bodies(read.described.instance)
    assert again.changes == read.described.changes


def test_nothing_of_exif_is_kept_that_names_a_place() -> None:
    put = describe(PICTURES["camera"])
    read = decoded(written(put))
    assert set(read.described.normalised.tags) == {(PHOTO, 0x9003)}
    assert b"Zebedee" not in written(describe(PICTURES["progressive"]))


def test_the_codestream_is_not_copied() -> None:
    put = numbered()
    pieces = kept.encode(*put, NOW)
    assert all(a is b for a, b in zip(pieces[1:], put.described.instance.codestream, strict=True))


def test_the_head_is_read_without_the_codestream() -> None:
    put = numbered()
    found, first_seen = kept.read_head(BytesIO(written(put)[:-100]))
    assert first_seen == NOW
    assert found.instance.sop_instance_uid == put.described.instance.sop_instance_uid
    assert found.upload == replace(put.upload, image=b"")


FILE = b"".join(kept.encode(*numbered(), NOW))


@given(st.integers(0, len(FILE) - 1), st.integers(0, 7))
def test_any_flipped_bit_is_found(place: int, bit: int) -> None:
    data = bytearray(FILE)
    data[place] ^= 1 << bit
    with pytest.raises(ValueError, match="isn't what was written"):
        decoded(bytes(data))


@given(st.integers(0, len(FILE) - 1))
def test_any_cut_is_found(length: int) -> None:
    with pytest.raises(ValueError, match="isn't what was written"):
        decoded(FILE[:length])


@settings(max_examples=30)
@given(st.binary(max_size=300))
def test_other_bytes_are_refused(data: bytes) -> None:
    for given_bytes in (data, FILE + data + b"x", data + b"\n" + FILE):
        with pytest.raises(ValueError, match="isn't what was written"):
            decoded(given_bytes)


MODEL = json.loads(FILE.partition(b"\n")[0])
PARTS = sorted(set(MODEL) - {"version"})


@pytest.mark.parametrize(
    "head",
    [
        b"\n",
        b"\xff\xfe\n",
        b"null\n",
        b"[]\n",
        b"{}\n",
        b'"text"\n',
        json.dumps(MODEL | {"normalised": {}}).encode(),
        json.dumps(MODEL | {"upload": []}).encode(),
        json.dumps(MODEL | {"first_seen": None}).encode(),
        json.dumps(MODEL | {"dataset": {"00100010": {"vr": "XX"}}}).encode(),
        *(json.dumps({k: MODEL[k] for k in MODEL if k != left}).encode() for left in PARTS),
    ],
)
def test_a_head_that_says_nothing_is_refused(head: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        kept.read_head(BytesIO(head + FILE[FILE.index(b"\n") :]))


def test_a_file_of_another_version_is_not_misread() -> None:
    head = json.dumps(MODEL | {"version": 2}).encode()
    with pytest.raises(ValueError, match=r"."):
        kept.read_head(BytesIO(head + FILE[FILE.index(b"\n") :]))
