"""Who may do what: each endpoint x each role is a row; who may not does nothing."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from service import assemble
from service.access import ARCHIVE, Access, add_access, digest_of, make
from service.archive import Archive
from service.dicomweb import create_app
from service.errors import BadSettings
from tests.access import (
    EVERYBODY,
    KEYS,
    MADE,
    ROLES,
    WHO_IS_KNOWN,
    WHO_LOOKS,
    WHO_OPERATES,
    WHO_READS,
    WHO_UPLOADS,
    endpoints,
    path_of,
    shown,
)
from tests.archive_instances import dicom_file, file_request
from tests.jpegs import make_jpeg
from tests.peers import ScriptedServer, no_studies, unavailable
from tests.serving import client_for, form, settings_for, upload

JPEG = make_jpeg()
VALUES = {
    "name": "1.2.3",
    "version": "v1",
    "project": "p",
    "location": "l",
    "dataset": "d",
    "store": "s",
    "operation": "1",
    "study": "1.2.1",
    "series": "1.2.1.1",
    "frames": "1",
    "where": "x",
    "filename": "pico.css",
    "instance": "1.2.1.1.1",
}
INSTANCE = "/studies/<study>/series/<series>/instances/<instance>"
SERVICE_ROWS = {
    ("GET", "/healthz"): EVERYBODY,
    ("GET", "/readyz"): EVERYBODY,
    ("GET", "/metrics"): WHO_IS_KNOWN,
    ("GET", "/sign-in"): EVERYBODY,
    ("POST", "/v1/instances"): WHO_UPLOADS,
    ("GET", "/v1/queue"): WHO_LOOKS,
    ("GET", "/v1/queue/<name>"): WHO_LOOKS,
    ("GET", "/v1/queue/<name>/image"): WHO_LOOKS,
    ("POST", "/v1/queue/retry"): WHO_OPERATES,
    ("POST", "/v1/queue/<name>/retry"): WHO_OPERATES,
    ("DELETE", "/v1/queue/<name>"): WHO_OPERATES,
    ("GET", "/openapi.yaml"): EVERYBODY,
    ("GET", "/docs"): EVERYBODY,
    ("GET", "/docs/style.css"): EVERYBODY,
    ("GET", "/static/<path:filename>"): EVERYBODY,
    ("GET", "/language/<name>"): EVERYBODY,
    ("GET", "/"): WHO_IS_KNOWN,
    ("GET", "/queue"): WHO_LOOKS,
    ("POST", "/queue/list"): WHO_LOOKS,
    ("POST", "/queue/retry"): WHO_OPERATES,
    ("GET", "/queue/<name>"): WHO_LOOKS,
    ("GET", "/queue/<name>/thumbnail"): WHO_LOOKS,
    ("GET", "/studies"): WHO_READS,
    ("POST", "/studies/search"): WHO_READS,
    ("GET", "/studies/<study>"): WHO_READS,
    ("GET", "/studies/<study>/thumbnail"): WHO_READS,
    ("GET", INSTANCE): WHO_READS,
    ("GET", f"{INSTANCE}/thumbnail"): WHO_READS,
    ("GET", f"{INSTANCE}/rendered"): WHO_READS,
    ("GET", f"{INSTANCE}/file"): WHO_READS,
    ("DELETE", "/studies/<study>"): WHO_OPERATES,
    ("DELETE", INSTANCE): WHO_OPERATES,
}
OWN_RULE = {
    *{("POST", "/v1/pubsub"), ("POST", "/v1/retry")},  # tests/test_push.py
    *{("POST", "/sign-in"), ("POST", "/sign-out")},  # tests/test_access_pages.py
}
READS, STORES, DELETES = WHO_READS, WHO_UPLOADS, WHO_OPERATES
BY_METHOD = {"GET": READS, "HEAD": READS, "POST": STORES, "DELETE": DELETES}


@pytest.fixture(scope="module")
def store() -> Iterator[ScriptedServer]:
    with ScriptedServer(no_studies()) as server:
        yield server


@pytest.fixture(scope="module")
def client(store: ScriptedServer) -> FlaskClient:
    return client_for(store.dicomweb_url, AUTH="apikey", KEYS=KEYS)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    opened = Archive(tmp_path_factory.mktemp("archive"))
    app = create_app(opened)
    protected = settings_for("http://127.0.0.1:1", AUTH="apikey", KEYS=KEYS, DATA_DIR="/nowhere")
    add_access(app, assemble.archive_access(protected), ARCHIVE)
    yield app
    opened.close()


def expected_of_service(method: str, rule: str) -> frozenset[str]:
    """Return which roles may; a route without a row is an error here."""
    if method == "OPTIONS":
        return EVERYBODY
    return SERVICE_ROWS["GET" if method == "HEAD" else method, rule]


def expected_of_archive(method: str, rule: str) -> frozenset[str]:
    if method == "OPTIONS" or rule == "/healthz":
        return EVERYBODY
    return DELETES if "/operations/" in rule else BY_METHOD[method]


def refusals(client: FlaskClient, method: str, path: str) -> dict[str, int]:
    """Return the status with which each role is refused."""
    answers = {
        role: client.open(path, method=method, headers=shown(role)).status_code for role in ROLES
    }
    return {role: status for role, status in answers.items() if status in {401, 403}}


def refused(may: frozenset[str]) -> dict[str, int]:
    return {role: 401 if role == "nobody" else 403 for role in ROLES if role not in may}


def test_each_route_of_the_service_lets_in_whom_its_row_says(client: FlaskClient) -> None:
    app = client.application
    rows = [row for row in endpoints(app) if (row[0], row[1].rule) not in OWN_RULE]
    assert len(rows) > 20
    found = {(m, rule.rule): refusals(client, m, path_of(rule, VALUES)) for m, rule in rows}
    wanted = {(m, rule.rule): refused(expected_of_service(m, rule.rule)) for m, rule in rows}
    assert found == wanted


def test_each_route_of_the_archive_lets_in_whom_its_row_says(archive: Flask) -> None:
    client = archive.test_client()
    rows = list(endpoints(archive))
    assert len(rows) > 90
    found = {(m, rule.rule): refusals(client, m, path_of(rule, VALUES)) for m, rule in rows}
    wanted = {(m, rule.rule): refused(expected_of_archive(m, rule.rule)) for m, rule in rows}
    assert found == wanted


def test_a_route_without_a_row_lets_in_nobody() -> None:
    app = Flask("another")
    app.add_url_rule("/new", view_func=lambda: "done")
    given = tuple(kept for _, kept in MADE.values())
    add_access(app, Access("apikey", assemble.key_file(settings_for("http://h")), given))
    app.register_error_handler(Exception, lambda error: (type(error).__name__, 418))
    answers = [app.test_client().get("/new", headers=shown(role)).text for role in ROLES]
    assert answers == ["Unauthorized", *["Forbidden"] * 5]


@pytest.mark.parametrize("role", [role for role in ROLES if role not in WHO_UPLOADS])
def test_who_may_not_upload_reaches_neither_the_store_nor_the_queue(
    role: str, store: ScriptedServer, client: FlaskClient
) -> None:
    store.requests.clear()
    response = upload(client, **form(JPEG, PatientID="P-7"), headers=shown(role))
    assert response.status_code in {401, 403}
    assert response.content_type == "application/problem+json"
    totals = client.get("/v1/queue", headers=shown("all")).get_json()["totals"]
    assert (store.requests, sum(totals.values())) == ([], 0)


@pytest.mark.parametrize("role", [role for role in ROLES if role not in WHO_OPERATES])
def test_who_may_not_operate_changes_nothing_in_the_queue(role: str) -> None:
    with ScriptedServer(unavailable()) as away:
        client = client_for(away.dicomweb_url, AUTH="apikey", KEYS=KEYS)
        upload(client, **form(JPEG, PatientID="P-7"), headers=shown("upload"))
        before = client.get("/v1/queue", headers=shown("read")).get_json()
        (entry,) = before["entries"]
        for method, path in (
            ("DELETE", f"/v1/queue/{entry['id']}"),
            ("POST", f"/v1/queue/{entry['id']}/retry"),
            ("POST", "/v1/queue/retry"),
        ):
            answer = client.open(path, method=method, headers=shown(role))
            assert answer.status_code in {401, 403}
        assert client.get("/v1/queue", headers=shown("read")).get_json() == before


def test_who_may_not_store_or_delete_leaves_the_archive_as_it_is(archive: Flask) -> None:
    client = archive.test_client()
    payload = file_request(dicom_file())
    body = b"".join(payload.pieces)
    headers = {"Content-Type": payload.content_type, "Accept": "application/dicom+json"}
    for role in ROLES:
        answer = client.post("/dicomWeb/studies", data=body, headers=headers | shown(role))
        assert answer.status_code == (
            200 if role in WHO_UPLOADS else 401 if role == "nobody" else 403
        )
        if role in {"nobody", "known"}:
            held = client.get("/dicomWeb/instances", headers=shown("read"))
            assert held.get_json() == []
    (found,) = client.get("/dicomWeb/instances", headers=shown("read")).get_json()
    study = found["0020000D"]["Value"][0]
    for role in sorted(EVERYBODY - WHO_OPERATES):
        client.delete(f"/dicomWeb/studies/{study}", headers=shown(role))
    assert client.get("/dicomWeb/instances", headers=shown("read")).get_json() == [found]
    assert client.delete(f"/dicomWeb/studies/{study}", headers=shown("operate")).status_code == 200


GOOD = MADE["all"][0]
WRONG = {
    "nothing": None,
    "an empty header": "",
    "no scheme": GOOD,
    "another scheme": f"Basic {GOOD}",
    "a scheme alone": "Bearer",
    "no key": "Bearer ",
    "another key": f"Bearer {make('all', ())[0]}",
    "a key that is cut": f"Bearer {GOOD[:-1]}",
    "a longer key": f"Bearer {GOOD}A",
    "its digest": f"Bearer {digest_of(GOOD)}",
    "another case": f"Bearer {GOOD.swapcase()}",
    "two keys": f"Bearer {GOOD} {GOOD}",
    "other letters": "Bearer jpegstow_\xe9\xff",
}


@pytest.mark.parametrize("header", WRONG.values(), ids=WRONG)
def test_what_is_no_key_is_refused_and_not_repeated(
    header: str | None, client: FlaskClient
) -> None:
    headers = {} if header is None else {"Authorization": header}
    answer = client.get("/v1/queue", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert GOOD[9:20].lower() not in answer.text.lower()
    assert answer.get_json()["mend"]


def test_the_scheme_is_read_in_any_case(client: FlaskClient) -> None:
    answer = client.get("/v1/queue", headers={"Authorization": f"bEARER {GOOD}"})
    assert answer.status_code == 200


def test_a_key_is_known_at_once_and_unknown_once_it_is_revoked(
    tmp_path: Path, store: ScriptedServer
) -> None:
    client = client_for(store.dicomweb_url, AUTH="apikey", DATA_DIR=str(tmp_path))
    key, kept = make("nurse", ["read"])
    file = assemble.key_file(settings_for(store.dicomweb_url, DATA_DIR=str(tmp_path)))
    statuses = []
    changes: list[Callable[[], None]] = [
        lambda: None,
        lambda: file.add(kept),
        lambda: file.revoke("nurse", "now"),
    ]
    for change in changes:
        change()
        answer = client.get("/v1/queue", headers={"Authorization": f"Bearer {key}"})
        statuses.append(answer.status_code)
    assert statuses == [401, 200, 401]
    assert (tmp_path / "keys.json").stat().st_mode & 0o777 == 0o600
    assert key not in (tmp_path / "keys.json").read_text()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"keys": [{}]}', '{"keys": [{"name": "a"}]}'])
def test_a_file_of_keys_that_is_broken_lets_in_nobody(
    text: str, tmp_path: Path, store: ScriptedServer
) -> None:
    client = client_for(store.dicomweb_url, AUTH="apikey", DATA_DIR=str(tmp_path))
    (tmp_path / "keys.json").write_text(text)
    answer = client.get("/v1/queue", headers=shown("all"))
    assert (answer.status_code, answer.get_json()["type"]) == (503, "urn:jpegstow:keys-unusable")
    assert client.get("/healthz").status_code == 200


def test_without_access_control_everybody_may_everything(store: ScriptedServer) -> None:
    client = client_for(store.dicomweb_url)
    assert client.get("/v1/queue").status_code == 200
    assert json.loads(client.get("/v1/queue", headers=shown("known")).text)["entries"] == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_without_access_control_it_does_not_start_where_others_reach_it(host: str) -> None:
    with pytest.raises(BadSettings, match="HOST: it isn't this machine alone, and AUTH is none"):
        settings_for("http://h", HOST=host)
    assert settings_for("http://h", HOST=host, AUTH_NONE_ANYWHERE="on").auth == "none"
    assert settings_for("http://h", HOST=host, AUTH="apikey").auth == "apikey"


def test_the_archives_key_is_shown_to_the_embedded_archive_alone() -> None:
    own = settings_for("", ARCHIVE_KEY="secret", DICOMWEB_TOKEN="other")
    assert (own.store_auth, own.store_token) == ("bearer", "secret")
    other = settings_for("http://h", ARCHIVE_KEY="secret", DICOMWEB_TOKEN="other")
    assert (other.store_auth, other.store_token) == ("bearer", "other")
    assert settings_for("http://h", ARCHIVE_KEY="secret").store_auth == "none"
    assert "secret" not in repr(own)
