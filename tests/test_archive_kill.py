"""Processes that share an archive, and processes that are killed in the middle of it."""

import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import pytest

from service.archive import Archive, InstanceUids, Stored
from service.dicom import part10
from tests.archive_content import Row, Uids, content
from tests.archive_instances import STUDY, dicom_file, file_request
from tests.archive_server import ArchiveServer, ask
from tests.peers import BOUND

ROOT = Path(__file__).parents[1]


def start(archive: Path, first: int, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.archive_process", str(archive), str(first), str(count)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def acknowledged(process: subprocess.Popen[str], count: int) -> list[int]:
    """Read so many acknowledgements, kill the process, and read what it still said."""
    assert process.stdout
    lines = [process.stdout.readline() for _ in range(count)]
    process.send_signal(signal.SIGKILL)
    lines += process.stdout.readlines()
    process.stdout.close()
    assert process.wait(BOUND) == -signal.SIGKILL
    return [int(line) for line in lines if line.endswith("\n")]


def file_of(number: int) -> bytes:
    return dicom_file(SOPInstanceUID=f"1.9.{number}", SeriesInstanceUID=f"1.8.{number % 7}")


def uids_of(number: int) -> InstanceUids:
    return InstanceUids(STUDY, f"1.8.{number % 7}", f"1.9.{number}")


def integrity(archive: Path) -> str:
    index = sqlite3.connect(archive / "index.sqlite")
    (verdict,) = index.execute("PRAGMA integrity_check").fetchone()
    index.close()
    return str(verdict)


def test_what_was_acknowledged_before_a_kill_is_there_and_whole(tmp_path: Path) -> None:
    known: set[int] = set()
    for attempt, wait_for in enumerate((1, 2, 7, 13)):
        first = 10_000 * attempt
        known.update(acknowledged(start(tmp_path, first, 10_000), wait_for))
    archive = Archive(tmp_path)
    assert list((tmp_path / "incoming").iterdir()) == []
    for number in known:
        assert archive.instances(*uids_of(number))
    for row in archive.instances(STUDY):
        number = int(row.uids.instance.removeprefix("1.9."))
        assert archive.path(row.uids).read_bytes() == file_of(number)
    orphans = set((tmp_path / "instances").rglob("*.dcm"))
    orphans -= {archive.path(row.uids) for row in archive.instances(STUDY)}
    for path in orphans:
        number = int(path.stem.removeprefix("1.9."))
        file = file_of(number)
        assert path.read_bytes() == file
        assert archive.store([file], part10.decode(file)) == Stored(uids_of(number))
    archive.close()
    assert integrity(tmp_path) == "ok"


@pytest.mark.parametrize("processes", [3])
def test_processes_that_store_the_same_instances_agree(tmp_path: Path, processes: int) -> None:
    running = [start(tmp_path, 0, 15) for _ in range(processes)]
    for process in running:
        output, _ = process.communicate(timeout=BOUND)
        assert output.split() == [str(number) for number in range(15)]
    archive = Archive(tmp_path)
    assert sorted(row.uids for row in archive.instances(STUDY)) == sorted(map(uids_of, range(15)))
    archive.close()
    assert integrity(tmp_path) == "ok"


@dataclass
class Study:
    """What a client knows of a study of two instances that it has stored, and perhaps deleted."""

    number: int
    stored: bool = False
    asked_to_delete: bool = False
    deleted: bool = False

    @property
    def uid(self) -> str:
        return f"1.7.{self.number}"

    def files(self) -> dict[Uids, bytes]:
        found = {}
        for each in (1, 2):
            uids = (self.uid, f"{self.uid}.1", f"{self.uid}.1.{each}")
            study, series, instance = uids
            found[uids] = dicom_file(
                StudyInstanceUID=study, SeriesInstanceUID=series, SOPInstanceUID=instance
            )
        return found

    def agrees(self, content: dict[Uids, Row]) -> bool:
        """Tell whether what is there can be, after what was acknowledged."""
        there = [uids in content for uids in self.files()]
        if self.deleted:
            return not any(there)
        if self.asked_to_delete:
            return any(there) == all(there)
        return all(there) or not self.stored


def use(server: ArchiveServer, studies: list[Study], acknowledged: threading.Semaphore) -> None:
    """Store studies and delete every other one, until the server is killed."""
    base = f"{server.url}/dicomWeb/studies"
    with suppress(OSError, HTTPException):
        for study in studies:
            body = file_request(*study.files().values())
            headers = {"Content-Type": body.content_type}
            assert ask("POST", base, headers, b"".join(body)).status == 200
            study.stored = True
            acknowledged.release()
            if study.number % 2:
                study.asked_to_delete = True
                assert ask("DELETE", f"{base}/{study.uid}").status == 200
                study.deleted = True
                acknowledged.release()


def test_a_server_that_is_killed_while_it_stores_and_deletes_keeps_its_word(
    tmp_path: Path,
) -> None:
    known: list[Study] = []
    for attempt, wait_for in enumerate((1, 9, 30)):
        with ArchiveServer(tmp_path / "data") as server, ThreadPoolExecutor(4) as clients:
            acknowledged = threading.Semaphore(0)
            gangs = [
                [Study(10_000 * attempt + 1000 * client + n) for n in range(1000)]
                for client in range(4)
            ]
            running = [clients.submit(use, server, gang, acknowledged) for gang in gangs]
            for _ in range(wait_for):
                assert acknowledged.acquire(timeout=30)
            server.kill()
            for each in running:
                each.result()
        known += [study for gang in gangs for study in gang if study.stored]
        there = content(tmp_path / "data" / "archive")
        assert [study.number for study in known if not study.agrees(there)] == []
    assert any(study.deleted for study in known)
