"""An OpenID Connect provider made with Authlib, as a process of the test's own.

with OpenIdProvider(folder, {"sub": "u-1", "roles": ["read"]}) as provider:
    client_id, secret = provider.register("http://127.0.0.1:8080/sign-in/return")

It wants a nonce and clients that are registered, or takes `any_client`; each code is good for once.
It wants a client's secret, and checks no PKCE.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests

from tests.loopback import BOUND
from tests.peers.scripted import Received, Step
from tests.peers.steps import Respond
from tests.processes import clean, kill_family, on_a_port, start, wait_for_answer

_JSON = {"Content-Type": "application/json"}
_PROGRAM = str(Path(sys.executable).with_name("oidc-provider-mock"))


class OpenIdProvider:
    """A provider who knows one person, and signs them in when told to; its log is in a folder."""

    def __init__(
        self, folder: Path, person: Mapping[str, Any], *, any_client: bool = False
    ) -> None:
        self._registered = "false" if any_client else "true"
        self._log = folder / "openid.log"
        self._person = person

    def __enter__(self) -> Self:
        """Start it, and wait until it answers."""
        return on_a_port(self._start)

    def _start(self, port: int) -> Self:
        self.url = f"http://127.0.0.1:{port}"
        command = [_PROGRAM, "-p", str(port), "-r", self._registered, "-n", "true"]
        quiet = clean(PYTHONWARNINGS="ignore")
        self._process = start(
            [*command, "--user-claims", json.dumps(self._person)], self._log, quiet
        )
        wait_for_answer(self._process, f"{self.url}/jwks", self._log)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it."""
        kill_family(self._process)

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
            url, data={"sub": self._person["sub"]}, timeout=BOUND, allow_redirects=False
        )
        assert answer.is_redirect, answer.text
        return answer.headers["Location"]

    def refuse(self, url: str) -> str:
        """Sign nobody in."""
        answer = requests.post(url, data={"action": "deny"}, timeout=BOUND, allow_redirects=False)
        assert answer.is_redirect, answer.text
        return answer.headers["Location"]


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
