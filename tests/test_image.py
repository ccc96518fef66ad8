"""The image of the Dockerfile, run without root, without a shell, on a read-only root."""

import json
import shutil
import socket
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest
import requests

from tests.container import Container, Image, Images, require_root
from tests.jpegs import make_jpeg
from tests.judges import require_tool
from tests.peers import BOUND, ScriptedServer, free_port, stored, wait_for_http
from tests.processes import tree
from tests.serving import SECRET, Serving

JPEG = make_jpeg()
GRACE = 8.0  # seconds
RUNS = 25
# Times what a bare Flask application takes to its first answer: ours to that, and to the first
# picture that is stored, which isn't to pay for what the first answer has saved.
LIMIT = 2.0
UPLOAD_LIMIT = 2.2
LEAN = {"UID_NAMESPACE": SECRET, "RETRY_WORKERS": "0", "HOST": "127.0.0.1", "AUTH": "none"}

BARE = """
import sys
from flask import Flask
app = Flask("bare")
app.get("/healthz")(lambda: "ok")
sys.modules["bare"] = sys.modules["__main__"]
from gunicorn.app.wsgiapp import run
run(prog="gunicorn")
"""
# By hash and unchecked, as the flags in the head of a .pyc say (PEP 552): nothing depends on times.
LEFT_TO_COMPILE = """
import os, sys
import service.wsgi, service.web, gunicorn.app.wsgiapp, gunicorn.workers.gthread
cached = [getattr(module, "__cached__", None) for module in list(sys.modules.values())]
files = [path for path in cached if path]
print(len(files) > 200)
print([f for f in files if not os.path.exists(f) or open(f, "rb").read(8)[4:] != b"\\1\\0\\0\\0"])
"""
WRITE = """
import os
for folder in ("/", "/tmp", "/app", "/data"):
    print(folder, os.access(folder, os.W_OK), os.getuid(), os.getgid(), os.getgroups())
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """Build the image in a store of its own, which is some gigabyte while it is there."""
    require_root()
    for tool in ("buildah", "debootstrap", "unshare", "chroot"):
        require_tool(tool)
    folder = tmp_path_factory.mktemp("image")
    yield Images(folder).build()
    shutil.rmtree(folder)


def say(capfd: pytest.CaptureFixture[str], line: str) -> None:
    """Print past pytest, to where the tests were started."""
    with capfd.disabled():
        print(line, file=sys.stderr, flush=True)


def python(image: Image, code: str) -> list[str]:
    """Run code under the image's Python, and return the lines that it prints."""
    ended = image.run(["/app/bin/python", "-P", "-c", code])
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def test_its_size_is_told(image: Image, capfd: pytest.CaptureFixture[str]) -> None:
    size, app = image.size(), Image(image.root / "app", image.config).size()
    say(capfd, f"the image: {size / 1e6:.0f} MB, of which {app / 1e6:.0f} MB are /app")
    assert app < 250e6


def test_it_is_run_as_a_number_that_is_not_root(image: Image) -> None:
    user, group = image.config["User"].split(":")
    assert int(user) > 0
    assert int(group) > 0
    assert image.environment()["HOST"] == "0.0.0.0"
    assert list(image.config["Volumes"]) == [image.environment()["DATA_DIR"]]
    said = f"{user} {group} []"
    assert python(image, WRITE) == [
        f"/ False {said}", f"/tmp False {said}", f"/app False {said}", f"/data True {said}",
    ]  # fmt: skip


def test_it_has_no_shell_while_it_is_tested(image: Image) -> None:
    assert image.run(["/bin/sh", "-c", "exit 0"]).returncode not in {0, 1, 2}


@pytest.mark.parametrize("name", ["numpy", "pip", "setuptools", "tests", "pytest", "hatchling"])
def test_what_does_not_serve_is_not_in_it(image: Image, name: str) -> None:
    found = python(image, f"import importlib.util as u; print(u.find_spec({name!r}))")
    assert found == ["None"]


def test_nothing_is_left_to_compile_at_the_start(image: Image) -> None:
    assert python(image, LEFT_TO_COMPILE) == ["True", "[]"]


def test_version_and_doctor_answer(image: Image) -> None:
    assert image.run(image.command("--version")).stdout.startswith("jpegstow, version ")
    ended = image.run(image.command("doctor", "--offline", "--json"))
    assert [each for each in json.loads(ended.stdout) if each["wrong"]] == []
    assert ended.returncode == 0


def started(image: Image, folder: Path, port: int, store: str) -> Container:
    log = folder / "container.log"
    return Container(
        image, image.command(), log, PORT=str(port), DICOMWEB_URL=store, READ_BACK="never", **LEAN
    )


def test_a_picture_goes_into_the_archive_and_health_is_told(image: Image, tmp_path: Path) -> None:
    port = free_port()
    with (
        Serving(tmp_path / "data") as archive,
        started(image, tmp_path, port, archive.archive_url) as container,
    ):
        url = f"http://127.0.0.1:{port}"
        assert wait_for_http(f"{url}/healthz", alive=container.alive).status_code == 200
        kind, *check = image.config["Healthcheck"]["Test"]
        assert kind == "CMD"
        assert image.run(check, PORT=str(port)).returncode == 0
        assert image.run(check, PORT=str(free_port())).returncode != 0
        headers = {"Content-Type": "image/jpeg"}
        answer = requests.post(
            f"{url}/v1/instances?PatientID=P-7", JPEG, headers=headers, timeout=BOUND
        )
        assert answer.status_code == 201, answer.text
        found = requests.get(f"{archive.archive_url}/studies", timeout=BOUND).json()
        assert [study["00100020"]["Value"] for study in found] == [["P-7"]]
        assert requests.get(f"{url}/readyz", timeout=BOUND).json()["status"] == "ok"
        container.stop()
        assert container.process.wait(BOUND) == 0


def test_an_upload_under_way_ends_well_after_sigterm(image: Image, tmp_path: Path) -> None:
    port = free_port()
    with (
        ScriptedServer(stored()) as store,
        started(image, tmp_path, port, store.dicomweb_url) as container,
    ):
        wait_for_http(f"http://127.0.0.1:{port}/healthz", alive=container.alive)
        with socket.create_connection(("127.0.0.1", port), timeout=BOUND) as client:
            head = (
                f"POST /v1/instances HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(JPEG)}\r\n"
            )
            head += "Content-Type: image/jpeg\r\nExpect: 100-continue\r\n\r\n"
            client.sendall(head.encode())
            assert client.recv(4096).startswith(b"HTTP/1.1 100")  # it has begun
            client.sendall(JPEG[:500])
            before = time.monotonic()
            container.stop()
            client.sendall(JPEG[500:])
            response = HTTPResponse(client)
            response.begin()
            assert response.status == 201
            response.close()
        assert container.process.wait(GRACE) == 0
        assert time.monotonic() - before < GRACE


def cold_start(image: Image, command: Sequence[str], log: Path, **given: str) -> list[float]:
    """Return the seconds from the start of a command to its first 200.

    With a store's address in `given`, also those to its first picture that is stored.
    """
    port = int(given["PORT"])
    begin = time.monotonic()
    with Container(image, command, log, **given, **LEAN) as container:

        def taken() -> float:
            return time.monotonic() - begin - without_processor(container.process.pid)

        while not answers(port):
            assert container.alive(), container.log.read_text()
            assert time.monotonic() - begin < BOUND
            time.sleep(0.005)
        seconds = [taken()]
        if "DICOMWEB_URL" in given:
            url = f"http://127.0.0.1:{port}/v1/instances"
            headers = {"Content-Type": "image/jpeg"}
            assert requests.post(url, JPEG, headers=headers, timeout=BOUND).status_code == 201
            seconds.append(taken())
    return seconds


def without_processor(root: int) -> float:
    """Return the seconds for which a tree's threads were ready and others ran instead.

    It is what a busy machine adds to a start: the second number of each thread's schedstat, in
    nanoseconds.
    """
    waited = 0
    for pid in tree(root):
        with suppress(FileNotFoundError, ProcessLookupError):  # one may end while it is looked at
            for thread in Path(f"/proc/{pid}/task").iterdir():
                waited += int((thread / "schedstat").read_text().split()[1])
    return waited / 1e9


def answers(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=BOUND)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def bare(port: int) -> list[str]:
    """Return the command line of an application without anything, under the same gunicorn."""
    options = "--worker-class gthread --no-control-socket --log-level error --preload"
    shape = ["--worker-tmp-dir", "/dev/shm", "--workers", "2", "--threads", "8"]
    bind = ["--bind", f"127.0.0.1:{port}"]
    return ["/app/bin/python", "-P", "-c", BARE, *options.split(), *shape, *bind, "bare:app"]


def test_a_cold_start_takes_at_most_twice_that_of_a_bare_flask_application(
    image: Image, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "cold.log"
    starts = []
    with ScriptedServer(stored()) as store:
        ours = {"DICOMWEB_URL": store.dicomweb_url, "READ_BACK": "never"}
        for _ in range(RUNS):
            port = free_port()
            start = cold_start(image, image.command(), log, PORT=str(port), **ours)
            port = free_port()
            starts.append(start + cold_start(image, bare(port), log, PORT=str(port)))
    first, upload, flask = (statistics.median(column) for column in zip(*starts, strict=True))
    said = f"{first:.2f} s, {first / flask:.2f} times a bare Flask application's {flask:.2f} s"
    stored_after = f"its first picture stored after {upload:.2f} s, {upload / flask:.2f} times"
    say(capfd, f"the image's first 200 after {said}; {stored_after}")
    assert first <= LIMIT * flask
    assert upload <= UPLOAD_LIMIT * flask
