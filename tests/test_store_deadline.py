"""Whatever a store does, storing ends when its time is over, and nothing is left behind."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from service.dicom.codestream import Codestream
from service.dicom.dataset import Instance
from service.dicom.outcome import Outcome, Stored, Unavailable
from service.store import DicomwebStore
from tests.peers import (
    Hang,
    LoseAnswer,
    Respond,
    ScriptedServer,
    SlowBody,
    Step,
    Wire,
    already_exists_409,
    no_studies,
    stored,
    unavailable,
    unsupported_media_type,
)
from tests.processes import wait_until
from tests.serving import settings_for
from tests.test_read_back import file_of, made
from tests.test_store import Drip, service_account

SOON = 0.3  # seconds
BOUND = 5.0  # seconds; much later than soon, and much sooner than any timeout of the settings
LATE = Unavailable("no answer from the store within 0.3 s")
PATIENCE = {"STORE_CONNECT_TIMEOUT": "20", "STORE_READ_TIMEOUT": "20"}

SMALL = made(1)
LARGE = replace(SMALL, codestream=Codestream((bytes(20_000_000),)))


@dataclass(frozen=True)
class ReadSlowly:
    """Take a little of the request now and then."""

    def play(self, wire: Wire) -> None:
        while wire.rfile.read(1 << 16) and not wire.script.released.wait(0.02):
            pass


def outcomes_of(
    url: str, *instances: Instance, within: float | None = SOON, **environment: str
) -> list[Outcome]:
    """Store instances, and see that it ended in time."""
    store = DicomwebStore(settings_for(url, **PATIENCE | environment))
    started = time.monotonic()
    outcomes = store.store(instances, within=within)
    assert time.monotonic() - started < BOUND
    return list(outcomes.values())


STALLS = {
    "never reads": (LARGE, [Hang()]),
    "reads slowly": (LARGE, [ReadSlowly()]),
    "never answers": (SMALL, [Hang()]),
    "says 100 Continue without end": (SMALL, [Drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n")]),
    "drips a header": (SMALL, [Drip(b"HTTP/1.1 200 OK\r\nX: ", b"a")]),
    "drips its answer's body": (SMALL, [SlowBody(bytes(1000))]),
    "breaks the connection and then hangs": (SMALL, [LoseAnswer(), Hang()]),
    "doesn't take one wire format and hangs at the other": (
        SMALL,
        [unsupported_media_type(), Hang()],
    ),
    "has it already and hangs when it is read back": (SMALL, [already_exists_409(), Hang()]),
}


@pytest.mark.parametrize(("instance", "steps"), STALLS.values(), ids=STALLS)
def test_a_store_that_stalls_is_given_up_in_time(instance: Instance, steps: list[Step]) -> None:
    with ScriptedServer(*steps) as store:
        assert outcomes_of(store.dicomweb_url, instance) == [LATE]
    assert len(store.requests) <= 2


@pytest.mark.parametrize("instance", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("read_back", ["auto", "always"])
def test_the_question_before_counts_too(read_back: str, instance: Instance) -> None:
    with ScriptedServer(Hang()) as store:
        assert outcomes_of(store.dicomweb_url, instance, READ_BACK=read_back) == [LATE]
    assert [request.method for request in store.requests] in ([], ["GET"])


@contextmanager
def deaf_port(backlog: int) -> Iterator[int]:
    """Hold a port where connections are made and then nothing is heard."""
    with socket.create_server(("127.0.0.1", 0), backlog=backlog) as listener:
        yield listener.getsockname()[1]


@contextmanager
def full_port() -> Iterator[int]:
    """Hold a port where no further connection is made, and none refused."""
    with deaf_port(0) as port:
        first, second = socket.socket(), socket.socket()
        with first, second:
            for one in (first, second):
                one.settimeout(0)
                one.connect_ex(("127.0.0.1", port))
            yield port


def test_connecting_ends_in_time() -> None:
    with full_port() as port:
        assert outcomes_of(f"http://127.0.0.1:{port}", SMALL) == [LATE]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_accepts_and_does_nothing_is_given_up(scheme: str, host: str) -> None:
    with deaf_port(8) as port:
        assert outcomes_of(f"{scheme}://{host}:{port}", LARGE) == [LATE]


def test_the_connect_timeout_holds_where_it_is_the_shorter() -> None:
    with full_port() as port:
        url = f"http://127.0.0.1:{port}"
        (outcome,) = outcomes_of(url, SMALL, within=20.0, STORE_CONNECT_TIMEOUT="0.2")
    assert outcome == Unavailable("no connection to the store within 0.2 s")


@pytest.mark.parametrize("within", [None, 20.0])
def test_the_read_timeout_holds_where_it_is_the_shorter(within: float | None) -> None:
    with ScriptedServer(Hang()) as store:
        url = store.dicomweb_url
        (outcome,) = outcomes_of(url, SMALL, within=within, STORE_READ_TIMEOUT="0.2")
    assert outcome == Unavailable("no answer from the store within 0.2 s")


def test_fetching_credentials_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer(Hang()) as issuer, ScriptedServer(stored()) as store:
        account = tmp_path / "account.json"
        account.write_text(json.dumps(service_account(issuer.url)))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(account))
        assert outcomes_of(store.dicomweb_url, SMALL, DICOMWEB_AUTH="google") == [LATE]
    assert store.requests == []


def test_no_time_at_all_sends_nothing() -> None:
    with ScriptedServer(stored()) as store:
        (outcome,) = outcomes_of(store.dicomweb_url, SMALL, within=0)
    assert outcome == Unavailable("no answer from the store within 0 s")
    assert store.requests == []


def test_what_was_decided_in_time_stays_decided() -> None:
    first, second = made(1), made(2)
    file = Respond(200, {"Content-Type": "application/dicom"}, file_of(first))
    absent = Respond(404)
    with ScriptedServer(absent, absent, stored(), file, Hang()) as store:
        url = store.dicomweb_url
        one, other = outcomes_of(url, first, second, within=2.0, READ_BACK="always")
    assert isinstance(one, Stored)
    assert other == Unavailable("no answer from the store within 2 s")


def test_an_answer_in_time_is_the_stores() -> None:
    with ScriptedServer(stored(), unavailable()) as store:
        url = store.dicomweb_url
        assert isinstance(outcomes_of(url, SMALL, within=BOUND)[0], Stored)
        (outcome,) = outcomes_of(url, SMALL, within=BOUND)
    assert isinstance(outcome, Unavailable)
    assert outcome.status == 503


def test_one_uploads_deadline_is_not_the_nexts() -> None:
    with ScriptedServer(Hang(), stored(), no_studies()) as server:
        store = DicomwebStore(settings_for(server.dicomweb_url, **PATIENCE))
        assert store.store([SMALL], within=SOON) == {SMALL.sop_instance_uid: LATE}
        (outcome,) = store.store([SMALL]).values()
        assert isinstance(outcome, Stored)
        assert store.store([SMALL], within=0) != {SMALL.sop_instance_uid: outcome}
        assert store.unreachable() == ""


def test_a_kept_connection_is_bounded_too() -> None:
    with ScriptedServer(stored(), ReadSlowly()) as server:
        store = DicomwebStore(settings_for(server.dicomweb_url, **PATIENCE))
        store.store([SMALL])
        started = time.monotonic()
        assert store.store([LARGE], within=SOON) == {LARGE.sop_instance_uid: LATE}
        assert time.monotonic() - started < BOUND


def timers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


def test_no_thread_is_left_behind() -> None:
    with ScriptedServer(stored(), stored(), stored(), Hang()) as server:
        store = DicomwebStore(settings_for(server.dicomweb_url, **PATIENCE))
        outcomes = [store.store([SMALL], within=within) for within in (60, 60, 60, SOON)]
        wait_until(lambda: not timers(), BOUND)
    kinds = [type(*found.values()) for found in outcomes]
    assert kinds == [Stored, Stored, Stored, Unavailable]
