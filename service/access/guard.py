"""The gate in front of every route: who asks, and whether they may."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from flask import Flask, Response, g, request

from service.access import keys, routes
from service.access.caller import ANYBODY, Caller
from service.access.keys import KeyFile
from service.errors import Forbidden, Unauthorized
from service.setting_texts import ApiKey

_MEND: Final = "send an API key: Authorization: Bearer jpegstow_..."


@dataclass(frozen=True, slots=True)
class Access:
    """How callers are told.

    Attributes
    ----------
    given
        Keys beside those of the file.
    """

    kind: Literal["none", "apikey"]
    file: KeyFile
    given: Sequence[ApiKey] = ()

    def caller(self, authorization: str) -> Caller:
        """Return whose an Authorization header is.

        Raises
        ------
        Unauthorized
            If it is nobody's.
        KeysUnusable
            If it can't be told.
        """
        if self.kind == "none":
            return ANYBODY
        found = keys.find(keys.digest_of(_bearer(authorization)), self._all())
        if found is None:
            raise _unknown("unknown-key", "there is no such key, or it is revoked")
        return Caller(found.name, "key", found.scopes)

    def _all(self) -> Sequence[ApiKey]:
        return [*self.given, *self.file.read()]


def add_access(app: Flask, access: Access, table: routes.Table = routes.SERVICE) -> None:
    """Let nobody get to a view who may not; ``flask.g.caller`` is who asks.

    What is refused is refused before any view has run and any byte of the body is read.
    """

    @app.before_request
    def admit() -> None:
        g.caller = None
        if request.url_rule is None:
            return  # there is nothing at that path
        scopes = routes.needed(table, request.method, request.url_rule.rule)
        if scopes is None:
            return
        g.caller = access.caller(request.headers.get("Authorization", ""))
        if access.kind != "none":
            _check(g.caller, scopes)

    @app.after_request
    def challenge(response: Response) -> Response:
        if response.status_code == Unauthorized.http_status:
            response.headers.setdefault("WWW-Authenticate", "Bearer")
        return response


def _check(caller: Caller, scopes: routes.Needed) -> None:
    if "" not in scopes and not caller.scopes & scopes:
        wanted = " or ".join(sorted(scopes)) or "a scope that nobody has"
        raise Forbidden(f"this needs the scope {wanted}", mend="use a key that has it")


def _bearer(authorization: str) -> str:
    """Return the token of an Authorization header (RFC 6750 section 2.1)."""
    scheme, _, token = authorization.partition(" ")
    if not scheme:
        raise _unknown("no-key", "the request says nothing of who sends it")
    if scheme.lower() != "bearer":
        raise _unknown("not-bearer", "the request's credentials aren't a Bearer token")
    return token.strip()


def _unknown(reason: str, detail: str) -> Unauthorized:
    return Unauthorized(detail, reason=reason, where="Authorization", mend=_MEND)
