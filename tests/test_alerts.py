"""The alert rules under Prometheus itself: what rings in which trouble, and what doesn't."""

import re
import subprocess
from io import StringIO
from pathlib import Path
from typing import Any, Final

import pytest
from ruamel.yaml import YAML

from tests.jpegs import make_jpeg
from tests.judges import require_tool
from tests.peers import BOUND, Respond, ScriptedServer, stored
from tests.serving import client_for, post

RULES: Final = Path(__file__).parents[1] / "docs" / "alerts.yaml"
GROUPS: Final = YAML(typ="safe").load(RULES)["groups"]
ALERTS: Final[dict[str, Any]] = {rule["alert"]: rule for group in GROUPS for rule in group["rules"]}

UPLOADS: Final = "jpegstow_uploads_total"
REQUESTS: Final = "jpegstow_requests_total"
ANSWERS: Final = "jpegstow_store_answers_total"
RETRIES: Final = "jpegstow_retries_total"
ENTRIES: Final = "jpegstow_queue_entries"
OLDEST: Final = "jpegstow_queue_oldest_seconds"
BREAKERS: Final = "jpegstow_breakers_open"
TEMPLATE: Final = "vl-photographic-image"

# A minute each, in promtool's form: a start, what comes to it each minute, and for how many.
MINUTES: Final = 120
GROWS: Final = f"0+3x{MINUTES}"
STAYS: Final = f"0x{MINUTES}"
HELD: Final = f"7x{MINUTES}"
AGES: Final = f"0+60x{MINUTES}"
ONCE: Final = f"0x{MINUTES - 8} 1x8"  # eight minutes before the end


def series(name: str, **labels: str) -> str:
    told = {"job": "jpegstow", "instance": "127.0.0.1:8080"} | labels
    return name + "{" + ", ".join(f'{label}="{value}"' for label, value in told.items()) + "}"


def uploads(outcome: str) -> str:
    return series(UPLOADS, outcome=outcome, template=TEMPLATE)


def requests(status: str) -> str:
    return series(REQUESTS, route="/v1/instances", status=status)


HEALTHY: Final = {
    series("up"): f"1x{MINUTES}",
    uploads("stored"): GROWS,
    requests("2xx"): GROWS,
    series(ANSWERS, status="2xx"): GROWS,
    **{uploads(outcome): STAYS for outcome in ("queued", "rejected", "refused", "failed")},
    **{requests(status): STAYS for status in ("4xx", "5xx")},
    **{series(ANSWERS, status=status): STAYS for status in ("4xx", "5xx", "denied", "none")},
    **{series(RETRIES, outcome=each): STAYS for each in ("stored", "unavailable", "rejected")},
    **{series(ENTRIES, state=state): STAYS for state in ("pending", "leased", "dead")},
    series(OLDEST): STAYS,
    series(BREAKERS): STAYS,
}

# In each trouble what differs from a healthy service, and what rings at its end.
TROUBLES: Final[dict[str, tuple[dict[str, str], set[str]]]] = {
    "none": ({}, set()),
    "the service is down": ({series("up"): STAYS}, {"Down"}),
    "it was down for a minute": ({series("up"): f"1x{MINUTES - 1} 0"}, set()),
    "neither stored nor queued": (
        {requests("2xx"): HELD, requests("5xx"): GROWS, uploads("failed"): GROWS},
        {"TakesNoUploads", "UploadsFail"},
    ),
    "some are neither stored nor queued": (
        {requests("5xx"): GROWS, uploads("failed"): GROWS},
        {"UploadsFail"},
    ),
    "one was neither stored nor queued": (
        {requests("5xx"): ONCE, uploads("failed"): ONCE},
        set(),
    ),
    "nobody uploads": ({requests("2xx"): HELD, uploads("stored"): HELD}, set()),
    "senders err": ({requests("4xx"): GROWS, uploads("refused"): GROWS}, set()),
    "the store refuses one": (
        {uploads("rejected"): ONCE, series(ENTRIES, state="dead"): ONCE},
        {"StoreRefuses", "DeadEntries"},
    ),
    "the store refuses one that was queued": (
        {series(RETRIES, outcome="rejected"): ONCE, series(ENTRIES, state="dead"): ONCE},
        {"StoreRefuses", "DeadEntries"},
    ),
    "some were given up long ago": ({series(ENTRIES, state="dead"): HELD}, {"DeadEntries"}),
    "the credentials are wrong": ({series(ANSWERS, status="denied"): GROWS}, {"WrongCredentials"}),
    "one waits for credentials": (
        {series(ANSWERS, status="denied"): " ".join(str(n // 8) for n in range(MINUTES + 1))},
        {"WrongCredentials"},
    ),
    # Google's store answers 403 of what isn't there.
    "somebody looked for what is gone": ({series(ANSWERS, status="denied"): ONCE}, set()),
    "the store is away": (
        {
            series(BREAKERS): f"2x{MINUTES}",
            series(ANSWERS, status="none"): GROWS,
            uploads("queued"): GROWS,
            series(ENTRIES, state="pending"): GROWS,
            series(OLDEST): AGES,
        },
        {"StoreLeftAlone", "QueueGrows", "QueueOld"},
    ),
    "the store is away, and few upload": (
        {
            series(ANSWERS, status="2xx"): HELD,
            series(ANSWERS, status="none"): " ".join(str(n // 7) for n in range(MINUTES + 1)),
            uploads("stored"): HELD,
        },
        {"StoreLeftAlone"},
    ),
    "the store failed once, and took the same when it was sent again": (
        {series(ANSWERS, status="2xx"): ONCE, series(ANSWERS, status="5xx"): ONCE},
        set(),
    ),
    "the store was away for some minutes": (
        {series(BREAKERS): f"0x{MINUTES - 10} 2x4 0x6", uploads("queued"): ONCE},
        set(),
    ),
    "a long queue drains": ({series(ENTRIES, state="pending"): f"900-5x{MINUTES}"}, set()),
    "one has waited for days": (
        {series(ENTRIES, state="pending"): HELD, series(OLDEST): f"259200+60x{MINUTES}"},
        {"QueueOld", "QueueTooOld"},
    ),
}


def promtool(*arguments: str, given: str = "", folder: Path = RULES.parent) -> str:
    """Return what promtool says, unless it is content."""
    ended = subprocess.run(
        [require_tool("promtool"), *arguments],
        input=given,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=BOUND,
    )
    return "" if ended.returncode == 0 else ended.stdout + ended.stderr


def expected(name: str, ringing: set[str]) -> dict[str, Any]:
    """Return what is expected of an alert at the end: that it rings as it is written, or not."""
    rule = ALERTS[name]
    where = {"job": "jpegstow", "instance": "127.0.0.1:8080"} if name == "JpegstowDown" else {}
    alert = {"exp_labels": where | rule["labels"], "exp_annotations": rule["annotations"]}
    rings = name.removeprefix("Jpegstow") in ringing
    return {
        "eval_time": f"{MINUTES}m",
        "alertname": name,
        "exp_alerts": [alert] if rings else [],
    }


def case(trouble: str) -> dict[str, Any]:
    differing, ringing = TROUBLES[trouble]
    assert differing.keys() <= HEALTHY.keys()
    told = HEALTHY | differing
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in told.items()],
        "alert_rule_test": [expected(name, ringing) for name in ALERTS],
    }


def test_prometheus_reads_the_rules() -> None:
    assert promtool("check", "rules", str(RULES)) == ""


def test_every_alert_rings_in_some_trouble() -> None:
    rung = set().union(*(ringing for _, ringing in TROUBLES.values()))
    assert {f"Jpegstow{name}" for name in rung} == ALERTS.keys()


@pytest.mark.parametrize("trouble", TROUBLES)
def test_what_must_ring_rings_and_nothing_else(trouble: str, tmp_path: Path) -> None:
    text = StringIO()
    model = {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [case(trouble)]}
    YAML(typ="safe").dump(model, text)
    (tmp_path / "case.yaml").write_text(text.getvalue())
    assert promtool("test", "rules", "case.yaml", folder=tmp_path) == ""


def test_metrics_are_named_and_told_of_as_prometheus_advises() -> None:
    with ScriptedServer(stored(), Respond(401), stored()) as store:
        client = client_for(store.dicomweb_url)
        assert [post(client, make_jpeg(seed=n)).status_code for n in range(3)] == [201, 202, 201]
        text = client.get("/metrics").text
    assert promtool("check", "metrics", given=text) == ""
    # What the troubles above are made of is what there is.
    names = set(re.findall(r"^\w+", text, re.MULTILINE))
    assert {name.partition("{")[0] for name in HEALTHY} - {"up"} <= names
