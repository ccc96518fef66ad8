"""Orthanc, the open DICOM server, as a process of the test's own."""

import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests

from tests.judges import require_tool
from tests.loopback import BOUND
from tests.processes import kill_family, on_a_port, start, wait_for_answer


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

    def __enter__(self) -> Self:
        """Start it."""
        return on_a_port(self._start)

    def _start(self, port: int) -> Self:
        self.url = f"http://127.0.0.1:{port}"
        settings = self.folder / "orthanc.json"
        settings.write_text(json.dumps(self._options | {"HttpPort": port}))
        log = self.folder / "orthanc.log"
        self._process = start([require_tool("Orthanc"), str(settings)], log)
        wait_for_answer(self._process, f"{self.url}/system", log)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop it and wait for its end."""
        kill_family(self._process)  # its folder is thrown away: there is nothing to be saved
        self.session.close()

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
