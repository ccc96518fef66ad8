"""The stores that the suite is aimed at, and what is asked of those that deviate."""

import os
import secrets
import string
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple

import pytest
import requests

from service import settings
from service.store.session import session_for
from tests.archive_server import ArchiveServer
from tests.contract_store.deviations import DEVIATIONS
from tests.contract_store.stores import PROFILE, Photograph, Store, icons
from tests.peers import Orthanc

ANOTHER = os.environ.get("CONTRACT_STORE", "")
STORES = ["archive", "orthanc", *(["url"] if ANOTHER else [])]


@pytest.fixture(scope="session", params=STORES)
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """Give each of the stores in turn; what is left in it at the end is deleted."""
    yield from _AIMED[request.param](request)


def archive(request: pytest.FixtureRequest) -> Iterator[Store]:
    folder = request.getfixturevalue("tmp_path_factory").mktemp("contract")
    with ArchiveServer(folder / "data") as server, requests.Session() as session:
        dataset = "projects/p/locations/l/datasets/d"
        base = f"{server.url}/v1beta1/{dataset}/dicomStores/s/dicomWeb"
        yield Store("archive", base, session, root())


def orthanc(request: pytest.FixtureRequest) -> Iterator[Store]:
    server: Orthanc = request.getfixturevalue("orthanc")
    server.empty()
    with requests.Session() as session:
        yield Store("orthanc", server.dicomweb_url, session, root())
    server.empty()


def url(_: pytest.FixtureRequest) -> Iterator[Store]:
    current = settings.load({**os.environ, "DICOMWEB_URL": ANOTHER})
    with session_for(current) as session:
        store = Store("url", ANOTHER.rstrip("/"), session, root())
        yield store
        for study in store.made:
            store.ask("DELETE", f"/studies/{study}")


_AIMED: dict[str, Callable[[pytest.FixtureRequest], Iterator[Store]]] = {
    "archive": archive,
    "orthanc": orthanc,
    "url": url,
}


def root() -> str:
    """Return a UID that no other run has."""
    return f"2.25.{secrets.randbelow(10**25) + 10**25}"


class Kept(NamedTuple):
    """What is stored for all tests that only read: a study of three instances in two series."""

    first: Photograph
    second: Photograph
    endoscopic: Photograph
    other: Photograph
    word: str

    @property
    def photographs(self) -> list[Photograph]:
        """The instances of the study, those of the first series first."""
        return [self.first, self.second, self.endoscopic]


@pytest.fixture(scope="session")
def kept(store: Store) -> Kept:
    """Store two studies, each under names that nothing else has."""
    word = "".join(secrets.choice(string.ascii_lowercase) for _ in range(10)).title()
    study = store.study()
    said: dict[str, Any] = {
        "PatientName": f"{word}^Eva",
        "PatientID": f"P-{word}",
        "AccessionNumber": word,
        "ReferringPhysicianName": f"Wolf^{word}",
        "StudyDate": "20240305",
    }
    bulk = {"ICCProfile": PROFILE, "IconImageSequence": icons()}
    kept = Kept(
        store.photograph(study, 1, **said, **bulk, InstanceNumber=1),
        store.photograph(study, 2, **said, InstanceNumber=2),
        store.photograph(study, 3, **said, series=2, Modality="ES", InstanceNumber=1),
        store.photograph(**said | {"PatientID": f"Q-{word}", "StudyDate": "19991231"}),
        word,
    )
    store.put(*(each.file for each in [*kept.photographs, kept.other]))
    return kept


def case_of(item: pytest.Item) -> tuple[str, str]:
    """Return the store that a test is aimed at, and the test's name without it."""
    callspec = getattr(item, "callspec", None)
    name = callspec.params.get("store", "") if callspec else ""
    parts = item.name.replace("[", "[-").replace("]", "-]").replace(f"-{name}-", "-")
    return name, parts.replace("[-]", "").replace("[-", "[").replace("-]", "]")


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Let a store deviate as its row says, and in no other way."""
    row = DEVIATIONS.get(case_of(pyfuncitem))
    if row is None:
        return (yield)
    try:
        yield
    except AssertionError as error:
        if row.seen not in str(error):
            raise
        return True
    pytest.fail(f"it does what is asked after all; remove the row: {row.does}")


_COLLECTED = pytest.StashKey[set[tuple[str, str]]]()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Remember what there is before a selection is made."""
    config.stash[_COLLECTED] = {case_of(item) for item in items}


@pytest.fixture
def cases(request: pytest.FixtureRequest) -> set[tuple[str, str]]:
    """Return every test of every store; skip where not all of them were collected."""
    found = request.config.stash[_COLLECTED]
    names = {name.partition("[")[0] for _, name in found}
    wanted = {"test_an_instance_is_deleted_and_gone", "test_a_file_is_stored_and_named"}
    if not wanted <= names:
        pytest.skip("not the whole suite was collected")
    return found
