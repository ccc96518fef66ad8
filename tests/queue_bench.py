"""A retry queue under test that this process has open, and the commands for it beside."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from service import assemble, sending
from service.cli import main
from service.dicom.outcome import Outcome, Rejected, Unavailable
from service.ingest import Attempt, Described, describe_upload
from service.retry import Entry, Filter, SqliteQueue
from tests.describing import PHOTOGRAPH
from tests.jpegs import make_jpeg
from tests.queues import sqlite_queue
from tests.serving import SECRET, settings_for

AWAY = Unavailable("no connection (ConnectionRefusedError)")
REFUSED = Rejected("Data Set does not match SOP Class", 0xA900, 409)
SAID = {"PatientName": "Quixote^Alonso", "PatientID": "Rocinante-7", "StudyID": "S-1605"}
STORE = "http://127.0.0.1:9/dicomWeb"  # no command of these may ask a store


@dataclass(frozen=True)
class Bench:
    """A queue that this process has open, and the command beside it."""

    queue: SqliteQueue
    environment: dict[str, str]

    @property
    def folder(self) -> Path:
        return Path(self.environment["RETRY_QUEUE"])

    def put(self, outcome: Outcome = REFUSED, seed: int = 0, **said: str) -> Described:
        rules = assemble.rules(settings_for(STORE, **self.environment))
        upload = sending.upload_of(make_jpeg(seed=seed), SAID | said, PHOTOGRAPH)
        described = describe_upload(upload, rules)
        now = time.time()
        self.queue.put(upload, described, Attempt(now, outcome, "json"), now)
        return described

    def put_name(self, outcome: Outcome = REFUSED, seed: int = 0, **said: str) -> str:
        return self.put(outcome, seed, **said).instance.sop_instance_uid

    def run(self, *arguments: str | Path, text: str = "", **environment: str) -> Result:
        runner = CliRunner(env=self.environment | environment)
        return runner.invoke(main, ["queue", *map(str, arguments)], input=text)

    def listed(self, *arguments: str) -> list[dict[str, Any]]:
        ended = self.run("list", "--json", *arguments)
        assert (ended.exit_code, ended.stderr) == (0, "")
        found = json.loads(ended.stdout)
        assert isinstance(found, list)
        return found

    def ids(self, *arguments: str) -> list[str]:
        return [entry["id"] for entry in self.listed(*arguments)]

    def state(self, name: str) -> str:
        return self.queue.show(name).state


@contextmanager
def benched(folder: Path) -> Iterator[Bench]:
    """Open a queue in a folder, and yield it with the command's environment."""
    given = {"DICOMWEB_URL": STORE, "UID_NAMESPACE": SECRET, "RETRY_QUEUE": str(folder / "queue")}
    given["DATA_DIR"] = str(folder / "data")
    with sqlite_queue(folder / "queue") as queue:
        yield Bench(queue, given)


def lose(bench: Bench, name: str) -> None:
    """Take away what the queue keeps of an entry, as a damaged disk does."""
    (bench.folder / "entries" / name).unlink()


def whole(bench: Bench) -> list[Entry]:
    """Return all entries."""
    return list(bench.queue.list(Filter(), 100).entries)
