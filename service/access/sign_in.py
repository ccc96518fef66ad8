"""The page where a person shows a key once, and gets a session for it; the way out again."""

from contextlib import suppress
from http import HTTPStatus
from typing import Final

from flask import Blueprint, Response, make_response, redirect, render_template, request
from werkzeug.wrappers import Response as WsgiResponse

from service.access import audit
from service.access.authority import Access
from service.access.caller import Caller
from service.access.headers import is_https
from service.access.origin import check_origin
from service.access.rate import check_rate
from service.access.session import COOKIE, LENGTH
from service.errors import JpegstowError, Unauthorized

PATH: Final = "/sign-in"
_LONGEST: Final = 16_384  # bytes of a form
_TEXTS: Final = {
    "en": {
        "lang": "en",
        "title": "Sign in",
        "key": "API key or token",
        "button": "Sign in",
        "wrong": "That key isn't known here.",
    },
    "de": {
        "lang": "de",
        "title": "Anmelden",
        "key": "API-Schlüssel oder Token",
        "button": "Anmelden",
        "wrong": "Dieser Schlüssel ist hier nicht bekannt.",
    },
    "es": {
        "lang": "es",
        "title": "Iniciar sesión",
        "key": "Clave de API o token",
        "button": "Iniciar sesión",
        "wrong": "Esa clave no se conoce aquí.",
    },
}


def sign_in(access: Access) -> Blueprint:
    """Return the routes by which sessions begin and end."""
    pages = Blueprint("access", __name__, template_folder="html")

    @pages.get(PATH)
    def ask() -> Response:
        return _page(request.args.get("next", ""))

    @pages.post(PATH)
    def answer() -> WsgiResponse:
        check_origin(browser=True)
        request.max_content_length = _LONGEST
        wanted = request.form.get("next", "")
        try:
            caller, cookie = access.session(request.form.get("key", "").strip())
        except Unauthorized as error:
            check_rate(access.rate, f"address {request.remote_addr}")
            audit.write(audit.LOGIN, None, error.http_status, address=request.remote_addr)
            return _page(wanted, wrong=True)
        audit.write(audit.LOGIN, caller, HTTPStatus.OK, address=request.remote_addr)
        response = redirect(_local(wanted), HTTPStatus.SEE_OTHER)
        response.set_cookie(
            COOKIE, cookie, int(LENGTH), secure=is_https(), httponly=True, samesite="Strict"
        )
        return response

    @pages.post("/sign-out")
    def leave() -> WsgiResponse:
        check_origin(browser=True)
        audit.write(audit.LOGOUT, _leaver(access), HTTPStatus.OK)
        response = redirect(PATH, HTTPStatus.SEE_OTHER)
        response.delete_cookie(COOKIE, secure=is_https(), httponly=True, samesite="Strict")
        return response

    return pages


def _leaver(access: Access) -> Caller | None:
    """Return whose session ends; None if it had ended before."""
    with suppress(JpegstowError):
        return access.identify(request.headers, request.cookies.get(COOKIE, "")).caller
    return None


def _page(wanted: str, *, wrong: bool = False) -> Response:
    asked = (language.partition("-")[0].lower() for language in request.accept_languages.values())
    language = next((language for language in asked if language in _TEXTS), "en")
    page = render_template("sign-in.html", text=_TEXTS[language], next=_local(wanted), wrong=wrong)
    return make_response(page, HTTPStatus.UNAUTHORIZED if wrong else HTTPStatus.OK)


def _local(path: str) -> str:
    """Return a path of this service; its root for anything that leads elsewhere."""
    sound = path.startswith("/") and not path.startswith("//") and path.isprintable()
    return path if sound and "\\" not in path else "/"
