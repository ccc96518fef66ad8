"""The page where a person shows who they are, and gets a session for it; the way out again."""

import math
from contextlib import suppress
from http import HTTPStatus
from typing import Final, TypeVar

from flask import Blueprint, Response, make_response, redirect, render_template, request
from werkzeug.wrappers import Response as WsgiResponse

from service import telemetry
from service.access import audit
from service.access.authority import Access
from service.access.caller import Caller
from service.access.headers import is_https
from service.access.login import COOKIE as BEGUN
from service.access.login import LENGTH as LONGEST
from service.access.login import Login
from service.access.origin import check_origin
from service.access.rate import check_rate
from service.access.session import COOKIE, LENGTH, Sessions
from service.errors import JpegstowError, Unauthorized
from service.texts import CHOSEN, LANGUAGES, language_of, speaker

PATH: Final = "/sign-in"
_LONGEST: Final = 16_384  # bytes of a form
_Answer = TypeVar("_Answer", bound=WsgiResponse)
_RETURN: Final = f"{PATH}/return"


def sign_in(access: Access) -> Blueprint:
    """Return the routes by which sessions begin and end."""
    assert access.sessions  # noqa: S101 - else there is nothing to sign in to
    pages = Blueprint("access", __name__, template_folder="html")
    if access.login:
        _add_login(pages, access, access.login, access.sessions)

    @pages.get(PATH)
    def ask() -> Response:
        return _page(access, request.args.get("next", ""))

    @pages.post(PATH)
    def answer() -> WsgiResponse:
        check_origin(browser=True)
        request.max_content_length = _LONGEST
        wanted = request.form.get("next", "")
        try:
            caller, cookie = access.session(request.form.get("key", "").strip())
        except Unauthorized as error:
            _count_failure(access, error)
            return _page(access, wanted, "wrong", error.http_status)
        audit.write(audit.LOGIN, caller, HTTPStatus.OK, address=request.remote_addr)
        return _with_session(redirect(_local(wanted), HTTPStatus.SEE_OTHER), cookie)

    @pages.post("/sign-out")
    def leave() -> WsgiResponse:
        check_origin(browser=True)
        leaver = _leaver(access)
        _end(access)
        audit.write(audit.LOGOUT, leaver, HTTPStatus.OK)
        there = ""
        if access.login and leaver and leaver.kind == "token":
            there = access.login.leave(_own_url(PATH))
        response = _moving(there) if there else redirect(PATH, HTTPStatus.SEE_OTHER)
        response.delete_cookie(COOKIE, secure=is_https(), httponly=True, samesite="Strict")
        return response

    return pages


def _add_login(pages: Blueprint, access: Access, login: Login, sessions: Sessions) -> None:
    """Add the way to the provider and back."""

    @pages.get(f"{PATH}/provider")
    def go() -> WsgiResponse:
        check_rate(access.rate, f"address {request.remote_addr}")
        wanted = _local(request.args.get("next", ""))
        try:
            url, begun = login.begin(_own_url(_RETURN), wanted)
        except JpegstowError as error:
            return _failed(access, wanted, error)
        response = redirect(url, HTTPStatus.SEE_OTHER)
        # Lax, since the provider's page is another site's, and leads back here.
        response.set_cookie(
            BEGUN, begun, LONGEST, PATH, secure=is_https(), httponly=True, samesite="Lax"
        )
        return response

    @pages.get(_RETURN)
    def come_back() -> WsgiResponse:
        try:
            begun = request.cookies.get(BEGUN, "")
            caller, wanted = login.finish(_own_url(_RETURN), begun, request.args)
        except JpegstowError as error:
            return _failed(access, "", error)
        audit.write(audit.LOGIN, caller, HTTPStatus.OK, address=request.remote_addr)
        response = _with_session(_moving(wanted), sessions.of_caller(caller, math.inf))
        response.delete_cookie(BEGUN, PATH, secure=is_https(), httponly=True, samesite="Lax")
        return response


def _with_session(response: _Answer, cookie: str) -> _Answer:
    response.set_cookie(
        COOKIE, cookie, int(LENGTH), secure=is_https(), httponly=True, samesite="Strict"
    )
    return response


def _failed(access: Access, wanted: str, error: JpegstowError) -> Response:
    """Tell a person that the provider hasn't signed them in, and the log why."""
    _count_failure(access, error, reason=error.detail)
    return _page(access, wanted, "unavailable" if error.transient else "failed", error.http_status)


def _count_failure(access: Access, error: JpegstowError, **values: str) -> None:
    address = request.remote_addr
    check_rate(access.rate, f"address {address}")
    audit.write(audit.LOGIN, None, error.http_status, address=address, **values)


def _end(access: Access) -> None:
    """End the session for whoever has its cookie, or say that it goes on for them."""
    assert access.sessions  # noqa: S101 - else there is no page to sign out
    try:
        access.sessions.leave(request.cookies.get(COOKIE, ""))
    except (OSError, ValueError) as error:
        telemetry.log("ERROR", "a sign-out can't be remembered", error=type(error).__name__)


def _leaver(access: Access) -> Caller | None:
    """Return whose session ends; None if it had ended before."""
    with suppress(JpegstowError):
        return access.identify(request.headers, request.cookies.get(COOKIE, "")).caller
    return None


def _page(access: Access, wanted: str, alert: str = "", status: int = HTTPStatus.OK) -> Response:
    provider = access.login.host if access.login else ""
    page = _drawn("sign-in.html", next=_local(wanted), alert=alert, provider=provider)
    return make_response(page, status)


def _moving(there: str) -> Response:
    """Answer with a page that goes on by itself.

    A redirect would still count as the provider's: the browser would keep the session's cookie
    back, and wouldn't let a form of ours lead to another site.
    """
    return make_response(_drawn("moving.html", there=there))


def _drawn(template: str, **values: str) -> str:
    language = language_of(request.cookies.get(CHOSEN), request.accept_languages)
    said = {"say": speaker(language), "language": language, "languages": LANGUAGES}
    return render_template(template, **said, **values)


def _own_url(path: str) -> str:
    """Return a URL of this service's, as the browser knows it."""
    return f"{'https' if is_https() else 'http'}://{request.host}{path}"


def _local(path: str) -> str:
    """Return a path of this service; its root for anything that leads elsewhere."""
    sound = path.startswith("/") and not path.startswith("//") and path.isprintable()
    return path if sound and "\\" not in path else "/"
