"""The service with its queue under test: a client, the store behind it, and the queue itself."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from service.retry import Drain, Lease, Limits, Pace, SqliteQueue
from service.store import DicomwebStore
from tests.jpegs import make_jpeg
from tests.peers import ScriptedServer, Step
from tests.serving import client_for, form, only, post, settings_for, upload

JPEG = make_jpeg()
PROBLEM = "application/problem+json"
QUEUE = "/v1/queue"
PLANTED = ["Quixote", "Dulcinea", "Rocinante"]
SAID = {"PatientID": "Rocinante-7", "PatientName": "Quixote^Alonso", "StudyID": "Dulcinea"}
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
NOBODY = "http://127.0.0.1:9/dicomWeb"


@dataclass(frozen=True)
class Service:
    """The service, the store behind it, and its queue as another process sees it."""

    client: FlaskClient
    store: ScriptedServer
    queue: SqliteQueue
    folder: Path

    def queued(self, key: str = "", jpeg: bytes = JPEG, **said: str) -> str:
        """Put an instance into the queue without asking the store; return its UID."""
        headers = {"Prefer": "respond-async", "Idempotency-Key": key}
        response = upload(self.client, **form(jpeg, **SAID | said), headers=headers)
        assert response.status_code == 202
        return str(only(response)["SOPInstanceUID"])

    def dead(self, jpeg: bytes = JPEG, **said: str) -> str:
        """Have the store refuse an instance; return its UID."""
        response = post(self.client, jpeg, **SAID | said)
        assert response.status_code == 502
        return str(response.get_json()["SOPInstanceUID"])

    def leased(self) -> Lease:
        """Take an entry as a worker does."""
        lease = self.queue.lease(time.time())
        assert lease
        return lease

    def entry(self, name: str) -> dict[str, Any]:
        return dict(self.client.get(f"{QUEUE}/{name}").get_json())

    def names(self, query: str = "") -> list[str]:
        answer = self.client.get(QUEUE + query).get_json()
        return [entry["id"] for entry in answer["entries"]]

    def drain(self) -> None:
        """Send what is due, one after the other."""
        store = DicomwebStore(settings_for(self.store.dicomweb_url))
        drain = Drain(self.queue, store, Pace(1, 604_800), lambda: 1.0)
        now = time.time()
        while lease := drain.take(now):
            drain.settle(lease, drain.send(lease), now)


@contextmanager
def service(folder: Path, *steps: Step) -> Iterator[Service]:
    """Run the service on a folder, in front of a store that answers by these steps."""
    queue = SqliteQueue(folder / "queue", Limits(10_000, 1 << 30))
    with ScriptedServer(*steps) as store:
        client = client_for(store.dicomweb_url, DATA_DIR=str(folder))
        yield Service(client, store, queue, folder)
    queue.close()


def problem_of(response: TestResponse, status: int) -> dict[str, Any]:
    """Return a problem that an answer tells of with such a status."""
    assert (response.status_code, response.mimetype) == (status, PROBLEM)
    problem = dict(response.get_json())
    assert problem["status"] == status
    assert problem["type"].startswith("urn:jpegstow:")
    assert problem["detail"]
    return problem


def kept_files(service: Service) -> list[str]:
    """Return the names of all files that the queue keeps."""
    folders = [service.folder / "queue" / name for name in ("entries", "incoming", "damaged")]
    return [path.name for folder in folders for path in folder.iterdir()]
