"""A DICOM store as a process of its own, and the commands that speak to it."""

import os
import pty
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import requests
from click.testing import CliRunner, Result

from service.cli import main
from tests.archive_instances import dicom_file, file_request
from tests.archive_server import ArchiveServer
from tests.peers import BOUND
from tests.serving import COMMAND, SECRET


@contextmanager
def archive(folder: Path) -> Iterator[str]:
    """Run `jpegstow archive` with its data in a folder; yield its DICOMweb address."""
    with ArchiveServer(folder / "data") as server:
        yield f"{server.url}/dicomWeb"


def jpegstow(*arguments: str | Path, url: str, text: str = "", **environment: str) -> Result:
    """Run a command against a store."""
    given = {"UID_NAMESPACE": SECRET, "DICOMWEB_URL": url, "READ_BACK": "never"} | environment
    runner = CliRunner(env=given)
    return runner.invoke(main, [str(argument) for argument in arguments], input=text)


def uids(study: int, series: int = 1, instance: int = 1) -> dict[str, Any]:
    """Return the UIDs of an instance by its numbers."""
    return {
        "StudyInstanceUID": f"1.2.{study}",
        "SeriesInstanceUID": f"1.2.{study}.{series}",
        "SOPInstanceUID": f"1.2.{study}.{series}.{instance}",
    }


def path_of(study: int, series: int = 0, instance: int = 0) -> str:
    """Return the path of a study, a series or an instance by its numbers."""
    path = f"studies/1.2.{study}"
    path += f"/series/1.2.{study}.{series}" if series else ""
    return path + (f"/instances/1.2.{study}.{series}.{instance}" if instance else "")


def put(url: str, *files: bytes) -> None:
    """Store DICOM files."""
    payload = file_request(*files)
    headers = {"Content-Type": payload.content_type, "Accept": "application/dicom+json"}
    answer = requests.post(
        f"{url}/studies", data=b"".join(payload.pieces), headers=headers, timeout=BOUND
    )
    assert answer.status_code == 200, answer.text


def put_study(url: str, study: int, **said: Any) -> dict[str, bytes]:
    """Store two series, of two instances and of one; return their files by path in a folder."""
    files = {}
    for series, instance in ((1, 1), (1, 2), (2, 1)):
        names = uids(study, series, instance)
        files["/".join(names.values()) + ".dcm"] = dicom_file(**names | said)
    put(url, *files.values())
    return files


def at_terminal(folder: Path, *arguments: str, url: str, columns: int = 80) -> str:
    """Run a command whose output goes to a terminal; return what the terminal got."""
    reading, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, columns))
    environment = {"PATH": os.environ["PATH"], "DICOMWEB_URL": url}
    with subprocess.Popen(
        [COMMAND, *arguments], env=environment, cwd=folder, stdout=terminal, stderr=terminal
    ) as process:
        os.close(terminal)
        got = b"".join(_blocks(reading))
        assert process.wait(BOUND) == 0
    os.close(reading)
    return got.decode()


def _blocks(descriptor: int) -> Iterator[bytes]:
    """Read a terminal until nobody has its other end."""
    with suppress(OSError):
        while block := os.read(descriptor, 65_536):
            yield block
