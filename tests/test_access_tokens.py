"""Whom an identity provider or Identity-Aware Proxy vouches for, and whom nobody does."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from service import assemble, settings
from service.errors import BadSettings
from service.settings import Grant
from tests.access import KEYS, MADE, shown
from tests.jpegs import make_jpeg
from tests.peers import Garbage, Received, Respond, ScriptedServer, Step, refused_port, stored
from tests.serving import client_for, form, settings_for, upload
from tests.tokens import (
    ABSENT,
    KID,
    at,
    key_server,
    keys_as,
    signed,
    signed_with_public_key,
    unsigned,
)

ISSUER = "https://accounts.example.org/realms/hospital"
AUDIENCE = "jpegstow"
IAP = "https://cloud.google.com/iap"
IAP_AUDIENCE = "/projects/1234/global/backendServices/5678"
JPEG = make_jpeg()
QUEUE = "/v1/queue"
OWN = {"Sec-Fetch-Site": "same-origin"}


def claims(**changes: Any) -> dict[str, Any]:
    """Return what a good token of the provider's says, but for the changes."""
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "u-1", "exp": at(600), "iat": at(0)}
    said = good | {"roles": ["read", "staff"]} | changes
    return {name: value for name, value in said.items() if value is not ABSENT}


def bearer(key: str = KID, /, **changes: Any) -> dict[str, str]:
    return {"Authorization": signed(claims(**changes), key)}


# By name; a key is made when it is first asked for.
CURVE_KEYS: defaultdict[str, ec.EllipticCurvePrivateKey] = defaultdict(
    lambda: ec.generate_private_key(ec.SECP256R1())
)


def curve_jwk(kid: str) -> dict[str, Any]:
    public = jwt.algorithms.ECAlgorithm.to_jwk(CURVE_KEYS[kid].public_key(), as_dict=True)
    return {**public, "kid": kid, "alg": "ES256", "use": "sig"}


def assertion(kid: str = "proxy", /, **changes: Any) -> dict[str, str]:
    """Return the header that Identity-Aware Proxy adds, but for the changes."""
    good = {"iss": IAP, "aud": IAP_AUDIENCE, "sub": "accounts.google.com:1", "iat": at(0)}
    said = good | {"exp": at(600), "email": "ann@example.org"} | changes
    said = {name: value for name, value in said.items() if value is not ABSENT}
    token = jwt.encode(said, CURVE_KEYS[kid], "ES256", {"kid": kid})
    return {"x-goog-iap-jwt-assertion": token}


@pytest.fixture(scope="module")
def key_url() -> Iterator[str]:
    with key_server() as server:
        yield server.url


@pytest.fixture(scope="module")
def proxy_url() -> Iterator[str]:
    with ScriptedServer(keys_as({"keys": [curve_jwk("proxy")]})) as server:
        yield server.url


@pytest.fixture(scope="module")
def store() -> Iterator[ScriptedServer]:
    with ScriptedServer(stored()) as server:
        yield server


@pytest.fixture(scope="module")
def environment(key_url: str, proxy_url: str) -> dict[str, str]:
    return {
        "AUTH": "oidc",
        "KEYS": KEYS,
        "OIDC_ISSUER": ISSUER,
        "OIDC_AUDIENCE": AUDIENCE,
        "OIDC_KEYS_URL": key_url,
        "IAP_AUDIENCE": IAP_AUDIENCE,
        "IAP_KEYS_URL": proxy_url,
        "IAP_SCOPES": "*=read ann@example.org=operate",
    }


@pytest.fixture(scope="module")
def client(store: ScriptedServer, environment: dict[str, str]) -> FlaskClient:
    return client_for(store.dicomweb_url, **environment)


def asked(client: FlaskClient, headers: Mapping[str, str]) -> dict[str, int]:
    """Return what each kind of request is answered; nothing is stored by them."""
    statuses = {
        "upload": client.post("/v1/instances", headers=headers).status_code,
        "read": client.get(QUEUE, headers=headers).status_code,
        "operate": client.post("/v1/queue/retry", headers=headers).status_code,
    }
    assert client.get("/v1/queue", headers=shown("all")).status_code == 200
    return statuses


def allowed(client: FlaskClient, headers: Mapping[str, str]) -> set[str]:
    """Return what a caller may; the rest is answered 403."""
    statuses = asked(client, headers)
    assert 401 not in statuses.values()
    return {name for name, status in statuses.items() if status != 403}


@pytest.mark.parametrize(
    ("roles", "may"),
    [
        (["read"], {"read"}),
        (["upload"], {"upload"}),
        (["operate"], {"read", "operate"}),
        (["upload", "read", "operate"], {"upload", "read", "operate"}),
        ("upload read", {"upload", "read"}),
        (["*"], set()),
        (["READ"], set()),
        (["read "], set()),
        ([], set()),
        ([1, None, ["read"]], set()),
        ({"read": True}, set()),
        (7, set()),
        (None, set()),
        (ABSENT, set()),
    ],
)
def test_a_callers_roles_are_what_the_claim_says(
    roles: Any, may: set[str], client: FlaskClient
) -> None:
    assert allowed(client, bearer(roles=roles)) == may


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        ("groups", {"groups": ["nurses"]}),
        ("realm_access.roles", {"realm_access": {"roles": ["nurses"]}}),
        ("https://example.org/roles", {"https://example.org/roles": ["nurses"]}),
    ],
)
def test_the_claim_and_what_its_values_allow_are_settings(
    claim: str,
    said: dict[str, Any],
    store: ScriptedServer,
    environment: dict[str, str],
) -> None:
    given = {"OIDC_CLAIM": claim, "OIDC_SCOPES": "nurses=upload+read *=read"}
    client = client_for(store.dicomweb_url, **environment | given)
    assert allowed(client, bearer(**said)) == {"upload", "read"}
    assert allowed(client, bearer(roles=["nurses"])) == {"read"}


@pytest.mark.parametrize(
    ("verified", "may"), [(True, {"read", "operate"}), (False, set()), ("true", set())]
)
def test_an_email_that_anybody_could_have_made_up_allows_nothing(
    verified: Any, may: set[str], store: ScriptedServer, environment: dict[str, str]
) -> None:
    given = {"OIDC_CLAIM": "email", "OIDC_SCOPES": "ann@example.org=operate"}
    client = client_for(store.dicomweb_url, **environment | given)
    said = {"email": "ann@example.org", "email_verified": verified}
    assert allowed(client, bearer(**said)) == may


def test_who_has_a_token_stores_a_picture(client: FlaskClient, store: ScriptedServer) -> None:
    headers = bearer(roles=["upload"])
    answer = upload(client, **form(JPEG, PatientID="P-7"), headers=headers)
    assert answer.status_code == 201
    assert len(store.requests) == 1


BAD: dict[str, Callable[[], Mapping[str, str]]] = {
    "nothing": dict,
    "expired": lambda: bearer(exp=at(-61)),
    "of a time to come": lambda: bearer(nbf=at(120)),
    "without an end": lambda: bearer(exp=ABSENT),
    "without a beginning": lambda: bearer(iat=ABSENT),
    "for another audience": lambda: bearer(aud="another"),
    "for other audiences": lambda: bearer(aud=["another", "jpegstow2"]),
    "for nobody": lambda: bearer(aud=ABSENT),
    "by another issuer": lambda: bearer(iss="https://accounts.example.org/realms/other"),
    "by the issuer with a slash": lambda: bearer(iss=ISSUER + "/"),
    "by nobody": lambda: bearer(iss=ABSENT),
    "of nobody": lambda: bearer(sub=ABSENT),
    "signed with an unknown key": lambda: bearer("another key"),
    "signed with another key": lambda: {"Authorization": signed(claims(), "another key", kid=KID)},
    "without a signature": lambda: {"Authorization": unsigned({"alg": "RS256", "kid": KID})},
    "of the algorithm none": lambda: {"Authorization": unsigned({"alg": "none", "kid": KID})},
    "of the algorithm None": lambda: {"Authorization": unsigned({"alg": "None", "kid": KID})},
    "signed with the public key as a secret": lambda: {"Authorization": signed_with_public_key()},
    "no token": lambda: {"Authorization": "Bearer a.b.c"},
    "an unknown API key": lambda: {"Authorization": "Bearer jpegstow_unknown"},
    "the proxy's, as a bearer token": lambda: {
        "Authorization": f"Bearer {assertion()['x-goog-iap-jwt-assertion']}"
    },
}


@pytest.mark.parametrize("make", BAD.values(), ids=BAD)
def test_a_token_that_is_not_good_does_nothing(
    make: Callable[[], Mapping[str, str]], client: FlaskClient, store: ScriptedServer
) -> None:
    store.requests.clear()
    headers = dict(make())
    assert set(asked(client, headers).values()) == {401}
    answer = upload(client, **form(JPEG, PatientID="P-8"), headers=headers)
    assert (answer.status_code, store.requests) == (401, [])
    said = headers.get("Authorization", "nothing of it.").split(".")
    assert [part for part in said if len(part) > 10 and part in answer.text] == []


def test_a_list_of_audiences_may_have_others_too(client: FlaskClient) -> None:
    assert allowed(client, bearer(aud=["another", AUDIENCE])) == {"read"}


def test_machines_have_api_keys_beside_it(client: FlaskClient) -> None:
    assert allowed(client, shown("upload")) == {"upload"}


def test_without_a_provider_no_token_is_taken(store: ScriptedServer) -> None:
    client = client_for(store.dicomweb_url, AUTH="apikey", KEYS=KEYS)
    assert set(asked(client, bearer()).values()) == {401}
    assert set(asked(client, assertion()).values()) == {401}


@pytest.mark.parametrize(
    ("email", "may"), [("ann@example.org", {"read", "operate"}), ("bob@example.org", {"read"})]
)
def test_who_comes_through_the_proxy_may_what_the_setting_says(
    email: str, may: set[str], client: FlaskClient
) -> None:
    assert allowed(client, assertion(email=email)) == may


def without_signature() -> dict[str, str]:
    token = assertion()["x-goog-iap-jwt-assertion"]
    return {"x-goog-iap-jwt-assertion": token.rpartition(".")[0] + "."}


BAD_ASSERTIONS: dict[str, Callable[[], Mapping[str, str]]] = {
    "expired": lambda: assertion(exp=at(-61)),
    "for another service": lambda: assertion(aud="/projects/1234/global/backendServices/9"),
    "by another issuer": lambda: assertion(iss="https://accounts.google.com"),
    "by the other provider": lambda: assertion(iss=ISSUER),
    "signed with an unknown key": lambda: assertion("another"),
    "without a signature": without_signature,
    "signed as Google signs tokens": lambda: {
        "x-goog-iap-jwt-assertion": bearer(iss=IAP, aud=IAP_AUDIENCE)["Authorization"][7:]
    },
    "no token": lambda: {"x-goog-iap-jwt-assertion": "ann@example.org"},
}


@pytest.mark.parametrize("make", BAD_ASSERTIONS.values(), ids=BAD_ASSERTIONS)
def test_what_the_proxy_has_not_signed_does_nothing(
    make: Callable[[], Mapping[str, str]], client: FlaskClient
) -> None:
    headers = dict(make())
    assert set(asked(client, headers).values()) == {401}
    # What the proxy's header says isn't overruled by what a browser has besides.
    assert set(asked(client, headers | bearer()).values()) == {401}


def test_a_key_is_looked_at_before_the_proxys_word(client: FlaskClient) -> None:
    assert allowed(client, assertion() | shown("upload")) == {"upload"}


def test_emails_in_plain_headers_are_nobodys_word(client: FlaskClient) -> None:
    headers = {"x-goog-authenticated-user-email": "accounts.google.com:ann@example.org"}
    assert set(asked(client, headers).values()) == {401}


def test_no_other_site_changes_anything_through_the_proxy(client: FlaskClient) -> None:
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
        answer = client.post("/v1/queue/retry", headers=assertion() | headers)
        assert answer.get_json()["type"] == "urn:jpegstow:cross-site"
    assert client.post("/v1/queue/retry", headers=assertion() | OWN).status_code == 200


def test_a_token_opens_a_session_that_ends_with_it(client: FlaskClient) -> None:
    token = bearer(roles=["read"])["Authorization"].removeprefix("Bearer ")
    browser = client.application.test_client()
    assert browser.post("/sign-in", data={"key": token}, headers=OWN).status_code == 303
    assert browser.get(QUEUE).status_code == 200
    late = bearer(exp=at(-30))["Authorization"].removeprefix("Bearer ")  # within the leeway
    assert browser.post("/sign-in", data={"key": late}, headers=OWN).status_code == 303
    assert browser.get(QUEUE).status_code == 401
    key = MADE["read"][0]
    assert browser.post("/sign-in", data={"key": key}, headers=OWN).status_code == 303
    assert browser.get(QUEUE).status_code == 200


def discovery(issuer: str, keys_url: Any) -> Step:
    """Answer with a discovery document; without an issuer it is the server itself."""

    def body(request: Received) -> bytes:
        own = issuer or f"http://{request.headers['host']}"
        return json.dumps({"issuer": own, "jwks_uri": keys_url}).encode()

    return Respond(200, {"Content-Type": "application/json"}, body)


def sent_to(url: str, issuer: str, store: ScriptedServer) -> TestResponse:
    given = {"AUTH": "oidc", "OIDC_ISSUER": url, "OIDC_AUDIENCE": AUDIENCE}
    client = client_for(store.dicomweb_url, **given)
    return client.get(QUEUE, headers=bearer(iss=issuer))


def test_the_provider_says_where_its_keys_are(key_url: str, store: ScriptedServer) -> None:
    with ScriptedServer(discovery("", key_url)) as server:
        assert sent_to(server.url, server.url, store).status_code == 200
        (request,) = server.requests
        assert request.path == "/.well-known/openid-configuration"


@pytest.mark.parametrize(
    ("issuer", "keys_url"),
    [("https://another.example", "http://127.0.0.1:1/"), ("", "file:///etc/passwd"), ("", None)],
)
def test_a_provider_whose_keys_cannot_be_found_lets_in_nobody(
    issuer: str, keys_url: Any, store: ScriptedServer
) -> None:
    with ScriptedServer(discovery(issuer, keys_url)) as server:
        answer = sent_to(server.url, server.url, store)
        assert (answer.status_code, answer.get_json()["where"]) == (503, "OIDC_ISSUER")


def test_a_provider_that_is_away_lets_in_nobody(store: ScriptedServer) -> None:
    with refused_port() as port:
        url = f"http://127.0.0.1:{port}"
        answer = sent_to(url, url, store)
    assert answer.get_json()["type"] == "urn:jpegstow:keys-unavailable"
    assert answer.headers["Retry-After"]


def test_a_provider_that_speaks_no_http_lets_in_nobody(store: ScriptedServer) -> None:
    with ScriptedServer(Garbage()) as server:
        assert sent_to(server.url, server.url, store).status_code == 503


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"AUTH": "oidc"}, "neither OIDC_ISSUER nor IAP_AUDIENCE is set"),
        ({"AUTH": "oidc", "OIDC_ISSUER": ISSUER}, "OIDC_AUDIENCE: it is empty"),
        ({"OIDC_ISSUER": ISSUER}, "OIDC_ISSUER: it is set, and AUTH isn't oidc"),
        ({"AUTH": "apikey", "IAP_AUDIENCE": "x"}, "IAP_AUDIENCE: it is set, and AUTH"),
        ({"IAP_SCOPES": "ann"}, "IAP_SCOPES: it isn't VALUE="),
        ({"IAP_SCOPES": "ann=root"}, "IAP_SCOPES: it has a scope"),
        ({"OIDC_SCOPES": "=read"}, "OIDC_SCOPES: it isn't VALUE="),
        ({"OIDC_ISSUER": "accounts.example.org"}, "OIDC_ISSUER: it isn't an http"),
        ({"OIDC_ISSUER": "https://a:b@host/"}, "OIDC_ISSUER: it isn't an http"),
        ({"OIDC_ISSUER": "https://host:nowhere/"}, "OIDC_ISSUER: it isn't an http"),
        ({"OIDC_KEYS_URL": "https://[::1"}, "OIDC_KEYS_URL: it isn't an http"),
    ],
)
def test_settings_that_would_let_in_the_wrong_ones_are_refused(
    given: dict[str, str], problem: str
) -> None:
    with pytest.raises(BadSettings, match=problem):
        settings.load(given)


def test_a_grants_value_may_hold_an_equals_sign() -> None:
    given = {"AUTH": "oidc", "IAP_AUDIENCE": "x", "IAP_SCOPES": "cn=ann,ou=x=read+upload"}
    loaded = settings_for("http://h", **given)
    assert loaded.iap_scopes == (Grant("cn=ann,ou=x", frozenset({"read", "upload"})),)
    assert assemble.access(loaded).proxy
