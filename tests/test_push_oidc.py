"""Who pushes: only the subscription's own tokens are let in; keys are fetched seldom."""

import itertools
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.errors import Forbidden, JpegstowError, Unauthorized
from service.gcp.oidc import PushTokens
from service.tokens import KeysUnavailable
from tests.peers import (
    BOUND,
    CutAnswer,
    Garbage,
    Hang,
    LoseAnswer,
    ResetMidBody,
    Respond,
    ScriptedServer,
    SlowBody,
    Step,
    Wire,
    refused_port,
)
from tests.tokens import (
    ABSENT,
    AUDIENCE,
    EMAIL,
    KID,
    at,
    bearer,
    claims,
    jwk,
    key_server,
    keys,
    keys_as,
    signed,
    signed_with_public_key,
    unsigned,
)

CHARACTERS = "".join(map(chr, range(0x20, 0x100)))  # all that a header can have (WSGI)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(CHARACTERS, max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(CHARACTERS, max_size=5), inner)
    ),
    max_leaves=5,
)
HEADERS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("alg", "kid", "crit", "b64", "typ", "jwk"), JSON | st.just("RS256"))
)
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with key_server() as listening:
        yield listening


@pytest.fixture(scope="module")
def tokens(server: ScriptedServer) -> PushTokens:
    return push_tokens(server)


def push_tokens(
    server: ScriptedServer, clock: Clock | None = None, timeout: float = BOUND
) -> PushTokens:
    return PushTokens(server.url, AUDIENCE, EMAIL, timeout, clock or Clock())


def refused(tokens: PushTokens, authorization: str) -> JpegstowError:
    """Return what a header is refused with."""
    with pytest.raises(JpegstowError) as caught:
        tokens.check(authorization)
    return caught.value


def refusal(tokens: PushTokens, authorization: str) -> JpegstowError:
    """Return what a header is refused with, which holds nothing of its token."""
    error = refused(tokens, authorization)
    text = "".join(traceback.format_exception(error)) + error.mend + error.where + error.reason
    words = {*authorization.split()[1:], *authorization.split(".")}
    secrets = {word for word in words if len(word) > 10} | {EMAIL, AUDIENCE, "mallory", "forged"}
    assert [secret for secret in secrets if secret in text] == []
    return error


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(bearer, id="as it should be"),
        pytest.param(lambda: bearer(iss="accounts.google.com"), id="issuer without a scheme"),
        pytest.param(lambda: bearer(exp=at(-30)), id="expired by a clock ahead"),
        pytest.param(lambda: bearer(iat=at(30)), id="issued by a clock ahead"),
        pytest.param(lambda: bearer(nbf=at(30)), id="valid by a clock ahead"),
        pytest.param(lambda: bearer(sub=ABSENT, azp=ABSENT), id="less than Google says"),
        pytest.param(lambda: bearer(more={"than": ["is"]}), id="more than Google says"),
    ],
)
def test_a_token_of_the_subscription_is_let_in(tokens: PushTokens, make: Callable[[], str]) -> None:
    tokens.check(make())


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer "])
def test_the_name_of_the_scheme_may_be_in_any_case(tokens: PushTokens, scheme: str) -> None:
    tokens.check(bearer().replace("Bearer", scheme))


def rs256(**header: Any) -> str:
    """Return a token that nobody has signed, though it says so."""
    return unsigned({"alg": "RS256", "kid": KID} | header, b"forged" * 50)


# What the header is -> reason, and the header
UNTRUSTED: dict[str, tuple[str, Callable[[], str]]] = {
    "nothing": ("no-token", lambda: ""),
    "blanks": ("no-token", lambda: "  "),
    "a password": ("not-bearer", lambda: "Basic bWFsbG9yeTpmb3JnZWQtc2VjcmV0"),
    "a bare token": ("not-bearer", lambda: bearer().removeprefix("Bearer ")),
    "without a blank": ("not-bearer", lambda: bearer().replace(" ", "")),
    "Bearer alone": ("malformed-token", lambda: "Bearer"),
    "Bearer and a blank": ("malformed-token", lambda: "Bearer "),
    "a word": ("malformed-token", lambda: "Bearer mallory-mallory-mallory"),
    "three words": ("malformed-token", lambda: "Bearer mallory.mallory.mallory"),
    "dots": ("malformed-token", lambda: "Bearer .."),
    "a word before": ("malformed-token", lambda: bearer().replace(" ", " mallory ")),
    "a segment more": ("malformed-token", lambda: bearer() + ".forged-segment"),
    "a letter outside ASCII": ("malformed-token", lambda: bearer() + "ä"),
    "half a letter": ("malformed-token", lambda: bearer() + "\udc80"),
    "claims in a list": ("malformed-token", lambda: signed(["mallory", "forged"])),
    "claims in a text": ("malformed-token", lambda: signed("mallory")),
    "kid a list": ("malformed-token", lambda: rs256(kid=["forged"])),
    "crit a list of lists": ("malformed-token", lambda: rs256(crit=[["forged"]])),
    "crit unheard of": ("malformed-token", lambda: signed(claims(), crit=["forged"], forged=1)),
    "payload detached": ("malformed-token", lambda: rs256(b64=False)),
    "alg none": ("wrong-algorithm", lambda: unsigned({"alg": "none", "kid": KID})),
    "alg none, signed": ("wrong-algorithm", lambda: rs256(alg="None")),
    "alg absent": ("wrong-algorithm", lambda: unsigned({"kid": KID}, b"forged")),
    "alg a list": ("wrong-algorithm", lambda: rs256(alg=["RS256"])),
    "HS256 by the public key": ("wrong-algorithm", signed_with_public_key),
    "RS512": ("wrong-algorithm", lambda: signed(claims(), alg="RS512")),
    "PS256": ("wrong-algorithm", lambda: signed(claims(), alg="PS256")),
    "kid absent": ("unknown-key", lambda: unsigned({"alg": "RS256"}, b"forged")),
    "kid empty": ("unknown-key", lambda: rs256(kid="")),
    "kid unknown": ("unknown-key", lambda: bearer("forged-key")),
    "its own key inside": (
        "unknown-key",
        lambda: signed(claims(), "forged-key", jwk=jwk("forged-key")),
    ),
    "no signature": ("bad-signature", lambda: unsigned({"alg": "RS256", "kid": KID})),
    "a false signature": ("bad-signature", rs256),
    "another key's signature": ("bad-signature", lambda: signed(claims(), "forged-key", kid=KID)),
    "another token's signature": (
        "bad-signature",
        lambda: rs256().rpartition(".")[0] + "." + bearer().rpartition(".")[2],
    ),
    "exp a minute ago": ("expired-token", lambda: bearer(exp=at(-61))),
    "exp long ago": ("expired-token", lambda: bearer(exp=0)),
    "exp a word": ("malformed-token", lambda: bearer(exp="mallory")),
    "exp for ever": ("malformed-token", lambda: bearer(exp=float("inf"))),
    "exp absent": ("missing-claim", lambda: bearer(exp=ABSENT)),
    "exp null": ("missing-claim", lambda: bearer(exp=None)),
    "nbf to come": ("early-token", lambda: bearer(nbf=at(90))),
    "iat to come": ("early-token", lambda: bearer(iat=at(90))),
    "iat absent": ("missing-claim", lambda: bearer(iat=ABSENT)),
    "iss another": ("wrong-issuer", lambda: bearer(iss="https://mallory.example")),
    "iss with a slash": ("wrong-issuer", lambda: bearer(iss="https://accounts.google.com/")),
    "iss by http": ("wrong-issuer", lambda: bearer(iss="http://accounts.google.com")),
    "iss a part": ("wrong-issuer", lambda: bearer(iss="google.com")),
    "iss a list": ("wrong-issuer", lambda: bearer(iss=["https://accounts.google.com"])),
    "iss absent": ("missing-claim", lambda: bearer(iss=ABSENT)),
}


@pytest.mark.parametrize(("reason", "make"), UNTRUSTED.values(), ids=UNTRUSTED.keys())
def test_a_token_that_cannot_be_trusted_is_unauthorized(
    tokens: PushTokens, reason: str, make: Callable[[], str]
) -> None:
    error = refusal(tokens, make())
    assert type(error) is Unauthorized
    assert (error.reason, error.where) == (reason, "Authorization")


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("wrong-audience", {"aud": "https://mallory.example"}),
        ("wrong-audience", {"aud": AUDIENCE + "/"}),
        ("wrong-audience", {"aud": AUDIENCE.upper()}),
        ("wrong-audience", {"aud": [AUDIENCE]}),
        ("wrong-audience", {"aud": [AUDIENCE, "https://mallory.example"]}),
        ("wrong-audience", {"aud": ""}),
        ("wrong-audience", {"aud": None}),
        ("wrong-audience", {"aud": ABSENT}),
        ("wrong-email", {"email": "mallory@jpegstow-tests.iam.gserviceaccount.com"}),
        ("wrong-email", {"email": EMAIL.upper()}),
        ("wrong-email", {"email": f"{EMAIL} "}),
        ("wrong-email", {"email": [EMAIL]}),
        ("wrong-email", {"email": None}),
        ("wrong-email", {"email": ABSENT}),
        ("email-not-verified", {"email_verified": False}),
        ("email-not-verified", {"email_verified": "true"}),
        ("email-not-verified", {"email_verified": 1}),
        ("email-not-verified", {"email_verified": ABSENT}),
    ],
    ids=str,
)
def test_a_good_token_of_somebody_else_is_forbidden(
    tokens: PushTokens, reason: str, changes: dict[str, Any]
) -> None:
    error = refusal(tokens, bearer(**changes))
    assert type(error) is Forbidden
    assert error.reason == reason


@pytest.mark.parametrize(("audience", "email"), [("", EMAIL), (AUDIENCE, ""), ("", "")])
def test_nobody_is_let_in_where_the_caller_is_not_configured(audience: str, email: str) -> None:
    with key_server() as server:
        tokens = PushTokens(server.url, audience, email)
        error = refusal(tokens, bearer(aud=audience, email=email))
    assert type(error) is Forbidden
    assert error.reason == "push-not-set-up"
    assert server.requests == []


@UNHURRIED
@given(authorization=st.text(CHARACTERS) | st.text(CHARACTERS).map("Bearer {}".format))
def test_no_text_is_let_in_or_breaks_the_check(tokens: PushTokens, authorization: str) -> None:
    assert type(refused(tokens, authorization)) is Unauthorized


@UNHURRIED
@given(header=HEADERS, signature=st.binary(max_size=300))
def test_no_header_of_a_token_is_let_in_or_breaks_the_check(
    tokens: PushTokens, header: dict[str, Any], signature: bytes
) -> None:
    error = refused(tokens, unsigned({"alg": "RS256", "kid": KID} | header, signature))
    assert type(error) is Unauthorized


@UNHURRIED
@given(said=JSON | st.fixed_dictionaries({}, optional=dict.fromkeys(claims(), JSON)))
def test_whatever_a_signed_token_says_it_is_refused_in_order(tokens: PushTokens, said: Any) -> None:
    assert type(refused(tokens, signed(said))) in {Unauthorized, Forbidden}


def test_keys_are_fetched_once_for_fifty_tokens() -> None:
    with key_server() as server:
        tokens = push_tokens(server)
        for number in range(50):
            tokens.check(bearer(number=number))
    assert len(server.requests) == 1


def test_threads_that_come_at_once_share_one_fetch() -> None:
    with ScriptedServer(Hang(then=keys(KID)), keys(KID)) as server:
        tokens = push_tokens(server)
        with ThreadPoolExecutor(8) as pool:
            checks = [pool.submit(tokens.check, bearer()) for _ in range(16)]
            assert not any(check.done() for check in checks)
            server.released.set()
            for check in checks:
                check.result(BOUND)
    assert len(server.requests) == 1


def test_forged_keys_make_one_fetch_a_minute_however_many_come() -> None:
    clock = Clock()
    with key_server() as server:
        tokens = push_tokens(server, clock)
        for minute, second in itertools.product((1, 2, 3), (0, 1, 58)):
            clock.now = 60.0 * minute + second
            for number in range(20):
                assert refusal(tokens, bearer(f"forged-{number}")).reason == "unknown-key"
            tokens.check(bearer())
            assert len(server.requests) == minute


def test_what_is_no_token_of_google_makes_no_fetch() -> None:
    with key_server() as server:
        tokens = push_tokens(server)
        nameless = unsigned({"alg": "RS256"})
        for authorization in ("", "Bearer mallory", signed_with_public_key(), nameless):
            refusal(tokens, authorization)
    assert server.requests == []


def test_no_key_is_fetched_from_where_a_token_says() -> None:
    with key_server() as server, ScriptedServer(keys("forged")) as hers:
        tokens = push_tokens(server)
        refusal(tokens, signed(claims(), "forged", jku=hers.url, x5u=hers.url))
    assert hers.requests == []


def test_a_new_key_is_found_once_a_minute_has_passed() -> None:
    clock = Clock()
    with ScriptedServer(keys(KID), keys(KID, "key-of-tomorrow")) as server:
        tokens = push_tokens(server, clock)
        tokens.check(bearer())
        assert refusal(tokens, bearer("key-of-tomorrow")).reason == "unknown-key"
        clock.now += 60
        tokens.check(bearer("key-of-tomorrow"))
        tokens.check(bearer())
    assert len(server.requests) == 2


def test_a_key_that_is_withdrawn_is_trusted_for_an_hour_at_most() -> None:
    clock = Clock()
    with ScriptedServer(keys(KID), keys("key-of-tomorrow")) as server:
        tokens = push_tokens(server, clock)
        tokens.check(bearer())
        clock.now += 3599
        tokens.check(bearer())
        assert len(server.requests) == 1
        clock.now += 1
        assert refusal(tokens, bearer()).reason == "unknown-key"
        tokens.check(bearer("key-of-tomorrow"))
    assert len(server.requests) == 2


def test_only_rsa_keys_for_signatures_by_rs256_count() -> None:
    others = [
        jwk("of-encryption") | {"use": "enc"},
        jwk("of-another-hash") | {"alg": "RS512"},
        {"kty": "oct", "kid": "of-a-secret", "k": "Zm9yZ2VkLXNlY3JldA"},
        {"kty": "unheard-of", "kid": "of-nothing"},
        jwk("without-a-name") | {"kid": ""},
        "not a key",
    ]
    with ScriptedServer(keys_as({"keys": [*others, jwk(KID)]})) as server:
        tokens = push_tokens(server)
        tokens.check(bearer())
        assert refusal(tokens, bearer("of-encryption")).reason == "unknown-key"
        assert refusal(tokens, bearer("of-another-hash")).reason == "wrong-algorithm"
        assert refusal(tokens, bearer("of-a-secret")).reason == "wrong-algorithm"
        assert refusal(tokens, signed(claims(), "without-a-name", kid="")).reason == "unknown-key"


class Word:
    """Answer with a line that isn't HTTP's, and longer than any error should be."""

    def play(self, wire: Wire) -> None:
        wire.receive()
        wire.wfile.write(b"x" * 5000 + b"\r\n")
        wire.close_connection = True


TROUBLE: dict[str, Step] = {
    "answers 503": Respond(503),
    "answers 404 in HTML": Respond(404, {"Content-Type": "text/html"}, b"<p>no</p>"),
    "redirects": Respond(302, {"Location": "http://127.0.0.1:9/keys"}),
    "hangs up": LoseAnswer(),
    "resets": ResetMidBody(),
    "says one long word": Word(),
    "breaks off": CutAnswer(b'{"keys": ['),
    "babbles": Garbage(),
    "answers in HTML": Respond(body=b"<p>log in to this network</p>"),
    "answers in no encoding": Respond(body=b"\xff\xfe\x80" * 1000),
    "answers nothing": Respond(),
    "answers a list": keys_as([]),
    "has no keys": keys_as({"keys": []}),
    "has only broken keys": keys_as({"keys": [{"kty": "RSA", "kid": KID}]}),
}


@pytest.mark.parametrize("step", TROUBLE.values(), ids=TROUBLE.keys())
def test_while_the_key_server_is_in_trouble_the_push_shall_come_again(step: Step) -> None:
    clock = Clock()
    with ScriptedServer(step, keys(KID)) as server:
        tokens = push_tokens(server, clock)
        for _ in range(20):
            error = refusal(tokens, bearer())
            assert type(error) is KeysUnavailable
            assert (error.http_status, error.transient) == (503, True)
            assert error.where == "PUSH_KEYS_URL"
            assert len(str(error)) < 500
        assert len(server.requests) == 1
        clock.now += 10
        tokens.check(bearer())
        tokens.check(bearer())
    assert len(server.requests) == 2


def test_a_key_server_that_is_away_is_named_with_its_trouble() -> None:
    with refused_port() as port:
        tokens = PushTokens(f"http://127.0.0.1:{port}/certs", AUDIENCE, EMAIL)
        error = refusal(tokens, bearer())
    assert type(error) is KeysUnavailable
    assert "Connection refused" in error.detail


@pytest.mark.parametrize("url", ["", "certs", "file:///etc/hostname", "https://[", "http://"])
def test_a_url_that_leads_nowhere_is_trouble_too(url: str) -> None:
    assert type(refusal(PushTokens(url, AUDIENCE, EMAIL), bearer())) is KeysUnavailable


def test_a_key_server_that_hangs_is_not_waited_for_long() -> None:
    with ScriptedServer(Hang()) as server:
        tokens = push_tokens(server, timeout=0.2)
        error = refusal(tokens, bearer())
    assert type(error) is KeysUnavailable
    assert "timed out" in error.detail


def test_a_thread_does_not_wait_long_for_another_one_s_fetch() -> None:
    trickle = SlowBody(bytes(keys(KID).body))  # type: ignore[arg-type]
    with ScriptedServer(trickle) as server:
        tokens = push_tokens(server, timeout=1.0)
        with ThreadPoolExecutor(1) as pool:
            fetching = pool.submit(tokens.check, bearer())
            server.wait_for(1)
            error = refusal(tokens, bearer())
            server.released.set()
            fetching.result(BOUND)
        tokens.check(bearer())
    assert type(error) is KeysUnavailable
    assert len(server.requests) == 1


def test_known_keys_go_on_while_the_key_server_hangs_over_a_forged_one() -> None:
    clock = Clock()
    with ScriptedServer(keys(KID), SlowBody(b" " * 1000)) as server:
        tokens = push_tokens(server, clock)
        tokens.check(bearer())
        clock.now += 60
        forged = threading.Thread(target=refusal, args=(tokens, bearer("forged")))
        forged.start()
        server.wait_for(2)
        for _ in range(20):
            tokens.check(bearer())
        assert forged.is_alive()
        server.released.set()
        forged.join(BOUND)
        tokens.check(bearer())
    assert len(server.requests) == 2


def test_known_keys_outlive_trouble_within_their_hour() -> None:
    clock = Clock()
    with ScriptedServer(keys(KID), Respond(500), keys(KID, "key-of-tomorrow")) as server:
        tokens = push_tokens(server, clock)
        tokens.check(bearer())
        clock.now += 60
        # Whether that key is Google's can't be told now.
        assert type(refusal(tokens, bearer("key-of-tomorrow"))) is KeysUnavailable
        tokens.check(bearer())
        clock.now += 10
        tokens.check(bearer("key-of-tomorrow"))
        assert refusal(tokens, bearer("forged")).reason == "unknown-key"
    assert len(server.requests) == 3


def test_nothing_of_a_token_is_logged(
    tokens: PushTokens, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(0)
    tokens.check(bearer())
    refusal(tokens, bearer("forged"))
    refusal(tokens, bearer(email="mallory@example.com"))
    assert caplog.text == ""
    assert capfd.readouterr() == ("", "")


def test_importing_the_check_does_not_import_pyjwt() -> None:
    program = "import service.gcp.oidc, sys; sys.exit('jwt' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
