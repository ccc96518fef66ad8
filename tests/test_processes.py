"""The processes of `jpegstow serve`: they end together, start again, and leave nothing behind."""

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from service.archive import Archive
from tests.archive_instances import dicom_file, put
from tests.jpegs import make_jpeg
from tests.peers import (
    BOUND,
    Received,
    Respond,
    ScriptedServer,
    free_port,
    refused_port,
    stored,
    wait_for_http,
)
from tests.processes import is_alive, kill, tree, wait_until
from tests.serving import COMMAND, Serving, client_for, post

JPEG = make_jpeg()
GRACE = 9.0  # seconds; Cloud Run kills after 10


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Run the service for the first time on a data folder; it stores one picture."""
    with Serving(tmp_path_factory.mktemp("serve") / "data") as serving:
        assert serving.post(JPEG, PatientID="P-7").status_code == 201
        yield serving


def archive_of(serving: Serving) -> list[int]:
    """Return the ids of the archive's processes."""
    return serving.running(b"service.wsgi:archive()")


def retries_of(serving: Serving) -> list[int]:
    """Return the ids of what drains the retry queue."""
    return serving.running(b"\0retry\0")


def queued(serving: Serving) -> dict[str, int]:
    """Return how many entries the retry queue has, by state."""
    totals = requests.get(f"{serving.url}/v1/queue", timeout=BOUND).json()["totals"]
    assert isinstance(totals, dict)
    return totals


def test_an_archive_that_dies_is_started_again_and_nothing_is_lost(first: Serving) -> None:
    wait_until(lambda: len(archive_of(first)) == 2)  # gunicorn and its one worker
    dead = archive_of(first)
    kill(dead)
    away = first.post(make_jpeg(seed=1), PatientID="P-8")
    assert away.status_code in {201, 202}  # it may have come back already
    wait_until(lambda: queued(first) == {"pending": 0, "leased": 0, "dead": 0})
    assert first.post(make_jpeg(seed=1), PatientID="P-8").status_code == 200
    again = first.post(JPEG, PatientID="P-7")
    assert (again.status_code, again.json()["instances"][0]["outcome"]) == (200, "already stored")
    assert set(archive_of(first)).isdisjoint(dead)
    assert -signal.SIGKILL in restarts(first, "archive")


def restarts(serving: Serving, name: str) -> list[int]:
    """Return the exit statuses after which a process was started again, as the log tells."""
    texts = [text for text in serving.log.read_text().splitlines() if text.startswith("{")]
    told = [line for line in map(json.loads, texts) if "started again" in line["message"]]
    assert {line["severity"] for line in told} <= {"ERROR"}
    return [line["status"] for line in told if line["name"] == name]


def test_what_drains_the_queue_is_started_again(first: Serving) -> None:
    wait_until(lambda: len(retries_of(first)) == 1)
    dead = retries_of(first)
    kill(dead)
    wait_until(lambda: -signal.SIGKILL in restarts(first, "retry 0"))
    wait_until(lambda: len(retries_of(first)) == 1 and retries_of(first) != dead)


def test_nothing_drains_the_queue_where_that_is_told(tmp_path: Path) -> None:
    with (
        refused_port() as port,
        Serving(
            tmp_path / "data", DICOMWEB_URL=f"http://127.0.0.1:{port}", RETRY_WORKERS="0"
        ) as serving,
    ):
        assert serving.post(JPEG).status_code == 202
        assert queued(serving) == {"pending": 1, "leased": 0, "dead": 0}
        wait_until(lambda: len(serving.processes()) == 3)  # gunicorn, no supervisor
        assert retries_of(serving) == []


def test_every_process_keeps_the_pages_of_a_picture(first: Serving) -> None:
    """What glibc's allocator reads, it reads at the start of a process."""
    # supervisor; gunicorns with 1 and 2 workers; what drains the queue
    wait_until(lambda: len(first.processes()) == 7 and len(retries_of(first)) == 1)
    for pid in first.processes()[1:]:
        said = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        assert b"MALLOC_TRIM_THRESHOLD_=33554432" in said


def test_sigterm_ends_all_processes_and_the_next_start_knows_all(first: Serving) -> None:
    uid = first.post(JPEG, PatientID="P-7").json()["instances"][0]["SOPInstanceUID"]
    # supervisor; gunicorns with 1 and 2 workers; what drains the queue
    wait_until(lambda: len(first.processes()) == 7)
    pids = first.processes()
    started = time.monotonic()
    first.process.send_signal(signal.SIGTERM)
    assert first.process.wait(GRACE) == 0
    assert time.monotonic() - started < GRACE
    assert [pid for pid in pids if is_alive(pid)] == []

    with Serving(first.data_dir) as second:
        (instance,) = second.post(JPEG, PatientID="P-7").json()["instances"]
        assert (instance["SOPInstanceUID"], instance["outcome"]) == (uid, "already stored")
        url = instance["RetrieveURL"].replace(first.archive_url, second.archive_url)
        accept = {"Accept": "application/dicom; transfer-syntax=*"}
        file = requests.get(url, headers=accept, timeout=BOUND)
        assert file.content[128:132] == b"DICM"

        wait_until(lambda: len(second.processes()) == 7)
        pids = second.processes()
        second.process.kill()
        second.process.wait(BOUND)
        try:
            wait_until(lambda: not any(map(is_alive, pids)), GRACE)
        finally:
            kill(pids)


def test_with_a_store_of_ones_own_no_archive_is_started(tmp_path: Path) -> None:
    with (
        ScriptedServer(stored()) as store,
        Serving(tmp_path / "data", DICOMWEB_URL=store.dicomweb_url, READ_BACK="never") as serving,
    ):
        assert serving.post(JPEG).status_code == 201
        assert archive_of(serving) == []
        wait_until(lambda: len(serving.processes()) == 5)
        serving.process.send_signal(signal.SIGTERM)
        assert serving.process.wait(GRACE) == 0
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", serving.archive_port)) != 0
    assert not (tmp_path / "data" / "archive").exists()


def test_it_may_be_started_where_another_package_is_named_as_ours(tmp_path: Path) -> None:
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "__init__.py").write_text("raise ImportError")
    with (
        ScriptedServer(stored()) as store,
        Serving(tmp_path / "data", DICOMWEB_URL=store.dicomweb_url, READ_BACK="never") as serving,
    ):
        assert serving.post(JPEG).status_code == 201


def test_an_upload_that_is_under_way_is_finished_before_the_end(tmp_path: Path) -> None:
    released = threading.Event()
    with (
        ScriptedServer(when(released, stored())) as store,
        Serving(tmp_path / "data", DICOMWEB_URL=store.dicomweb_url, READ_BACK="never") as serving,
        ThreadPoolExecutor(1) as pool,
    ):
        upload = pool.submit(serving.post, JPEG)
        store.wait_for(1)
        serving.process.send_signal(signal.SIGTERM)
        released.set()
        assert upload.result(BOUND).status_code == 201
        assert serving.process.wait(GRACE) == 0


def when(event: threading.Event, answer: Respond) -> Respond:
    """Answer after an event only."""

    def body(request: Received) -> bytes:
        assert event.wait(BOUND)
        assert callable(answer.body)
        return answer.body(request)

    return Respond(answer.status, answer.headers, body)


def test_the_archive_runs_alone(tmp_path: Path) -> None:
    port = free_port()
    environment = {"PATH": os.environ["PATH"], "ARCHIVE_PORT": str(port), "DATA_DIR": str(tmp_path)}
    with subprocess.Popen([COMMAND, "archive"], env=environment, stdout=subprocess.PIPE) as archive:
        wait_for_http(f"http://127.0.0.1:{port}/healthz", alive=lambda: archive.poll() is None)
        pids = tree(archive.pid)
        client = client_for(f"http://127.0.0.1:{port}/dicomWeb")
        assert [post(client, JPEG).status_code for _ in range(2)] == [201, 200]
        google = "v1/projects/p/locations/l/datasets/d/dicomStores/s/dicomWeb"
        found = requests.get(f"http://127.0.0.1:{port}/{google}/studies", timeout=BOUND)
        assert len(found.json()) == 1
        archive.terminate()
        assert archive.wait(GRACE) == 0
        assert archive.stdout
        assert archive.stdout.read() == f"DICOMweb at http://127.0.0.1:{port}/dicomWeb\n".encode()
    assert [pid for pid in pids if is_alive(pid)] == []


def rebuild(data_dir: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "DATA_DIR": str(data_dir)}
    command = [COMMAND, "archive", "--rebuild"]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=BOUND
    )


def test_the_index_is_made_anew_from_the_files_alone(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive")
    for number in range(3):
        put(archive, dicom_file(SOPInstanceUID=f"1.{number}"))
    in_use = rebuild(tmp_path)
    assert (in_use.returncode, in_use.stdout) == (2, "")
    assert "has the archive open" in in_use.stderr
    archive.close()
    (tmp_path / "archive" / "index.sqlite").write_bytes(b"damaged" * 999)
    made = rebuild(tmp_path)
    assert (made.returncode, made.stdout, made.stderr) == (0, "3 indexed, 0 skipped\n", "")
    (file_of_one,) = (tmp_path / "archive").rglob("1.0.dcm")
    file_of_one.write_bytes(b"not DICOM")
    partly = rebuild(tmp_path)
    assert (partly.returncode, partly.stdout) == (1, "2 indexed, 1 skipped\n")


def serve(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Start the service where it can't start."""
    whole = {"PATH": os.environ["PATH"], **environment}
    return subprocess.run(
        [COMMAND, "serve"], env=whole, capture_output=True, text=True, check=False, timeout=BOUND
    )


def test_everything_that_is_wrong_with_the_settings_is_told_at_once(tmp_path: Path) -> None:
    bad = {
        "DICOMWEB_URL": "ftp://example.org",
        "DICOMWEB_WIRE": "xml",
        "DICOMWEB_AUTH": "bearer",
        "MAX_UPLOAD_BYTES": "many",
        "PORT": "80800",
        "STORAGE_CLASS": "WARM",
        "DATA_DIR": str(tmp_path),
    }
    ended = serve(bad)
    assert ended.returncode == 2
    lines = ended.stderr.splitlines()
    assert [line.split(":")[1].strip() for line in lines] == [
        "DICOMWEB_URL",
        "DICOMWEB_WIRE",
        "STORAGE_CLASS",
        "MAX_UPLOAD_BYTES",
        "PORT",
        "DICOMWEB_TOKEN",
    ]
    assert "Traceback" not in ended.stderr


def test_a_secret_in_a_bad_setting_is_not_shown(tmp_path: Path) -> None:
    url = "https://alice:hunter2@example.org/dicomWeb"
    ended = serve({"DICOMWEB_URL": url, "DATA_DIR": str(tmp_path)})
    assert ended.returncode == 2
    assert "hunter2" not in ended.stderr + ended.stdout


OPERATORS = {
    "a template that isn't JSON": ({"TEMPLATES_DIR": "{}/templates"}, "TEMPLATES_DIR"),
    "no such folder of templates": ({"TEMPLATES_DIR": "{}/absent"}, "TEMPLATES_DIR"),
    "no such template": ({"DEFAULT_TEMPLATE": "absent"}, "DEFAULT_TEMPLATE"),
    "a data folder that is a file": ({"DATA_DIR": "{}/file"}, "DATA_DIR"),
    "Cloud Run without a namespace": ({"K_SERVICE": "jpegstow"}, "UID_NAMESPACE"),
}


@pytest.mark.parametrize(("environment", "name"), OPERATORS.values(), ids=OPERATORS)
def test_what_would_keep_the_workers_from_starting_is_told_before(
    environment: dict[str, str], name: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "own.json").write_text("{")
    given = {key: value.format(tmp_path) for key, value in environment.items()}
    ended = serve({"DATA_DIR": str(tmp_path / "data"), "PORT": str(free_port())} | given)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"jpegstow: {name}: ")
    assert "Traceback" not in ended.stderr


def test_ports_of_other_programs_are_told_and_not_taken_for_ones_own(tmp_path: Path) -> None:
    with ScriptedServer(stored()) as one, ScriptedServer(stored()) as other:
        ports = [server.url.rpartition(":")[2] for server in (one, other)]
        ended = serve({"PORT": ports[0], "ARCHIVE_PORT": ports[1], "DATA_DIR": str(tmp_path)})
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        f"jpegstow: PORT: {ports[0]} is another program's",
        f"jpegstow: ARCHIVE_PORT: {ports[1]} is another program's",
    ]
