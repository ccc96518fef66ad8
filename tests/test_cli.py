"""The command line: what it prints, where, and with which exit status it ends."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pydicom import dcmread

from service import __version__, settings
from service.cli import main
from tests.jpegs import make_jpeg
from tests.judges import require_tool
from tests.peers import ScriptedServer, refused_port, stored
from tests.serving import SECRET
from tests.test_line import run
from tests.test_store import as_dataset

JPEG = make_jpeg()


@pytest.fixture
def store() -> Iterator[ScriptedServer]:
    with ScriptedServer(stored()) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder of three pictures, two of them sound."""
    for number in range(2):
        (tmp_path / f"{number}.jpg").write_bytes(make_jpeg(seed=number))
    (tmp_path / "bad.jpg").write_bytes(JPEG[:-100])
    return tmp_path


def jpegstow(*arguments: str | Path, url: str = "", **environment: str) -> Result:
    given = {"UID_NAMESPACE": SECRET, "DICOMWEB_URL": url, "READ_BACK": "never"} | environment
    return CliRunner(env=given).invoke(main, [str(argument) for argument in arguments])


def test_it_tells_its_version_and_its_commands() -> None:
    assert jpegstow("--version").output == f"jpegstow, version {__version__}\n"
    shown = jpegstow("-h").output
    commands = "serve archive convert inspect census send templates codes settings"
    for command in commands.split():
        assert f"\n  {command} " in shown


def test_the_settings_are_listed() -> None:
    assert jpegstow("settings").output == settings.table() + "\n"


@pytest.mark.parametrize("template", ["vl-photographic-image", "secondary-capture-image"])
def test_convert_writes_a_sound_dicom_file(template: str, folder: Path) -> None:
    out = folder / "new" / "out.dcm"
    out.parent.mkdir()
    said = ["--set", "PatientID=P-7", "--set", 'OtherPatientNames=["A", "B"]']
    ended = jpegstow("convert", folder / "0.jpg", "-o", out, *said, "--template", template)
    assert (ended.exit_code, ended.output) == (0, "")
    dataset = dcmread(out)
    assert (dataset.PatientID, list(dataset.OtherPatientNames)) == ("P-7", ["A", "B"])
    assert "Error" not in run("dciodvfy", out)
    assert run("dcmftest", out).startswith("yes:")


def test_convert_writes_a_folder_and_goes_on_after_a_bad_one(folder: Path) -> None:
    ended = jpegstow("convert", folder, "-o", folder / "out")
    assert ended.exit_code == 1
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["0.dcm", "1.dcm"]
    assert "bad.jpg: the entropy-coded data is damaged" in ended.stderr


def test_convert_makes_the_same_file_again(folder: Path) -> None:
    for out in ("a.dcm", "b.dcm"):
        assert jpegstow("convert", folder / "0.jpg", "-o", folder / out).exit_code == 0
    assert (folder / "a.dcm").read_bytes() == (folder / "b.dcm").read_bytes()


def test_convert_never_writes_two_pictures_into_one_file(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "0.jpg").write_bytes(JPEG)
    ended = jpegstow("convert", folder, "-o", folder / "out")
    assert ended.exit_code == 2
    assert "two files would become" in ended.stderr
    assert not (folder / "out").exists()


def test_convert_needs_no_store_and_writes_no_namespace(folder: Path) -> None:
    (folder / "blocked").touch()
    ended = jpegstow("convert", folder / "0.jpg", "-o", folder / "0.dcm", DATA_DIR="blocked")
    assert ended.exit_code == 0


def test_inspect_tells_what_a_jpeg_is_and_what_would_be_done(folder: Path) -> None:
    (folder / "exif.jpg").write_bytes(make_jpeg(40, 30, orientation=1, comment=b"x", icc=True))
    ended = jpegstow("inspect", folder / "exif.jpg", folder / "bad.jpg")
    assert ended.exit_code == 0
    good, bad = json.loads(ended.stdout)
    assert (good["rows"], good["columns"], good["process"], good["precision"]) == (
        *(30, 40),
        "SOF0",
        8,
    )
    assert good["components"] == ["1: 2x2", "2: 1x1", "3: 1x1"]
    assert (good["colour"], good["orientation"], good["scans"]) == ("YCbCr", 1, 1)
    assert good["transfer_syntax"] == "1.2.840.10008.1.2.4.50"
    assert good["photometric_interpretation"] == "YBR_FULL_422"
    assert "removed comment (5 bytes)" in good["normalised"]
    assert bad["refused"]["reason"] == "damaged-scan"
    assert "normalised" not in bad


def test_inspect_tells_what_would_be_transformed(folder: Path) -> None:
    lying = make_jpeg(32, 16, orientation=6, progressive=True)
    (folder / "lying.jpg").write_bytes(lying)
    (report,) = json.loads(jpegstow("inspect", folder / "lying.jpg").stdout)
    assert (report["process"], report["orientation"]) == ("SOF2", 6)
    assert (report["rows"], report["columns"]) == (16, 32)  # as they are coded
    assert report["transfer_syntax"] == "1.2.840.10008.1.2.4.50"
    assert report["normalised"][-2:] == [
        "recoded progressive as baseline",
        "turned a quarter clockwise without loss",
    ]


def test_inspect_obeys_the_policies(folder: Path) -> None:
    (folder / "odd.jpg").write_bytes(make_jpeg(33, 17, orientation=3))
    (folder / "press.jpg").write_bytes(make_jpeg(mode="CMYK"))

    def inspected(name: str, **environment: str) -> dict[str, Any]:
        (report,) = json.loads(jpegstow("inspect", folder / name, **environment).stdout)
        return dict(report)

    assert inspected("odd.jpg")["normalised"][-1].startswith("decoded, turned by a half and")
    kept = inspected("odd.jpg", UPRIGHT="lossless-or-keep")
    assert kept["normalised"][-1].startswith("left as it lies")
    assert inspected("odd.jpg", UPRIGHT="refuse")["refused"]["reason"] == "rotated"
    press = inspected("press.jpg")
    assert (press["colour"], press["refused"]["reason"]) == ("CMYK or YCCK", "cmyk")
    assert "refused" not in inspected("press.jpg", CMYK="convert")
    (folder / "closed.jpg").write_bytes(JPEG[:-100] + JPEG[-2:])
    assert inspected("closed.jpg")["refused"]["reason"] == "damaged-scan"
    assert "refused" not in inspected("closed.jpg", VERIFY_SCAN="off")


def test_inspect_agrees_with_another_reader(folder: Path) -> None:
    (report,) = json.loads(jpegstow("inspect", folder / "1.jpg").stdout)
    (other,) = json.loads(run("exiftool", "-json", "-n", folder / "1.jpg"))
    assert (report["columns"], report["rows"]) == (other["ImageWidth"], other["ImageHeight"])
    assert f"SOF{other['EncodingProcess']}" == report["process"]
    assert require_tool("exiftool")


def test_send_stores_files_and_sums_up(folder: Path, store: ScriptedServer) -> None:
    said = ("--set", "PatientID=P-7")
    ended = jpegstow("send", folder / "[01].jpg", *said, "-j", "2", url=store.dicomweb_url)
    assert (ended.exit_code, ended.stdout) == (0, "2 stored\n")
    assert {as_dataset(request).PatientID for request in store.requests} == {"P-7"}


@pytest.mark.parametrize("command", ["send", "convert"])
def test_a_namespace_that_was_just_made_is_told_of_since_others_make_other_instances(
    command: str, folder: Path, store: ScriptedServer
) -> None:
    more = ["-o", str(folder / "out")] if command == "convert" else []
    here, there = str(folder / "here"), str(folder / "there")
    told = [
        jpegstow(
            command, folder / "0.jpg", *more, url=store.url, UID_NAMESPACE=secret, DATA_DIR=place
        ).output.count("made a new UID namespace")
        for secret, place in (("", here), ("", here), ("", there), (SECRET, str(folder / "new")))
    ]
    assert told == [1, 0, 1, 0]


def test_send_ends_with_1_unless_all_are_stored(folder: Path, store: ScriptedServer) -> None:
    ended = jpegstow("send", folder, url=store.dicomweb_url)
    assert (ended.exit_code, ended.stdout) == (1, "1 refused, 2 stored\n")
    assert "bad.jpg: refused: the entropy-coded data is damaged" in ended.stderr
    assert len(store.requests) == 2


def test_send_reads_a_manifest_and_a_metadata_file(folder: Path, store: ScriptedServer) -> None:
    (folder / "m.csv").write_text("path,PatientID,StudyID\n0.jpg,P-0,\n1.jpg,P-1,S-1\n")
    (folder / "m.json").write_text('{"StudyID": "S-0", "PatientSex": "F"}')
    ended = jpegstow(
        *("send", "--manifest", folder / "m.csv", "--metadata", folder / "m.json", "-j", "1"),
        *("--template", "secondary-capture-image"),
        url=store.dicomweb_url,
    )
    assert (ended.exit_code, ended.stdout) == (0, "2 stored\n")
    sent = [as_dataset(request) for request in store.requests]
    assert [(d.PatientID, d.StudyID, d.PatientSex) for d in sent] == [
        ("P-0", "S-0", "F"),
        ("P-1", "S-1", "F"),
    ]
    assert {dataset.Modality for dataset in sent} == {"OT"}


def test_send_takes_ready_files_among_pictures_as_they_are(
    folder: Path, store: ScriptedServer
) -> None:
    (folder / "bad.jpg").unlink()
    ready = folder / "ready.dcm"
    assert jpegstow("convert", folder / "0.jpg", "-o", ready).exit_code == 0
    (folder / "m.csv").write_text("path\nready.dcm\n")
    said = ("--set", "PatientID=P-7")
    paths = ("send", folder, "--manifest", folder / "m.csv", "-j", "1")
    ended = jpegstow(*paths, *said, url=store.dicomweb_url)
    assert (ended.exit_code, ended.stdout) == (0, "4 stored\n")
    sent = [as_dataset(request) for request in store.requests]
    assert [dataset.PatientID for dataset in sent] == ["P-7", "P-7", "", ""]
    assert sent[2].file_meta == dcmread(ready).file_meta


def test_send_to_a_url_on_the_command_line(folder: Path, store: ScriptedServer) -> None:
    url = f"{store.dicomweb_url}/studies/"
    ended = jpegstow("send", folder / "0.jpg", "--url", url, url="http://127.0.0.1:9")
    assert ended.exit_code == 0
    assert store.requests[0].path == "/dicomWeb/studies"


def test_send_tells_that_the_store_is_away(folder: Path) -> None:
    with refused_port() as port:
        ended = jpegstow("send", folder / "0.jpg", url=f"http://127.0.0.1:{port}")
    assert (ended.exit_code, ended.stdout) == (1, "1 unavailable\n")
    assert "ConnectionRefusedError" in ended.stderr


MISUSES = {
    "no file": ["send"],
    "a file that isn't there": ["send", "{}/absent.jpg"],
    "a pair without a sign": ["send", "{}/0.jpg", "--set", "PatientID"],
    "a URL that isn't one": ["send", "{}/0.jpg", "--url", "ftp://example.org"],
    "a URL with a password": ["send", "{}/0.jpg", "--url", "http://u:hunter2@example.org"],
    "metadata that isn't an object": ["send", "{}/0.jpg", "--metadata", "{}/0.jpg"],
    "a manifest that isn't one": ["send", "--manifest", "{}/0.jpg"],
    "no jobs": ["send", "{}/0.jpg", "-j", "0"],
    "nothing to convert": ["convert", "{}/absent.jpg", "-o", "{}/out"],
    "nothing to inspect": ["inspect", "{}/*.tiff"],
    "a template that isn't there": ["templates", "absent"],
    "nothing to count": ["census", "{}/absent"],
    "an unknown command": ["sing"],
}


@pytest.mark.parametrize("arguments", MISUSES.values(), ids=MISUSES)
def test_a_misuse_is_told_in_a_line_and_ends_with_2(
    arguments: list[str], folder: Path, store: ScriptedServer
) -> None:
    ended = jpegstow(*(text.format(folder) for text in arguments), url=store.dicomweb_url)
    assert ended.exit_code == 2
    assert isinstance(ended.exception, SystemExit)
    assert ended.stdout == ""
    assert ended.stderr.splitlines()[-1]
    assert "hunter2" not in ended.stderr
    assert store.requests == []


def test_a_bad_template_name_is_told_for_each_file(folder: Path, store: ScriptedServer) -> None:
    ended = jpegstow("send", folder / "0.jpg", "--template", "absent", url=store.dicomweb_url)
    assert (ended.exit_code, ended.stdout) == (1, "1 refused\n")
    assert "secondary-capture-image" in ended.stderr


@pytest.mark.parametrize(
    "command", ["serve", "archive", "send x", "convert x -o y", "inspect x", "census /dev/null"]
)
def test_bad_settings_are_told_all_at_once_by_every_command(command: str) -> None:
    bad = {"MAX_PIXELS": "0", "UPRIGHT": "crop", "PORT": "x", "DICOMWEB_AUTH": "basic"}
    ended = jpegstow(*command.split(), **bad)
    assert ended.exit_code == 2
    names = [line.split(":")[1].strip() for line in ended.stderr.splitlines()]
    assert names == ["MAX_PIXELS", "UPRIGHT", "PORT", "DICOMWEB_USER"]


def test_an_archive_that_cannot_start_says_in_a_line_each_what_is_in_its_way(
    tmp_path: Path,
) -> None:
    (tmp_path / "data").write_text("not a folder")
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = str(other.getsockname()[1])
        ended = jpegstow("archive", DATA_DIR=str(tmp_path / "data"), ARCHIVE_PORT=taken)
    assert (ended.exit_code, ended.stdout) == (2, "")
    port, folder = ended.stderr.splitlines()
    assert port == f"jpegstow: ARCHIVE_PORT: {taken} is another program's"
    assert folder.startswith("jpegstow: DATA_DIR: the archive can't be kept in")


def test_templates_are_listed_and_shown() -> None:
    listed = jpegstow("templates").stdout.splitlines()
    assert [line.split()[0] for line in listed] == [
        "dermoscopic-photography-image",
        "ophthalmic-photography-8-bit-image",
        "scanned-document",
        "secondary-capture-image",
        "vl-endoscopic-image",
        "vl-microscopic-image",
        "vl-photographic-image",
    ]
    shown = json.loads(jpegstow("templates", "vl-photographic-image").stdout)
    assert shown["00080016"]["Value"] == ["1.2.840.10008.5.1.4.1.1.77.1.4"]


def test_a_template_of_ones_own_is_checked_and_used(
    tmp_path: Path, folder: Path, store: ScriptedServer
) -> None:
    own = tmp_path / "templates" / "wound.json"
    own.parent.mkdir()
    shown = jpegstow("templates", "vl-photographic-image").stdout
    own.write_text(shown.replace('"XC"', '"OT"'))
    checked = jpegstow("templates", "--check", own)
    assert (checked.exit_code, checked.stdout) == (
        0,
        f"{own}: good (VL Photographic Image Storage)\n",
    )
    listed = jpegstow("templates", TEMPLATES_DIR=str(own.parent)).stdout
    assert "\nwound " in listed
    environment = {"TEMPLATES_DIR": str(own.parent), "DEFAULT_TEMPLATE": "wound"}
    assert jpegstow("send", folder / "0.jpg", url=store.dicomweb_url, **environment).exit_code == 0
    assert as_dataset(store.requests[0]).Modality == "OT"


def test_a_template_that_isnt_one_is_told_with_the_reason(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    shown = jpegstow("templates", "secondary-capture-image").stdout
    good.write_text(shown)
    model = json.loads(shown) | {"00280010": {"vr": "US", "Value": [7]}}
    bad.write_text(json.dumps(model))
    ended = jpegstow("templates", "--check", good, "--check", bad)
    assert ended.exit_code == 1
    assert ended.stdout.startswith(f"{good}: good")
    assert "Rows" in ended.stderr
