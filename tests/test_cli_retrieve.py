"""The command that retrieves: files whole or not there, whatever a server does or says."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from service.dicom.resource import Resource
from service.fetching import Fetcher, Kind, into
from service.store import DicomwebStore
from tests.archive_instances import dicom_file, file_request
from tests.commands import archive, at_terminal, jpegstow, path_of, put_study, uids
from tests.peers import (
    BOUND,
    Garbage,
    LoseAnswer,
    Orthanc,
    Respond,
    ScriptedServer,
    Step,
    Wire,
    throttled,
    unauthorized,
    unavailable,
)
from tests.processes import wait_until
from tests.serving import COMMAND, settings_for

JSON = {"Content-Type": "application/dicom+json"}
DICOM = {"Content-Type": "application/dicom"}
ONE = uids(1)
PLACE = Resource("1.2.1", "1.2.1.1", "1.2.1.1.1")
FILE = dicom_file(**ONE)
NAME = "1.2.1/1.2.1.1/1.2.1.1.1.dcm"
MULTIPART = file_request(FILE).content_type
BODY = b"".join(file_request(FILE).pieces)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Run an archive of two studies; yield its address and its files."""
    with archive(tmp_path_factory.mktemp("retrieve")) as url:
        yield url, put_study(url, 1) | put_study(url, 2, PatientName="Quixote")


def files_in(folder: Path) -> dict[str, bytes]:
    """Return all files of a folder by their path in it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


WANTED = {
    "the store": ([], ["1.2.1/", "1.2.2/"]),
    "a study": ([path_of(2)], ["1.2.2/"]),
    "a series": ([path_of(2, 1)], ["1.2.2/1.2.2.1/"]),
    "an instance": ([path_of(1, 1, 2)], ["1.2.1/1.2.1.1/1.2.1.1.2.dcm"]),
    "several": ([path_of(1, 2), path_of(2, 2, 1)], ["1.2.1/1.2.1.2/", "1.2.2/1.2.2.2/"]),
    "one within the other": ([path_of(1), path_of(1, 1)], ["1.2.1/"]),
}


@pytest.mark.parametrize(("paths", "starts"), WANTED.values(), ids=WANTED)
def test_what_is_asked_for_is_written_byte_for_byte(
    store: tuple[str, dict[str, bytes]], tmp_path: Path, paths: list[str], starts: list[str]
) -> None:
    url, files = store
    expected = {name: data for name, data in files.items() if name.startswith(tuple(starts))}
    ended = jpegstow("retrieve", *paths, "-o", tmp_path / "out", url=url)
    assert (ended.exit_code, ended.stdout) == (0, f"{len(expected)} retrieved\n")
    assert files_in(tmp_path / "out") == expected


def test_a_url_of_the_store_s_is_a_path(
    store: tuple[str, dict[str, bytes]], tmp_path: Path
) -> None:
    url, _ = store
    ended = jpegstow("retrieve", f"{url}/{path_of(1, 2)}", "-o", tmp_path, url=url)
    assert (ended.exit_code, ended.stdout) == (0, "1 retrieved\n")


def test_it_goes_on_where_it_was_stopped(
    store: tuple[str, dict[str, bytes]], tmp_path: Path
) -> None:
    url, files = store
    jpegstow("retrieve", path_of(1, 1), "-o", tmp_path, url=url)
    own = tmp_path / "1.2.1/1.2.1.1/1.2.1.1.1.dcm"
    own.write_bytes(b"mine")
    ended = jpegstow("retrieve", "-o", tmp_path, "-j", "2", url=url)
    assert (ended.exit_code, ended.stdout) == (0, "2 already there, 4 retrieved\n")
    assert own.read_bytes() == b"mine"
    again = jpegstow("retrieve", "-o", tmp_path, "--force", url=url)
    assert (again.exit_code, again.stdout) == (0, "6 retrieved\n")
    assert files_in(tmp_path) == files


def test_a_terminal_shows_how_far_it_is(
    store: tuple[str, dict[str, bytes]], tmp_path: Path
) -> None:
    url, _ = store
    shown = at_terminal(tmp_path, "retrieve", "-o", "out", url=url)
    assert "6/6" in shown
    assert "6 retrieved" in shown


def test_images_are_written_as_they_are_shown(
    store: tuple[str, dict[str, bytes]], tmp_path: Path
) -> None:
    url, _ = store
    ended = jpegstow("retrieve", path_of(1), "--type", "image/png", "-o", tmp_path, url=url)
    assert ended.exit_code == 0
    frame = f"{path_of(1, 1, 1)}/frames/1"
    ended = jpegstow("retrieve", frame, "--type", "image/jpeg", "-o", tmp_path, url=url)
    assert ended.exit_code == 0
    images = files_in(tmp_path)
    assert sorted(images) == [
        "1.2.1/1.2.1.1/1.2.1.1.1.png",
        "1.2.1/1.2.1.1/1.2.1.1.1_frame_1.jpg",
        "1.2.1/1.2.1.1/1.2.1.1.2.png",
        "1.2.1/1.2.1.2/1.2.1.2.1.png",
    ]
    for image in images.values():
        assert Image.open(BytesIO(image)).size == (64, 48)


def test_what_the_store_doesn_t_have_is_a_failure(
    store: tuple[str, dict[str, bytes]], tmp_path: Path
) -> None:
    url, _ = store
    ended = jpegstow(
        "retrieve", path_of(9), path_of(1, 1, 9), path_of(1, 2), "-o", tmp_path, url=url
    )
    assert (ended.exit_code, ended.stdout) == (1, "2 failed, 1 retrieved\n")
    assert f"{path_of(9)}: failed: the store has no instances of it" in ended.stderr
    assert f"{path_of(1, 1, 9)}: failed: the store doesn't have it (404)" in ended.stderr
    assert list(files_in(tmp_path)) == ["1.2.1/1.2.1.2/1.2.1.2.1.dcm"]


def test_json_tells_of_each(store: tuple[str, dict[str, bytes]], tmp_path: Path) -> None:
    url, files = store
    ended = jpegstow("retrieve", path_of(1, 1, 1), "-o", tmp_path, "--json", url=url)
    size = len(files[NAME])
    told = {"path": path_of(1, 1, 1), "outcome": "retrieved", "reason": "", "size": size}
    assert json.loads(ended.stdout) == [told]


def test_an_empty_store_is_no_failure(tmp_path: Path) -> None:
    with ScriptedServer(Respond(200, JSON, b"[]")) as server:
        ended = jpegstow("retrieve", "-o", tmp_path, url=server.dicomweb_url)
    assert (ended.exit_code, ended.stdout) == (0, "nothing there\n")


def part(file: bytes) -> Respond:
    """Answer with a file as one part."""
    payload = file_request(file)
    return Respond(200, {"Content-Type": payload.content_type}, b"".join(payload.pieces))


@dataclass(frozen=True)
class Unframed:
    """Answer with a body whose end is that of the connection."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: DICOM)

    def play(self, wire: Wire) -> None:
        wire.receive()
        wire.send_response(200)
        for name, value in self.headers.items():
            wire.send_header(name, value)
        wire.end_headers()
        wire.wfile.write(self.body)
        wire.close_connection = True


def retrieved(folder: Path, *steps: Step) -> tuple[int, str, int, dict[str, bytes]]:
    """Retrieve one instance from a store that plays these steps.

    Return the status, what was said of failures, how many requests came, and the files.
    """
    with ScriptedServer(*steps) as server:
        path = path_of(1, 1, 1)
        ended = jpegstow("retrieve", path, "-o", folder, url=server.dicomweb_url)
    return ended.exit_code, ended.stderr, len(server.requests), files_in(folder)


WHOLE: dict[str, Step] = {
    "one part": part(FILE),
    "alone": Respond(200, DICOM, FILE),
    "one part that ends with the connection": Unframed(
        b"".join(file_request(FILE).pieces), {"Content-Type": file_request(FILE).content_type}
    ),
}


@pytest.mark.parametrize("step", WHOLE.values(), ids=WHOLE)
def test_a_file_is_taken_out_of_whatever_it_comes_in(step: Step, tmp_path: Path) -> None:
    assert retrieved(tmp_path, step) == (0, "", 1, {NAME: FILE})


@dataclass(frozen=True)
class Cut:
    """Break off in the middle of a body."""

    body: bytes
    headers: Mapping[str, str]

    def play(self, wire: Wire) -> None:
        wire.receive()
        wire.head(200, self.headers, len(self.body))
        wire.wfile.write(self.body[:300])
        wire.close_connection = True


PASSING: dict[str, list[Step]] = {
    "503": [unavailable()],
    "429 with Retry-After": [throttled(0)],
    "broken off": [Cut(FILE, DICOM)],
    "a part broken off": [Cut(BODY, {"Content-Type": MULTIPART})],
    "lost twice": [LoseAnswer(), LoseAnswer()],
    "several": [unavailable(), Cut(FILE, DICOM), Respond(500)],
}


@pytest.mark.parametrize("steps", PASSING.values(), ids=PASSING)
def test_a_failure_that_passes_is_waited_out(steps: list[Step], tmp_path: Path) -> None:
    code, said, requests, files = retrieved(tmp_path, *steps, part(FILE))
    assert (code, said, requests, files) == (0, "", len(steps) + 1, {NAME: FILE})


def test_a_body_that_always_breaks_off_is_no_file(tmp_path: Path) -> None:
    code, said, requests, files = retrieved(tmp_path, Cut(FILE, DICOM))
    assert (code, requests, files) == (1, 5, {})
    assert "broke off" in said


def test_the_store_s_own_time_is_waited_for(tmp_path: Path) -> None:
    waits: list[float] = []
    with ScriptedServer(throttled(7), part(FILE)) as server, into(tmp_path):
        opened = DicomwebStore(settings_for(server.dicomweb_url))
        fetcher = Fetcher(opened, tmp_path, Kind(), waits.append)
        assert fetcher.fetch(PLACE).outcome == "retrieved"
    (wait,) = waits
    assert 7 <= wait <= 8


LYING: dict[str, tuple[Step, str]] = {
    "another instance": (part(dicom_file(**uids(1, 1, 2))), "another instance"),
    "the instance in another study": (
        part(dicom_file(**ONE | {"StudyInstanceUID": "1.9"})),
        "another instance",
    ),
    "no closing boundary": (
        Respond(200, {"Content-Type": MULTIPART}, BODY[:-40]),
        "without the closing delimiter",
    ),
    "half a part without a length": (
        Unframed(BODY[:300], {"Content-Type": MULTIPART}),
        "without the closing delimiter",
    ),
    "two parts": (
        Respond(
            200,
            {"Content-Type": file_request(FILE, FILE).content_type},
            b"".join(file_request(FILE, FILE).pieces),
        ),
        "more than one part",
    ),
    "half a file without a length": (Unframed(FILE[:300]), "where it ends"),
    "a login page": (Respond(200, {"Content-Type": "text/html"}, b"<html>"), "isn't application"),
    "a page that says that it is DICOM": (
        Respond(200, DICOM, b"<html>" * 50),
        "isn't a DICOM file",
    ),
    "nothing": (Respond(200, DICOM), "isn't a DICOM file"),
    "no type": (Respond(200, {}, FILE), "isn't application/dicom"),
    "not there": (Respond(404), "404"),
    "another form only": (Respond(406), "406"),
    "credentials": (unauthorized(), "credentials"),
    "a redirect": (Respond(302, {"Location": "/x"}), "302"),
}


@pytest.mark.parametrize(("step", "reason"), LYING.values(), ids=LYING)
def test_what_isn_t_the_instance_is_not_kept(step: Step, reason: str, tmp_path: Path) -> None:
    code, said, requests, files = retrieved(tmp_path, step)
    assert (code, requests, files) == (1, 1, {})
    assert reason in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("step", [Unframed(b""), Garbage(), LoseAnswer()])
def test_no_answer_at_all_is_no_file(step: Step, tmp_path: Path) -> None:
    code, _, _, files = retrieved(tmp_path, step)
    assert (code, files) == (1, {})


@dataclass(frozen=True)
class ByPath:
    """Answer by the path of the request; 404 for one that isn't there."""

    answers: Mapping[str, Step]

    def play(self, wire: Wire) -> None:
        self.answers.get(wire.path.partition("/dicomWeb/")[2], Respond(404)).play(wire)


def listing(*instances: Mapping[str, str]) -> dict[str, Step]:
    """Answer a search for all instances, in a page and an empty one."""
    tags = {
        "StudyInstanceUID": "0020000D",
        "SeriesInstanceUID": "0020000E",
        "SOPInstanceUID": "00080018",
    }
    models = [
        {tags[name]: {"vr": "UI", "Value": [uid]} for name, uid in instance.items()}
        for instance in instances
    ]
    return {
        "instances?limit=5000": Respond(200, JSON, json.dumps(models).encode()),
        f"instances?limit=5000&offset={len(models)}": Respond(200, JSON, b"[]"),
    }


@pytest.mark.parametrize(
    "lie",
    [
        {"SOPInstanceUID": "../../../stolen"},
        {"StudyInstanceUID": ".."},
        {"SeriesInstanceUID": "/tmp"},
        {"SOPInstanceUID": "1.2\n"},
        {"SOPInstanceUID": ""},
        {"SOPInstanceUID": "1." * 40 + "1"},
        {"SOPInstanceUID": "1.2.1.1.1/.."},
    ],
)
def test_a_name_that_is_no_uid_becomes_no_path(lie: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "out"
    answers = listing(ONE | lie, ONE) | {path_of(1, 1, 1): part(FILE)}
    with ScriptedServer(ByPath(answers)) as server:
        ended = jpegstow("retrieve", "-o", folder, url=server.dicomweb_url)
    assert (ended.exit_code, ended.stdout) == (1, "1 failed, 1 retrieved\n")
    assert "isn't a UID" in ended.stderr
    assert files_in(tmp_path) == {f"deep/out/{NAME}": FILE}


def test_an_instance_of_another_study_is_not_what_was_asked_for(tmp_path: Path) -> None:
    answers = {
        "studies/1.2.7/" + path: step
        for path, step in (listing(ONE) | {path_of(1, 1, 1): part(FILE)}).items()
    }
    with ScriptedServer(ByPath(answers)) as server:
        ended = jpegstow("retrieve", "studies/1.2.7", "-o", tmp_path, url=server.dicomweb_url)
    assert (ended.exit_code, files_in(tmp_path)) == (1, {})
    assert "another study" in ended.stderr


def test_one_of_many_that_fails_fails_the_command(tmp_path: Path) -> None:
    names = [uids(1, 1, number) for number in range(1, 6)]
    answers = listing(*names) | {
        path_of(1, 1, number): part(dicom_file(**uids(1, 1, number))) for number in (1, 2, 4, 5)
    }
    with ScriptedServer(ByPath(answers)) as server:
        ended = jpegstow("retrieve", "-o", tmp_path, url=server.dicomweb_url)
    assert (ended.exit_code, ended.stdout) == (1, "1 failed, 4 retrieved\n")
    assert ended.stderr.splitlines() == [
        f"{path_of(1, 1, 3)}: failed: the store doesn't have it (404)"
    ]
    assert len(files_in(tmp_path)) == 4


def test_a_search_that_breaks_off_fails_the_command(tmp_path: Path) -> None:
    answers = listing(ONE) | {path_of(1, 1, 1): part(FILE)}
    answers["instances?limit=5000&offset=1"] = Respond(403)
    with ScriptedServer(ByPath(answers)) as server:
        ended = jpegstow("retrieve", "-o", tmp_path, url=server.dicomweb_url)
    assert (ended.exit_code, ended.stdout) == (1, "1 retrieved, 1 unavailable\n")


@dataclass(frozen=True)
class Stall:
    """Answer with half of a body, and the rest never."""

    body: bytes
    length: int

    def play(self, wire: Wire) -> None:
        wire.receive()
        wire.head(200, DICOM, self.length)
        wire.wfile.write(self.body)
        wire.wfile.flush()
        wire.script.released.wait(BOUND)


@dataclass(frozen=True)
class Drip:
    """Answer with a body, a byte at a time."""

    body: bytes

    def play(self, wire: Wire) -> None:
        wire.receive()
        wire.head(200, DICOM, len(self.body))
        for byte in self.body:
            wire.wfile.write(bytes([byte]))
            wire.script.released.wait(0.02)


def test_killed_in_the_middle_it_leaves_nothing_half_and_goes_on(tmp_path: Path) -> None:
    two = dicom_file(**uids(1, 1, 2))
    answers = listing(ONE, uids(1, 1, 2)) | {path_of(1, 1, 1): part(FILE)}
    half = answers | {path_of(1, 1, 2): Stall(two[:300], len(two))}
    out = tmp_path / "out"
    with ScriptedServer(ByPath(half)) as server:
        environment = {"PATH": os.environ["PATH"], "DICOMWEB_URL": server.dicomweb_url}
        command = [COMMAND, "retrieve", "-o", str(out), "-j", "1"]
        process = subprocess.Popen(
            command, env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL
        )
        wait_until(lambda: (out / NAME).exists() and bool(list(out.rglob("*.part"))))
        process.send_signal(signal.SIGKILL)
        process.wait(BOUND)
    names = sorted(files_in(out))
    assert names[0] == NAME
    assert [name.endswith(".part") for name in names] == [False, True]
    whole = answers | {path_of(1, 1, 2): part(two)}
    with ScriptedServer(ByPath(whole)) as server:
        ended = jpegstow("retrieve", "-o", out, url=server.dicomweb_url)
    assert (ended.exit_code, ended.stdout) == (0, "1 already there, 1 retrieved\n")
    assert files_in(out) == {NAME: FILE, "1.2.1/1.2.1.1/1.2.1.1.2.dcm": two}


def test_what_another_process_writes_is_not_tidied_away(tmp_path: Path) -> None:
    left = tmp_path / "1.2" / "3.4" / "tmpabc.part"
    left.parent.mkdir(parents=True)
    with into(tmp_path):
        left.touch()
        with into(tmp_path):
            assert left.exists()
    with into(tmp_path):
        assert not left.exists()


SLOW: dict[str, tuple[Step, str]] = {
    "a body that drips": (Drip(FILE), "comes too slowly"),
    "a body that stops": (Stall(FILE[:300], len(FILE)), "nothing more of the store's answer"),
}


@pytest.mark.parametrize(("step", "reason"), SLOW.values(), ids=SLOW)
def test_an_answer_without_an_end_is_left(step: Step, reason: str, tmp_path: Path) -> None:
    with ScriptedServer(step) as server, into(tmp_path):
        haste = {"STORE_CONNECT_TIMEOUT": "0.3", "STORE_READ_TIMEOUT": "0.3"}
        opened = DicomwebStore(settings_for(server.dicomweb_url, **haste))
        fetched = Fetcher(opened, tmp_path, Kind(), list[float]().append).fetch(PLACE)
    assert fetched.outcome == "unavailable"
    assert reason in fetched.reason
    assert len(server.requests) == 5
    assert files_in(tmp_path) == {}


MISUSES = {
    "no path": ["patients/1"],
    "no UID": ["studies/.."],
    "another store": ["http://127.0.0.1:9/dicomWeb/studies/1.2"],
    "a frame as a file": [f"{path_of(1, 1, 1)}/frames/1"],
    "a syntax that is none": [path_of(1), "--transfer-syntax", "JPEG"],
    "a syntax of an image": [path_of(1), "--type", "image/png", "--transfer-syntax", "1.2"],
    "no jobs": [path_of(1), "-j", "0"],
}


@pytest.mark.parametrize("arguments", MISUSES.values(), ids=MISUSES)
def test_a_misuse_asks_nothing_and_writes_nothing(arguments: list[str], tmp_path: Path) -> None:
    with ScriptedServer(Respond(404)) as server:
        ended = jpegstow("retrieve", *arguments, "-o", tmp_path / "out", url=server.dicomweb_url)
    assert (ended.exit_code, ended.stdout, server.requests) == (2, "", [])
    assert not (tmp_path / "out").exists()


def test_another_syntax_is_asked_for(tmp_path: Path) -> None:
    with ScriptedServer(part(FILE)) as server:
        syntax = ["--transfer-syntax", "1.2.840.10008.1.2.1"]
        jpegstow("retrieve", path_of(1, 1, 1), "-o", tmp_path, *syntax, url=server.dicomweb_url)
    (request,) = server.requests
    assert "transfer-syntax=1.2.840.10008.1.2.1," in request.headers["accept"]


def test_a_full_disk_ends_it_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "1.2.1").write_text("in the way")
    with ScriptedServer(part(FILE)) as server:
        ended = jpegstow("retrieve", path_of(1, 1, 1), "-o", tmp_path, url=server.dicomweb_url)
    assert ended.exit_code == 2
    assert len(ended.stderr.splitlines()) == 1


def test_an_orthanc_s_files_are_written(orthanc: Orthanc, tmp_path: Path) -> None:
    orthanc.empty()
    files = put_study(orthanc.dicomweb_url, 1)
    ended = jpegstow("retrieve", "-o", tmp_path, url=orthanc.dicomweb_url)
    assert (ended.exit_code, ended.stdout) == (0, "3 retrieved\n")
    assert files_in(tmp_path) == files
