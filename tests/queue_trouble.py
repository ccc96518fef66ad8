"""A retry queue in trouble: what may be asked of it, and of the service in front of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from flask.testing import FlaskClient

from service import assemble
from service.dicom.outcome import Stored
from service.errors import QueueFull, QueueUnusable
from service.retry import Filter, SqliteQueue
from service.wsgi import application
from tests.peers import refused_port
from tests.queue_gang import IMAGE
from tests.queues import REFUSED, attempt
from tests.serving import form, only, settings_for, upload

DAY: Final = 86_400.0

STORED: Final = attempt(Stored("/instance"))
AWAY: Final = attempt()
BURIED: Final = attempt(REFUSED)


@contextmanager
def service(folder: Path) -> Iterator[FlaskClient]:
    """Yield a client of the real application with its queue in a folder, and no store there."""
    with refused_port() as port:
        settings = settings_for(f"http://127.0.0.1:{port}", RETRY_QUEUE=str(folder))
        queue = assemble.retry_queue(settings)
        try:
            app = application(settings, queue)
            yield app.test_client()
        finally:
            queue.close()


def post(client: FlaskClient, name: str, image: bytes = IMAGE) -> str:
    """Upload a picture as an instance of its own; return its UID, or "" if the queue can't be used.

    Any other answer than these two fails.
    """
    asynchronous = {"Prefer": "respond-async"}
    response = upload(client, **form(image, AccessionNumber=name), headers=asynchronous)
    if response.status_code == 202:
        return str(only(response)["SOPInstanceUID"])
    problem = response.get_json()
    assert (response.status_code, response.mimetype) == (503, "application/problem+json")
    assert int(response.headers["Retry-After"]) > 0
    assert problem["type"] in {"urn:jpegstow:queue-unusable", "urn:jpegstow:queue-full"}
    assert (problem["where"], bool(problem["mend"])) == ("RETRY_QUEUE", True)
    assert "queue" not in problem
    return ""


def names(queue: SqliteQueue) -> set[str]:
    """Return the UIDs of all entries, each of which is whole."""
    found = {entry.sop_instance_uid for entry in queue.list(Filter(), 100_000).entries}
    for name in found:
        assert queue.load(name).instance.sop_instance_uid == name
    return found


def drained(queue: SqliteQueue, now: float) -> set[str]:
    """Take and finish every entry; return their UIDs."""
    taken = set()
    while lease := queue.lease(now):
        queue.load(lease.entry.sop_instance_uid)
        queue.finish(lease.entry.sop_instance_uid, STORED)
        taken.add(lease.entry.sop_instance_uid)
    return taken


def is_refused(change: Callable[[], object]) -> bool:
    """Tell whether a change is refused as it should be where the queue can't be written."""
    try:
        change()
    except (QueueFull, QueueUnusable) as error:
        return error.where == "RETRY_QUEUE" and error.mend != ""
    return False
