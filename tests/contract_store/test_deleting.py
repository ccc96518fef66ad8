"""Delete (Cloud Healthcare API): an instance at once, a study or series as an operation."""

import re

import pytest

from tests.archive_instances import file_request
from tests.contract_store.stores import FILES, Photograph, Store, instances
from tests.processes import wait_until

# The operation's URL begins where the API's version stands in the store's.
VERSION = re.compile(r"https?://[^/]+/v1(beta1)?(?=/projects/)")


def is_gone(store: Store, each: Photograph) -> None:
    assert store.get(each.path, FILES).status == 404
    assert store.search("instances", f"SOPInstanceUID={each.uids.instance}") == []


def deleted(store: Store, path: str) -> None:
    """Delete a study or a series, and wait for the end of the operation."""
    answer = store.ask("DELETE", path)
    assert answer.status == 200
    version = VERSION.match(store.base)
    assert version
    url = f"{version[0]}/{answer.json()['name']}"
    wait_until(lambda: store.get(url).json().get("done", False), 120)
    assert "error" not in store.get(url).json()


def test_an_instance_is_deleted_and_gone(store: Store) -> None:
    photographs = [store.photograph(study, n) for study in [store.study()] for n in (1, 2)]
    store.put(*(each.file for each in photographs))
    answer = store.ask("DELETE", photographs[0].path)
    assert answer.status == 200
    assert answer.json() == {}
    is_gone(store, photographs[0])
    assert store.get(photographs[1].path, FILES).status == 200


@pytest.mark.parametrize("level", ["study", "series"])
def test_a_study_or_series_is_deleted_by_an_operation(store: Store, level: str) -> None:
    study = store.study()
    photographs = [store.photograph(study, n) for n in (1, 2)]
    beside = store.photograph(study, 3, series=2)
    store.put(*(each.file for each in (*photographs, beside)))
    deleted(store, getattr(photographs[0], level))
    for each in photographs:
        is_gone(store, each)
    left = store.search("instances", f"StudyInstanceUID={study}")
    assert instances(left) == ({beside.uids.instance} if level == "series" else set())


def test_what_is_deleted_can_be_stored_again(store: Store) -> None:
    photograph = store.photograph()
    store.put(photograph.file)
    deleted(store, photograph.study)
    other = Photograph(photograph.uids, {"PatientID": "another"})
    assert store.post(file_request(other.file)).status == 200
    answer = store.get(other.path, FILES)
    assert [body for _, body in answer.parts()] == [other.file]


@pytest.mark.parametrize("level", ["study", "series", "path"])
def test_what_is_not_there_can_not_be_deleted(store: Store, level: str) -> None:
    answer = store.ask("DELETE", getattr(store.photograph(), level))
    assert answer.status == 404


def test_what_is_no_uid_can_not_be_deleted(store: Store) -> None:
    assert store.ask("DELETE", "/studies/01.2.x").status == 400
