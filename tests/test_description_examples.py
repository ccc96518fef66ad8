"""The examples of the description are run as they stand, against `jpegstow serve`."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import pytest
import requests
import yaml

from service.description import DESCRIPTION
from tests.jpegs import make_jpeg
from tests.judges import require_tool
from tests.peers import BOUND, ScriptedServer, failed, no_studies
from tests.peers.buckets import Bucket, BucketServer
from tests.serving import Serving

HERE = "http://127.0.0.1:8080"
QUEUE = "/v1/queue"
UID = re.compile(r"2\.25\.\d+")
INTERPRETERS: dict[str, Callable[[], list[str]]] = {
    "curl": lambda: [require_tool("curl") and "sh", "-e"],
    "Python": lambda: [sys.executable],
    "JavaScript": lambda: [require_tool("node")],
}
OPERATIONS = {
    operation["operationId"]: operation
    for item in yaml.safe_load(DESCRIPTION.read_bytes())["paths"].values()
    for operation in item.values()
    if "operationId" in operation
}


@dataclass(frozen=True)
class Ran:
    """What an example was given, printed and wrote; `before` counts the archive's instances."""

    serving: Serving
    entry: str
    before: int
    printed: str
    folder: Path

    def get(self, path: str) -> requests.Response:
        return requests.get(f"{self.serving.url}{path}", timeout=BOUND)


@pytest.fixture(scope="module")
def storing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """The service in front of the embedded archive."""
    folder = tmp_path_factory.mktemp("storing")
    with Serving(folder / "data", PUSH_AUTH="none", RETRY_WORKERS="0") as serving:
        yield serving


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """The service in front of a store that refuses everything, so that the queue fills."""
    folder = tmp_path_factory.mktemp("refusing")
    with (
        ScriptedServer(failed(0xA900, "no"), also={"GET": no_studies()}) as store,
        Serving(folder / "data", DICOMWEB_URL=store.dicomweb_url, RETRY_WORKERS="0") as serving,
    ):
        yield serving


@pytest.fixture(scope="module")
def waking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """The service with its queue in a bucket."""
    folder = tmp_path_factory.mktemp("waking")
    queue = "pubsub://project/alarms?bucket=gs://pictures/queue"
    with (
        BucketServer(Bucket()) as buckets,
        Serving(
            folder / "data",
            RETRY_QUEUE=queue,
            BUCKET_ENDPOINT=buckets.url,
            PUSH_AUTH="none",
            RETRY_WORKERS="0",
        ) as serving,
    ):
        yield serving


def in_archive(serving: Serving, **wanted: str) -> int:
    """Count the instances of which this is true."""
    found = requests.get(f"{serving.archive_url}/instances", params=wanted, timeout=BOUND)
    return len(found.json()) if found.status_code == 200 else 0


def is_stored(ran: Ran) -> None:
    assert "stored" in ran.printed
    name = re.findall(r"SOPInstanceUID\W+(2[\d.]+)|stored (2[\d.]+)", ran.printed)[0]
    assert in_archive(ran.serving, SOPInstanceUID="".join(name), PatientID="P-7") == 1
    assert in_archive(ran.serving) == ran.before + 1


def is_acknowledged(ran: Ran) -> None:
    assert ran.get(QUEUE).json()["entries"] == []
    assert in_archive(ran.serving) == in_archive(ran.serving, PatientID="P-7") == ran.before + 1


def is_listed(ran: Ran) -> None:
    assert ran.entry in ran.printed
    assert "A900H" in ran.printed


def is_shown(ran: Ran) -> None:
    assert "dead" in ran.printed
    assert "rejected" in ran.printed


def is_dropped(ran: Ran) -> None:
    assert ran.get(f"{QUEUE}/{ran.entry}").status_code == 404


def is_pictured(ran: Ran) -> None:
    image = (ran.folder / "entry.jpg").read_bytes()
    assert image.startswith(b"\xff\xd8\xff")
    assert image == ran.get(f"{QUEUE}/{ran.entry}/image").content


def is_retried(ran: Ran) -> None:
    (count,) = re.findall(r"\d+", ran.printed)
    assert int(count) >= 1
    assert ran.get(f"{QUEUE}/{ran.entry}").json()["state"] == "pending"


def is_mended(ran: Ran) -> None:
    mended = UID.findall(ran.printed)[0]
    attributes = ran.get(f"{QUEUE}/{mended}").json()["attributes"]
    assert attributes["00100020"]["Value"] == ["P-8"]


def is_at_its_end(ran: Ran) -> None:
    assert ran.get(f"{QUEUE}/{ran.entry}").status_code == 404


def is_healthy(ran: Ran) -> None:
    assert ran.get("/healthz").json()["version"] in ran.printed


def is_ready(ran: Ran) -> None:
    assert "libturbojpeg" in ran.printed
    assert "retry queue" in ran.printed


def is_counted(ran: Ran) -> None:
    assert 'jpegstow_queue_entries{state="dead"}' in ran.printed


def is_described(ran: Ran) -> None:
    written = ran.folder / "openapi.yaml"
    text = written.read_text() if written.exists() else ran.printed
    assert text.strip() == DESCRIPTION.read_text().strip()


# The service that an example is run against, and what has come true then.
EXAMPLES: dict[str, tuple[str, Callable[[Ran], None]]] = {
    "storeInstances": ("storing", is_stored),
    "takeMessage": ("storing", is_acknowledged),
    "listEntries": ("refusing", is_listed),
    "showEntry": ("refusing", is_shown),
    "showEntryImage": ("refusing", is_pictured),
    "retryEntries": ("refusing", is_retried),
    "retryEntry": ("refusing", is_mended),
    "dropEntry": ("refusing", is_dropped),
    "takeAlarm": ("waking", is_at_its_end),
    "health": ("storing", is_healthy),
    "readiness": ("storing", is_ready),
    "metrics": ("refusing", is_counted),
    "description": ("storing", is_described),
}


def test_every_operation_has_its_examples_and_each_is_run() -> None:
    told = {
        name: [sample["lang"] for sample in each["x-codeSamples"]]
        for name, each in OPERATIONS.items()
    }
    assert told == {name: list(INTERPRETERS) for name in EXAMPLES}


@pytest.mark.parametrize("language", INTERPRETERS)
@pytest.mark.parametrize("operation", EXAMPLES)
def test_an_example_does_what_it_tells(
    operation: str, language: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    name, holds = EXAMPLES[operation]
    interpreter = INTERPRETERS[language]()
    serving: Serving = request.getfixturevalue(name)
    photo = make_jpeg(seed=crc32(f"{operation} {language}".encode()))
    (tmp_path / "photo.jpg").write_bytes(photo)
    entry = dead(serving, photo) if name == "refusing" else "2.25.3"
    before = in_archive(serving) if name == "storing" else 0
    example = tmp_path / "example.mjs"  # what says which kind of module it is, for Node.js alone
    example.write_text(sample_of(operation, language).replace(HERE, serving.url))
    ended = subprocess.run(
        [*interpreter, str(example)],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "ID": entry},
        capture_output=True,
        text=True,
        check=False,
        timeout=BOUND,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    holds(Ran(serving, entry, before, ended.stdout, tmp_path))


def sample_of(operation: str, language: str) -> str:
    samples = OPERATIONS[operation]["x-codeSamples"]
    (source,) = (each["source"] for each in samples if each["lang"] == language)
    assert "127.0.0.1" in source
    return str(source)


def dead(serving: Serving, photo: bytes) -> str:
    """Have the store refuse a picture; return its entry's id."""
    response = serving.post(photo, PatientID="P-7")
    assert response.status_code == 502
    return str(response.json()["SOPInstanceUID"])


def test_a_program_that_is_refused_ends_as_failed(storing: Serving, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"GIF89a no picture")
    for language, interpreter in INTERPRETERS.items():
        example = tmp_path / "example.mjs"
        example.write_text(sample_of("storeInstances", language).replace(HERE, storing.url))
        command = [*interpreter(), str(example)]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, text=True)
        assert ended.returncode != 0
        assert "415" in ended.stdout + ended.stderr
