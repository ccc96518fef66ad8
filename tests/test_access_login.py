"""Who signs in to the pages at an OpenID Connect provider, and who doesn't."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode, urlsplit

import pytest
from flask.testing import FlaskClient
from playwright.sync_api import Browser, expect
from werkzeug.test import TestResponse

from service.access.login import Login
from service.errors import BadSettings, Unauthorized
from tests.access import KEYS
from tests.browsing import serious, shoot, tab
from tests.peers import Garbage, Respond, ScriptedServer, Step, no_studies, refused_port
from tests.peers.openid import OpenIdProvider, discovery, openid_provider
from tests.serving import Serving, client_for, settings_for
from tests.tokens import ABSENT, at, key_server, signed

ANN = {
    "sub": "u-1",
    "email": "ann@example.org",
    "email_verified": True,
    "roles": ["read", "operate"],
}
HOST = "http://localhost"
BACK = f"{HOST}/sign-in/return"
OWN = {"Sec-Fetch-Site": "same-origin"}
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenIdProvider]:
    with openid_provider(tmp_path_factory.mktemp("openid"), ANN) as provider:
        yield provider


@pytest.fixture(scope="module")
def store() -> Iterator[ScriptedServer]:
    with ScriptedServer(no_studies()) as server:
        yield server


def settings_of(issuer: str, client_id: str, **more: str) -> dict[str, str]:
    given = {"AUTH": "oidc", "KEYS": KEYS, "OIDC_ISSUER": issuer, "OIDC_AUDIENCE": "the api"}
    return given | {"OIDC_CLIENT_ID": client_id} | more


def begun(client: FlaskClient, path: str = "/sign-in/provider") -> str:
    """Return where a browser is sent that wants to sign in."""
    answer = client.get(path)
    assert answer.status_code == 303, answer.text
    return str(answer.headers["Location"])


def come_back(client: FlaskClient, url: str) -> TestResponse:
    return client.get(url.removeprefix(HOST))


def refusal(answer: TestResponse) -> str:
    """Return what a person is told who isn't signed in."""
    assert not any("jpegstow_session" in told for told in answer.headers.getlist("Set-Cookie"))
    (said,) = re.findall(r'<p[^>]* role="alert"[^>]*>([^<]*)</p>', answer.text)
    return str(said)


def registered(provider: OpenIdProvider, **more: str) -> dict[str, str]:
    """Return the settings of a new client of the provider's."""
    client_id, secret = provider.register(BACK)
    return settings_of(provider.url, client_id, **{"OIDC_CLIENT_SECRET": secret} | more)


def test_who_signs_in_at_the_provider_may_what_the_id_token_says(
    provider: OpenIdProvider, store: ScriptedServer
) -> None:
    client = client_for(store.dicomweb_url, **registered(provider))
    page = client.get("/sign-in?next=/queue").text
    assert f"Sign in with {urlsplit(provider.url).netloc}" in page
    (link,) = re.findall(r'href="(/sign-in/provider[^"]*)"', page)
    back = provider.sign_in(begun(client, link))
    answer = come_back(client, back)
    assert answer.status_code == 200
    assert '<meta http-equiv="refresh" content="0; url=/queue">' in answer.text
    assert client.get("/queue").status_code == 200
    assert client.post("/v1/instances", headers=OWN).status_code == 403
    (cookie,) = (c for c in answer.headers.getlist("Set-Cookie") if "jpegstow_session" in c)
    assert {"HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))
    # The code is good for once, and what was begun is over.
    assert come_back(client, back).status_code == 401


def test_a_wrong_secret_signs_nobody_in(provider: OpenIdProvider, store: ScriptedServer) -> None:
    given = registered(provider, OIDC_CLIENT_SECRET="another")
    client = client_for(store.dicomweb_url, **given)
    answer = come_back(client, provider.sign_in(begun(client)))
    assert (answer.status_code, refusal(answer)) == (
        401,
        "Nobody was signed in. Please begin again.",
    )


def test_whom_the_provider_refuses_is_told_so(
    provider: OpenIdProvider, store: ScriptedServer
) -> None:
    client = client_for(store.dicomweb_url, **registered(provider))
    answer = come_back(client, provider.refuse(begun(client)))
    assert answer.status_code == 401
    assert refusal(answer)


def test_a_browser_that_began_nothing_is_not_signed_in(
    provider: OpenIdProvider, store: ScriptedServer
) -> None:
    given = registered(provider, SESSION_SECRET="one secret of all")
    attacker = client_for(store.dicomweb_url, **given)
    back = provider.sign_in(begun(attacker))
    victim = client_for(store.dicomweb_url, **given)
    assert come_back(victim, back).status_code == 401
    begun(victim)  # something else
    assert come_back(victim, back).status_code == 401
    assert come_back(attacker, back).status_code == 200


# From here on the provider is a list of steps.


class Told:
    """What a scripted provider's ID token says: a good one, but for the changes."""

    def __init__(self, **changes: Any) -> None:
        self.changes = changes
        self.issuer = self.nonce = ""

    def token(self) -> str:
        good = {"iss": self.issuer, "aud": "pages", "sub": "u-1", "exp": at(60), "iat": at(0)}
        said = good | {"nonce": self.nonce, "roles": ["read"]} | self.changes
        kept = {name: value for name, value in said.items() if value is not ABSENT}
        return signed(kept).removeprefix("Bearer ")


def token_of(told: Told) -> Step:
    return Respond(200, JSON, lambda _: json.dumps({"id_token": told.token()}).encode())


def signed_in_at(
    steps: list[Step], told: Told, store: ScriptedServer, **more: str
) -> tuple[TestResponse, ScriptedServer]:
    """Begin and come back with a code, in front of a scripted provider; return its answer."""
    with ScriptedServer(*steps) as provider, key_server() as keys:
        given = {"OIDC_KEYS_URL": keys.url} | more
        client = client_for(store.dicomweb_url, **settings_of(provider.url, "pages", **given))
        asked = dict(parse_qsl(urlsplit(begun(client)).query))
        told.issuer, told.nonce = provider.url, asked["nonce"]
        answer = client.get(
            f"/sign-in/return?{urlencode({'code': 'c&1', 'state': asked['state']})}"
        )
        return answer, provider


def test_the_code_is_proven_to_be_ours_by_pkce(store: ScriptedServer) -> None:
    told = Told()
    with ScriptedServer(discovery(), discovery(), token_of(told)) as provider, key_server() as keys:
        given = settings_of(provider.url, "pages", OIDC_KEYS_URL=keys.url)
        client = client_for(store.dicomweb_url, **given | {"OIDC_LOGIN_SCOPE": "openid groups"})
        url = urlsplit(begun(client))
        asked = dict(parse_qsl(url.query))
        told.issuer, told.nonce = provider.url, asked["nonce"]
        answer = client.get(f"/sign-in/return?code=c-1&state={asked['state']}")
        assert answer.status_code == 200
        form = {k: v for k, (v,) in parse_qs(provider.requests[2].body.decode()).items()}
    fixed = {"tenant": "1", "response_type": "code", "client_id": "pages", "redirect_uri": BACK}
    assert asked | fixed | {"scope": "openid groups", "code_challenge_method": "S256"} == asked
    digest = hashlib.sha256(form.pop("code_verifier").encode()).digest()
    challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    assert challenge == asked["code_challenge"]
    kept = {"grant_type": "authorization_code", "client_id": "pages", "redirect_uri": BACK}
    assert form == kept | {"code": "c-1"}


@pytest.mark.parametrize(
    ("methods", "is_basic"),
    [
        (ABSENT, True),
        (["client_secret_post", "client_secret_basic"], True),
        (["client_secret_post"], False),
        ("odd", True),
    ],
)
def test_the_secret_is_shown_as_the_provider_wants_it(
    methods: Any, *, is_basic: bool, store: ScriptedServer
) -> None:
    more = {} if methods is ABSENT else {"token_endpoint_auth_methods_supported": methods}
    told, secret = Told(), "a:b/c%20 d"
    steps = [discovery(), discovery(**more), token_of(told)]
    answer, provider = signed_in_at(steps, told, store, OIDC_CLIENT_SECRET=secret)
    assert answer.status_code == 200
    request = provider.requests[2]
    form = dict(parse_qsl(request.body.decode()))
    assert form.get("client_secret", "") == ("" if is_basic else secret)
    if is_basic:
        shown = base64.b64decode(request.headers["authorization"].removeprefix("Basic "))
        assert [unquote(part) for part in shown.decode().split(":")] == ["pages", secret]
    else:
        assert "authorization" not in request.headers


BAD_TOKENS: Mapping[str, Mapping[str, Any]] = {
    "of another sign-in": {"nonce": "another"},
    "without a nonce": {"nonce": ABSENT},
    "with an odd nonce": {"nonce": 7},
    "for the API": {"aud": "the api"},
    "for another client too, and given to that": {"aud": ["pages", "x"], "azp": "x"},
    "by another issuer": {"iss": "https://another.example"},
    "that has expired": {"exp": at(-3600)},
    "of nobody": {"sub": ABSENT},
}


@pytest.mark.parametrize("changes", BAD_TOKENS.values(), ids=BAD_TOKENS)
def test_an_id_token_signs_nobody_in(changes: Mapping[str, Any], store: ScriptedServer) -> None:
    told = Told(**changes)
    answer, _ = signed_in_at([discovery(), discovery(), token_of(told)], told, store)
    assert answer.status_code == 401
    assert refusal(answer) == "Nobody was signed in. Please begin again."


BAD_ANSWERS: Mapping[str, tuple[Step, int]] = {
    "400": (Respond(400, JSON, b'{"error": "invalid_grant"}'), 401),
    "a redirect": (Respond(302, {"Location": "/elsewhere"}), 401),
    "no JSON": (Respond(200, {}, b"<html>"), 401),
    "another JSON": (Respond(200, JSON, b"[]"), 401),
    "no ID token": (Respond(200, JSON, b'{"access_token": "x"}'), 401),
    "a number": (Respond(200, JSON, b'{"id_token": 7}'), 401),
    "no token": (Respond(200, JSON, b'{"id_token": "a.b.c"}'), 401),
    "503": (Respond(503), 503),
    "noise": (Garbage(), 503),
}


@pytest.mark.parametrize(("step", "status"), BAD_ANSWERS.values(), ids=BAD_ANSWERS)
def test_a_providers_answer_signs_nobody_in(step: Step, status: int, store: ScriptedServer) -> None:
    answer, provider = signed_in_at([discovery(), discovery(), step], Told(), store)
    assert answer.status_code == status
    assert ("later" in refusal(answer)) == (status == 503)
    assert len(provider.requests) == 3 or isinstance(step, Garbage)


@pytest.mark.parametrize(
    "more", [{"authorization_endpoint": "javascript:alert(1)"}, {"issuer": "https://x.example"}]
)
def test_a_provider_that_does_not_say_where_to_sign_in_is_unavailable(
    more: Mapping[str, str], store: ScriptedServer
) -> None:
    with ScriptedServer(discovery(**more)) as provider:
        client = client_for(store.dicomweb_url, **settings_of(provider.url, "pages"))
        answer = client.get("/sign-in/provider")
        assert answer.status_code == 503
        assert "doesn&#39;t answer" in refusal(answer)


def test_a_provider_that_is_away_is_told_of_in_the_readers_language(store: ScriptedServer) -> None:
    with refused_port() as port:
        given = settings_of(f"http://127.0.0.1:{port}", "pages")
        client = client_for(store.dicomweb_url, **given)
        answer = client.get("/sign-in/provider", headers={"Accept-Language": "de"})
        assert answer.status_code == 503
        assert "antwortet nicht" in refusal(answer)


def test_who_takes_longer_than_ten_minutes_begins_again() -> None:
    now = [0.0]
    with ScriptedServer(discovery()) as server:
        login = Login(server.url, None, "pages", "", "openid", "secret", lambda: now[0])  # type: ignore[arg-type] # no token gets so far
        _, cookie = login.begin(BACK, "/")
        now[0] = 600.0
        with pytest.raises(Unauthorized, match="too long"):
            login.finish(BACK, cookie, {"state": "", "code": "c"})


def test_who_signs_out_is_signed_out_at_the_provider_too(store: ScriptedServer) -> None:
    told = Told()
    steps = [discovery(), discovery(), token_of(told), discovery()]
    with ScriptedServer(*steps) as provider, key_server() as keys:
        given = settings_of(provider.url, "pages", OIDC_KEYS_URL=keys.url)
        client = client_for(store.dicomweb_url, **given)
        asked = dict(parse_qsl(urlsplit(begun(client)).query))
        told.issuer, told.nonce = provider.url, asked["nonce"]
        assert client.get(f"/sign-in/return?code=c&state={asked['state']}").status_code == 200
        answer = client.post("/sign-out", headers=OWN)
        wanted = urlencode({"client_id": "pages", "post_logout_redirect_uri": f"{HOST}/sign-in"})
        assert f"{provider.url}/end?{wanted}" in answer.text.replace("&amp;", "&")
        assert client.get("/v1/queue").status_code == 401


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"OIDC_ISSUER": "", "IAP_AUDIENCE": "/projects/1"}, "OIDC_CLIENT_ID: it is set, and"),
        ({"OIDC_LOGIN_SCOPE": "email"}, "OIDC_LOGIN_SCOPE: it lacks openid"),
    ],
)
def test_settings_that_nobody_can_sign_in_with_are_refused(
    given: dict[str, str], problem: str
) -> None:
    good = settings_of("https://accounts.example.org", "pages")
    with pytest.raises(BadSettings, match=problem):
        settings_for("http://127.0.0.1:1", **good | given)


def test_a_person_signs_in_and_out_in_a_browser(browser: Browser, tmp_path: Path) -> None:
    # Only a browser tells whether a SameSite=Strict cookie is sent after the way back.
    with openid_provider(tmp_path, ANN, any_client=True) as provider:
        given = settings_of(provider.url, "pages", OIDC_CLIENT_SECRET="any")
        elsewhere = {urlsplit(provider.url).netloc, "cdn.jsdelivr.net"}  # the provider's own style
        with (
            Serving(tmp_path / "data", **given) as serving,
            tab(browser, serving.url, "phone", elsewhere) as opened,
        ):
            page = opened.page
            page.goto("/queue")
            expect(page).to_have_url(f"{serving.url}/sign-in?next=%2Fqueue")
            assert serious(page) == []
            shoot(page, "sign-in-at-a-provider")
            page.get_by_role("button", name="Sign in with").click()
            page.get_by_placeholder("sub").fill("u-1")
            page.get_by_role("button", name="Authorize").click()
            expect(page).to_have_url(f"{serving.url}/queue")
            expect(page.get_by_role("button", name="Sign out")).to_be_visible()
            page.goto("/studies")
            expect(page).to_have_url(f"{serving.url}/studies")
            page.get_by_role("button", name="Sign out").click()
            page.get_by_role("button", name="End session").click()
            expect(page).to_have_url(f"{serving.url}/sign-in")
            page.goto("/queue")
            expect(page).to_have_url(f"{serving.url}/sign-in?next=%2Fqueue")
