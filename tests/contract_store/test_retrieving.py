"""Retrieve (PS3.18 10.4): files, metadata, frames, pictures and bulk data."""

from io import BytesIO
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from tests.archive_instances import BASELINE, jpeg
from tests.contract_store.conftest import Kept
from tests.contract_store.stores import (
    DICOM_JSON,
    EXPLICIT,
    FILE,
    FILES,
    ICONS,
    PROFILE,
    Photograph,
    Store,
    instances,
)
from tests.decoding import furthest, image

DECODED = ["application/dicom", f"application/dicom; transfer-syntax={EXPLICIT}"]
OCTETS = "application/octet-stream; transfer-syntax=*"


def is_decoded(dataset: Dataset) -> None:
    assert dataset.file_meta.TransferSyntaxUID == EXPLICIT
    samples = np.frombuffer(dataset.PixelData, np.uint8).astype(np.int16)
    shape = dataset.Rows, dataset.Columns, 3
    assert furthest(samples.reshape(shape), image(jpeg())) <= 1


def test_an_instance_comes_as_the_very_file(store: Store, kept: Kept) -> None:
    answer = store.get(kept.first.path, FILE)
    assert (answer.status, answer.media_type) == (200, "application/dicom")
    assert answer.body == kept.first.file


@pytest.mark.parametrize("syntax", ["*", BASELINE])
def test_an_instance_comes_as_the_very_file_in_a_part(
    store: Store, kept: Kept, syntax: str
) -> None:
    accept = f'multipart/related; type="application/dicom"; transfer-syntax={syntax}'
    answer = store.get(kept.first.path, accept)
    assert (answer.status, answer.media_type) == (200, "multipart/related")
    assert [body for _, body in answer.parts()] == [kept.first.file]


@pytest.mark.parametrize("level", ["study", "series"])
def test_a_study_and_a_series_come_as_all_their_files(store: Store, kept: Kept, level: str) -> None:
    answer = store.get(getattr(kept.first, level), FILES)
    assert answer.status == 200
    photographs = kept.photographs[: 3 if level == "study" else 2]
    assert sorted(body for _, body in answer.parts()) == sorted(each.file for each in photographs)


@pytest.mark.parametrize("accept", DECODED)
def test_an_instance_is_decoded_unless_told_otherwise(
    store: Store, kept: Kept, accept: str
) -> None:
    answer = store.get(kept.first.path, accept)
    assert answer.status == 200
    is_decoded(dcmread(BytesIO(answer.body)))


@pytest.mark.parametrize("accept", ["*/*", 'multipart/related; type="application/dicom"'])
def test_parts_are_decoded_unless_told_otherwise(store: Store, kept: Kept, accept: str) -> None:
    answer = store.get(kept.first.series, accept)
    assert answer.status == 200
    datasets = [dcmread(BytesIO(body)) for _, body in answer.parts()]
    assert {each.SOPInstanceUID for each in datasets} == {
        each.uids.instance for each in kept.photographs[:2]
    }
    for dataset in datasets:
        is_decoded(dataset)


@pytest.mark.parametrize("level", ["study", "series", "path"])
def test_metadata_comes_as_json(store: Store, kept: Kept, level: str) -> None:
    answer = store.get(f"{getattr(kept.first, level)}/metadata", DICOM_JSON)
    assert (answer.status, answer.media_type) == (200, DICOM_JSON)
    count = {"study": 3, "series": 2, "path": 1}[level]
    assert instances(answer.json()) == {each.uids.instance for each in kept.photographs[:count]}
    (first,) = [each for each in answer.json() if each["00200013"]["Value"] == [1]][:1]
    assert first["00100010"] == {"vr": "PN", "Value": [{"Alphabetic": f"{kept.word}^Eva"}]}
    assert first["00280010"] == {"vr": "US", "Value": [48]}


def test_metadata_comes_as_xml(store: Store, kept: Kept) -> None:
    accept = 'multipart/related; type="application/dicom+xml"'
    answer = store.get(f"{kept.first.path}/metadata", accept)
    assert (answer.status, answer.media_type) == (200, "multipart/related")
    ((_, document),) = answer.parts()
    root = ET.fromstring(document)
    assert root.tag.rpartition("}")[2] == "NativeDicomModel"
    assert kept.first.uids.instance in [element.text for element in root.iter()]


def test_metadata_is_json_where_nothing_else_is_asked_for(store: Store, kept: Kept) -> None:
    answer = store.get(f"{kept.first.path}/metadata")
    assert (answer.status, answer.media_type) == (200, DICOM_JSON)


@pytest.mark.parametrize("kind", ["image/png", "image/jpeg"])
def test_an_instance_is_rendered(store: Store, kept: Kept, kind: str) -> None:
    answer = store.get(f"{kept.first.path}/rendered", kind)
    assert (answer.status, answer.media_type) == (200, kind)
    assert furthest(image(answer.body), image(jpeg())) <= (1 if kind == "image/png" else 40)


def test_a_frame_is_rendered(store: Store, kept: Kept) -> None:
    answer = store.get(f"{kept.first.path}/frames/1/rendered", "image/png")
    assert (answer.status, answer.media_type) == (200, "image/png")
    assert furthest(image(answer.body), image(jpeg())) <= 1


def test_a_rendered_picture_fits_into_the_viewport(store: Store, kept: Kept) -> None:
    answer = store.get(f"{kept.first.path}/rendered", "image/png", "viewport=32,32")
    assert answer.status == 200
    assert image(answer.body).shape == (24, 32, 3)


@pytest.mark.parametrize(
    ("kind", "syntax"),
    [("image/jpeg", BASELINE), ("image/jpeg", "*"), ("application/octet-stream", "*")],
)
def test_a_frame_comes_as_it_is_stored(store: Store, kept: Kept, kind: str, syntax: str) -> None:
    accept = f'multipart/related; type="{kind}"; transfer-syntax={syntax}'
    answer = store.get(f"{kept.first.path}/frames/1", accept)
    assert (answer.status, answer.media_type) == (200, "multipart/related")
    ((sent, frame),) = answer.parts()
    assert frame.rstrip(b"\0") == jpeg()
    assert sent.partition(";")[0] == kind


def test_a_frame_is_decoded_unless_told_otherwise(store: Store, kept: Kept) -> None:
    accept = 'multipart/related; type="application/octet-stream"'
    answer = store.get(f"{kept.first.path}/frames/1", accept)
    assert answer.status == 200
    ((_, frame),) = answer.parts()
    assert len(frame) == 48 * 64 * 3


@pytest.mark.parametrize(("frame", "status"), [("0", 400), ("one", 400), ("2", 404)])
def test_a_frame_that_there_is_not_is_refused(
    store: Store, kept: Kept, frame: str, status: int
) -> None:
    assert store.get(f"{kept.first.path}/frames/{frame}").status == status


def test_bulk_data_is_found_at_its_tag(store: Store, kept: Kept) -> None:
    answer = store.get(f"{kept.first.path}/bulkdata/00282000", OCTETS)
    assert (answer.status, answer.media_type) == (200, "application/octet-stream")
    assert answer.body.rstrip(b"\0") == PROFILE


@pytest.mark.parametrize("index", [0, 1])
def test_nested_bulk_data_is_found_by_the_index_of_its_item(
    store: Store, kept: Kept, index: int
) -> None:
    answer = store.get(f"{kept.first.path}/bulkdata/00880200/{index}/7FE00010", OCTETS)
    assert answer.status == 200
    assert answer.body == ICONS[index]


@pytest.mark.parametrize("path", ["00880200/2/7FE00010", "00880200/-1/7FE00010", "00100010"])
def test_bulk_data_that_there_is_not_is_not_found(store: Store, kept: Kept, path: str) -> None:
    assert store.get(f"{kept.first.path}/bulkdata/{path}", OCTETS).status == 404


def test_the_uris_of_metadata_lead_to_the_bulk_data(store: Store, kept: Kept) -> None:
    (model,) = store.get(f"{kept.first.path}/metadata", DICOM_JSON).json()
    uris = [model["00282000"]["BulkDataURI"]]
    uris += [item["7FE00010"]["BulkDataURI"] for item in model["00880200"]["Value"]]
    found = [store.get(uri) for uri in uris]
    assert [answer.status for answer in found] == [200] * 3
    bodies = [each.parts()[0][1] for each in found]
    assert [body.rstrip(b"\0") for body in bodies] == [PROFILE, *ICONS]


@pytest.mark.parametrize("path", ["", "/metadata", "/rendered", "/frames/1", "/bulkdata/7FE00010"])
def test_an_instance_that_there_is_not_is_not_found(store: Store, kept: Kept, path: str) -> None:
    study, series, _ = kept.first.uids
    nobody = Photograph(kept.first.uids._replace(instance=f"{study}.77"), {})
    assert (
        store.get(f"/studies/{study}/series/{series}/instances/{nobody.uids.instance}{path}").status
        == 404
    )


@pytest.mark.parametrize("path", ["/studies/{}", "/studies/{}/metadata", "/studies/{}/series"])
def test_a_uid_that_is_none_is_a_bad_request(store: Store, path: str) -> None:
    assert store.get(path.format("01.2.x")).status == 400


@pytest.mark.parametrize(
    ("path", "accept"),
    [
        ("", "text/plain"),
        ("/metadata", "text/plain"),
        ("/rendered", "text/plain"),
        ("/frames/1", "video/mp4"),
        ("", "application/dicom; transfer-syntax=1.2.840.10008.1.2.4.80"),
    ],
)
def test_a_form_that_can_not_be_had_is_not_acceptable(
    store: Store, kept: Kept, path: str, accept: str
) -> None:
    assert store.get(kept.first.path + path, accept).status == 406
