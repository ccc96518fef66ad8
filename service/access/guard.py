"""The gate in front of every route: who asks, and whether they may."""

import math
from functools import partial
from http import HTTPStatus
from urllib.parse import urlencode

from flask import Flask, Response, g, redirect, request
from werkzeug.wrappers import Response as WsgiResponse

from service.access import audit, routes
from service.access.authority import Access
from service.access.caller import Caller
from service.access.headers import add_headers
from service.access.origin import check_host, check_origin, check_token
from service.access.rate import check_rate
from service.access.session import COOKIE
from service.access.sign_in import PATH, sign_in
from service.errors import Forbidden, JpegstowError, Unauthorized


def add_access(app: Flask, access: Access, table: routes.Table = routes.SERVICE) -> None:
    """Let nobody get to a view who may not; ``flask.g.caller`` is who asks.

    What is refused is refused before any view has run and any byte of a picture is read. Templates
    have ``csrf_token()``, what a session's requests show in the header X-CSRF-Token, and
    ``may(method, rule)``, whether who asks may do that.
    """

    @app.before_request
    def admit() -> WsgiResponse | None:
        g.caller, g.csrf_token, g.guarded, g.wait = None, "", False, 0.0
        scopes = None  # there is nothing at that path
        if request.url_rule is not None:
            scopes = routes.needed(table, request.method, request.url_rule.rule)
        if scopes is None:
            return None
        g.guarded = access.kind != "none"
        return _admit(access, scopes)

    @app.after_request
    def tell(response: Response) -> Response:
        if g.get("guarded"):
            audit.write_of_request(response)
        if g.get("wait"):
            response.headers["Retry-After"] = str(math.ceil(g.wait))
        if response.status_code == Unauthorized.http_status:
            response.headers.setdefault("WWW-Authenticate", "Bearer")
        return response

    add_headers(app)
    app.add_template_global(lambda: g.get("csrf_token", ""), "csrf_token")
    app.add_template_global(partial(_may, table), "may")
    if access.sessions:
        app.register_blueprint(sign_in(access))


def _admit(access: Access, scopes: routes.Needed) -> WsgiResponse | None:
    """Find out who asks, and return if they may; a browser without a session is led to get one."""
    try:
        g.caller, by = access.identify(request.headers, request.cookies.get(COOKIE, ""))
    except JpegstowError as error:
        check_rate(access.rate, f"address {request.remote_addr}")
        if _is_led_to_sign_in(access, error):
            return redirect(f"{PATH}?{urlencode({'next': request.path})}", HTTPStatus.SEE_OTHER)
        raise
    if g.caller.kind != "service":
        check_rate(access.rate, f"{g.caller.kind} {g.caller.name}")
    _check_site(access, by)
    if access.kind != "none":
        _check_scope(g.caller, scopes)
    return None


def _is_led_to_sign_in(access: Access, error: JpegstowError) -> bool:
    """Tell whether it is a browser that asks for a page: it names HTML, and not only anything."""
    asks_for_page = request.method == "GET" and "text/html" in dict(request.accept_mimetypes)
    return access.sessions is not None and asks_for_page and isinstance(error, Unauthorized)


def _check_site(access: Access, by: str) -> None:
    """Refuse what another site makes a browser send, where the browser itself says who it is."""
    if by == "cookie" and access.sessions:
        g.csrf_token = access.sessions.token(request.cookies[COOKIE])
        check_origin(browser=True)
        check_token(g.csrf_token)
    elif by == "browser":
        check_host(access.hosts)
        check_origin(browser=False)


def _may(table: routes.Table, method: str, rule: str) -> bool:
    """Tell whether who asks has a scope for a route; of whom nothing is known, it is left open."""
    scopes = routes.needed(table, method, rule)
    caller = g.get("caller")
    return caller is None or scopes is None or "" in scopes or bool(caller.scopes & scopes)


def _check_scope(caller: Caller, scopes: routes.Needed) -> None:
    if "" not in scopes and not caller.scopes & scopes:
        wanted = " or ".join(sorted(scopes)) or "a scope that nobody has"
        raise Forbidden(f"this needs the scope {wanted}", mend="use a key that has it")
