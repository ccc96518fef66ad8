"""A protected service as its real processes: upload, queue, archive, keys made while it runs."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.access import KEYS, shown
from tests.jpegs import make_jpeg
from tests.peers import BOUND
from tests.processes import wait_until
from tests.serving import COMMAND, Serving

JPEG = make_jpeg()


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("protected")
    with Serving(folder / "data", AUTH="apikey", KEYS=KEYS) as service:
        yield service


def sent(serving: Serving, headers: dict[str, str], **fields: str) -> requests.Response:
    return requests.post(
        f"{serving.url}/v1/instances",
        data=fields,
        files=[("image", ("photo.jpg", JPEG))],
        headers=headers,
        timeout=BOUND,
    )


def got(url: str, headers: dict[str, str]) -> requests.Response:
    return requests.get(url, headers=headers, timeout=BOUND)


def keys(serving: Serving, *arguments: str) -> str:
    """Run `jpegstow keys`; return what it prints."""
    done = subprocess.run(
        [COMMAND, "keys", *arguments],
        env={"DATA_DIR": str(serving.data_dir), "PATH": "/bin"},
        capture_output=True,
        text=True,
        check=True,
        timeout=BOUND,
    )
    return done.stdout


def test_what_is_uploaded_with_a_key_is_stored_and_read_with_another(serving: Serving) -> None:
    assert sent(serving, shown("nobody"), PatientID="P-1").status_code == 401
    assert sent(serving, shown("read"), PatientID="P-1").status_code == 403
    answer = sent(serving, shown("upload"), PatientID="P-1")
    assert answer.status_code == 201, answer.text
    place = answer.json()["instances"][0]["RetrieveURL"]
    statuses = [got(place, shown(role)).status_code for role in ("nobody", "upload", "read")]
    assert statuses == [401, 403, 200]
    assert got(f"{serving.url}/v1/queue", shown("operate")).json()["entries"] == []


def test_what_waits_in_the_queue_is_sent_with_the_services_own_key(serving: Serving) -> None:
    headers = shown("upload") | {"Prefer": "respond-async"}
    answer = sent(serving, headers, PatientID="P-2")
    assert answer.status_code == 202
    wait_until(lambda: not got(f"{serving.url}/v1/queue", shown("read")).json()["entries"])
    found = got(f"{serving.archive_url}/studies?PatientID=P-2", shown("read"))
    assert len(found.json()) == 1


def test_a_key_that_is_made_while_it_runs_works_in_each_process_and_no_more_once_revoked(
    serving: Serving,
) -> None:
    key = keys(serving, "make", "camera", "--scope", "upload", "--scope", "read").strip()
    headers = {"Authorization": f"Bearer {key}"}
    assert {got(f"{serving.url}/v1/queue", headers).status_code for _ in range(20)} == {200}
    assert got(f"{serving.archive_url}/studies", headers).status_code == 200
    assert "camera" in keys(serving, "list")
    assert key not in keys(serving, "list")
    keys(serving, "revoke", "camera")
    assert {got(f"{serving.url}/v1/queue", headers).status_code for _ in range(20)} == {401}
    assert got(f"{serving.archive_url}/studies", headers).status_code == 401


def test_a_command_reads_the_archive_with_a_key_as_its_token(serving: Serving) -> None:
    sent(serving, shown("upload"), PatientID="P-3")
    key = shown("read")["Authorization"].removeprefix("Bearer ")
    environment = {"PATH": "/bin", "DICOMWEB_URL": serving.archive_url}
    command = [COMMAND, "search", "studies", "PatientID=P-3"]
    ended = {
        name: subprocess.run(
            command,
            env=environment | given,
            capture_output=True,
            text=True,
            timeout=BOUND,
            check=False,
        )
        for name, given in {"without": {}, "with": {"DICOMWEB_TOKEN": key}}.items()
    }
    assert ended["without"].returncode != 0
    assert ended["with"].returncode == 0, ended["with"].stderr
    assert "P-3" in ended["with"].stdout


def test_no_key_stands_on_a_command_line_or_in_a_log(serving: Serving) -> None:
    for pid in serving.processes():
        assert b"jpegstow_" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert "jpegstow_" not in serving.log.read_text()


def test_no_header_lets_a_path_go_by_a_name_that_a_proxy_lets_through(serving: Serving) -> None:
    for url in (serving.url, serving.archive_url.removesuffix("/dicomWeb")):
        assert got(f"{url}/healthz", {"Script_Name": "/static"}).status_code == 200
        assert got(f"{url}/static/healthz", {"Script_Name": "/static"}).status_code == 404
