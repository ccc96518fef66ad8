"""Processes that share an archive, and processes that are killed in the middle of it."""

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from service.archive import Archive, InstanceUids, Stored
from service.dicom import part10
from tests.archive_instances import STUDY, dicom_file
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
