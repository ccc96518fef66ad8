"""What the audit tells of whom; how often somebody may ask; what is told of patients: nothing."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from service import assemble
from service.access import ARCHIVE, Rate, add_access
from service.access.audit import event_of
from service.access.routes import SERVICE
from service.archive import Archive
from service.dicomweb import create_app
from tests.access import KEYS, MADE, shown
from tests.archive_instances import dicom_file, file_request
from tests.commands import jpegstow
from tests.jpegs import make_jpeg
from tests.peers import ScriptedServer, no_studies, stored, unavailable
from tests.serving import client_for, form, settings_for, upload

JPEG = make_jpeg()
OWN = {"Sec-Fetch-Site": "same-origin"}
PATIENT = {
    "PatientName": "Quixote^Alonso",
    "PatientID": "MANCHA-1605",
    "PatientBirthDate": "15470929",
    "AccessionNumber": "ROCINANTE",
    "StudyDescription": "Windmills",
    "PatientComments": "Dulcinea",
}
TRACES = ["Quixote", "Alonso", "MANCHA", "15470929", "ROCINANTE", "Windmills", "Dulcinea"]

Lines = list[dict[str, Any]]


def lines(capsys: pytest.CaptureFixture[str]) -> Lines:
    """Return the audit's lines since the last call, without what each has."""
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    common = {"message", "time", "address", "severity", "status", "type", "kind"}
    return [
        {name: value for name, value in line.items() if name not in common}
        for line in told
        if line["message"] == "audit"
    ]


@pytest.fixture
def store() -> Iterator[ScriptedServer]:
    with ScriptedServer(stored()) as server:
        yield server


def protected(store: ScriptedServer, **environment: str) -> FlaskClient:
    return client_for(store.dicomweb_url, AUTH="apikey", KEYS=KEYS, **environment)


def line(event: str, action: str, who: str, outcome: str = "success", **uids: Any) -> Any:
    return {"event": event, "action": action, "who": who, "outcome": outcome, **uids}


def test_an_upload_is_told_with_its_uids(
    store: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = upload(protected(store), **form(JPEG, **PATIENT), headers=shown("upload"))
    (instance,) = answer.get_json()["instances"]
    uids: dict[str, Any] = {
        "StudyInstanceUID": [instance["StudyInstanceUID"]],
        "SOPInstanceUID": [instance["SOPInstanceUID"]],
    }
    assert lines(capsys) == [line("DICOM Instances Transferred", "C", "upload", **uids)]


def test_what_is_done_in_the_queue_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedServer(unavailable()) as away:
        client = protected(away)
        upload(client, **form(JPEG, **PATIENT), headers=shown("upload"))
        (entry,) = client.get("/v1/queue", headers=shown("read")).get_json()["entries"]
        uid, path = entry["id"], f"/v1/queue/{entry['id']}"
        lines(capsys)
        client.get("/v1/queue?reason=Quixote", headers=shown("read"))
        client.get(path, headers=shown("read"))
        client.post(f"{path}/retry", headers=shown("operate"))
        client.delete(path, headers=shown("read"))
        client.delete(path, headers=shown("operate"))
        client.get(path, headers=shown("operate"))
        client.get("/v1/queue/Quixote^Alonso", headers=shown("operate"))
    accessed = "DICOM Instances Accessed"
    assert lines(capsys) == [
        line("Query", "E", "read"),
        line(accessed, "R", "read", SOPInstanceUID=uid),
        line(accessed, "U", "operate", SOPInstanceUID=uid),
        line("Security Alert", "E", "read", "minor failure", SOPInstanceUID=uid),
        line(accessed, "D", "operate", SOPInstanceUID=uid),
        line(accessed, "R", "operate", "minor failure", SOPInstanceUID=uid),
        line(accessed, "R", "operate", "minor failure"),
    ]


def test_what_is_done_in_the_archive_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = Archive(tmp_path)
    app = create_app(opened)
    add_access(app, assemble.archive_access(settings_for("", AUTH="apikey", KEYS=KEYS)), ARCHIVE)
    client, payload = app.test_client(), file_request(dicom_file())
    headers = {"Content-Type": payload.content_type, "Accept": "application/dicom+json"}
    body = b"".join(payload.pieces)
    client.post("/dicomWeb/studies", data=body, headers=headers | shown("upload"))
    (stored_line,) = lines(capsys)
    (study,), (instance,) = stored_line["StudyInstanceUID"], stored_line["SOPInstanceUID"]
    path = f"/dicomWeb/studies/{study}"
    client.get("/dicomWeb/studies?PatientName=Quixote", headers=shown("read"))
    client.get(f"{path}/metadata", headers=shown("read")).get_data()
    client.delete(path, headers=shown("operate"))
    opened.close()
    uids = {"StudyInstanceUID": study}
    assert instance
    assert (stored_line["event"], stored_line["who"]) == ("DICOM Instances Transferred", "upload")
    assert lines(capsys) == [
        line("Query", "E", "read"),
        line("DICOM Instances Accessed", "R", "read", **uids),
        line("DICOM Study Deleted", "D", "operate", **uids),
    ]


def test_who_signs_in_and_who_could_not_is_told(
    store: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    client = protected(store)
    client.post("/sign-in", data={"key": MADE["read"][0]}, headers=OWN)
    client.post("/sign-out", headers=OWN)
    client.post("/sign-in", data={"key": "wrong"}, headers=OWN)
    client.get("/v1/queue", headers={"Authorization": "Bearer wrong"})
    client.get("/v1/queue", headers={"Accept": "text/html"})  # is only led to the sign-in
    event = "User Authentication"
    assert lines(capsys) == [
        line(event, "E", "read"),
        line(event, "E", "read"),
        line(event, "E", "unknown", "minor failure"),
        line(event, "E", "unknown", "minor failure"),
    ]


def test_keys_that_are_made_and_revoked_are_told_beside_what_is_printed(tmp_path: Path) -> None:
    given = {"DATA_DIR": str(tmp_path)}
    made = jpegstow("keys", "make", "nurse", "--scope", "upload", url="", **given)
    revoked = jpegstow("keys", "revoke", "nurse", url="", **given)
    assert made.stdout.startswith("jpegstow_")
    assert len(made.stdout.splitlines()) == 1
    for ended, change in ((made, "made"), (revoked, "revoked")):
        told = json.loads(ended.stderr)
        assert (told["event"], told["key"], told["change"]) == ("Security Alert", "nurse", change)
        assert made.stdout.strip() not in ended.stderr


def test_a_key_is_made_and_revoked_once_only(tmp_path: Path) -> None:
    given = {"DATA_DIR": str(tmp_path)}
    codes = [
        jpegstow("keys", *words.split(), url="", **given).exit_code
        for words in ("make a", "make a", "revoke b", "revoke a", "revoke a", "make a", "make é")
    ]
    assert codes == [0, 2, 2, 0, 2, 0, 2]
    listed = jpegstow("keys", "list", url="", **given).stdout.splitlines()
    assert [row.split()[0] for row in listed] == ["name", "a", "a"]


def test_a_key_for_the_setting_is_one_that_the_setting_takes(tmp_path: Path) -> None:
    words = ["keys", "make", "a", "--scope", "read", "--setting"]
    printed = jpegstow(*words, url="", DATA_DIR=str(tmp_path)).stdout
    key, entry = printed.splitlines()
    assert list(tmp_path.iterdir()) == []
    client = client_for("http://127.0.0.1:1", AUTH="apikey", KEYS=entry)
    answer = client.get("/v1/queue", headers={"Authorization": f"Bearer {key}"})
    assert answer.status_code == 200


def test_every_route_with_a_scope_has_an_event_or_holds_no_instance() -> None:
    rows = [row for table in (SERVICE, ARCHIVE) for row, scopes in table.items() if scopes]
    quiet = {rule for method, rule in rows if event_of(method, rule) is None}
    assert {rule.rpartition("/datasets/<dataset>")[2] for rule in quiet} <= {
        "/metrics", "/", "/operations/<operation>",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("method", "rule", "event"),
    [
        ("GET", "/", None),
        ("GET", "/queue", "Query"),
        ("POST", "/queue/list", "Query"),
        ("POST", "/queue/retry", "DICOM Instances Accessed"),
        ("POST", "/studies/search", "Query"),
        ("GET", "/studies", "Query"),
        ("GET", "/studies/<study>", "DICOM Instances Accessed"),
        ("GET", "/studies/<study>/thumbnail", "DICOM Instances Accessed"),
        ("GET", "/queue/<name>/thumbnail", "DICOM Instances Accessed"),
        ("DELETE", "/studies/<study>", "DICOM Study Deleted"),
        ("DELETE", "/studies/<study>/series/<series>", "DICOM Instances Accessed"),
    ],
)
def test_pages_are_told_of_as_what_they_show(method: str, rule: str, event: str | None) -> None:
    found = event_of(method, rule)
    assert (found and found.name) == event


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def test_a_caller_asks_as_often_as_is_allowed_and_then_waits() -> None:
    clock = Clock()
    rate = Rate(60, clock)
    assert [rate.wait("a") for _ in range(60)] == [0.0] * 60
    assert rate.wait("a") == pytest.approx(1.0)
    assert rate.wait("b") == 0.0
    clock.now += 0.5
    assert rate.wait("a") == pytest.approx(0.5)
    clock.now += 0.5
    assert rate.wait("a") == 0.0
    assert rate.wait("a") == pytest.approx(1.0)
    clock.now += 60.0
    assert [rate.wait("a") for _ in range(60)] == [0.0] * 60


def test_many_callers_take_no_memory_without_end() -> None:
    clock = Clock()
    rate = Rate(1, clock)
    assert {rate.wait(f"caller {number}") for number in range(30_000)} == {0.0}
    assert len(rate._until) == 10_000
    assert rate.wait("caller 29999") > 0


def test_who_asks_too_often_is_told_when_to_come_again(store: ScriptedServer) -> None:
    client = protected(store, RATE_LIMIT="3")
    answers = [client.get("/v1/queue", headers=shown("read")) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 20
    assert answers[-1].get_json()["type"] == "urn:jpegstow:too-many-requests"
    assert client.get("/v1/queue", headers=shown("operate")).status_code == 200
    assert client.get("/healthz").status_code == 200


def test_who_guesses_keys_too_often_has_to_wait(store: ScriptedServer) -> None:
    client = protected(store, RATE_LIMIT="3")
    wrong = {"Authorization": "Bearer jpegstow_guess"}
    assert [client.get("/v1/queue", headers=wrong).status_code for _ in range(4)] == [401] * 3 + [
        429
    ]
    answers = [client.post("/sign-in", data={"key": "x"}, headers=OWN) for _ in range(4)]
    assert answers[-1].status_code == 429
    assert client.get("/v1/queue", headers=shown("read")).status_code == 200


def test_the_services_own_requests_to_its_archive_are_not_counted(tmp_path: Path) -> None:
    opened = Archive(tmp_path)
    app = create_app(opened)
    given = {"AUTH": "apikey", "KEYS": KEYS, "RATE_LIMIT": "1", "ARCHIVE_KEY": "jpegstow_own"}
    add_access(app, assemble.archive_access(settings_for("", **given)), ARCHIVE)
    client, own = app.test_client(), {"Authorization": "Bearer jpegstow_own"}
    assert {client.get("/dicomWeb/studies", headers=own).status_code for _ in range(9)} == {200}
    answers = [client.get("/dicomWeb/studies", headers=shown("read")) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    assert answers[1].headers["Retry-After"]
    opened.close()


def traces(text: str) -> list[str]:
    return [trace for trace in TRACES if trace in text]


def everything_done(app: Flask, away: ScriptedServer) -> str:
    """Upload, fail and act with a patient's values in each place; return what others are told."""
    client = app.test_client()
    places = []
    for role in ("nobody", "known", "upload"):
        picture = form(JPEG, **PATIENT, filename="Quixote.jpg")
        places.append(upload(client, **picture, headers=shown(role)).headers.get("Location", ""))
    assert places[-1].startswith("/v1/queue/")
    upload(client, **form(JPEG, b"no JPEG", **PATIENT), headers=shown("upload"))
    upload(
        client, **form(JPEG, **PATIENT | {"PatientBirthDate": "Windmills"}), headers=shown("all")
    )
    (entry, *_) = client.get("/v1/queue", headers=shown("read")).get_json()["entries"]
    path = f"/v1/queue/{entry['id']}"
    mended = {"attributes": PATIENT | {"PatientComments": "Rocinante Dulcinea"}}
    others = [
        client.get(f"{path}", headers=shown("upload")),
        client.post(f"{path}/retry", json=mended, headers=shown("read")),
        client.get("/v1/queue?reason=Quixote^Alonso", headers=shown("known")),
        client.get("/v1/queue/Quixote^Alonso", headers=shown("nobody")),
        client.get("/studies?PatientName=Quixote^Alonso", headers=shown("nobody")),
        client.get("/v1/queue?PatientName=Quixote", headers={"Accept": "text/html"}),
        client.get("/metrics", headers=shown("known")),
        client.get("/", headers=shown("known")),
        client.get("/queue", headers=shown("operate")),
        client.get(f"/queue/{entry['id']}", headers=shown("upload")),
        client.get("/studies", headers=shown("operate")),
        client.get("/language/Quixote?back=/", headers=shown("nobody")),
        client.get("/v1/queue", headers=shown("operate")),
    ]
    for role, act in (("operate", "retry"), ("all", "retry")):
        client.post(f"{path}/{act}", json=mended, headers=shown(role))
    sought = {"PatientName": "Quixote^Alonso", "PatientID": "MANCHA-1605"}
    client.post("/studies/search", data=sought, headers=shown("read"))
    client.get(f"/queue/{entry['id']}", headers=shown("read"))
    client.get(f"/queue/{entry['id']}/thumbnail", headers=shown("read"))
    client.post("/queue/list", data={"reason": "Quixote"}, headers=shown("read"))
    client.delete(path, headers=shown("all"))
    client.post("/v1/queue/retry?reason=Quixote", headers=shown("all"))
    assert away.requests
    return "".join([*places, *(answer.text + str(answer.headers) for answer in others)])


def test_no_patient_is_in_logs_audit_metrics_urls_file_names_or_what_others_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ScriptedServer(no_studies(), unavailable(), unavailable()) as away:
        client = protected(away, DATA_DIR=str(tmp_path / "data"))
        told = everything_done(client.application, away)
        # What is searched for has no other place in DICOMweb than the URL.
        urls = "".join(
            request.path.partition("?")[0] if request.method == "GET" else request.path
            for request in away.requests
        )
    said = capsys.readouterr()
    assert '"audit"' in said.out
    names = "".join(str(path) for path in tmp_path.rglob("*"))
    assert "queue" in names
    found = {
        "logs": traces(said.out + said.err),
        "others": traces(told),
        "URLs": traces(urls),
        "file names": traces(names),
    }
    assert [where for where, traced in found.items() if traced] == []
