"""Who signs in to the pages: sessions, what ends them, and what other sites can't make them do."""

import json
import re
import string
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from flask import Flask, render_template_string
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from service import assemble
from service.access import ARCHIVE, EVERYTHING, Access, Caller, Left, Sessions, add_access, make
from service.access.headers import add_headers
from service.archive import Archive
from service.dicomweb import create_app
from tests.access import KEYS, MADE, kept, shown
from tests.jpegs import make_jpeg
from tests.peers import Respond, ScriptedServer, no_studies, stored, unavailable
from tests.serving import client_for, form, settings_for, upload

SECRET = "the secret of the tests' sessions"
OWN = {"Sec-Fetch-Site": "same-origin"}
RETRY = "/v1/queue/retry"


@pytest.fixture(scope="module")
def store() -> Iterator[ScriptedServer]:
    with ScriptedServer(no_studies()) as server:
        yield server


@pytest.fixture
def client(store: ScriptedServer) -> FlaskClient:
    return client_for(store.dicomweb_url, AUTH="apikey", KEYS=KEYS, SESSION_SECRET=SECRET)


def sign_in(client: FlaskClient, key: str, **form: str) -> TestResponse:
    return client.post("/sign-in", data={"key": key} | form, headers=OWN)


def token(client: FlaskClient) -> str:
    """Return what the pages of a session have in their head."""
    cookie = client.get_cookie("jpegstow_session")
    assert cookie
    return Sessions(SECRET).token(cookie.value)


def test_who_has_signed_in_may_what_the_key_may(client: FlaskClient) -> None:
    answer = sign_in(client, MADE["operate"][0], next="/queue")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/queue")
    told = answer.headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(told.split("; "))
    assert "Secure" not in told
    assert client.get("/v1/queue").status_code == 200
    headers = OWN | {"X-CSRF-Token": token(client)}
    assert client.post(RETRY, headers=headers).status_code == 200
    assert client.post("/v1/instances", headers=headers).status_code == 403


def test_a_picture_is_uploaded_by_a_session() -> None:
    with ScriptedServer(stored()) as store:
        client = client_for(store.dicomweb_url, AUTH="apikey", KEYS=KEYS, SESSION_SECRET=SECRET)
        sign_in(client, MADE["upload"][0])
        headers = OWN | {"X-CSRF-Token": token(client)}
        answer = upload(client, **form(make_jpeg(), PatientID="P-7"), headers=headers)
        assert answer.status_code == 201


def test_behind_tls_the_cookie_is_sent_over_tls_only(client: FlaskClient) -> None:
    headers = OWN | {"X-Forwarded-Proto": "https"}
    answer = client.post("/sign-in", data={"key": MADE["read"][0]}, headers=headers)
    assert "Secure" in answer.headers["Set-Cookie"].split("; ")
    assert answer.headers["Strict-Transport-Security"]


@pytest.mark.parametrize(
    ("language", "said"),
    [("", "isn't known"), ("de-AT,en;q=0.5", "nicht bekannt"), ("es", "no se conoce")],
)
def test_a_wrong_key_opens_no_session(language: str, said: str, client: FlaskClient) -> None:
    wrong = make("all", EVERYTHING)[0]
    headers = OWN | {"Accept-Language": language}
    answer = client.post("/sign-in", data={"key": wrong}, headers=headers)
    assert answer.status_code == 401
    assert "Set-Cookie" not in answer.headers
    assert said in answer.text.replace("&#39;", "'")
    assert wrong not in answer.text


def test_who_asks_for_a_page_is_led_to_the_sign_in_and_back(client: FlaskClient) -> None:
    answer = client.get("/v1/queue?study=1.2.3", headers={"Accept": "text/html,*/*;q=0.8"})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/sign-in?next=%2Fv1%2Fqueue")
    page = client.get(answer.headers["Location"])
    assert 'name="next" value="/v1/queue"' in page.text
    assert client.get("/v1/queue", headers={"Accept": "*/*"}).status_code == 401


@pytest.mark.parametrize(
    "path", ["https://evil.example/", "//evil.example", "/\\evil.example", "evil", "", "/a\nb"]
)
def test_the_sign_in_leads_to_no_other_site(path: str, client: FlaskClient) -> None:
    assert sign_in(client, MADE["read"][0], next=path).headers["Location"] == "/"


BACK = {
    "/": "/",
    "/queue/2.25.1": "/queue/2.25.1",
    "/studies/1.2/series/1.3/": "/studies/1.2/series/1.3/",
    "https://evil.example/": "/",
    "//evil.example": "/",
    "/\\evil.example": "/",
    "/a//evil.example": "/",
    "/a?b": "/",
}


@pytest.mark.parametrize(("back", "place"), BACK.items())
def test_the_choice_of_a_language_leads_to_no_other_site(
    back: str, place: str, client: FlaskClient
) -> None:
    answer = client.get("/language/de", query_string={"back": back})
    assert (answer.status_code, answer.headers["Location"]) == (302, place)


@pytest.mark.parametrize("unit", ["a", "a/", "/a"])
def test_a_long_way_back_from_the_choice_of_a_language_is_refused_at_once(
    unit: str, client: FlaskClient
) -> None:
    started = time.process_time()
    answer = client.get("/language/de", query_string={"back": f"/{unit * 24}!"})
    assert answer.headers["Location"] == "/"
    assert time.process_time() - started < 1  # with several ways to read it, it was six


def test_who_signs_out_is_nobody_again(client: FlaskClient) -> None:
    sign_in(client, MADE["read"][0])
    assert client.get("/v1/queue").status_code == 200
    assert client.post("/sign-out", headers=OWN).headers["Location"] == "/sign-in"
    assert client.get("/v1/queue").status_code == 401


def test_the_cookie_of_a_session_that_was_left_is_good_for_nothing_in_any_process(
    tmp_path: Path, store: ScriptedServer
) -> None:
    given = {"AUTH": "apikey", "KEYS": KEYS, "DATA_DIR": str(tmp_path)}
    one, other = (client_for(store.dicomweb_url, **given) for _ in range(2))
    sign_in(one, MADE["read"][0])
    copied = one.get_cookie("jpegstow_session")
    assert copied
    # The last letter of a signature of 32 bytes can be written in four ways.
    letters = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    alike = copied.value[:-1] + letters[letters.index(copied.value[-1]) ^ 1]
    other.set_cookie("jpegstow_session", alike)
    assert other.get("/v1/queue").status_code == 200
    sign_in(other, MADE["read"][0])
    assert one.post("/sign-out", headers=OWN).status_code == 303
    assert other.get("/v1/queue").status_code == 200  # another session of the same key
    for client in (one, other):
        for cookie in (copied.value, alike):
            client.set_cookie("jpegstow_session", cookie)
            assert client.get("/v1/queue").status_code == 401
    assert (tmp_path / "signed-out.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["{", "7", "\xff"])
def test_where_it_can_not_be_told_who_has_signed_out_no_session_is_taken(
    text: str, tmp_path: Path, store: ScriptedServer
) -> None:
    client = client_for(
        store.dicomweb_url, AUTH="apikey", KEYS=KEYS, DATA_DIR=str(tmp_path), SESSION_SECRET=SECRET
    )
    sign_in(client, MADE["read"][0])
    (tmp_path / "signed-out.json").write_text(text, "latin-1")
    answer = client.get("/v1/queue")
    assert (answer.status_code, answer.get_json()["type"]) == (
        503,
        "urn:jpegstow:sessions-unusable",
    )
    assert client.get("/v1/queue", headers=shown("read")).status_code == 200
    assert client.post("/sign-out", headers=OWN).status_code == 303
    assert client.get_cookie("jpegstow_session") is None


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def test_a_session_ends_with_a_shift_and_with_its_key() -> None:
    clock = Clock()
    sessions = Sessions(SECRET, clock)
    key = kept("read")
    cookie = sessions.of_key(key)
    assert sessions.caller(cookie, [key]) == Caller("read", "key", frozenset({"read"}))
    assert sessions.caller(cookie, []) is None
    assert sessions.caller(cookie, [replace(key, revoked="now")]) is None
    assert sessions.caller(cookie, [replace(key, digest=kept("all").digest)]) is None
    clock.now += 12 * 3600 - 1
    assert sessions.caller(cookie, [key])
    clock.now += 1
    assert sessions.caller(cookie, [key]) is None


def test_a_session_of_a_token_ends_with_the_token() -> None:
    clock = Clock()
    sessions = Sessions(SECRET, clock)
    nurse = Caller("nurse@example.org", "key", frozenset({"upload"}))
    cookie = sessions.of_caller(nurse, clock.now + 60)
    assert sessions.caller(cookie, []) == nurse
    clock.now += 60
    assert sessions.caller(cookie, []) is None


def test_only_sessions_that_have_not_ended_are_remembered_as_left(tmp_path: Path) -> None:
    clock = Clock()
    left = Left(tmp_path / "left.json", clock)
    left.add("a", clock.now + 1)
    left.add("b", clock.now + 2)
    assert ("a" in left, "b" in left, "c" in left) == (True, True, False)
    clock.now += 1
    left.add("c", clock.now + 1)
    assert "a" not in left
    assert json.loads((tmp_path / "left.json").read_bytes()).keys() == {"b", "c"}


def forgeries() -> dict[str, str]:
    good = Sessions(SECRET).of_key(kept("all"))
    payload, _, signature = good.rpartition(".")
    other = Sessions(SECRET).of_key(kept("known")).rpartition(".")[0]
    return {
        "nothing": "",
        "no signature": payload,
        "an empty signature": payload + ".",
        "another payload": f"{other}.{signature}",
        "another secret": Sessions("another").of_key(kept("all")),
        "a token of CSRF": Sessions(SECRET).token(good),
        "noise": "\xff.\xff",
    }


@pytest.mark.parametrize("cookie", forgeries().values(), ids=forgeries())
def test_a_forged_session_is_nobodys(cookie: str, client: FlaskClient) -> None:
    client.set_cookie("jpegstow_session", cookie)
    assert client.get("/v1/queue").status_code == 401


REFUSED: dict[str, dict[str, str]] = {
    "without a word of its site": {},
    "from another site": {"Sec-Fetch-Site": "cross-site"},
    "from another host of the site": {"Sec-Fetch-Site": "same-site"},
    "from another origin": {"Origin": "https://evil.example"},
    "from another port": {"Origin": "http://localhost:81"},
    "from a sandbox": {"Origin": "null"},
    "from what is no origin": {"Origin": "http://[localhost"},
    "from a path that ends alike": {"Origin": "http://evil.example/://localhost"},
}


@pytest.mark.parametrize("headers", REFUSED.values(), ids=REFUSED)
def test_no_other_site_changes_anything_by_a_session(
    headers: dict[str, str], client: FlaskClient
) -> None:
    sign_in(client, MADE["all"][0])
    shown_too = headers | {"X-CSRF-Token": token(client)}
    assert client.post(RETRY, headers=shown_too).status_code == 403
    assert client.post("/sign-out", headers=headers).status_code == 403
    assert client.post("/sign-in", headers=headers).status_code == 403
    assert client.get("/v1/queue").status_code == 200


@pytest.mark.parametrize("wrong", ["", "x", "0" * 64, "\xe9"])
def test_without_its_token_a_session_changes_nothing(wrong: str, client: FlaskClient) -> None:
    sign_in(client, MADE["all"][0])
    answer = client.post(RETRY, headers=OWN | {"X-CSRF-Token": wrong})
    assert answer.get_json()["type"] == "urn:jpegstow:no-csrf-token"


def test_the_token_of_one_session_is_not_anothers() -> None:
    sessions = Sessions(SECRET)
    tokens = {sessions.token(sessions.of_key(kept(role))) for role in ("read", "all")}
    assert len(tokens) == 2


def test_a_form_that_no_script_sends_has_the_token_as_a_field(client: FlaskClient) -> None:
    sign_in(client, MADE["all"][0])
    answer = client.post(RETRY, data={"csrf_token": token(client)}, headers=OWN)
    assert answer.status_code == 200
    origin = {"Origin": "http://localhost"}
    answer = client.post(RETRY, data={"csrf_token": token(client)}, headers=origin)
    assert answer.status_code == 200


def test_a_key_needs_no_token_whatever_cookie_is_there(client: FlaskClient) -> None:
    sign_in(client, MADE["read"][0])
    assert client.post(RETRY, headers=shown("operate")).status_code == 200
    client.set_cookie("jpegstow_session", "stale")
    assert client.post(RETRY, headers=shown("operate")).status_code == 200


@pytest.mark.parametrize("headers", list(REFUSED.values())[1:], ids=list(REFUSED)[1:])
def test_no_other_site_changes_anything_where_nobody_is_asked(
    headers: dict[str, str], store: ScriptedServer
) -> None:
    client = client_for(store.dicomweb_url)
    assert client.post(RETRY, headers=headers).status_code == 403
    assert client.post(RETRY).status_code == 200
    assert client.post(RETRY, headers={"Origin": "http://localhost"}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8080", "192.0.2.1"])
def test_where_nobody_is_asked_it_is_not_reached_by_another_sites_name(
    host: str, store: ScriptedServer
) -> None:
    client = client_for(store.dicomweb_url)
    answer = client.get("/v1/queue", headers={"Host": host})
    assert (answer.status_code, answer.get_json()["type"]) == (403, "urn:jpegstow:wrong-host")
    for own in ("127.0.0.1:8080", "localhost", "[::1]:8080"):
        assert client.get("/v1/queue", headers={"Host": own}).status_code == 200
    proxied = client_for(store.dicomweb_url, AUTH_NONE_ANYWHERE="on")
    assert proxied.get("/v1/queue", headers={"Host": host}).status_code == 200
    asked = client_for(store.dicomweb_url, AUTH="apikey", KEYS=KEYS)
    answer = asked.get("/v1/queue", headers={"Host": host} | shown("read"))
    assert answer.status_code == 200


def test_templates_have_the_token_of_the_session_and_the_caller(client: FlaskClient) -> None:
    app = client.application
    page = '<meta name="csrf-token" content="{{ csrf_token() }}">{{ g.caller.name }}'
    app.view_functions["queue.entries"] = lambda: render_template_string(page)
    sign_in(client, MADE["read"][0])
    assert client.get("/v1/queue").text == (
        f'<meta name="csrf-token" content="{token(client)}">read'
    )
    assert 'content=""' in client.get("/v1/queue", headers=shown("read")).text


def test_the_archive_takes_no_session(tmp_path: Path) -> None:
    opened = Archive(tmp_path)
    app = create_app(opened)
    current = settings_for("", AUTH="apikey", KEYS=KEYS, SESSION_SECRET=SECRET)
    add_access(app, assemble.archive_access(current), ARCHIVE)
    client = app.test_client()
    client.set_cookie("jpegstow_session", Sessions(SECRET).of_key(kept("all")))
    assert client.get("/dicomWeb/studies").status_code == 401
    assert client.get("/sign-in").status_code == 404
    opened.close()


def test_every_answer_tells_browsers_what_not_to_do(client: FlaskClient) -> None:
    paths = ["/healthz", "/sign-in", "/v1/queue", "/metrics", "/nowhere"]
    for path in paths:
        headers = client.get(path, headers=shown("all")).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Cache-Control"] == "no-store"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    policy = client.get("/sign-in").headers["Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'self'"
    assert "unsafe" not in policy
    assert {"script-src", "style-src", "connect-src"}.isdisjoint(rules)


def test_the_sign_in_page_lives_under_its_own_policy(client: FlaskClient) -> None:
    page = client.get("/sign-in?next=%22%3E%3Cscript%3E").text
    assert not re.search(r"<script|<style|\sstyle=|\son\w+=|javascript:", page)
    links = re.findall(r'(?:href|src|action)="([^"]*)"', page)
    assert links
    assert [link for link in links if urlsplit(link).netloc or link.startswith("data:")] == []


def test_what_a_view_has_said_itself_stays() -> None:
    app = Flask("another")
    add_headers(app)

    @app.get("/static/a.css")
    def sheet() -> tuple[str, dict[str, Any]]:
        return "a", {"Cache-Control": "max-age=60", "X-Frame-Options": "SAMEORIGIN"}

    headers = app.test_client().get("/static/a.css").headers
    assert (headers["Cache-Control"], headers["X-Frame-Options"]) == ("max-age=60", "SAMEORIGIN")
    assert Access("none", assemble.key_file(settings_for("http://h"))).sessions is None


def test_the_pages_work_by_a_session_with_the_token_of_their_own_head(
    client: FlaskClient, store: ScriptedServer
) -> None:
    led = client.get("/queue", headers={"Accept": "text/html"})
    assert led.headers["Location"] == "/sign-in?next=%2Fqueue"
    assert sign_in(client, MADE["all"][0], next="/queue").headers["Location"] == "/queue"
    for path in ("/", "/queue", "/studies"):
        page = client.get(path)
        assert page.status_code == 200
        (found,) = re.findall(r'<meta name="csrf-token" content="([^"]*)">', page.text)
        assert found == token(client)
    headers = OWN | {"X-CSRF-Token": found, "HX-Request": "true"}
    assert client.post("/queue/list", headers=headers).status_code == 200
    assert client.post("/queue/list", headers=OWN).status_code == 403
    assert client.delete("/studies/1.2.3", headers=OWN).status_code == 403
    assert store.requests


def test_who_may_not_see_a_page_is_told_so_on_a_page(client: FlaskClient) -> None:
    sign_in(client, MADE["upload"][0])
    answer = client.get("/studies", headers={"Accept": "text/html"})
    assert (answer.status_code, answer.mimetype) == (403, "text/html")
    assert "scope read" in answer.text


def test_a_session_can_be_left_from_every_page(client: FlaskClient) -> None:
    assert 'action="/sign-out"' not in client.get("/", headers=shown("read")).text
    sign_in(client, MADE["all"][0])
    for path in ("/", "/queue", "/studies"):
        assert 'method="post" action="/sign-out"' in client.get(path).text


@pytest.mark.parametrize(("role", "acts"), [("read", False), ("operate", True), ("all", True)])
def test_the_queue_shows_no_button_that_a_key_cannot_use(role: str, *, acts: bool) -> None:
    with ScriptedServer(unavailable()) as store:
        given = {"AUTH": "apikey", "KEYS": KEYS, "SESSION_SECRET": SECRET}
        client = client_for(store.dicomweb_url, **given)
        queued = upload(client, **form(make_jpeg(), PatientID="P-7"), headers=shown("upload"))
        name = queued.get_json()["instances"][0]["SOPInstanceUID"]
        sign_in(client, MADE[role][0])
        pages = [client.get(path) for path in ("/queue", f"/queue/{name}")]
    assert [page.status_code for page in pages] == [200, 200]
    for page in pages:
        assert ("hx-delete" in page.text) == acts
        assert (f"/v1/queue/{name}/retry" in page.text) == acts
    assert ('id="mend"' in pages[1].text) == acts


@pytest.mark.parametrize(("role", "acts"), [("read", False), ("all", True)])
def test_a_picture_shows_no_button_that_a_key_cannot_use(role: str, *, acts: bool) -> None:
    uids = {"0020000D": "1.2.1", "0020000E": "1.2.1.1", "00080018": "1.2.1.1.1"}
    model = [{tag: {"vr": "UI", "Value": [uid]} for tag, uid in uids.items()}]
    said = Respond(200, {"Content-Type": "application/dicom+json"}, json.dumps(model).encode())
    with ScriptedServer(said) as store:
        given = {"AUTH": "apikey", "KEYS": KEYS, "SESSION_SECRET": SECRET}
        client = client_for(store.dicomweb_url, **given)
        sign_in(client, MADE[role][0])
        study = "/studies/1.2.1"
        for path in (study, f"{study}/series/1.2.1.1/instances/1.2.1.1.1"):
            page = client.get(path)
            assert page.status_code == 200
            assert ("hx-delete" in page.text) == acts
