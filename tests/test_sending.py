"""Files, manifests and attributes of the command line, and what is sent of them."""

import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from service import assemble, sending
from service.errors import BadAttribute, BadRequest
from service.sending import Item, Sent
from service.store import DicomwebStore
from tests.archive_instances import dicom_file
from tests.jpegs import make_jpeg
from tests.peers import (
    BOUND,
    Respond,
    ScriptedServer,
    already_exists_409,
    failed,
    parts_of,
    stored,
    unavailable,
)
from tests.peers.scripted import Step
from tests.serving import settings_for
from tests.test_store import as_dataset, as_file
from tests.users import of_a_user

JPEG = make_jpeg()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a.JPEG", "c.txt", "deep/d.jpe", "deep/e.dcm", "deep/f.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(JPEG)
    return tmp_path


FOUND = {
    "a folder": (["{}"], ["a.JPEG", "b.jpg", "deep/d.jpe", "deep/e.dcm"]),
    "a file": (["{}/c.txt"], ["c.txt"]),
    "a glob": (["{}/*.[jt]*"], ["b.jpg", "c.txt"]),
    "a glob through folders": (["{}/**/*.jp*"], ["b.jpg", "deep/d.jpe"]),
    "several": (["{}/b.jpg", "{}/deep"], ["b.jpg", "deep/d.jpe", "deep/e.dcm"]),
}


@pytest.mark.parametrize(("patterns", "names"), FOUND.values(), ids=FOUND)
def test_files_are_found_in_folders_and_by_globs(
    patterns: list[str], names: list[str], folder: Path
) -> None:
    found = sending.find(pattern.format(folder) for pattern in patterns)
    assert [str(path.relative_to(folder)) for path in found] == names


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path: Path) -> None:
    odd = tmp_path / "wound[1].jpg"
    odd.write_bytes(JPEG)
    assert list(sending.find([str(odd)])) == [odd]


@pytest.mark.parametrize("pattern", ["{}/absent.jpg", "{}/*.tiff", "{}/deep/empty"])
def test_a_pattern_that_finds_nothing_is_an_error(pattern: str, folder: Path) -> None:
    (folder / "deep" / "empty").mkdir()
    with pytest.raises(BadRequest, match="no JPEG or DICOM file is at"):
        list(sending.find([pattern.format(folder)]))


def test_a_link_that_leads_nowhere_is_not_left_out_in_silence(folder: Path) -> None:
    for name in ("gone.jpg", "deep/gone.dcm", "gone.txt"):
        (folder / name).symlink_to(folder / "on another disk")
    found = [path.name for path in sending.find([str(folder)])]
    assert {"gone.jpg", "gone.dcm"} <= set(found)
    assert "gone.txt" not in found  # by its name it is no picture
    assert [path.name for path in sending.find([f"{folder}/*.jpg"])] == ["b.jpg", "gone.jpg"]
    # Whether it's a DICOM file can't be seen, and so it is told of.
    assert folder / "gone.txt" in sending.find([str(folder)], sending.is_ready)


def test_links_to_folders_are_followed_and_never_round_and_round(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "z.jpg").write_bytes(JPEG)
    (folder / "disk").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(folder)
    found = [str(path.relative_to(folder)) for path in sending.find([str(folder)])]
    assert found == ["a.JPEG", "b.jpg", "deep/d.jpe", "deep/e.dcm", "disk/z.jpg"]


def test_a_folder_that_cant_be_looked_into_is_not_left_out_in_silence() -> None:
    with of_a_user() as folder:
        (folder / "open").mkdir()
        (folder / "open" / "a.jpg").write_bytes(JPEG)
        (folder / "closed").mkdir(mode=0)
        with pytest.raises(BadRequest, match="can't be read") as caught:
            list(sending.find([str(folder)]))
        assert caught.value.where == str(folder / "closed")


def manifest(folder: Path, text: str | bytes) -> Path:
    path = folder / "manifest.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_manifest_says_of_each_file_what_stands_in_its_row(tmp_path: Path) -> None:
    text = '\ufeffpath,PatientID,PatientName\na.jpg,P-1,"Doe^Jane"\nsub/b.jpg,,Müller\n'
    assert sending.read_manifest(manifest(tmp_path, text)) == [
        Item(tmp_path / "a.jpg", {"PatientID": "P-1", "PatientName": "Doe^Jane"}),
        Item(tmp_path / "sub" / "b.jpg", {"PatientName": "Müller"}),
    ]


BAD_MANIFESTS = {
    "no column of paths": ("file,PatientID\na.jpg,P-1\n", "no column named path"),
    "nothing": ("", "no column named path"),
    "a row too long": ("path,PatientID\na.jpg,P-1,Quixote\n", "fit the heading"),
    "a row too short": ("path,PatientID\na.jpg\n", "fit the heading"),
    "a row without a path": ("path,PatientID\n,P-1\n", "fit the heading"),
    "an open quote": ('path,PatientID\na.jpg,"P-1\n', "isn't CSV"),
    "another encoding": ("path,PatientName\na.jpg,Müller\n".encode("latin-1"), "isn't CSV"),
    "a heading in another encoding": ("path,Größe\n".encode("latin-1"), "isn't CSV"),
}


@pytest.mark.parametrize(("text", "said"), BAD_MANIFESTS.values(), ids=BAD_MANIFESTS)
def test_a_manifest_that_cant_be_read_is_refused_whole(
    text: str | bytes, said: str, tmp_path: Path
) -> None:
    with pytest.raises(BadRequest, match=said) as caught:
        sending.read_manifest(manifest(tmp_path, text))
    assert "manifest.csv" in str(caught.value)
    assert "Quixote" not in str(caught.value)


def test_a_pair_wins_over_the_metadata_file(tmp_path: Path) -> None:
    file = tmp_path / "metadata.json"
    file.write_text('{"PatientID": "P-1", "StudyID": "S-1"}')
    pairs = ["PatientID=P-2", "ImageComments=a=b", 'OtherPatientNames=["A", "B"]']
    assert sending.parse_settings(pairs, file) == {
        "PatientID": "P-2",
        "StudyID": "S-1",
        "ImageComments": "a=b",
        "OtherPatientNames": ["A", "B"],
    }


@pytest.mark.parametrize("text", ["", "[]", '"x"', "{", b"\xff"])
def test_a_metadata_file_is_a_json_object(text: str | bytes, tmp_path: Path) -> None:
    file = tmp_path / "metadata.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BadRequest, match="JSON"):
        sending.parse_settings([], file)


def test_a_pair_needs_its_sign_and_sound_json() -> None:
    with pytest.raises(BadRequest, match="Keyword=Value"):
        sending.parse_settings(["PatientID"], None)
    with pytest.raises(BadAttribute) as caught:
        sending.parse_settings(["PatientName=[Quixote"], None)
    assert "Quixote" not in str(caught.value)


@pytest.fixture
def store() -> Iterator[ScriptedServer]:
    with ScriptedServer(stored()) as server:
        yield server


def send(
    store: ScriptedServer, path: Path, said: dict[str, Any] | None = None, **environment: str
) -> Sent:
    current = settings_for(store.dicomweb_url, **environment)
    rules = assemble.rules(current)
    one = sending.sender(rules, DicomwebStore(current), current.default_template)
    return one(Item(path, said or {}))


def picture(folder: Path, jpeg: bytes = JPEG, name: str = "a.jpg") -> Path:
    (folder / name).write_bytes(jpeg)
    return folder / name


def test_a_jpeg_goes_through_the_line(store: ScriptedServer, tmp_path: Path) -> None:
    sent = send(store, picture(tmp_path), {"PatientID": "P-7"})
    assert (sent.outcome, sent.reason) == ("stored", "")
    dataset = as_dataset(store.requests[0])
    assert (dataset.PatientID, dataset.SOPInstanceUID) == ("P-7", sent.sop_instance_uid)


def test_a_ready_dicom_file_is_sent_byte_for_byte(store: ScriptedServer, tmp_path: Path) -> None:
    send(store, picture(tmp_path))
    file = as_file(as_dataset(store.requests[0]))
    for name in ("ready.dcm", "without-a-suffix"):
        sent = send(store, picture(tmp_path, file, name))
        assert sent.outcome == "stored"
        assert sent.sop_instance_uid == dcmread(BytesIO(file)).SOPInstanceUID
        assert parts_of(store.requests[-1]) == [("application/dicom", file)]


READ = {
    "the same": (dicom_file(), "already stored", ""),
    "the same by another writer": (
        dicom_file().replace(b"JPEGSTOW", b"SOMEBODY"),
        "already stored",
        "",
    ),
    "other pixels": (dicom_file(seed=1), "rejected", "with other content"),
    "another value": (dicom_file(PatientID="P2"), "rejected", "with other content"),
    "another syntax": (
        dicom_file(syntax="1.2.840.10008.1.2.4.51"),
        "rejected",
        "with other content",
    ),
    "no file": (b"<html>", "rejected", "with other content"),
}


@pytest.mark.parametrize("step", [stored(), already_exists_409()], ids=["stored", "conflict"])
@pytest.mark.parametrize(("there", "outcome", "reason"), READ.values(), ids=READ)
def test_of_a_ready_file_that_was_there_the_store_has_to_have_what_was_sent(
    there: bytes, outcome: str, reason: str, step: Step, tmp_path: Path
) -> None:
    file = picture(tmp_path, dicom_file(), "ready.dcm")
    also = {"GET": Respond(200, {"Content-Type": "application/dicom"}, there)}
    with ScriptedServer(step, also=also) as server:
        sent = send(server, file, READ_BACK="auto")
    assert sent.outcome == outcome
    assert reason in sent.reason


def test_a_ready_file_whose_uids_cant_stand_in_a_url_is_sent_all_the_same(tmp_path: Path) -> None:
    file = picture(tmp_path, dicom_file(StudyInstanceUID=None), "ready.dcm")
    with ScriptedServer(stored()) as server:
        assert send(server, file, READ_BACK="always").outcome == "stored"
        assert [request.method for request in server.requests] == ["POST"]


@pytest.mark.parametrize("name", ["a.jpg", "ready.dcm"])
def test_what_the_store_has_changed_is_stored_and_told_of(
    name: str, store: ScriptedServer, tmp_path: Path
) -> None:
    send(store, picture(tmp_path))
    data = JPEG if name == "a.jpg" else as_file(as_dataset(store.requests[0]))
    with ScriptedServer(stored(warning=0xB006)) as changing:
        sent = send(changing, picture(tmp_path, data, name))
    assert sent.outcome == "stored"
    assert sent.reason == "stored, but not as it was sent: warning reason B006H"


UNSENT = {
    "a PNG": (b"\x89PNG\r\n\x1a\n", "a.jpg", {}, "PNG"),
    "half a JPEG": (JPEG[:-50], "a.jpg", {}, "damaged"),
    "a bad attribute": (JPEG, "a.jpg", {"StudyDate": "Quixote"}, "StudyDate"),
    "no DICOM file": (JPEG, "a.dcm", {}, "DICOM"),
}


@pytest.mark.parametrize(("data", "name", "said", "reason"), UNSENT.values(), ids=UNSENT)
def test_what_is_not_acceptable_is_told_and_not_sent(
    data: bytes,
    name: str,
    said: dict[str, Any],
    reason: str,
    store: ScriptedServer,
    tmp_path: Path,
) -> None:
    sent = send(store, picture(tmp_path, data, name), said)
    assert sent.outcome == "refused"
    assert reason in sent.reason
    assert "Quixote" not in sent.reason
    assert store.requests == []


def test_a_file_that_isnt_there_is_told(store: ScriptedServer, tmp_path: Path) -> None:
    sent = send(store, tmp_path / "absent.jpg")
    assert (sent.outcome, sent.reason) == ("unreadable", "FileNotFoundError")


def test_attributes_cant_be_set_in_a_ready_file(store: ScriptedServer, tmp_path: Path) -> None:
    send(store, picture(tmp_path))
    file = as_file(as_dataset(store.requests.pop()))
    sent = send(store, picture(tmp_path, file, "ready.dcm"), {"PatientID": "P-8"})
    assert sent.outcome == "refused"
    assert store.requests == []


OUTCOMES = {
    "refuses": (failed(0xA900), "rejected"),
    "is away": (unavailable(), "unavailable"),
    "has another": (already_exists_409(), "unavailable"),
}


@pytest.mark.parametrize(("step", "outcome"), OUTCOMES.values(), ids=OUTCOMES)
def test_a_store_that_doesnt_store_is_told(step: Step, outcome: str, tmp_path: Path) -> None:
    with ScriptedServer(step, also={"GET": Respond(404)}) as server:
        sent = send(server, picture(tmp_path))
    assert sent.outcome == outcome
    assert sent.reason


def test_many_are_sent_at_once_and_told_in_their_order(tmp_path: Path) -> None:
    together = threading.Barrier(4)

    def one(item: Item) -> Sent:
        together.wait(BOUND)  # would break if fewer than four ran at once
        return Sent(item.path, "stored")

    items = [Item(tmp_path / str(number), {}) for number in range(8)]
    assert [sent.path for sent in sending.send_all(items, one, 4)] == [item.path for item in items]


def test_files_share_a_study_where_they_name_one(store: ScriptedServer, tmp_path: Path) -> None:
    said = {"PatientID": "P-7", "AccessionNumber": "A-1"}
    for number in range(2):
        send(store, picture(tmp_path, make_jpeg(seed=number)), said)
        send(store, picture(tmp_path, make_jpeg(seed=number)), {"PatientID": "P-7"})
    studies = [str(as_dataset(request).StudyInstanceUID) for request in store.requests]
    assert studies[0] == studies[2]
    assert len(set(studies)) == 3
