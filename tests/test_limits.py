"""What is too large, malformed or rude, against the real processes and over the real wire."""

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPResponse
from pathlib import Path

import pytest
import requests

from tests.jpegs import make_jpeg
from tests.judges import require_tool
from tests.peers import BOUND, ScriptedServer, stored
from tests.serving import UPLOAD, Serving

LIMIT = 1_000_000
JPEG = make_jpeg()
# A sound JPEG with 20 MB behind it: whoever cuts it at the limit would store it.
TOO_LARGE = JPEG + bytes(20_000_000)


@pytest.fixture(scope="module")
def store() -> Iterator[ScriptedServer]:
    with ScriptedServer(stored()) as server:
        yield server


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory, store: ScriptedServer) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("limits")
    given = {"DICOMWEB_URL": store.dicomweb_url, "MAX_UPLOAD_BYTES": str(LIMIT)}
    with Serving(folder / "data", **given, READ_BACK="never") as service:
        yield service


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("limits") / "large.jpg"
    path.write_bytes(TOO_LARGE)
    return path


def chunks(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), 65_536):
        yield body[start : start + 65_536]


def head(*lines: str) -> bytes:
    return "\r\n".join([f"POST {UPLOAD} HTTP/1.1", "Host: 127.0.0.1", *lines, "", ""]).encode()


def converse(serving: Serving, *blocks: bytes) -> tuple[int, bytes]:
    """Send blocks until the service has had enough; return the status and body of its answer."""
    with connected(serving) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):
            for block in blocks:
                connection.sendall(block)
        return answer_on(connection)


def connected(serving: Serving) -> socket.socket:
    return socket.create_connection(("127.0.0.1", serving.port), BOUND)


def answer_on(connection: socket.socket) -> tuple[int, bytes]:
    response = HTTPResponse(connection)
    response.begin()
    return response.status, response.read()


def chunked(*blocks: bytes) -> list[bytes]:
    return [b"%x\r\n%b\r\n" % (len(block), block) for block in blocks] + [b"0\r\n\r\n"]


FORM = (
    b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n'
    b"Content-Type: image/jpeg\r\n\r\n" + TOO_LARGE + b"\r\n--b--\r\n"
)
BODIES = {"bare": ("image/jpeg", TOO_LARGE), "in a form": ("multipart/form-data; boundary=b", FORM)}


@pytest.mark.parametrize(("kind", "body"), BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("announced", [True, False], ids=["announced", "in chunks"])
def test_a_body_above_the_limit_is_told_so_over_a_raw_connection(
    *, kind: str, body: bytes, announced: bool, serving: Serving, store: ScriptedServer
) -> None:
    length = f"Content-Length: {len(body)}" if announced else "Transfer-Encoding: chunked"
    blocks = list(chunks(body)) if announced else chunked(*chunks(body))
    before = len(store.requests)
    status, answer = converse(serving, head(f"Content-Type: {kind}", length), *blocks)
    assert status == 413
    assert json.loads(answer)["detail"].startswith(f"the request is larger than {LIMIT} bytes")
    assert len(store.requests) == before


def test_a_client_that_sends_on_behind_the_answer_is_not_cut_off(serving: Serving) -> None:
    with connected(serving) as connection:
        connection.sendall(head("Content-Type: image/jpeg", f"Content-Length: {len(TOO_LARGE)}"))
        assert answer_on(connection)[0] == 413
        connection.sendall(TOO_LARGE)
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert answer_on(connection)[0] == 200


CURLS = {
    "a form": ["-F", "image=@{}"],
    "a form in chunks": ["-H", "Transfer-Encoding: chunked", "-F", "image=@{}"],
    "a form sent without asking": ["-H", "Expect:", "-F", "image=@{}"],
    "a bare body": ["-H", "Content-Type: image/jpeg", "--data-binary", "@{}"],
    "a bare body in chunks": [
        *("-H", "Content-Type: image/jpeg", "-H", "Transfer-Encoding: chunked"),
        *("-X", "POST", "-T", "{}"),
    ],
}


@pytest.mark.parametrize("arguments", CURLS.values(), ids=CURLS)
def test_curl_sees_that_a_body_is_too_large(
    arguments: list[str], serving: Serving, file: Path
) -> None:
    given = [argument.format(file) for argument in arguments]
    curl = [require_tool("curl"), "-sS", "-w", "\n%{http_code}", *given, serving.url + UPLOAD]
    ended = subprocess.run(curl, capture_output=True, text=True, check=True, timeout=BOUND)
    body, _, status = ended.stdout.rpartition("\n")
    assert status == "413"
    assert json.loads(body)["type"] == "urn:jpegstow:request-entity-too-large"


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "in chunks"])
def test_requests_sees_that_a_body_is_too_large(*, announced: bool, serving: Serving) -> None:
    data = TOO_LARGE if announced else chunks(TOO_LARGE)
    headers = {"Content-Type": "image/jpeg"}
    response = requests.post(serving.url + UPLOAD, data, headers=headers, timeout=BOUND)
    assert (response.status_code, response.json()["status"]) == (413, 413)


def test_a_body_below_the_limit_may_come_in_chunks(serving: Serving) -> None:
    headers = {"Content-Type": "image/jpeg"}
    data = chunks(make_jpeg(800, 600))
    response = requests.post(serving.url + UPLOAD, data, headers=headers, timeout=BOUND)
    assert response.status_code == 201


RUDE = {
    "a body that ends early": (
        [head("Content-Type: image/jpeg", "Content-Length: 5000"), JPEG],
        None,
    ),
    "chunks that aren't": (
        [head("Content-Type: image/jpeg", "Transfer-Encoding: chunked"), b"Quixote\r\n"],
        400,
    ),
    "a space in the query": ([b"POST /v1/instances?PatientName=Q Quixote HTTP/1.1\r\n\r\n"], 400),
    "a header without a colon": ([head("Patient Quixote: x")], 400),
    "a query of 10 kB": ([b"POST /?a=" + b"Quixote" * 1500 + b" HTTP/1.1\r\n\r\n"], 414),
}


@pytest.mark.parametrize(("blocks", "status"), RUDE.values(), ids=RUDE)
def test_a_malformed_request_leaves_nothing_of_itself_in_the_log(
    blocks: list[bytes], status: int | None, serving: Serving
) -> None:
    before = serving.log.stat().st_size
    if status is None:
        with connected(serving) as connection:
            connection.sendall(b"".join(blocks))
    else:
        assert converse(serving, *blocks)[0] == status
    assert serving.post(JPEG).status_code == 201
    written = serving.log.read_bytes()[before:].decode()
    assert "Quixote" not in written
    assert '"ERROR"' not in written
    assert all(json.loads(line) for line in written.splitlines())
