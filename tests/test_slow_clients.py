"""Clients that are slow, stand still, or don't speak HTTP, against the archive's real server."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.archive_instances import STUDY, dicom_file
from tests.peers import BOUND, free_port, wait_for_http
from tests.serving import COMMAND

ROOT = Path(__file__).parents[1]
HALF = (
    b"POST /dicomWeb/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/dicom\r\n"
    b"Content-Length: 1000\r\n\r\nhalf"
)
CHUNKED = (
    b"POST /dicomWeb/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/dicom\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


@contextmanager
def running(command: list[str], port: int, **environment: str) -> Iterator[int]:
    clean = {"PATH": os.environ["PATH"]} | environment
    with subprocess.Popen(command, cwd=ROOT, env=clean, stdout=subprocess.DEVNULL) as process:
        url = f"http://127.0.0.1:{port}/healthz"
        wait_for_http(url, alive=lambda: process.poll() is None)
        yield port
        process.terminate()


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Serve an archive that waits half a second, and reads two bodies at once."""
    port, root = free_port(), tmp_path_factory.mktemp("archive")
    command = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--threads", "4"]
    command += ["--worker-class", "service.dicomweb.worker.Worker", "--log-level", "error"]
    command += ["--limit-request-line", "8190", "--limit-request-field_size", "8190"]
    with running([*command, f"tests.slow_archive:app('{root}')"], port):
        yield port


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Run `jpegstow archive` as it is."""
    port, data = free_port(), tmp_path_factory.mktemp("data")
    with running([COMMAND, "archive"], port, DATA_DIR=str(data), ARCHIVE_PORT=str(port)):
        yield port


@contextmanager
def connected(port: int, *pieces: bytes) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=BOUND) as client:
        for piece in pieces:
            client.sendall(piece)
        yield client


def answer(client: socket.socket) -> tuple[int, dict[str, Any]]:
    """Read one answer whole; the status, and the error that it holds."""
    with client.makefile("rb") as file:
        status = int(file.readline().split()[1])
        headers = [line.strip().lower() for line in iter(file.readline, b"\r\n")]
        (length,) = [int(line[15:]) for line in headers if line.startswith(b"content-length:")]
        error = json.loads(file.read(length))["error"]
    assert error["code"] == status
    return status, error


def studies(port: int) -> Any:
    return requests.get(f"http://127.0.0.1:{port}/dicomWeb/studies", timeout=BOUND).json()


@pytest.mark.parametrize("sent", [HALF, CHUNKED + b"5\r\nhal", CHUNKED])
def test_a_body_that_stops_coming_is_given_up(impatient: int, sent: bytes) -> None:
    with connected(impatient, sent) as client:
        status, error = answer(client)
    assert (status, error["status"]) == (408, "REQUEST_TIMEOUT")
    assert studies(impatient) == []


def test_a_body_that_comes_byte_by_byte_is_given_up(impatient: int) -> None:
    with connected(impatient, HALF) as client:
        client.settimeout(0.1)
        for _ in range(100):
            try:
                assert client.recv(1, socket.MSG_PEEK)
                break
            except TimeoutError:
                client.sendall(b"x")
        client.settimeout(BOUND)
        assert answer(client)[0] == 408


@pytest.mark.parametrize(
    "sent",
    [CHUNKED + b"not a size\r\n", CHUNKED + b"-4\r\nabcd\r\n0\r\n\r\n", CHUNKED + b"2\r\nabcd"],
)
def test_a_body_that_is_not_chunked_as_it_should_be_is_refused(impatient: int, sent: bytes) -> None:
    with connected(impatient, sent) as client:
        status, error = answer(client)
    assert (status, error["status"]) == (400, "INVALID_ARGUMENT")


def test_while_too_many_bodies_are_coming_others_are_told_to_come_again(impatient: int) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(impatient, HALF)) for _ in range(8)]
        statuses = {answer(client)[0] for client in clients}
    assert statuses <= {408, 503}
    assert 408 in statuses


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (b"GET /dicomWeb/studies?PatientName=" + b"Geheim" * 1700 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET /healthz HTTP/1.1\r\nAccept: " + b"Geheim" * 1500 + b"\r\n\r\n", 431),
        (b"GET /healthz HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nTransfer-Encoding: Geheim\r\n\r\n", 501),
        (b"Geheim\r\n\r\n", 400),
    ],
)
def test_what_is_no_request_is_refused_in_the_form_of_all_errors(
    impatient: int, request_text: bytes, status: int
) -> None:
    with connected(impatient, request_text) as client:
        found, error = answer(client)
    assert found == status
    assert "Geheim" not in json.dumps(error)


def test_a_query_of_8_000_characters_is_read(impatient: int) -> None:
    url = f"http://127.0.0.1:{impatient}/dicomWeb/studies?PatientID={'x' * 8000}"
    assert requests.get(url, timeout=BOUND).json() == []


def test_headers_that_stop_coming_hold_no_thread(impatient: int) -> None:
    with ExitStack() as stack:
        half = b"GET /healthz HTTP/1.1\r\nHost:"
        clients = [stack.enter_context(connected(impatient, half)) for _ in range(4)]
        assert studies(impatient) == []
        assert [client.recv(100) for client in clients] == [b""] * 4


def test_sixteen_half_bodies_leave_the_archive_able_to_answer(default: int) -> None:
    with ExitStack() as stack:
        for _ in range(16):
            stack.enter_context(connected(default, HALF))
        url = f"http://127.0.0.1:{default}/healthz"
        assert requests.get(url, timeout=5).status_code == 200
    file = dicom_file()
    url = f"http://127.0.0.1:{default}/dicomWeb/studies"
    kind = {"Content-Type": "application/dicom"}
    assert requests.post(url, data=file, headers=kind, timeout=BOUND).status_code == 200
    assert studies(default)[0]["0020000D"]["Value"] == [STUDY]


def test_a_body_that_is_said_to_be_too_long_is_refused_unread(default: int) -> None:
    with connected(default, HALF.replace(b"1000", b"1000000000")) as client:
        assert answer(client)[0] == 413
