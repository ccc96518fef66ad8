"""Store (PS3.18 10.5): what is taken, and that the answer tells the truth of each instance."""

from typing import Any
from xml.etree import ElementTree as ET

import pytest

from service.dicom.multipart import Payload
from tests.archive_instances import (
    VL_PHOTOGRAPHIC,
    file_request,
    image_part,
    json_request,
    metadata,
)
from tests.archive_server import Answer
from tests.contract_store.stores import DICOM_JSON, DICOM_XML, FILES, Photograph, Store, instances


def referenced(answer: Answer) -> dict[str, str]:
    """Return the instances that an answer says are stored, with their URLs."""
    items = answer.json().get("00081199", {}).get("Value", [])
    return {item["00081155"]["Value"][0]: item["00081190"]["Value"][0] for item in items}


def refused(answer: Answer) -> list[str]:
    items = answer.json().get("00081198", {}).get("Value", [])
    return [item.get("00081155", {}).get("Value", [""])[0] for item in items]


def is_there(store: Store, *photographs: Photograph) -> None:
    for each in photographs:
        answer = store.get(each.path, FILES)
        assert answer.status == 200
        assert [body for _, body in answer.parts()] == [each.file]


def is_not_there(store: Store, each: Photograph) -> None:
    assert store.get(f"{each.path}/metadata", DICOM_JSON).status == 404


def test_a_file_is_stored_and_named(store: Store) -> None:
    photograph = store.photograph()
    answer = store.post(file_request(photograph.file))
    assert (answer.status, answer.media_type) == (200, DICOM_JSON)
    assert set(referenced(answer)) == {photograph.uids.instance}
    assert refused(answer) == []
    (item,) = answer.json()["00081199"]["Value"]
    assert item["00081150"]["Value"] == [VL_PHOTOGRAPHIC]
    is_there(store, photograph)


def test_the_url_of_the_answer_leads_to_the_instance(store: Store) -> None:
    photograph = store.photograph()
    answer = store.post(file_request(photograph.file))
    url = referenced(answer)[photograph.uids.instance]
    assert url == store.base + photograph.path
    assert store.get(url, FILES).status == 200


def test_the_study_of_the_answer_has_a_url(store: Store) -> None:
    photograph = store.photograph()
    answer = store.post(file_request(photograph.file))
    assert answer.json()["00081190"]["Value"] == [store.base + photograph.study]


def test_several_files_of_a_request_are_all_stored_and_named(store: Store) -> None:
    photographs = [store.photograph() for _ in range(5)]
    answer = store.post(file_request(*(each.file for each in photographs)))
    assert answer.status == 200
    assert set(referenced(answer)) == {each.uids.instance for each in photographs}
    is_there(store, *photographs)


def test_a_file_is_stored_as_the_whole_body(store: Store) -> None:
    photograph = store.photograph()
    payload = Payload("application/dicom", (photograph.file,))
    answer = store.post(payload)
    assert answer.status == 200
    assert set(referenced(answer)) == {photograph.uids.instance}
    is_there(store, photograph)


def test_metadata_and_a_picture_become_an_instance(store: Store) -> None:
    photograph = store.photograph()
    payload = json_request([metadata(**photograph.named)], image_part())
    answer = store.post(payload)
    assert answer.status == 200
    assert set(referenced(answer)) == {photograph.uids.instance}
    assert store.get(photograph.path, FILES).status == 200


def test_a_picture_without_metadata_of_its_own_is_refused(store: Store) -> None:
    photograph = store.photograph()
    payload = json_request([metadata("another", **photograph.named)], image_part())
    assert store.post(payload).status in {400, 409, 415}
    is_not_there(store, photograph)


def test_the_answer_is_xml_where_nothing_else_is_asked_for(store: Store) -> None:
    photograph = store.photograph()
    answer = store.post(file_request(photograph.file), "*/*")
    assert (answer.status, answer.media_type) == (200, DICOM_XML)
    texts = [element.text for element in ET.fromstring(answer.body).iter()]
    assert photograph.uids.instance in texts


def test_the_same_file_again_is_stored_already(store: Store) -> None:
    photograph = store.photograph()
    store.put(photograph.file)
    answer = store.post(file_request(photograph.file))
    assert answer.status == 200
    assert set(referenced(answer)) == {photograph.uids.instance}
    is_there(store, photograph)


def test_other_content_under_the_same_uids_is_refused_and_the_first_kept(store: Store) -> None:
    photograph = store.photograph()
    store.put(photograph.file)
    other = Photograph(photograph.uids, {"PatientID": "another"})
    answer = store.post(file_request(other.file))
    assert answer.status == 409
    assert refused(answer) == [photograph.uids.instance]
    is_there(store, photograph)


def test_what_is_no_dicom_is_refused(store: Store) -> None:
    assert store.post(file_request(b"GIF89a" * 100)).status in {400, 409}


def test_one_bad_file_leaves_the_others_stored_and_named(store: Store) -> None:
    photograph = store.photograph()
    answer = store.post(file_request(photograph.file, photograph.file[:200]))
    assert answer.status == 409
    assert set(referenced(answer)) == {photograph.uids.instance}
    assert len(refused(answer)) == 1
    is_there(store, photograph)


@pytest.mark.parametrize("kind", ["text/plain", 'multipart/related; type="text/plain"; boundary=b'])
def test_another_media_type_is_not_supported(store: Store, kind: str) -> None:
    answer = store.post(Payload(kind, (store.photograph().file,)))
    assert answer.status == 415


def test_a_body_without_its_closing_boundary_stores_nothing(store: Store) -> None:
    photograph = store.photograph()
    payload = file_request(photograph.file)
    cut = b"".join(payload).rpartition(b"\r\n--")[0]
    answer = store.post(Payload(payload.content_type, (cut,)))
    assert answer.status == 400
    is_not_there(store, photograph)


def test_a_file_is_stored_into_the_study_of_the_url(store: Store) -> None:
    photograph = store.photograph()
    answer = store.post(file_request(photograph.file), path=photograph.study)
    assert answer.status == 200
    is_there(store, photograph)


def test_a_file_of_another_study_than_the_url_s_is_refused(store: Store) -> None:
    photograph = store.photograph()
    answer = store.post(file_request(photograph.file), path=f"/studies/{store.study()}")
    assert answer.status in {400, 409}
    is_not_there(store, photograph)


@pytest.mark.parametrize("accept", ["text/plain", "application/dicom+json;q=0"])
def test_an_answer_that_there_is_not_stores_nothing(store: Store, accept: str) -> None:
    photograph = store.photograph()
    assert store.post(file_request(photograph.file), accept).status == 406
    is_not_there(store, photograph)


@pytest.mark.parametrize("name", ["NEARLINE", "ARCHIVE"])
def test_a_storage_class_is_taken(store: Store, name: str) -> None:
    photograph = store.photograph()
    payload = file_request(photograph.file)
    answer = stored_as(store, name, payload)
    assert answer.status == 200
    is_there(store, photograph)


def test_a_storage_class_that_there_is_not_stores_nothing(store: Store) -> None:
    photograph = store.photograph()
    assert stored_as(store, "WARM", file_request(photograph.file)).status == 400
    is_not_there(store, photograph)


def stored_as(store: Store, name: str, payload: Payload) -> Answer:
    headers: Any = {"Content_Type": payload.content_type, "Storage_Class": name}
    return store.ask("POST", "/studies", DICOM_JSON, body=b"".join(payload), **headers)


def test_what_is_stored_is_found_at_once(store: Store) -> None:
    photograph = store.photograph()
    store.put(photograph.file)
    found = store.search("instances", f"StudyInstanceUID={photograph.uids.study}")
    assert instances(found) == {photograph.uids.instance}
