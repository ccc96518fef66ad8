"""Orthanc, the open DICOM server, as a process of the test's own."""

import json
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests

from tests.judges import require_tool
from tests.peers.loopback import BOUND, free_port, wait_for_http


class Orthanc:
    """An Orthanc of its own, with DICOMweb at ``/dicom-web`` and its data in a folder."""

    def __init__(self, folder: Path, user: str = "", password: str = "", **options: Any) -> None:
        self.folder = folder
        self.session = requests.Session()
        self.session.auth = (user, password) if user else None
        self._options = {
            "AuthenticationEnabled": bool(user),
            "RegisteredUsers": {user: password} if user else {},
            "DicomServerEnabled": False,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            "IndexDirectory": str(folder),
            "Plugins": [require_tool("libOrthancDicomWeb.so")],
            "RemoteAccessAllowed": False,
            "StorageDirectory": str(folder),
            **options,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start it; another program may take the port before it does, so that it gets a few."""
        for _ in range(3):
            try:
                return self._start(free_port())
            except TimeoutError:
                self._stop()
        raise TimeoutError((self.folder / "orthanc.log").read_text()[-2000:])

    def _start(self, port: int) -> Self:
        self.url = f"http://127.0.0.1:{port}"
        settings = self.folder / "orthanc.json"
        settings.write_text(json.dumps(self._options | {"HttpPort": port}))
        with (self.folder / "orthanc.log").open("wb") as log:
            command = [require_tool("Orthanc"), str(settings)]
            self._process = process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_for_http(f"{self.url}/system", alive=lambda: process.poll() is None)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop it and wait for its end."""
        self._stop()
        self.session.close()

    def _stop(self) -> None:
        if self._process:
            self._process.kill()  # its folder is thrown away: there is nothing to be saved
            self._process.wait()

    @property
    def dicomweb_url(self) -> str:
        """The address of its DICOMweb service, without a final slash."""
        return f"{self.url}/dicom-web"

    def get(self, path: str) -> Any:
        """Ask its REST API, and return the decoded JSON."""
        response = self.session.get(self.url + path, timeout=BOUND)
        response.raise_for_status()
        return response.json()

    def empty(self) -> None:
        """Delete every patient."""
        for patient in self.get("/patients"):
            self.session.delete(f"{self.url}/patients/{patient}", timeout=BOUND)
