"""The trace of a request is in its log lines, and goes on to the store."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from service import tracing
from service.tracing import Trace
from tests.jpegs import make_jpeg
from tests.peers import BOUND, ScriptedServer, stored
from tests.processes import wait_until
from tests.serving import UPLOAD, Serving

ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
PARENT = f"00-{ID}-{SPAN}-01"
CLOUD = f"{ID.upper()}/67667974448284343;o=1"
CLOUD_SPAN = "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("traceparent", "cloud", "trace"),
    [
        (PARENT, "", Trace(ID, SPAN, sampled=True)),
        (f" {PARENT} ", "nonsense", Trace(ID, SPAN, sampled=True)),
        (f"00-{ID}-{SPAN}-00", "", Trace(ID, SPAN, sampled=False)),
        (f"01-{ID}-{SPAN}-03-more", "", Trace(ID, SPAN, sampled=True)),
        (PARENT, f"{'1' * 32}/5", Trace(ID, SPAN, sampled=True)),
        ("", CLOUD, Trace(ID, CLOUD_SPAN, sampled=True)),
        ("nonsense", f"{ID}/5", Trace(ID, "0000000000000005", sampled=False)),
        ("", f"{ID};o=1", Trace(ID, "", sampled=True)),
        ("", ID, Trace(ID, "", sampled=False)),
        ("", f"{ID}/18446744073709551616", Trace(ID, "", sampled=False)),
        ("", "", None),
        (f"ff-{ID}-{SPAN}-01", "", None),
        (f"{PARENT}-more", "", None),
        (f"00-{'0' * 32}-{SPAN}-01", "", None),
        (f"00-{ID}-{'0' * 16}-01", "", None),
        (f"00-{ID.upper()}-{SPAN}-01", "", None),
        (f"00-{ID}-{SPAN}-1", "", None),
        (PARENT + "\n" + PARENT, "", None),
        ("", "0" * 32, None),
        ("", f"{ID}/x", None),
        ("", "Quixote^Alonso", None),
        ("", f"{ID}/\u0661", None),
    ],
)
def test_what_headers_name_a_trace(traceparent: str, cloud: str, trace: Trace | None) -> None:
    assert tracing.read(traceparent, cloud) == trace


def test_a_trace_goes_on_as_it_came() -> None:
    trace = tracing.read(PARENT, "")
    assert trace
    assert trace.traceparent == PARENT
    assert Trace(ID, SPAN, sampled=False).traceparent == f"00-{ID}-{SPAN}-00"
    assert Trace(ID, "", sampled=True).traceparent == ""


@pytest.fixture(scope="module")
def store() -> Iterator[ScriptedServer]:
    with ScriptedServer(stored()) as server:
        yield server


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, store: ScriptedServer) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("trace") / "data"
    given = {"WORKERS": "1", "RETRY_WORKERS": "0", "READ_BACK": "never"}
    with Serving(folder, DICOMWEB_URL=store.dicomweb_url, **given) as service:
        yield service


@pytest.fixture(scope="module")
def google(tmp_path_factory: pytest.TempPathFactory, store: ScriptedServer) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("google") / "data"
    given = {"WORKERS": "1", "RETRY_WORKERS": "0", "READ_BACK": "never"}
    given |= {"GOOGLE_CLOUD_PROJECT": "clinic-7"}
    with Serving(folder, DICOMWEB_URL=store.dicomweb_url, **given) as service:
        yield service


def new_lines(serving: Serving, seen: int) -> list[dict[str, Any]]:
    """Return the log lines behind so many, once there is one."""
    wait_until(lambda: len(lines(serving.log)) > seen)
    return [json.loads(line) for line in lines(serving.log)[seen:]]


def lines(log: Path) -> list[str]:
    return [line for line in log.read_text().splitlines() if line.startswith("{")]


def send(serving: Serving, seed: int, **headers: str) -> list[dict[str, Any]]:
    """Upload a picture with headers; return the log lines of it."""
    seen = len(lines(serving.log))
    named = {"Content-Type": "image/jpeg"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    response = requests.post(
        serving.url + UPLOAD, data=make_jpeg(seed=seed), headers=named, timeout=BOUND
    )
    assert response.status_code in {201, 400}
    return new_lines(serving, seen)


def test_each_line_of_a_request_names_its_trace(plain: Serving, store: ScriptedServer) -> None:
    (line,) = send(plain, 1, traceparent=PARENT)
    assert (line["message"], line["trace"], line["spanId"]) == ("upload", ID, SPAN)
    assert store.requests[-1].headers["traceparent"] == PARENT


def test_a_request_without_a_trace_has_none_of_the_one_before(
    plain: Serving, store: ScriptedServer
) -> None:
    send(plain, 2, traceparent=PARENT)
    (line,) = send(plain, 3)
    assert line["message"] == "upload"
    assert {"trace", "spanId"} & line.keys() == set()
    assert "traceparent" not in store.requests[-1].headers


def test_lines_name_traces_as_cloud_logging_does(google: Serving, store: ScriptedServer) -> None:
    (line,) = send(google, 4, X_Cloud_Trace_Context=CLOUD)
    assert line["logging.googleapis.com/trace"] == f"projects/clinic-7/traces/{ID}"
    assert line["logging.googleapis.com/spanId"] == CLOUD_SPAN
    assert line["logging.googleapis.com/trace_sampled"] is True
    assert store.requests[-1].headers["traceparent"] == f"00-{ID}-{CLOUD_SPAN}-01"


def test_the_line_of_a_refusal_names_the_trace_too(google: Serving) -> None:
    seen = len(lines(google.log))
    response = requests.get(f"{google.url}/nowhere", headers={"traceparent": PARENT}, timeout=BOUND)
    assert response.status_code == 404
    (line,) = new_lines(google, seen)
    assert line["message"] == "request refused"
    assert line["logging.googleapis.com/trace"] == f"projects/clinic-7/traces/{ID}"


def test_what_isnt_a_trace_is_neither_logged_nor_sent(
    plain: Serving, store: ScriptedServer
) -> None:
    (line,) = send(plain, 5, traceparent="Quixote^Alonso", X_Cloud_Trace_Context="Quixote/1")
    assert "Quixote" not in json.dumps(line)
    assert "Quixote" not in str(store.requests[-1].headers)
