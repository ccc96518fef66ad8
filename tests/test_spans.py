"""Spans reach a collector: one a request, one a step; without the extra one line says so."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.jpegs import make_jpeg
from tests.peers import BOUND, Respond, ScriptedServer, stored
from tests.processes import wait_until
from tests.serving import SECRET, UPLOAD, Serving

ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
STEPS = {"receive", "normalise", "describe", "store"}
PLANTED = "Quixote"

WITHOUT = """
import sys
sys.modules["opentelemetry.exporter"] = None
from service.wsgi import service
client = service().test_client()
print(client.get("/healthz").status_code, client.get("/v1/queue").status_code)
"""


@pytest.fixture(scope="module")
def collector() -> Iterator[ScriptedServer]:
    with ScriptedServer(Respond(200)) as server:
        yield server


@pytest.fixture(scope="module")
def store() -> Iterator[ScriptedServer]:
    with ScriptedServer(stored()) as server:
        yield server


@pytest.fixture(scope="module")
def serving(
    tmp_path_factory: pytest.TempPathFactory, collector: ScriptedServer, store: ScriptedServer
) -> Iterator[Serving]:
    given = {
        "DICOMWEB_URL": store.dicomweb_url,
        "READ_BACK": "never",
        "RETRY_WORKERS": "0",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }
    with Serving(tmp_path_factory.mktemp("spans") / "data", **given) as service:
        yield service


def spans(collector: ScriptedServer, trace_id: str) -> dict[str, Any]:
    """Return the spans of a trace that have come, by name."""
    return {
        span.name: span
        for request in list(collector.requests)
        for resource in ExportTraceServiceRequest.FromString(request.body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
        if span.trace_id.hex() == trace_id
    }


def upload(serving: Serving, seed: int, headers: dict[str, str]) -> requests.Response:
    return requests.post(
        f"{serving.url}{UPLOAD}?PatientName={PLANTED}",
        data=make_jpeg(seed=seed),
        headers={"Content-Type": "image/jpeg"} | headers,
        timeout=BOUND,
    )


def last_line(serving: Serving) -> dict[str, Any]:
    lines = [line for line in serving.log.read_text().splitlines() if line.startswith("{")]
    return dict(json.loads(lines[-1]))


def test_a_request_is_a_span_of_its_callers_trace_and_its_steps_are_within(
    serving: Serving, collector: ScriptedServer, store: ScriptedServer
) -> None:
    response = upload(serving, 1, {"traceparent": f"00-{ID}-{SPAN}-01"})
    assert response.status_code == 201
    name = f"POST {UPLOAD}"
    wait_until(lambda: spans(collector, ID).keys() >= STEPS | {name})
    found = spans(collector, ID)
    assert found.keys() == STEPS | {name}
    request = found[name]
    assert request.parent_span_id.hex() == SPAN
    assert {found[step].parent_span_id for step in STEPS} == {request.span_id}
    told = {each.key: each.value for each in request.attributes}
    assert told["http.route"].string_value == UPLOAD
    assert told["http.response.status_code"].int_value == 201
    # The store is called from within the step, and the log line is the request's.
    assert store.requests[-1].headers["traceparent"] == (
        f"00-{ID}-{found['store'].span_id.hex()}-01"
    )
    line = last_line(serving)
    assert (line["trace"], line["spanId"]) == (ID, request.span_id.hex())
    assert PLANTED.encode() not in b"".join(each.body for each in collector.requests)


def test_a_request_without_a_trace_begins_one(serving: Serving, collector: ScriptedServer) -> None:
    assert upload(serving, 2, {}).status_code == 201
    trace_id = last_line(serving)["trace"]
    wait_until(lambda: spans(collector, trace_id).keys() >= STEPS)
    assert spans(collector, trace_id)[f"POST {UPLOAD}"].parent_span_id == b""


def test_what_the_caller_doesnt_sample_isnt_sent(
    serving: Serving, collector: ScriptedServer, store: ScriptedServer
) -> None:
    unsampled, sampled = "a" * 32, "b" * 32
    assert upload(serving, 3, {"traceparent": f"00-{unsampled}-{SPAN}-00"}).status_code == 201
    assert store.requests[-1].headers["traceparent"].startswith(f"00-{unsampled}-")
    assert store.requests[-1].headers["traceparent"].endswith("-00")
    for seed in range(4, 8):  # whichever worker it was, it has sent what it had since
        upload(serving, seed, {"traceparent": f"00-{sampled}-{SPAN}-01"})
    wait_until(lambda: spans(collector, sampled).keys() >= STEPS)
    assert spans(collector, unsampled) == {}


def test_a_path_or_a_method_of_the_callers_own_is_in_no_span(
    serving: Serving, collector: ScriptedServer
) -> None:
    trace_id = "c" * 32
    headers = {"traceparent": f"00-{trace_id}-{SPAN}-01"}
    requests.request("QUIXOTE", f"{serving.url}/{PLANTED}", headers=headers, timeout=BOUND)
    wait_until(lambda: bool(spans(collector, trace_id)))
    assert list(spans(collector, trace_id)) == ["_OTHER"]


def without_the_extra(folder: Path, **given: str) -> Sequence[str]:
    own = {"DATA_DIR": str(folder), "UID_NAMESPACE": SECRET, "DICOMWEB_URL": "http://127.0.0.1:9"}
    ended = subprocess.run(
        [sys.executable, "-P", "-c", WITHOUT],
        env={"PATH": os.environ["PATH"]} | own | given,
        capture_output=True,
        text=True,
        check=True,
        timeout=BOUND,
    )
    return ended.stdout.splitlines()


def test_without_the_extra_the_service_works_and_says_so_in_one_line(tmp_path: Path) -> None:
    line, answers = without_the_extra(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    told = json.loads(line)
    assert told["severity"] == "WARNING"
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in told["message"]
    assert "jpegstow[trace]" in told["mend"]
    assert answers == "200 200"


def test_without_the_endpoint_nothing_is_said(tmp_path: Path) -> None:
    assert without_the_extra(tmp_path) == ["200 200"]
