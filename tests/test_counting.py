"""What is counted of the line: every outcome, whatever the store does, at next to no cost."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import pytest
from pydicom import Dataset

from service import assemble, counting
from service.dicom.dataset import Instance
from service.dicom.outcome import Outcome, Stored, Unavailable
from service.ingest import Rules, Upload, digest_of, ingest
from service.retry import Breaker, GuardedStore, UnaskedStore
from service.retry.breaker import Permit
from tests.figures import Figures, figures
from tests.jpegs import make_jpeg
from tests.peers import Respond, ScriptedServer, failed, stored, unavailable
from tests.queue_service import PLANTED, SAID, Service, service
from tests.serving import client_for, post, settings_for

TEMPLATE = "vl-photographic-image"
MOST = 0.1  # of the CPU of the line itself, without HTTP and the store, for a small picture


def grown(before: Figures, after: Figures) -> Figures:
    """Return what has grown, but for seconds and for scrapes."""
    return {
        name: value - before.get(name, 0)
        for name, value in after.items()
        if value != before.get(name, 0)
        and not {"/metrics", "le"} & set(name)
        and name[0].startswith(("jpegstow_upload", "jpegstow_req", "jpegstow_store", "jpegstow_re"))
    }


def scrape(found: Service) -> Figures:
    return figures(found.client.get("/metrics").text)


@pytest.fixture
def before(tmp_path: Path) -> Figures:
    return figures(client_for("http://127.0.0.1:9", DATA_DIR=str(tmp_path)).get("/metrics").text)


def test_everything_is_there_and_nought_before_the_first_upload(before: Figures) -> None:
    assert {
        before["jpegstow_uploads_total", outcome, TEMPLATE] for outcome in counting.UPLOADED
    } == {0}
    for status in counting.ANSWERS:
        assert before["jpegstow_store_answers_total", status] == 0
    for step in counting.STEPS:
        assert before["jpegstow_step_seconds_count", step] == 0
        assert before["jpegstow_step_seconds_sum", step] == 0
    for status in counting.CLASSES:
        assert before["jpegstow_requests_total", "/v1/instances", status] == 0
    assert before["jpegstow_breakers_open",] == 0


def test_each_outcome_is_counted_once(tmp_path: Path) -> None:
    steps = (stored(), failed(0xA900, PLANTED[0]), unavailable(), stored())
    with service(tmp_path, *steps) as found:
        before = scrape(found)
        pictures = [make_jpeg(seed=seed) for seed in range(3)]
        statuses = [post(found.client, jpeg, **SAID).status_code for jpeg in pictures]
        statuses.append(post(found.client, b"\xff\xd8 Quixote", **SAID).status_code)
        statuses.append(post(found.client, pictures[0], template="Quixote").status_code)
        between = scrape(found)
        found.client.post("/v1/queue/retry?state=pending")
        found.drain()
        after = scrape(found)
        text = found.client.get("/metrics").text
    assert statuses == [201, 502, 202, 415, 400]
    new = grown(before, between)
    assert {name: value for name, value in new.items() if name[0] == "jpegstow_uploads_total"} == {
        ("jpegstow_uploads_total", "stored", TEMPLATE): 1,
        ("jpegstow_uploads_total", "rejected", TEMPLATE): 1,
        ("jpegstow_uploads_total", "queued", TEMPLATE): 1,
        ("jpegstow_uploads_total", "refused", TEMPLATE): 1,
        ("jpegstow_uploads_total", "refused", "unknown"): 1,
    }
    assert new["jpegstow_store_answers_total", "2xx"] == 1
    assert new["jpegstow_store_answers_total", "5xx"] == 1
    assert new["jpegstow_requests_total", "/v1/instances", "2xx"] == 2
    assert new["jpegstow_requests_total", "/v1/instances", "4xx"] == 2
    assert grown(between, after)["jpegstow_retries_total", "stored"] == 1
    assert [value for value in PLANTED if value in text] == []


def test_a_path_that_there_isnt_and_a_method_are_no_labels(tmp_path: Path) -> None:
    with service(tmp_path, stored()) as found:
        found.client.get("/Quixote")
        found.client.open("/Quixote", method="DULCINEA")
        found.client.get("/v1/queue/Rocinante")
        text = found.client.get("/metrics").text
    assert figures(text)["jpegstow_requests_total", "unknown", "4xx"] == 2
    assert figures(text)["jpegstow_requests_total", "/v1/queue/<name>", "4xx"] == 1
    assert [value for value in (*PLANTED, "DULCINEA") if value in text] == []


@pytest.mark.parametrize("status", [401, 403])
def test_credentials_that_the_store_doesnt_take_are_counted_apart(
    tmp_path: Path, status: int
) -> None:
    with service(tmp_path, Respond(status)) as found:
        post(found.client, make_jpeg())
        after = scrape(found)
    assert after["jpegstow_store_answers_total", "denied"] == 1
    assert after["jpegstow_store_answers_total", "4xx"] == 0


def test_a_store_that_isnt_there_gives_no_answer_and_is_left_alone(tmp_path: Path) -> None:
    client = client_for("http://127.0.0.1:9/dicomWeb", DATA_DIR=str(tmp_path))
    for seed in range(3):
        assert post(client, make_jpeg(seed=seed)).status_code == 202
    after = figures(client.get("/metrics").text)
    assert after["jpegstow_store_answers_total", "none"] == 3
    assert after["jpegstow_breakers_open",] == 1


def test_a_store_that_is_back_is_no_longer_left_alone(tmp_path: Path) -> None:
    with ScriptedServer(Respond(503, {"Retry-After": "1"}), stored()) as store:
        client = client_for(store.dicomweb_url, DATA_DIR=str(tmp_path))
        assert post(client, make_jpeg()).status_code == 202
        assert figures(client.get("/metrics").text)["jpegstow_breakers_open",] == 1
        end = time.monotonic() + 20
        while post(client, make_jpeg(seed=2)).status_code != 201:
            assert time.monotonic() < end
        assert figures(client.get("/metrics").text)["jpegstow_breakers_open",] == 0


class Watching:
    """A store that notes how many leave it alone while it is asked."""

    wire = "json"

    def __init__(self) -> None:
        self.seen: list[int] = []

    def store(
        self,
        instances: Sequence[Instance],
        within: float | None = None,  # noqa: ARG002
    ) -> dict[str, Outcome]:
        self.seen.append(counting.left_alone_by(counting.read(), time.time()))
        return {each.sop_instance_uid: Stored() for each in instances}


def test_a_store_counts_as_left_alone_while_a_probe_waits_for_it(tmp_path: Path) -> None:
    counting.keep_in(tmp_path / "counts")
    breaker, store = Breaker(), Watching()
    breaker.record(Unavailable("away", retry_after=1.0), 0.0, Permit())
    rules, upload = rules_and_upload(tmp_path, make_jpeg())
    ingest([upload], rules, GuardedStore(store, breaker, clock=lambda: 2.0))
    assert store.seen == [1]
    assert counting.left_alone_by(counting.read(), time.time()) == 0


def rules_and_upload(folder: Path, jpeg: bytes) -> tuple[Rules, Upload]:
    current = settings_for("http://127.0.0.1:9", DATA_DIR=str(folder))
    upload = Upload(jpeg, digest_of(jpeg), Dataset(), TEMPLATE, "http", "request")
    return assemble.rules(current), upload


def test_buckets_add_up(tmp_path: Path) -> None:
    with service(tmp_path, stored()) as found:
        for seconds in (0.0005, 0.001, 0.7, 100.0):
            counting.took("queue", seconds)
        after = scrape(found)
    bucket = "jpegstow_step_seconds_bucket"
    bounds = [("0.001", 2), ("0.5", 2), ("1.0", 3), ("60.0", 3), ("+Inf", 4)]
    told = {
        float(name[-1] if name[1] == "queue" else name[1]): value
        for name, value in after.items()
        if name[0] == bucket and "queue" in name
    }
    assert [(bound, told[float(bound)]) for bound, _ in bounds] == bounds
    assert after["jpegstow_step_seconds_count", "queue"] == 4
    assert after["jpegstow_step_seconds_sum", "queue"] == pytest.approx(100.7015)


def counts() -> None:
    """Count what an upload is counted by."""
    for name in ("receive", "normalise", "describe", "store"):
        with counting.step(name):
            pass
    counting.store_answered(200)
    counting.left_alone(0.0)
    counting.uploaded("stored", TEMPLATE, 100_000, 100_000)
    counting.answered("/v1/instances", 201)


def cpu(work: Callable[[], object], times: int) -> float:
    """Return the seconds of CPU of one piece of work."""
    began = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - began) / times


def test_counting_costs_next_to_nothing_beside_the_line(tmp_path: Path) -> None:
    rules, upload = rules_and_upload(tmp_path, make_jpeg(1024, 768, quality=89))
    counting.keep_in(tmp_path / "counts")
    ratios = [
        cpu(counts, 200) / cpu(lambda: ingest([upload], rules, UnaskedStore()), 10)
        for _ in range(7)
    ]
    print(f"counting: {median(ratios):.4f} of the line's CPU")
    assert median(ratios) < MOST
