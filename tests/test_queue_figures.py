"""The figures of the retry queue, as Prometheus reads them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service import metrics
from service.retry import Totals
from service.tally import Read
from tests.figures import figures as samples
from tests.jpegs import make_jpeg
from tests.peers import failed, stored, unavailable
from tests.queue_service import (
    PLANTED,
    QUEUE,
    SAID,
    Service,
    service,
)
from tests.serving import post


@pytest.fixture
def quiet(tmp_path: Path) -> Iterator[Service]:
    """A service whose store takes whatever it is sent."""
    with service(tmp_path, stored()) as found:
        yield found


def figures(text: str) -> dict[str, float]:
    """Return all samples of the queue."""
    return {
        "".join(names): value
        for names, value in samples(text).items()
        if names[0].startswith("jpegstow_queue")
    }


def test_the_figures_of_an_empty_queue_are_there_and_nought(quiet: Service) -> None:
    response = quiet.client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    assert response.headers["Cache-Control"] == "no-store"
    assert figures(response.text) == {
        "jpegstow_queue_entriespending": 0,
        "jpegstow_queue_entriesleased": 0,
        "jpegstow_queue_entriesdead": 0,
        "jpegstow_queue_bytes": 0,
        "jpegstow_queue_oldest_seconds": 0,
        "jpegstow_queue_attempts_totalstored": 0,
        "jpegstow_queue_attempts_totalunavailable": 0,
        "jpegstow_queue_attempts_totalrejected": 0,
    }


def test_the_figures_are_those_of_the_queue_whoever_has_changed_it(tmp_path: Path) -> None:
    steps = (failed(0xA900, "Quixote"), unavailable(), stored())
    with service(tmp_path, *steps) as found:
        dead = found.dead()
        post(found.client, make_jpeg(seed=1), **SAID)
        sizes = [found.entry(name)["bytes"] for name in found.names()]
        before = figures(found.client.get("/metrics").text)
        found.client.post(f"{QUEUE}/retry?state=pending")
        found.drain()
        response = found.client.get("/metrics")
        after = figures(response.text)
        assert found.names() == [dead]
    assert before["jpegstow_queue_entriespending"] == before["jpegstow_queue_entriesdead"] == 1
    assert before["jpegstow_queue_bytes"] == sum(sizes)
    assert 0 < before["jpegstow_queue_oldest_seconds"] < 60
    assert before["jpegstow_queue_attempts_totalunavailable"] == 1
    assert before["jpegstow_queue_attempts_totalrejected"] == 1
    assert before["jpegstow_queue_attempts_totalstored"] == 0
    assert after["jpegstow_queue_attempts_totalstored"] == 1
    assert after["jpegstow_queue_entriespending"] == after["jpegstow_queue_oldest_seconds"] == 0
    assert after["jpegstow_queue_entriesdead"] == 1
    assert [value for value in PLANTED if value in response.text] == []


@pytest.mark.parametrize(("now", "age"), [(1_000.5, 900.5), (50.0, 0.0)])
def test_the_age_of_the_oldest_never_is_negative(now: float, age: float) -> None:
    totals = Totals({"pending": 1, "leased": 0, "dead": 0}, 7, 100.0, {})
    found = figures(metrics.exposition(totals, Read({}, {}), now).decode())
    assert found["jpegstow_queue_oldest_seconds"] == age
    assert found["jpegstow_queue_bytes"] == 7
