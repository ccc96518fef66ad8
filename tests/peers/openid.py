"""An OpenID Connect provider made with Authlib, as a process of the test's own.

with openid_provider(folder, {"sub": "u-1", "roles": ["read"]}) as provider:
    client_id, secret = provider.register("http://127.0.0.1:8080/sign-in/return")

It wants a nonce and clients that are registered, or takes `any_client`; each code is good for once.
It wants a client's secret, and checks no PKCE.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import requests

from tests.loopback import BOUND
from tests.peers.scripted import Received, Step
from tests.peers.steps import Respond
from tests.processes import clean, kill_family, on_a_port, start, wait_for_answer

_JSON = {"Content-Type": "application/json"}
_PROGRAM = str(Path(sys.executable).with_name("oidc-provider-mock"))


@dataclass(frozen=True)
class OpenIdProvider:
    """A provider at a URL who knows one person, and signs them in when told to."""

    url: str
    person: Mapping[str, Any]

    def register(self, back: str) -> tuple[str, str]:
        """Return the id and the secret of a new client, whose people come back to a URL."""
        wanted = {"redirect_uris": [back]}
        answer = requests.post(f"{self.url}/oauth2/clients", json=wanted, timeout=BOUND)
        answer.raise_for_status()
        client = answer.json()
        return client["client_id"], client["client_secret"]

    def sign_in(self, url: str) -> str:
        """Sign the person in who was sent to a URL; return where the browser is sent then."""
        answer = requests.post(
            url, data={"sub": self.person["sub"]}, timeout=BOUND, allow_redirects=False
        )
        assert answer.is_redirect, answer.text
        return answer.headers["Location"]

    def refuse(self, url: str) -> str:
        """Sign nobody in."""
        answer = requests.post(url, data={"action": "deny"}, timeout=BOUND, allow_redirects=False)
        assert answer.is_redirect, answer.text
        return answer.headers["Location"]


@contextmanager
def openid_provider(
    folder: Path, person: Mapping[str, Any], *, any_client: bool = False
) -> Iterator[OpenIdProvider]:
    """Run a provider, whose log is in a folder."""
    log = folder / "openid.log"
    registered = "false" if any_client else "true"
    options = ["-r", registered, "-n", "true", "--user-claims", json.dumps(person)]

    def begin(port: int) -> tuple[str, Popen[bytes]]:
        url = f"http://127.0.0.1:{port}"
        quiet = clean(PYTHONWARNINGS="ignore")
        process = start([_PROGRAM, "-p", str(port), *options], log, quiet)
        wait_for_answer(process, f"{url}/jwks", log)
        return url, process

    url, process = on_a_port(begin)
    try:
        yield OpenIdProvider(url, person)
    finally:
        kill_family(process)


def discovery(**more: Any) -> Step:
    """Answer with what a scripted provider says of itself (OpenID Connect Discovery 1.0)."""

    def body(request: Received) -> bytes:
        own = f"http://{request.headers['host']}"
        said = {
            "issuer": own,
            "authorization_endpoint": f"{own}/authorize?tenant=1",
            "token_endpoint": f"{own}/token",
            "end_session_endpoint": f"{own}/end",
            "jwks_uri": f"{own}/keys",
        } | more
        return json.dumps(said).encode()

    return Respond(200, _JSON, body)
