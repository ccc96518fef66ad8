"""The command that stores ready DICOM files."""

import json
from pathlib import Path

import pytest

from tests.archive_instances import dicom_file
from tests.commands import archive, jpegstow, uids
from tests.jpegs import make_jpeg
from tests.peers import (
    Orthanc,
    Respond,
    ScriptedServer,
    already_exists_409,
    failed,
    parts_of,
    stored,
    throttled,
    unauthorized,
    unavailable,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder of three DICOM files, one without a suffix, and of what is none."""
    names = ("a.dcm", "deep/b.dcm", "deep/er/IM0001")
    for number, name in enumerate(names, 1):
        path = tmp_path / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dicom_file(**uids(1, 1, number)))
    (tmp_path / "files" / "notes.txt").write_text("none")
    (tmp_path / "files" / "photo.jpg").write_bytes(make_jpeg())
    return tmp_path / "files"


PATTERNS = {
    "a folder": (["{}"], 3),
    "a file": (["{}/deep/er/IM0001"], 1),
    "dcmweb's mask": (["{}/**.dcm"], 2),
    "a whole step": (["{}/**/*.dcm"], 2),
    "a mask": (["{}/*.dcm"], 1),
    "several": (["{}/a.dcm", "{}/deep"], 3),
}


@pytest.mark.parametrize(("patterns", "count"), PATTERNS.values(), ids=PATTERNS)
def test_files_are_sent_byte_for_byte(folder: Path, patterns: list[str], count: int) -> None:
    with ScriptedServer(stored()) as server:
        paths = [pattern.format(folder) for pattern in patterns]
        ended = jpegstow("store", *paths, url=server.dicomweb_url)
    assert (ended.exit_code, ended.stdout) == (0, f"{count} stored\n")
    known = {path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    sent = [body for request in server.requests for _, body in parts_of(request)]
    assert len(sent) == count
    assert set(sent) <= known


def test_an_archive_takes_them_once(folder: Path, tmp_path: Path) -> None:
    with archive(tmp_path) as url:
        first = jpegstow("store", folder, url=url)
        again = jpegstow("store", folder, "-j", "2", url=url)
        (folder / "a.dcm").write_bytes(dicom_file(seed=1, **uids(1, 1, 1)))
        other = jpegstow("store", folder, url=url)
    assert (first.exit_code, first.stdout) == (0, "3 stored\n")
    assert (again.exit_code, again.stdout) == (0, "3 already stored\n")
    assert (other.exit_code, other.stdout) == (1, "2 already stored, 1 rejected\n")
    assert "a.dcm: rejected: " in other.stderr


def test_a_storage_class_goes_with_each(folder: Path) -> None:
    with ScriptedServer(stored()) as server:
        url = server.dicomweb_url
        option = ["--storage-class", "NEARLINE"]
        jpegstow("store", folder / "a.dcm", *option, url=url, STORAGE_CLASS="ARCHIVE")
        jpegstow("store", folder / "a.dcm", url=url, STORAGE_CLASS="ARCHIVE")
        jpegstow("store", folder / "a.dcm", url=url)
    classes = [request.headers.get("storage-class") for request in server.requests]
    assert classes == ["NEARLINE", "ARCHIVE", None]


def test_a_store_that_is_busy_for_a_moment_is_asked_again(folder: Path) -> None:
    with ScriptedServer(unavailable(), throttled(0), stored()) as server:
        ended = jpegstow("store", folder / "a.dcm", url=server.dicomweb_url)
    assert (ended.exit_code, ended.stdout) == (0, "1 stored\n")
    assert len({request.sha256 for request in server.requests}) == 1
    assert len(server.requests) == 3


REFUSALS = {
    "a refusal": (failed(0xA900), "rejected"),
    "a conflict that can't be looked into": (already_exists_409(), "unavailable"),
    "credentials": (unauthorized(), "unavailable"),
    "200 that names nothing": (Respond(200), "unavailable"),
}


@pytest.mark.parametrize(("step", "outcome"), REFUSALS.values(), ids=REFUSALS)
def test_what_isn_t_stored_fails_the_command(folder: Path, step: Respond, outcome: str) -> None:
    with ScriptedServer(step, also={"GET": Respond(404)}) as server:
        ended = jpegstow("store", folder / "a.dcm", url=server.dicomweb_url)
    assert (ended.exit_code, ended.stdout) == (1, f"1 {outcome}\n")
    assert "a.dcm" in ended.stderr


def test_one_of_many_that_fails_fails_the_command(folder: Path) -> None:
    (folder / "bad.dcm").write_bytes(b"no DICOM")
    (folder / "nameless.dcm").write_bytes(dicom_file()[:400])
    with ScriptedServer(stored()) as server:
        ended = jpegstow("store", folder, url=server.dicomweb_url)
    assert (ended.exit_code, ended.stdout) == (1, "2 refused, 3 stored\n")
    assert len(server.requests) == 3


def test_json_tells_of_each(folder: Path) -> None:
    with ScriptedServer(stored()) as server:
        ended = jpegstow("store", folder / "a.dcm", "--json", url=server.dicomweb_url)
    assert json.loads(ended.stdout) == [
        {
            "path": str(folder / "a.dcm"),
            "outcome": "stored",
            "reason": "",
            "sop_instance_uid": "1.2.1.1.1",
        }
    ]


MISUSES = {
    "a file that isn't there": (["{}/absent.dcm"], "no JPEG or DICOM file"),
    "one of two that isn't there": (["{}/a.dcm", "{}/absent.dcm"], "no JPEG or DICOM file"),
    "a mask of nothing": (["{}/*.tiff"], "no JPEG or DICOM file"),
    "a JPEG": (["{}/photo.jpg"], "jpegstow send"),
    "a mask of JPEGs": (["{}/*"], "jpegstow send"),
    "no file": ([], "Missing argument"),
    "no class": (["{}/a.dcm", "--storage-class", "FOO"], "STANDARD"),
}


@pytest.mark.parametrize(("arguments", "said"), MISUSES.values(), ids=MISUSES)
def test_a_misuse_sends_nothing(folder: Path, arguments: list[str], said: str) -> None:
    with ScriptedServer(stored()) as server:
        texts = [text.format(folder) for text in arguments]
        ended = jpegstow("store", *texts, url=server.dicomweb_url)
    assert (ended.exit_code, ended.stdout, server.requests) == (2, "", [])
    assert said in ended.stderr


@pytest.mark.parametrize("command", ["store", "send"])
def test_an_orthanc_that_keeps_the_old_content_is_found_out(
    folder: Path, orthanc: Orthanc, command: str
) -> None:
    orthanc.empty()
    url = orthanc.dicomweb_url
    ends = [jpegstow(command, folder / "a.dcm", url=url, READ_BACK="auto") for _ in range(2)]
    (folder / "a.dcm").write_bytes(dicom_file(seed=1, **uids(1, 1, 1)))
    ends.append(jpegstow(command, folder / "a.dcm", url=url, READ_BACK="auto"))
    assert [(ended.exit_code, ended.stdout) for ended in ends] == [
        (0, "1 stored\n"),
        (0, "1 already stored\n"),
        (1, "1 rejected\n"),
    ]
    assert "with other content" in ends[-1].stderr


def test_an_orthanc_takes_them(folder: Path, orthanc: Orthanc) -> None:
    orthanc.empty()
    ended = jpegstow("store", folder, url=orthanc.dicomweb_url)
    assert (ended.exit_code, ended.stdout) == (0, "3 stored\n")
    assert len(orthanc.get("/instances")) == 3
