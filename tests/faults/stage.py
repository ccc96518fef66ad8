"""Archive, proxy and service, running; and what can happen to them."""

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from service.durable import locked
from tests.faults import check
from tests.faults.ledger import Ledger
from tests.faults.programs import Program
from tests.faults.proxy import CALM, STORM, Faults
from tests.peers import ScriptedServer, free_port
from tests.serving import SECRET

SERVICE: Final = {
    "UID_NAMESPACE": SECRET,
    "READ_BACK": "always",
    "RETRY_WORKERS": "2",
    "STORE_CONNECT_TIMEOUT": "1",
    "STORE_READ_TIMEOUT": "2",
    "STORE_DEADLINE": "2",
}


@dataclass(frozen=True)
class Stage:
    """All that runs, and the books of what was sent."""

    archive: Program
    faults: Faults
    service: Program
    other: Program
    queue: Path
    random: Random
    ledger: Ledger = field(default_factory=Ledger)
    events: Counter[str] = field(default_factory=Counter)
    acts: Counter[str] = field(default_factory=Counter)

    def judge(self) -> check.Verdict:
        """Tell what is wrong with the processes, or else in the archive and in the queue."""
        if ended := [*filter(None, (self.archive.ended, self.service.ended))]:
            return check.Verdict(0, ended)
        archive = f"{self.archive.url}/dicomWeb"
        return check.judge(archive, self.service.url, self.queue, self.ledger)


@contextmanager
def stage(folder: Path, seed: int = 0, **environment: str) -> Iterator[Stage]:
    """Run archive, proxy and service, with more settings for the service; leave none behind."""
    ports = free_port(), free_port(), free_port()
    faults = Faults(f"127.0.0.1:{ports[0]}", seed)
    own = {"DATA_DIR": str(folder / "archive"), "ARCHIVE_PORT": str(ports[0])}
    archive = Program("archive", ports[0], folder / "archive.log", **own)
    with archive, ScriptedServer(faults) as proxy:
        own = {"DATA_DIR": str(folder / "service"), "PORT": str(ports[1])}
        own |= {"DICOMWEB_URL": proxy.dicomweb_url}
        settings = SERVICE | own | environment
        other = settings | {"PORT": str(ports[2])}
        with Program("serve", ports[1], folder / "service.log", **settings) as service:
            beside = Program("serve", ports[2], folder / "other.log", **other)
            queue = folder / "service" / "queue"
            try:
                yield Stage(archive, faults, service, beside, queue, Random(seed))
            finally:
                beside.kill()


def calm(on: Stage) -> None:
    """Let a tenth of the requests fail."""
    on.faults.weather = CALM


def storm(on: Stage) -> None:
    """Let half of the requests fail."""
    on.faults.weather = STORM


def kill_archive(on: Stage) -> None:
    """Kill the archive; start it again after a while."""
    on.archive.kill()
    time.sleep(on.random.uniform(0.1, 2))
    on.archive.start()


def kill_service(on: Stage) -> None:
    """Kill the supervisor and all that it has started; start it again, with either wire format."""
    on.service.kill()
    on.service.start(DICOMWEB_WIRE=on.random.choice(("json", "part10")))


def kill_worker(on: Stage) -> None:
    """Kill a worker process of the service, as soon as both are there."""
    on.service.kill_one_of(2, "service.wsgi:service()", on.random)


def kill_retry_worker(on: Stage) -> None:
    """Kill a worker process of the retry queue, as soon as both are there."""
    on.service.kill_one_of(2, "retry", on.random)


def visit(on: Stage) -> None:
    """Let another service share the folder for a while, and kill it: its leases must run out."""
    on.other.start()
    time.sleep(on.random.uniform(0.5, 4))
    on.other.kill()


def lock_queue(on: Stage) -> None:
    """Hold all that a change of the queue waits for, as a disk does that stands still."""
    index = sqlite3.connect(on.queue / "queue.sqlite", isolation_level=None)
    with locked(on.queue / "write.lock"), closing(index):
        index.execute("BEGIN IMMEDIATE")
        time.sleep(on.random.uniform(1, 4))


Action = Callable[[Stage], None]

WEATHERS: Final[dict[str, Action]] = {"calm": calm, "storm": storm}
KILLS: Final[dict[str, Action]] = {
    "archive": kill_archive,
    "service": kill_service,
    "worker": kill_worker,
    "retry worker": kill_retry_worker,
    "other service": visit,
}
TROUBLES: Final[dict[str, Action]] = KILLS | {"queue locked": lock_queue}
