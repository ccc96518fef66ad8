"""The short form of the fault campaign; and that its proxy and its check can be believed."""

import hashlib
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.describing import described, dicom_file
from tests.faults import check
from tests.faults.campaign import each_fault_once, plan, run
from tests.faults.ledger import Ledger
from tests.faults.pictures import Request, describe, rules
from tests.faults.programs import family
from tests.faults.proxy import CALM, LIES, PASS, STALL, STORM, Faults
from tests.faults.stage import TROUBLES, WEATHERS, Stage, stage
from tests.faults.uploading import Client
from tests.jpegs import make_jpeg
from tests.peers import BOUND, Received, Respond, ScriptedServer, Step, refused_port, stored
from tests.processes import is_alive, kill, wait_until
from tests.test_peers import TYPE, multipart

# Its plan kills the service last, whose start takes back at once what a dead worker had leased.
SEED = 5
BODY = multipart(b"\xff\xd8" + bytes(2000))


def test_nothing_that_was_acknowledged_is_lost_and_a_loss_would_be_found(tmp_path: Path) -> None:
    with stage(tmp_path, SEED) as on:
        report = run(on, pictures=160, uploads=15, seconds=600, seed=SEED)
        assert report.wrong == [], f"{report}"
        assert report.checked >= len(on.ledger.acknowledged)
        assert set(TROUBLES) <= set(on.events)
        assert on.acts["mend 202"], "nothing was ever mended"
        assert on.ledger.answers["202"], "nothing was ever queued"

        lost, changed = sorted(on.ledger.acknowledged)[:2]
        with requests.Session() as session:
            urls = dict(check.instances(session, f"{on.archive.url}/dicomWeb"))
            replace_file(session, urls[changed])
            session.delete(urls[lost]).raise_for_status()
            add_file(session, f"{on.archive.url}/dicomWeb", dicom_file(described(make_jpeg())))
        wrong = sorted(line.partition(" (")[0] for line in on.judge().wrong)
        assert any(line == f"{lost}: acknowledged and not in the archive" for line in wrong)
        assert any(line.startswith(f"{changed}: the file of") for line in wrong)
        assert any(line.endswith("in the archive, and nobody has sent it") for line in wrong)
        assert len(wrong) == 3


def replace_file(session: requests.Session, url: str) -> None:
    """Put another file in the place of one: a byte of its picture differs."""
    file = bytearray(session.get(url, headers=check.FILE, timeout=BOUND).content)
    file[-20] ^= 1
    session.delete(url).raise_for_status()
    add_file(session, url.partition("/studies/")[0], bytes(file))


def add_file(session: requests.Session, archive: str, file: bytes) -> None:
    headers = {"Content-Type": "application/dicom"}
    session.post(f"{archive}/studies", file, headers=headers, timeout=BOUND).raise_for_status()


def test_what_a_store_lied_about_and_what_still_waits_is_found(tmp_path: Path) -> None:
    given = {"STORE_READ_TIMEOUT": "20", "STORE_DEADLINE": "20"}
    with stage(tmp_path, SEED, **given, READ_BACK="never", RETRY_WORKERS="0") as on:
        on.faults.begin_with(["200 not stored", "503"])
        lost, waiting = send(on, "A-1"), send(on, "A-2")
        assert on.ledger.answers == {"201": 1, "202": 1}
        wrong = on.judge().wrong
    absent = "acknowledged and not in the archive"
    assert {line.partition(" (")[0] for line in wrong} == {
        f"{lost}: {absent}",
        f"{waiting}: {absent}",
        f"{waiting}: pending in the queue, the store answered 503: down for maintenance",
        f"{waiting}: its payload is left in the queue's folder",
    }


def send(on: Stage, accession: str) -> str:
    """Upload one picture; return the UID of its instance."""
    said = {"PatientID": "P-7", "AccessionNumber": accession}
    made = describe([make_jpeg()], said, rules())
    with requests.Session() as session:
        client = Client(on.service.url, on.ledger, again=0)
        client.send(Request((make_jpeg(),), said, asynchronous=False, made=made), session)
    (uid,) = made
    return uid


def test_an_instance_that_is_listed_twice_or_can_not_be_read_is_found(tmp_path: Path) -> None:
    (tmp_path / "entries").mkdir()
    ledger = Ledger()
    ledger.made = {"2.25.7": frozenset({hashlib.sha256(b"file").hexdigest()})}
    steps = Respond(body=listed_twice), Respond(body=b"file"), Respond(404)
    with (
        ScriptedServer(*steps) as archive,
        ScriptedServer(Respond(body=b'{"entries": [], "next": null}')) as service,
    ):
        verdict = check.judge(archive.dicomweb_url, service.url, tmp_path, ledger)
    assert verdict.instances == 2
    assert verdict.wrong == [
        "2.25.7: 2 times in the archive (never answered)",
        "2.25.7: retrieving it was answered 404",
    ]


def listed_twice(request: Received) -> bytes:
    url = f"http://{request.headers['host']}/instance"
    return json.dumps(
        [{"00080018": {"Value": ["2.25.7"]}, "00081190": {"Value": [url]}}] * 2
    ).encode()


def answer(status: int, text: str) -> requests.Response:
    response = requests.Response()
    response.status_code, response._content = status, text.encode()
    return response


def results(*told: tuple[int, str]) -> str:
    """Write what the service tells of each picture: a status, and the UID."""
    instances = [{"status": status, "SOPInstanceUID": uid} for status, uid in told]
    return json.dumps({"instances": instances})


ONE, OTHER = "2.25.7", "2.25.8"
ANSWERS = {
    "both": (201, results((201, ONE), (200, OTHER)), {ONE, OTHER}, 0),
    "one": (207, results((202, ONE), (503, OTHER)), {ONE}, 0),
    "none": (503, '{"status": 503}', set(), 0),
    "another": (201, results((201, ONE), (201, "2.25.9")), {ONE, OTHER}, 1),
    "refused": (502, '{"status": 502}', set(), 2),
    "no JSON": (500, "<html>", set(), 2),
}


@pytest.mark.parametrize(("status", "text", "acknowledged", "wrong"), ANSWERS.values(), ids=ANSWERS)
def test_the_books_know_what_was_acknowledged(
    status: int, text: str, acknowledged: set[str], wrong: int
) -> None:
    ledger = Ledger()
    request = Request(
        (b"", b""), {}, asynchronous=False, made=dict.fromkeys((ONE, OTHER), frozenset())
    )
    whole = ledger.answered(request, answer(status, text))
    assert ledger.acknowledged == acknowledged
    assert len(ledger.wrong) == wrong
    assert whole == (len(acknowledged) == 2)


def test_a_client_that_shall_halt_sends_nothing_again() -> None:
    ledger, halt = Ledger(), threading.Event()
    request = Request((b"",), {}, asynchronous=False, made={ONE: frozenset()})
    halt.set()
    with refused_port() as port, requests.Session() as session:
        client = Client(f"http://127.0.0.1:{port}", ledger, again=2, halt=halt)
        client.send(request, session)  # without a halt it would never return
    assert ledger.answers == {"ConnectionError": 1}


def test_an_interrupted_campaign_leaves_no_process_behind(tmp_path: Path) -> None:
    options = ["--pictures", "500", "--seconds", "600", "--folder", str(tmp_path)]
    root, log = Path(__file__).parents[1], tmp_path / "service.log"
    with subprocess.Popen(
        [sys.executable, "-m", "tests.faults", *options], cwd=root, stderr=subprocess.PIPE
    ) as campaign:
        pids: list[int] = []
        try:
            wait_until(lambda: log.exists() and '"upload"' in log.read_text())
            wait_until(lambda: len(family(campaign.pid)) > 5)  # it may be killing some right now
            pids = family(campaign.pid)
            campaign.send_signal(signal.SIGINT)
            campaign.communicate(timeout=BOUND)
            assert campaign.returncode not in {0, None}
            assert [pid for pid in pids if is_alive(pid)] == []
        finally:
            kill([*family(campaign.pid), *pids])


def test_every_trouble_and_every_weather_is_in_the_shortest_plan() -> None:
    events = plan(10, SEED)
    assert {event.name for event in events} == {*TROUBLES, *WEATHERS}
    assert all(0 <= event.at < 10 for event in events)
    assert events == plan(10, SEED)


@contextmanager
def proxied(
    step: Step | None = None, stall: float = STALL
) -> Iterator[tuple[ScriptedServer, Faults, ScriptedServer]]:
    """Run a store, and the proxy in front of it."""
    with ScriptedServer(step or stored()) as store:
        faults = Faults(store.url.removeprefix("http://"), SEED, stall)
        with ScriptedServer(faults) as proxy:
            yield store, faults, proxy


def post(proxy: ScriptedServer, timeout: float = BOUND) -> requests.Response:
    url, headers = f"{proxy.url}/studies", {"Content-Type": TYPE}
    return requests.post(url, BODY, headers=headers, timeout=timeout)


def named(response: requests.Response) -> list[str]:
    """Return the UIDs that an answer says are stored."""
    told = response.status_code == 200 and response.content
    items = response.json()["00081199"]["Value"] if told else []
    return [item["00081155"]["Value"][0] for item in items]


def test_the_proxy_changes_nothing_that_it_passes() -> None:
    answer = Respond(409, {"Content-Type": "text/x", "ETag": '"7"'}, b"seven")
    with proxied(answer) as (store, faults, proxy):
        response = post(proxy)
        got = requests.get(f"{proxy.url}/studies?limit=1", headers={"Accept": "a/b"}, timeout=BOUND)
    assert (response.status_code, response.content) == (409, b"seven")
    assert (response.headers["Content-Type"], response.headers["ETag"]) == ("text/x", '"7"')
    assert (got.status_code, got.content) == (409, b"seven")
    first, second = store.requests
    assert (first.method, first.path, first.body) == ("POST", "/studies", BODY)
    assert first.headers["content-type"] == TYPE
    assert (second.path, second.headers["accept"]) == ("/studies?limit=1", "a/b")
    assert faults.played == {PASS: 2}


# Faults with an answer of the proxy's own: its status, Retry-After, and the UID that it names.
ANSWERED = {
    "503": (503, None, []),
    "503 with Retry-After": (503, "1", []),
    "429": (429, "1", []),
    "200 empty": (200, None, []),
    "200 of another": (200, None, ["2.25.1"]),
    "200 not stored": (200, None, ["2.25.7", "2.25.8"]),
}
# Faults without a whole answer, and whether the store gets the request all the same.
BROKEN = {"reset within": False, "answer lost": True, "answer cut": True}
SLOW = {"hung": False, "late": True}


@pytest.mark.parametrize("fault", ANSWERED)
def test_a_fault_that_answers_does_not_reach_the_store(fault: str) -> None:
    with proxied() as (store, faults, proxy):
        faults.begin_with([fault])
        response = post(proxy)
        assert store.requests == []
        assert named(post(proxy)) == ["2.25.7", "2.25.8"]
        assert len(store.requests) == 1
    said = response.status_code, response.headers.get("Retry-After"), named(response)
    assert said == ANSWERED[fault]
    assert faults.played == {fault: 1, PASS: 1}


@pytest.mark.parametrize(("fault", "reached"), BROKEN.items())
def test_a_fault_that_breaks_the_answer(fault: str, reached: bool) -> None:  # noqa: FBT001
    with proxied() as (store, faults, proxy):
        faults.begin_with([fault])
        with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
            post(proxy)
    assert [request.body for request in store.requests] == [BODY] * reached


@pytest.mark.parametrize(("fault", "reached"), SLOW.items())
def test_a_fault_that_lets_the_client_wait(fault: str, reached: bool) -> None:  # noqa: FBT001
    with proxied(stall=BOUND) as (store, faults, proxy):
        faults.begin_with([fault])
        with pytest.raises(requests.ReadTimeout):
            post(proxy, timeout=0.2)
        assert store.requests == []
        proxy.released.set()
        store.wait_for(int(reached))
    assert len(store.requests) == reached


def test_every_fault_is_told_of_here_and_has_its_weather() -> None:
    told = {*ANSWERED, *BROKEN, *SLOW, PASS}
    assert set(CALM) == told
    assert set(STORM) == told
    assert set(each_fault_once()) == told


def test_where_the_store_is_away_the_proxy_resets_or_says_502() -> None:
    with refused_port() as port, ScriptedServer(Faults(f"127.0.0.1:{port}", SEED)) as proxy:
        answers = set()
        for _ in range(12):
            try:
                answers.add(post(proxy).status_code)
            except requests.ConnectionError:
                answers.add(0)
    assert answers == {0, 502}


def test_a_request_that_the_client_breaks_off_is_not_passed_on() -> None:
    with proxied() as (store, faults, proxy):
        host, _, port = proxy.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as client:
            head = f"POST /studies HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n\r\n"
            client.sendall(head.encode() + BODY[:1000])
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""
        assert store.requests == []
        assert faults.played == {PASS: 1}


def test_only_a_store_request_is_lied_to() -> None:
    with proxied(Respond(200, {}, b"[]")) as (store, faults, proxy):
        faults.weather = dict.fromkeys(LIES, 1)
        got = [requests.get(proxy.url, timeout=BOUND).content for _ in range(9)]
    assert (got, len(store.requests)) == ([b"[]"] * 9, 9)


def test_the_weather_ends_at_once() -> None:
    with proxied() as (store, faults, proxy):
        faults.weather = {"503": 1}
        faults.begin_with(["429", "429"])
        statuses = [post(proxy).status_code]
        faults.end()
        statuses += [post(proxy).status_code for _ in range(9)]
    assert statuses == [429] + [200] * 9
    assert len(store.requests) == 9
