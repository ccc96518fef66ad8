"""`/metrics` of the real processes: the same sums whoever answers, also after one was killed."""

import os
import signal
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import requests

from tests.figures import Figures, figures
from tests.jpegs import make_jpeg
from tests.peers import BOUND, ScriptedServer, stored
from tests.processes import is_alive, kill, wait_until
from tests.serving import Serving

PICTURES = [make_jpeg(seed=seed) for seed in range(12)]
STORED = ("jpegstow_uploads_total", "stored", "vl-photographic-image")
BYTES = ("jpegstow_bytes_in_total",)
SCRAPED = ("jpegstow_requests_total", "/metrics", "2xx")
TIMED = ("jpegstow_step_seconds_count", "normalise")


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("metrics") / "data"
    with Serving(folder, WORKERS="3", THREADS="2") as service:
        yield service


RETRIED = ("jpegstow_retries_total", "stored")
RETRY_TIMED = ("jpegstow_step_seconds_count", "retry")


def scrape(serving: Serving) -> Figures:
    # Each comes over a connection of its own, so that any worker may answer.
    response = requests.get(f"{serving.url}/metrics", timeout=BOUND)
    assert response.status_code == 200
    return figures(response.text)


def counts(found: Figures) -> Figures:
    """Return what only uploads change."""
    kinds = ("jpegstow_uploads", "jpegstow_bytes", "jpegstow_step", "jpegstow_store")
    return {name: value for name, value in found.items() if name[0].startswith(kinds)}


def workers(serving: Serving) -> list[int]:
    """Return the processes that answer for the service; the first of its kind is their parent."""
    return serving.running(b"service.wsgi:service()")[1:]


def test_every_worker_tells_the_same_sums_also_after_one_was_killed(serving: Serving) -> None:
    before = counts(scrape(serving))
    for jpeg in PICTURES[:6]:
        assert serving.post(jpeg).status_code == 201
    sums = counts(scrape(serving))
    assert sums[STORED] - before.get(STORED, 0) == 6
    assert sums[BYTES] - before[BYTES] == sum(map(len, PICTURES[:6]))
    assert sums[TIMED] - before[TIMED] == 6
    assert [counts(scrape(serving)) for _ in range(20)] == [sums] * 20
    for victim in workers(serving)[:2]:
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: not is_alive(victim) and len(workers(serving)) == 3)  # noqa: B023
        assert [counts(scrape(serving)) for _ in range(20)] == [sums] * 20
    for jpeg in PICTURES[6:9]:
        assert serving.post(jpeg).status_code == 201
    after = counts(scrape(serving))
    assert after[STORED] == sums[STORED] + 3
    assert all(after[name] >= value for name, value in sums.items())


def test_files_are_no_more_than_processes(serving: Serving) -> None:
    for _ in range(20):
        scrape(serving)
    kept = list((serving.data_dir / "metrics").iterdir())
    assert 1 <= len(kept) <= 4  # three workers, one retry


def test_scrapes_during_uploads_never_fall_and_miss_nothing(serving: Serving) -> None:
    start = scrape(serving)
    statuses: list[int] = []

    def upload() -> None:
        statuses.extend(serving.post(jpeg).status_code for jpeg in PICTURES[9:] * 3)

    uploading = [threading.Thread(target=upload) for _ in range(2)]
    for thread in uploading:
        thread.start()
    seen = [start]
    while any(thread.is_alive() for thread in uploading):
        seen.append(scrape(serving))
    seen.append(scrape(serving))
    assert set(statuses) <= {200, 201}
    for earlier, later in pairwise(seen):
        falling = {name for name, value in counts(earlier).items() if later[name] < value}
        assert falling == set()
        # A bucket holds whatever a smaller one does, at each moment.
        assert later[TIMED] >= earlier[TIMED]
    assert seen[-1][TIMED] - start[TIMED] == len(statuses) == 18
    assert seen[-1][SCRAPED] - start[SCRAPED] == len(seen) - 1


def test_what_the_retry_process_counts_is_told_too_and_a_restart_loses_nothing(
    tmp_path: Path,
) -> None:
    given = {"WORKERS": "2", "READ_BACK": "never"}
    with ScriptedServer(stored()) as store:
        with Serving(tmp_path / "data", DICOMWEB_URL=store.dicomweb_url, **given) as service:
            headers = {"Content-Type": "image/jpeg", "Prefer": "respond-async"}
            response = requests.post(
                f"{service.url}/v1/instances", data=PICTURES[0], headers=headers, timeout=BOUND
            )
            assert response.status_code == 202
            wait_until(lambda: scrape(service)[RETRIED] == 1)
            before = scrape(service)
            assert before[RETRY_TIMED] == 1
            assert before["jpegstow_uploads_total", "queued", "vl-photographic-image"] == 1
            kill(service.processes()[::-1])
        with Serving(tmp_path / "data", DICOMWEB_URL=store.dicomweb_url, **given) as service:
            assert counts(scrape(service)) == counts(before)
            assert scrape(service)[RETRIED] == 1
