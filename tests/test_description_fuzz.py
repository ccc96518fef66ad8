"""No answer is outside the description, whatever is asked: schemathesis asks `jpegstow serve`."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import requests

from service.description import DESCRIPTION
from tests.access import KEYS, shown
from tests.jpegs import make_jpeg
from tests.peers import BOUND, Respond, ScriptedServer, failed, no_studies, stored, unavailable
from tests.peers.buckets import Bucket, BucketServer
from tests.serving import SECRET, UPLOAD, Serving

ROOT = Path(__file__).parents[1]
SCHEMATHESIS = str(Path(sys.executable).with_name("schemathesis"))
SEED = 7
REQUESTS = 20  # of each kind for each operation, at most; some 700 in all, which take 10 s
ENTRIES = 20  # that the queue has at the beginning, for requests to find and discard
PATIENCE = 180.0  # seconds

STORES = {
    "takes everything": (stored(), no_studies()),
    "refuses everything": (failed(0xA900, "it doesn't match"), no_studies()),
    "is down": (unavailable(), unavailable()),
}


@pytest.mark.parametrize(("answer", "search"), STORES.values(), ids=STORES)
def test_whatever_is_asked_the_answer_is_in_the_description(
    answer: Respond, search: Respond, tmp_path: Path
) -> None:
    with (
        ScriptedServer(answer, also={"GET": search}) as store,
        BucketServer(Bucket()) as buckets,
        Serving(
            tmp_path / "data",
            DICOMWEB_URL=store.dicomweb_url,
            BUCKET_ENDPOINT=buckets.url,
            UID_NAMESPACE=SECRET,
            PUSH_AUTH="none",
            READ_BACK="never",
            RETRY_WORKERS="0",
        ) as serving,
    ):
        ended = schemathesis(serving, [queued(serving, number) for number in range(ENTRIES)])
        assert store.errors == []
        assert len(store.requests) > 5
    assert ended.returncode == 0, ended.stdout[-20_000:]
    assert " passed" in ended.stdout
    assert "unforeseen error" not in serving.log.read_text()


def test_nor_is_an_answer_of_a_queue_in_a_bucket(tmp_path: Path) -> None:
    queue = "pubsub://project/alarms?bucket=gs://pictures/queue"
    with (
        ScriptedServer(stored()) as store,
        BucketServer(Bucket()) as buckets,
        Serving(
            tmp_path / "data",
            DICOMWEB_URL=store.dicomweb_url,
            RETRY_QUEUE=queue,
            BUCKET_ENDPOINT=buckets.url,
            UID_NAMESPACE=SECRET,
            PUSH_AUTH="none",
            RETRY_WORKERS="0",
        ) as serving,
    ):
        ended = schemathesis(serving, [], "--include-path-regex", "^/v1/(retry|queue)")
    assert ended.returncode == 0, ended.stdout[-20_000:]
    assert "unforeseen error" not in serving.log.read_text()


WHO = {
    "somebody who may everything": ("all", "6000"),
    "somebody who may nothing": ("known", "6000"),
    "nobody who is known": ("nobody", "6000"),
    "somebody who asks too often": ("all", "30"),
}


@pytest.mark.parametrize(("role", "limit"), WHO.values(), ids=WHO)
def test_nor_is_an_answer_where_access_is_controlled(role: str, limit: str, tmp_path: Path) -> None:
    # Each bound of the description has been tried above.
    few = ["--phases", "examples,fuzzing", "--max-examples", "4"]
    given = {"AUTH": "apikey", "KEYS": KEYS, "RATE_LIMIT": limit, "WORKERS": "1"}
    with (
        ScriptedServer(stored(), also={"GET": no_studies()}) as store,
        Serving(
            tmp_path / "data",
            DICOMWEB_URL=store.dicomweb_url,
            UID_NAMESPACE=SECRET,
            READ_BACK="never",
            RETRY_WORKERS="0",
            **given,
        ) as serving,
    ):
        entries = [queued(serving, number, shown("upload")) for number in range(3)]
        header = [part for pair in shown(role).items() for part in ("-H", ": ".join(pair))]
        ended = schemathesis(serving, entries, *few, *header)
    assert ended.returncode == 0, ended.stdout[-20_000:]
    assert "unforeseen error" not in serving.log.read_text()


def queued(serving: Serving, number: int, who: Mapping[str, str] = {}) -> str:
    """Put a picture into the queue without asking the store; return its entry's id."""
    response = requests.post(
        f"{serving.url}{UPLOAD}",
        files={"image": make_jpeg(16, 16, seed=number)},
        headers={"Prefer": "respond-async", **who},
        timeout=BOUND,
    )
    (instance,) = response.json()["instances"]
    return str(instance["SOPInstanceUID"])


def schemathesis(
    serving: Serving, entries: list[str], *options: str
) -> subprocess.CompletedProcess[str]:
    """Let schemathesis ask for all that the description has, the same things each time."""
    return subprocess.run(
        [
            SCHEMATHESIS,
            *("--config-file", str(ROOT / "tests" / "schemathesis.toml")),
            *("run", str(DESCRIPTION), "--url", serving.url, "--no-color"),
            *("--seed", str(SEED), "--max-examples", str(REQUESTS), "--continue-on-failure"),
            *options,
        ],
        cwd=serving.data_dir.parent,  # what it remembers of one run would change the next
        env=os.environ
        | {"SCHEMATHESIS_HOOKS": "tests.api_hooks", "ENTRIES": " ".join(entries)}
        | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
