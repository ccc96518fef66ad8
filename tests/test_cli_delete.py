"""The command that deletes: it asks first, waits for the store's operation, and looks again."""

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.dicom.outcome import Unavailable
from service.store.client import Client
from service.store.deletion import Answered, Deleted, Deleting, look, settle
from tests.commands import archive, jpegstow, path_of, put_study
from tests.peers import (
    BOUND,
    LoseAnswer,
    Orthanc,
    Respond,
    ScriptedServer,
    Step,
    throttled,
    unauthorized,
    unavailable,
)
from tests.serving import COMMAND, settings_for

JSON = {"Content-Type": "application/json"}
NAME = "projects/p/locations/l/datasets/d/operations/77"
NOTHING = Respond(200, JSON, b"[]")
GONE = Respond(200, JSON, b"{}")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with archive(tmp_path_factory.mktemp("delete")) as address:
        yield address


def listing(*numbers: int) -> Respond:
    """Answer a search with instances of study 1 by number."""
    tags = "0020000D", "0020000E", "00080018"
    models = [
        {
            tag: {"vr": "UI", "Value": [uid]}
            for tag, uid in zip(tags, ("1.2.1", "1.2.1.1", f"1.2.1.1.{number}"), strict=True)
        }
        for number in numbers
    ]
    return Respond(200, JSON, json.dumps(models).encode())


def operation(**more: Any) -> Respond:
    """Answer with the state of an operation."""
    return Respond(200, JSON, json.dumps({"name": NAME} | more).encode())


THERE = [listing(1, 2), NOTHING]
BEGUN, DONE = operation(), operation(done=True, response={})
FAILED = operation(done=True, error={"code": 13, "message": "Quixote"})


def left_in(url: str) -> list[str]:
    """Return the SOP Instance UIDs that a store has."""
    printed = jpegstow("search", "instances", "--all", "--json", url=url).stdout
    return sorted(match["00080018"]["Value"][0] for match in json.loads(printed))


def test_a_study_a_series_and_an_instance_are_deleted(url: str) -> None:
    for study in (1, 2, 3):
        put_study(url, study)
    paths = path_of(1), f"{url}/{path_of(2, 1)}", path_of(3, 1, 2)
    ended = jpegstow("delete", *paths, "--yes", url=url)
    assert (ended.exit_code, ended.stdout, ended.stderr) == (0, "3 deleted\n", "")
    assert left_in(url) == ["1.2.2.2.1", "1.2.3.1.1", "1.2.3.2.1"]
    again = jpegstow("delete", path_of(1), path_of(3, 1), "--yes", "--json", url=url)
    assert again.exit_code == 1
    assert [told["outcome"] for told in json.loads(again.stdout)] == ["not there", "deleted"]


def test_without_a_terminal_it_asks_nobody_and_deletes_nothing(url: str) -> None:
    put_study(url, 4)
    ended = jpegstow("delete", path_of(4), url=url, text="y\n")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "--yes" in ended.stderr
    assert "1.2.4.1.1" in left_in(url)


def answered(url: str, folder: Path, answer: bytes, *paths: str) -> tuple[int, str]:
    """Type an answer at a terminal; return the status, and what was printed to it."""
    keyboard, terminal = pty.openpty()
    environment = {"PATH": os.environ["PATH"], "DICOMWEB_URL": url}
    try:
        os.write(keyboard, answer)
        ended = subprocess.run(
            [COMMAND, "delete", *paths],
            env=environment,
            cwd=folder,
            stdin=terminal,
            capture_output=True,
            text=True,
            check=False,
            timeout=BOUND,
        )
    finally:
        os.close(keyboard)
        os.close(terminal)
    return ended.returncode, ended.stderr


def test_at_a_terminal_it_tells_what_would_go_and_obeys(url: str, tmp_path: Path) -> None:
    put_study(url, 5)
    code, asked = answered(url, tmp_path, b"n\n", path_of(5))
    assert code == 1
    assert f"Delete study 1.2.5 (2 series, 3 instances) at {url}? [y/N]" in asked
    assert "1.2.5.1.1" in left_in(url)
    assert answered(url, tmp_path, b"\n", path_of(5))[0] == 1
    code, asked = answered(url, tmp_path, b"y\n", path_of(5, 2), path_of(5, 1, 1))
    assert code == 0
    assert "series 1.2.5.2 (1 instance)\ninstance 1.2.5.1.1\nDelete these 2 at" in asked
    assert "1.2.5.1.2" in left_in(url)
    assert "1.2.5.1.1" not in left_in(url)


def deleted(
    *steps: Step, path: str = path_of(1), more: tuple[str, ...] = ()
) -> tuple[int, str, str, list[str]]:
    """Delete from a store that plays these steps; return status, texts, and what was asked."""
    with ScriptedServer(*steps) as server:
        ended = jpegstow("delete", path, "--yes", *more, url=server.dicomweb_url)
    asked = [f"{request.method} {request.path.partition('?')[0]}" for request in server.requests]
    return ended.exit_code, ended.stdout, ended.stderr, asked


SEARCH, DELETE = f"GET /dicomWeb/{path_of(1)}/instances", f"DELETE /dicomWeb/{path_of(1)}"
POLL = f"GET /v1/{NAME}"
DONE_BY: dict[str, tuple[list[Step], list[str]]] = {
    "at once": ([GONE], [DELETE]),
    "204": ([Respond(204)], [DELETE]),
    "202": ([Respond(202)], [DELETE]),
    "an operation": ([BEGUN, BEGUN, DONE], [DELETE, POLL, POLL]),
    "503 first": ([unavailable(), GONE], [DELETE, DELETE]),
    "429 first": ([throttled(0), BEGUN, DONE], [DELETE, DELETE, POLL]),
    "an answer lost, and so 404": ([LoseAnswer(), Respond(404)], [DELETE, DELETE]),
    "an operation that can't be seen for a moment": (
        [BEGUN, unavailable(), LoseAnswer(), DONE],
        [DELETE, POLL, POLL, POLL],
    ),
}


@pytest.mark.parametrize(("steps", "asked"), DONE_BY.values(), ids=DONE_BY)
def test_what_is_gone_is_deleted(steps: list[Step], asked: list[str]) -> None:
    code, out, said, requests = deleted(*THERE, *steps, NOTHING)
    assert (code, out, said) == (0, "1 deleted\n", "")
    assert requests == [SEARCH, SEARCH, *asked, SEARCH]


NOT_DONE: dict[str, tuple[list[Step], str, str]] = {
    "no such method": ([Respond(405)], "refused", "this server has no DICOMweb delete"),
    "rights": ([Respond(403)], "unavailable", "denies access"),
    "credentials": ([unauthorized()], "unavailable", "credentials"),
    "a conflict": ([Respond(409)], "refused", "answered 409"),
    "an operation that fails": ([BEGUN, FAILED], "refused", "the operation failed (code 13)"),
    "an operation that is lost": ([BEGUN, Respond(404)], "refused", "doesn't know its operation"),
    "an operation that may not be seen": ([BEGUN, Respond(403)], "unavailable", "denies access"),
    "an operation of no name": (
        [Respond(200, JSON, b'{"name": "../../../../x"}')],
        "refused",
        "names its operation",
    ),
    "an operation elsewhere": (
        [Respond(200, JSON, b'{"name": "http://127.0.0.1:9/projects/x"}')],
        "refused",
        "names its operation",
    ),
}


@pytest.mark.parametrize(("steps", "outcome", "reason"), NOT_DONE.values(), ids=NOT_DONE)
def test_what_isn_t_done_fails_the_command(steps: list[Step], outcome: str, reason: str) -> None:
    code, out, said, requests = deleted(*THERE, *steps)
    assert (code, out) == (1, f"1 {outcome}\n")
    assert reason in said
    assert "Quixote" not in said
    assert len(requests) == 2 + len(steps)


@pytest.mark.parametrize(("answer", "said"), [(GONE, "it's deleted"), (Respond(404), "know it")])
def test_a_store_that_still_has_it_is_not_believed(answer: Respond, said: str) -> None:
    code, out, told, requests = deleted(*THERE, answer, listing(1))
    assert (code, out) == (1, "1 unavailable\n")
    assert f"{said}, but a search still finds it" in told
    assert requests.count(DELETE) == 1


def test_a_search_that_lags_is_asked_again() -> None:
    assert deleted(*THERE, GONE, listing(1), listing(1), NOTHING)[:2] == (0, "1 deleted\n")


def test_what_isn_t_there_is_not_deleted() -> None:
    for step in (NOTHING, Respond(404)):
        code, out, _, requests = deleted(step)
        assert (code, out, requests) == (1, "1 not there\n", [SEARCH])


def test_what_can_t_be_counted_is_not_deleted() -> None:
    code, out, said, requests = deleted(Respond(403))
    assert (code, out, requests) == (1, "1 not deleted\n", [SEARCH])
    assert "it can't be counted" in said


def test_it_need_not_wait() -> None:
    code, out, said, requests = deleted(*THERE, BEGUN, more=("--no-wait",))
    assert (code, out, said) == (0, f"{NAME}\n1 begun\n", "")
    assert requests == [SEARCH, SEARCH, DELETE]


def test_an_operation_that_never_ends_is_told_as_one_that_goes_on() -> None:
    code, out, said, requests = deleted(*THERE, BEGUN, more=("--timeout", "1"))
    assert (code, out) == (1, f"{NAME}\n1 unfinished\n")
    assert "goes on" in said
    assert 1 <= requests.count(POLL) <= 2


def settled(*answers: Answered, timeout: float = 600) -> tuple[Answered, list[float]]:
    """Wait for an operation of these states, the last for ever, in simulated time."""
    now, waits, coming = [0.0], list[float](), list(answers)

    def pause(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    def ask() -> Answered:
        return coming.pop(0) if len(coming) > 1 else coming[0]

    return settle(ask, Deleting(NAME), timeout, lambda: now[0], pause), waits


def test_the_waits_grow_to_ten_seconds_and_end_with_the_timeout() -> None:
    answer, waits = settled(Deleting(NAME))
    assert answer == Deleting(NAME)
    assert 0.4 <= waits[0] <= 0.6
    assert all(8 <= wait <= 12 for wait in waits[10:])
    assert 600 - 12 <= sum(waits) <= 600


def test_a_store_s_own_time_is_waited_for() -> None:
    answer, waits = settled(Unavailable("busy", 30.0, 503), Deleted())
    assert (answer, waits) == (Deleted(), [30.0])


def test_an_operation_that_can_t_be_seen_again_and_again_is_unavailable() -> None:
    away = Unavailable("away")
    assert settled(away)[0] == away
    assert len(settled(away)[1]) == 4
    answer, _ = settled(away, away, Deleting(NAME), away, away, away, Deleted())
    assert answer == Deleted()


def test_whoever_is_told_to_stop_waits_no_more() -> None:
    answer = settle(lambda: Deleting(NAME), Deleting(NAME), 600, lambda: 0.0, lambda _: True)
    assert answer == Deleting(NAME)


PLACES = {
    "/dicomWeb": "/v1/",
    "/v1/projects/p/locations/l/datasets/d/dicomStores/s/dicomWeb": "/v1/",
    "/v1beta1/projects/p/locations/l/datasets/d/dicomStores/s/dicomWeb": "/v1beta1/",
    "/proxy/v1/projects/p/locations/l/datasets/d/dicomStores/s/dicomWeb": "/proxy/v1/",
}


@pytest.mark.parametrize(("base", "root"), PLACES.items())
def test_an_operation_is_where_the_store_s_address_tells(base: str, root: str) -> None:
    with ScriptedServer(DONE) as server:
        url = server.url + base
        assert look(Client(settings_for(url)), url, Deleting(NAME)) == Deleted()
    assert [request.path for request in server.requests] == [root + NAME]


def test_no_url_of_another_server_is_asked() -> None:
    with ScriptedServer(DONE) as server, ScriptedServer(DONE) as other:
        client = Client(settings_for(server.dicomweb_url, DICOMWEB_TOKEN="secret"))
        answer = client.call("GET", f"{other.url}/v1/{NAME}", {})
    assert isinstance(answer, Unavailable)
    assert (server.requests, other.requests) == ([], [])


def test_ctrl_c_ends_the_waiting_and_says_that_the_store_goes_on(tmp_path: Path) -> None:
    with ScriptedServer(*THERE, BEGUN) as server:
        environment = {"PATH": os.environ["PATH"], "DICOMWEB_URL": server.dicomweb_url}
        process = subprocess.Popen(
            [COMMAND, "delete", path_of(1), "--yes"],
            env=environment,
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
        )
        server.wait_for(5)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=BOUND)
    assert process.returncode == 1
    assert "stopped; operations that have begun go on in the store" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("path", ["studies/..", "patients/1", f"{path_of(1, 1, 1)}/frames/1"])
def test_a_misuse_asks_nothing(path: str) -> None:
    code, out, _, requests = deleted(NOTHING, path=path)
    assert (code, out, requests) == (2, "", [])


def test_an_orthanc_is_told_to_have_no_delete(orthanc: Orthanc) -> None:
    orthanc.empty()
    put_study(orthanc.dicomweb_url, 1)
    ended = jpegstow("delete", path_of(1), "--yes", url=orthanc.dicomweb_url)
    assert (ended.exit_code, ended.stdout) == (1, "1 refused\n")
    assert "this server has no DICOMweb delete" in ended.stderr
    assert len(orthanc.get("/instances")) == 3
