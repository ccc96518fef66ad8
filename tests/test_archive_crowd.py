"""Clients that store, read and delete the same few instances at once."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.client import IncompleteRead
from pathlib import Path
from random import Random

from tests.archive_content import content
from tests.archive_instances import dicom_file, file_request
from tests.archive_server import ArchiveServer, ask

FILES = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
STUDIES = ("1.5.1", "1.5.2")
CLIENTS, REQUESTS = 6, 30

ALLOWED = {
    ("store", 200),
    ("store", 409),  # while it is being deleted
    ("read", 200),
    ("read", 404),
    ("read", 0),
    ("search", 200),
    ("delete", 200),
    ("delete", 404),
    ("delete study", 200),
    ("delete study", 404),
}


def path(study: str, instance: int) -> str:
    return f"/studies/{study}/series/{study}.{instance % 2}/instances/{study}.0.{instance}"


def file_of(study: str, instance: int) -> bytes:
    return dicom_file(
        StudyInstanceUID=study,
        SeriesInstanceUID=f"{study}.{instance % 2}",
        SOPInstanceUID=f"{study}.0.{instance}",
    )


ALL = {file_of(study, instance) for study in STUDIES for instance in range(4)}


def one(base: str, random: Random) -> tuple[str, int]:
    """Do one of the things that clients do; return what it was, and the status."""
    study, instance = random.choice(STUDIES), random.randrange(4)
    act = random.choice(["store", "store", "store", "read", "search", "delete", "delete study"])
    if act == "store":
        body = file_request(*(file_of(study, n) for n in range(instance, 4)))
        headers = {"Content-Type": body.content_type, "Storage-Class": "NEARLINE"}
        return act, ask("POST", f"{base}/studies", headers, b"".join(body)).status
    if act == "read":
        return act, read(f"{base}/studies/{study}")
    if act == "search":
        answer = ask("GET", f"{base}/studies?includefield=all")
        assert len(answer.json()) <= len(STUDIES)
        return act, answer.status
    target = path(study, instance) if act == "delete" else f"/studies/{study}"
    return act, ask("DELETE", base + target).status


def read(url: str) -> int:
    """Read a study; 0 if it was deleted while it was being sent, and the answer broken off."""
    try:
        answer = ask("GET", url, FILES)
    except IncompleteRead:
        return 0
    if answer.status == 200:
        assert {body for _, body in answer.parts()} <= ALL
    return answer.status


def client(base: str, seed: int) -> Counter[tuple[str, int]]:
    random = Random(seed)
    return Counter(one(base, random) for _ in range(REQUESTS))


def test_clients_that_store_and_delete_the_same_agree_with_the_disk_in_the_end(
    tmp_path: Path,
) -> None:
    found: Counter[tuple[str, int]] = Counter()
    with ArchiveServer(tmp_path / "data") as server, ThreadPoolExecutor(CLIENTS) as pool:
        base = f"{server.url}/dicomWeb"
        for each in pool.map(lambda seed: client(base, seed), range(CLIENTS)):
            found += each
        for study in STUDIES:
            ask("DELETE", f"{base}/studies/{study}")
    assert set(found) <= ALLOWED
    assert {("store", 200), ("read", 200), ("search", 200)} <= set(found)
    assert content(tmp_path / "data" / "archive") == {}
