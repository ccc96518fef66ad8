"""The command that proves what a store has: each difference is found, and none is made up."""

import hashlib
import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from pydicom import dcmread, dcmwrite
from pydicom.encaps import encapsulate
from pydicom.uid import UID

from tests.archive_instances import dicom_file
from tests.commands import archive, jpegstow, path_of, uids
from tests.jpegs import make_jpeg
from tests.peers import (
    LoseAnswer,
    Orthanc,
    Respond,
    ScriptedServer,
    refused_port,
    throttled,
    unauthorized,
    unavailable,
)

DICOM = {"Content-Type": "application/dicom"}
SAID = ("--set", "PatientID=P-7", "--set", "PatientName=Quixote", "--set", "AccessionNumber=A-1")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with archive(tmp_path_factory.mktemp("verify")) as address:
        yield address


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Make a folder of three pictures, one of which has to be turned."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(2):
        (folder / f"{number}.jpg").write_bytes(make_jpeg(seed=number))
    (folder / "turned.jpg").write_bytes(make_jpeg(32, 16, orientation=6, progressive=True))
    return folder


def told(ended: Result) -> list[dict[str, Any]]:
    findings = json.loads(ended.stdout)
    assert isinstance(findings, list)
    return findings


def test_what_was_sent_is_proven(url: str, photos: Path) -> None:
    assert jpegstow("send", photos, *SAID, url=url).exit_code == 0
    ended = jpegstow("verify", photos, *SAID, url=url)
    assert (ended.exit_code, ended.stdout, ended.stderr) == (0, "3 stored\n", "")


def test_the_proof_has_the_codestream_s_digest(url: str, photos: Path, tmp_path: Path) -> None:
    jpegstow("send", photos, *SAID, url=url)
    findings = told(jpegstow("verify", photos, *SAID, "--json", url=url))
    assert [finding["outcome"] for finding in findings] == ["stored"] * 3
    jpegstow("retrieve", "-o", tmp_path / "out", url=url)
    digests = {}
    for file in (tmp_path / "out").rglob("*.dcm"):
        dataset = dcmread(file)
        frame = dataset.PixelData[16:].removesuffix(b"\0")  # behind an empty table's item
        digests[str(dataset.SOPInstanceUID)] = hashlib.sha256(frame).hexdigest()
    for finding in findings:
        assert finding["sha256"] == digests[finding["sop_instance_uid"]]


def test_what_was_not_sent_is_missing_and_listed(url: str, photos: Path) -> None:
    (photos / "new.jpg").write_bytes(make_jpeg(seed=77))
    jpegstow("send", photos / "0.jpg", photos / "1.jpg", photos / "turned.jpg", *SAID, url=url)
    ended = jpegstow("verify", photos, *SAID, url=url)
    assert ended.exit_code == 1
    head, row, counts = ended.stdout.splitlines()
    assert head.split()[:2] == ["outcome", "file"]
    assert row.startswith(f"missing  {photos / 'new.jpg'}")
    assert counts == "1 missing, 3 stored"


@pytest.mark.parametrize(
    "other",
    [
        {"said": ("--set", "PatientID=P-8", *SAID[2:])},
        {"UID_NAMESPACE": "another secret"},
        {"DEFAULT_TEMPLATE": "secondary-capture-image"},
    ],
)
def test_under_other_settings_it_would_be_another_instance(
    url: str, photos: Path, other: dict[str, Any]
) -> None:
    jpegstow("send", photos, *SAID, url=url)
    said = other.pop("said", SAID)
    ended = jpegstow("verify", photos, *said, url=url, **other)
    assert (ended.exit_code, ended.stdout.splitlines()[-1]) == (1, "3 missing")


def test_a_manifest_is_verified_as_it_was_sent(url: str, photos: Path) -> None:
    rows = "path,PatientID,StudyID\n0.jpg,P-100,S-1\n1.jpg,P-101,S-1\n"
    (photos / "m.csv").write_text(rows)
    jpegstow("send", "--manifest", photos / "m.csv", url=url)
    ended = jpegstow("verify", "--manifest", photos / "m.csv", url=url)
    assert (ended.exit_code, ended.stdout) == (0, "2 stored\n")


def test_ready_files_are_proven_too(url: str, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    for number in (1, 2):
        (files / f"{number}.dcm").write_bytes(dicom_file(**uids(50, 1, number)))
    jpegstow("store", files / "1.dcm", url=url)
    ended = jpegstow("verify", files, url=url)
    assert (ended.exit_code, ended.stdout.splitlines()[-1]) == (1, "1 missing, 1 stored")


def test_attributes_of_a_ready_file_can_t_be_said(url: str, tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(dicom_file(**uids(51)))
    (tmp_path / "m.csv").write_text("path,PatientID\na.dcm,P-7\n")
    ended = jpegstow("verify", "--manifest", tmp_path / "m.csv", url=url)
    assert (ended.exit_code, ended.stdout.splitlines()[-1]) == (1, "1 unreadable")


ONE = uids(60)


def changed(**values: Any) -> bytes:
    dataset = dcmread(BytesIO(dicom_file(PatientID="P-7", **ONE)))
    for keyword, value in values.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    file = BytesIO()
    dcmwrite(file, dataset)
    return file.getvalue()


def frame() -> bytes:
    pixels = dcmread(BytesIO(dicom_file(**ONE))).PixelData
    return bytes(pixels[16:])


def mislabelled() -> bytes:
    dataset = dcmread(BytesIO(dicom_file(PatientID="P-7", **ONE)))
    dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.51")
    file = BytesIO()
    dcmwrite(file, dataset)
    return file.getvalue()


STORED = {
    "the very file": (changed(), ""),
    "more attributes": (changed(RetrieveAETitle="ARCHIVE"), ""),
    "other fragments": (
        changed(PixelData=encapsulate([frame()], fragments_per_frame=3)),
        "",
    ),
    "another value": (changed(PatientName="Rocinante"), "PatientName"),
    "a value less": (changed(PatientID=None), "PatientID"),
    "two": (changed(PatientID="P-8", StudyDate="20200101"), "StudyDate, PatientID"),
    "another picture": (
        changed(PixelData=encapsulate([make_jpeg(seed=3)])),
        "the codestream",
    ),
    "a picture cut short": (
        changed(PixelData=encapsulate([frame()[:-50] + bytes(2)])),
        "the codestream",
    ),
    "no picture": (changed(PixelData=None), "the codestream"),
    "another syntax": (mislabelled(), "TransferSyntaxUID"),
    "half a file": (changed()[:-300], "can't be read"),
    "nothing": (b"", "can't be read"),
    "a page": (b"<html>" * 99, "can't be read"),
}


@pytest.mark.parametrize(("held", "wrong"), STORED.values(), ids=STORED)
def test_each_difference_is_named_without_its_value(
    held: bytes, wrong: str, tmp_path: Path
) -> None:
    (tmp_path / "a.dcm").write_bytes(changed())
    with ScriptedServer(Respond(200, DICOM, held)) as server:
        ended = jpegstow("verify", tmp_path / "a.dcm", "--json", url=server.dicomweb_url)
    (finding,) = told(ended)
    assert ended.exit_code == bool(wrong)
    assert finding["outcome"] == ("different" if wrong else "stored")
    assert wrong in finding["reason"]
    for value in ("Rocinante", "P-7", "P-8", "2020"):
        assert value not in ended.output.replace(str(tmp_path), "")
    (request,) = server.requests
    assert request.path == f"/dicomWeb/{path_of(60, 1, 1)}"


ANSWERS: dict[str, tuple[list[Any], str]] = {
    "404": ([Respond(404)], "missing"),
    "410": ([Respond(410)], "missing"),
    "204": ([Respond(204)], "missing"),
    "401": ([unauthorized()], "unavailable"),
    "406": ([Respond(406)], "unavailable"),
    "503 for good": ([unavailable()], "unavailable"),
    "503 then 200": ([unavailable(), Respond(200, DICOM, changed())], "stored"),
    "429 then 200": ([throttled(0), Respond(200, DICOM, changed())], "stored"),
    "lost twice, then 200": (
        [LoseAnswer(), LoseAnswer(), Respond(200, DICOM, changed())],
        "stored",
    ),
}


@pytest.mark.parametrize(("steps", "outcome"), ANSWERS.values(), ids=ANSWERS)
def test_no_answer_but_the_instance_itself_is_a_proof(
    steps: list[Any], outcome: str, tmp_path: Path
) -> None:
    (tmp_path / "a.dcm").write_bytes(changed())
    with ScriptedServer(*steps) as server:
        ended = jpegstow("verify", tmp_path / "a.dcm", "--json", url=server.dicomweb_url)
    assert [finding["outcome"] for finding in told(ended)] == [outcome]
    assert ended.exit_code == (outcome != "stored")


def test_files_that_can_t_be_read_are_no_proof(photos: Path) -> None:
    (photos / "bad.jpg").write_bytes(make_jpeg()[:-200])
    (photos / "press.jpg").write_bytes(make_jpeg(mode="CMYK"))
    (photos / "bad.dcm").write_bytes(b"none")
    with refused_port() as port:
        address = f"http://127.0.0.1:{port}"
        bad = [photos / name for name in ("bad.jpg", "press.jpg", "bad.dcm")]
        ended = jpegstow("verify", *bad, url=address)
    assert (ended.exit_code, ended.stdout.splitlines()[-1]) == (1, "3 unreadable")
    assert "CMYK" in ended.stdout


def test_one_of_many_fails_the_command(url: str, photos: Path) -> None:
    jpegstow("send", photos, *SAID, url=url)
    (photos / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    ended = jpegstow("verify", photos, *SAID, "-j", "2", url=url)
    assert (ended.exit_code, ended.stdout.splitlines()[-1]) == (1, "3 stored, 1 unreadable")


@pytest.mark.parametrize("arguments", [[], ["absent.jpg"], ["*.tiff"]])
def test_nothing_to_verify_is_a_misuse(arguments: list[str]) -> None:
    ended = jpegstow("verify", *arguments, url="http://127.0.0.1:9")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr


def test_an_orthanc_that_kept_the_old_content_is_found_out(
    orthanc: Orthanc, tmp_path: Path
) -> None:
    orthanc.empty()
    file = tmp_path / "a.dcm"
    file.write_bytes(changed())
    assert jpegstow("store", file, url=orthanc.dicomweb_url).exit_code == 0
    assert jpegstow("verify", file, url=orthanc.dicomweb_url).stdout == "1 stored\n"
    file.write_bytes(changed(PatientName="Rocinante"))
    assert jpegstow("store", file, url=orthanc.dicomweb_url).exit_code == 0  # so it says
    ended = jpegstow("verify", file, url=orthanc.dicomweb_url)
    assert ended.exit_code == 1
    assert "other: PatientName" in ended.stdout
