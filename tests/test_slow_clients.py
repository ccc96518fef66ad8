"""Clients that are slow, stand still, or don't speak HTTP, against both real servers."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
import requests

from service import __version__
from tests.access import KEYS, shown
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


UPLOAD = b"POST /v1/instances HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\n"
HALF_UPLOAD = b"Content-Length: 1000\r\n\r\nhalf"
HALF_CHUNK = b"Transfer-Encoding: chunked\r\n\r\n5\r\nhal"
WELL = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@contextmanager
def running(
    command: list[str], port: int, log: int | IO[bytes] | None = None, **environment: str
) -> Iterator[int]:
    clean = {"PATH": os.environ["PATH"]} | environment
    null = subprocess.DEVNULL
    with subprocess.Popen(command, cwd=ROOT, env=clean, stdout=null, stderr=log) as process:
        url = f"http://127.0.0.1:{port}/healthz"
        wait_for_http(url, alive=lambda: process.poll() is None)
        yield port
        process.terminate()


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Serve an archive that waits half a second, and reads two bodies at once."""
    port, root = free_port(), tmp_path_factory.mktemp("archive")
    command = [*gunicorn(port, "tests.slow_archive"), f"tests.slow_archive:app('{root}')"]
    command += ["--limit-request-line", "8190", "--limit-request-field_size", "8190"]
    with running(command, port):
        yield port


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("service") / "log"


@pytest.fixture(scope="module")
def service(log: Path) -> Iterator[int]:
    """Serve the service with one process, four threads, and half a second of patience."""
    port = free_port()
    command = [*gunicorn(port, "tests.slow_service"), f"tests.slow_service:app('{log.parent}')"]
    with log.open("wb") as errors, running(command, port, errors, KEYS=KEYS):
        yield port


def gunicorn(port: int, module: str) -> list[str]:
    command = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--threads", "4"]
    return [*command, "--worker-class", f"{module}.Impatient", "--log-level", "error"]


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
    status, body = told(client)
    assert body["error"]["code"] == status
    return status, body["error"]


def told(client: socket.socket) -> tuple[int, dict[str, Any]]:
    """Read one answer whole; the status, and the JSON that it holds."""
    with client.makefile("rb") as file:
        status = int(file.readline().split()[1])
        headers = [line.strip().lower() for line in iter(file.readline, b"\r\n")]
        (length,) = [int(line[15:]) for line in headers if line.startswith(b"content-length:")]
        return status, json.loads(file.read(length))


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
        assert [is_closed(client) for client in clients] == [True] * 4


def is_closed(client: socket.socket) -> bool:
    """Wait until the server ends the connection, without a word."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


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


@pytest.mark.parametrize("rest", [HALF_UPLOAD, HALF_CHUNK])
def test_an_upload_that_stops_coming_is_given_up_by_the_service(service: int, rest: bytes) -> None:
    authorization = shown("upload")["Authorization"].encode()
    head = UPLOAD + b"Authorization: " + authorization + b"\r\n"
    with connected(service, head + rest) as client:
        status, problem = told(client)
    assert (status, problem["type"]) == (408, "urn:jpegstow:stalled")
    assert problem["detail"] == "no byte came for 0.5 s"


IDLE = {
    "says nothing": b"",
    "stops within its headers": b"GET /healthz HTTP/1.1\r\nHost:",
    "stops within its next headers": WELL + b"GET /healthz HTTP/1.1\r\nHost:",
    "stops within a body that is refused": UPLOAD + HALF_UPLOAD,
    "stops within a chunk that is refused": UPLOAD + HALF_CHUNK,
    "stops within a body that nobody wants": WELL[:-2] + HALF_UPLOAD,
    "does not go away when it is told to": WELL[:-2] + b"Connection: close\r\n\r\n",
    "stops within endless headers": WELL[:-2] + b"X: " + b"x" * 70_000,
}


@pytest.mark.parametrize("said", IDLE.values(), ids=IDLE)
def test_twice_as_many_clients_as_threads_that_stand_still_hold_nobody_up(
    service: int, log: Path, said: bytes
) -> None:
    with ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(connected(service, said))
        assert requests.get(f"http://127.0.0.1:{service}/healthz", timeout=5).status_code == 200
    assert log.read_text() == ""


def test_headers_that_come_in_pieces_are_read_and_those_that_stop_end_the_connection(
    service: int,
) -> None:
    with connected(service) as client:
        for _ in range(2):  # as a new client and as one that is known
            for piece in (WELL[:7], WELL[7:-3], WELL[-3:-1], WELL[-1:]):
                client.sendall(piece)
            assert told(client) == (200, {"status": "ok", "version": __version__})
        client.sendall(WELL[:-1])
        assert is_closed(client)


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (b"GET /?a=" + b"Geheim" * 800 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nAccept: " + b"Geheim" * 1500 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: Geheim\r\n\r\n", 501),
        (b"Geheim\r\n\r\n", 400),
    ],
)
def test_what_is_no_request_is_refused_by_the_service_as_a_problem(
    service: int, request_text: bytes, status: int
) -> None:
    with connected(service, request_text) as client:
        found, problem = told(client)
    assert (found, problem["status"]) == (status, status)
    assert re.fullmatch(r"urn:jpegstow:[a-z-]+", problem["type"])
    assert "Geheim" not in json.dumps(problem)


def test_what_fails_in_the_server_is_told_and_logged_without_its_url(
    service: int, log: Path
) -> None:
    url = f"http://127.0.0.1:{service}/broken?PatientName=Geheim"
    answer = requests.get(url, timeout=BOUND)
    assert (answer.status_code, answer.json()["status"]) == (500, 500)
    assert log.read_text() == ""
