"""The blueprint of the pages, and what all of them have in common."""

import re
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from flask import Blueprint, Flask, Response, g, redirect, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from service.answers import PROBLEM, problem_answer, problem_from
from service.errors import JpegstowError
from service.ingest import Rules
from service.pages.fields import own_fields
from service.pages.queue import add_queue_pages
from service.pages.reading import Reader
from service.pages.studies import add_study_pages
from service.retry import Queue
from service.settings import Settings
from service.store import DicomwebStore
from service.texts import CHOSEN, LANGUAGES, catalogue, label, language_of, speaker

_API: Final = "/v1/"
_PROBLEM: Final = "problem."
_YEAR: Final = 31_536_000  # seconds
# There is one way to read a path: with several, a long one would take for ever to refuse.
_OWN_PATH: Final = re.compile(r"/(?:[\w.-]+(?:/[\w.-]+)*/?)?", re.ASCII)
# Pico draws its icons from data: URLs, and a chosen picture is shown before it is sent.
_POLICY: Final = (
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)


def add_pages(
    app: Flask, store: DicomwebStore, queue: Queue, rules: Rules, settings: Settings
) -> None:
    """Serve the pages: uploads at ``/``, the queue at ``/queue``, the store at ``/studies``."""
    pages = Blueprint(
        "pages", __name__, template_folder="html", static_folder="static", static_url_path="/static"
    )
    pages.before_request(_listen)
    pages.after_request(_protect)
    pages.app_context_processor(_common)
    pages.add_app_template_filter(_moment, "moment")
    pages.register_error_handler(JpegstowError, _refused)

    @pages.get("/")
    def upload() -> str:
        kinds = {name: own_fields(template) for name, template in rules.templates.items()}
        return render_template("upload.html", kinds=kinds, default=settings.default_template)

    @pages.get("/language/<name>")
    def language(name: str) -> AnyResponse:
        back = request.args.get("back", "/")
        response = redirect(back if _OWN_PATH.fullmatch(back) else "/")
        if name in LANGUAGES:
            response.set_cookie(CHOSEN, name, _YEAR, httponly=True, samesite="Lax")
        return response

    app.after_request(_told)
    add_queue_pages(pages, queue, rules)
    add_study_pages(pages, Reader(store))
    app.register_blueprint(pages)


def _listen() -> None:
    g.language = language_of(request.cookies.get(CHOSEN), request.accept_languages)
    g.say = speaker(g.language)


def _common() -> dict[str, Any]:
    """Return what every page's template may use."""
    if "say" not in g:  # refused before any page could listen
        _listen()
    return {
        "say": g.say,
        "said": _said,
        "label": lambda key, otherwise: label(key, g.language, otherwise),
        "language": g.language,
        "languages": LANGUAGES,
        "problems": _problems(),
    }


def _problems() -> dict[str, str]:
    """Return what a refusal is in the page's language, by its status; its detail is in English."""
    keys = [key for key in catalogue() if key.startswith(_PROBLEM)]
    return {key.removeprefix(_PROBLEM): g.say(key) for key in keys}


def _said(choices: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return values with their texts, in the order of the texts."""
    return sorted(((value, g.say(key)) for value, key in choices.items()), key=_alphabetical)


def _alphabetical(choice: tuple[str, str]) -> str:
    """Return what a text is sorted by: its letters without their marks."""
    return unicodedata.normalize("NFD", choice[1]).encode("ascii", "ignore").decode().lower()


def _moment(seconds: float) -> str:
    """Return a moment in seconds since 1970 as people read it, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _protect(response: Response) -> Response:
    """Let a page load nothing but its own files, and keep what it shows out of caches."""
    if request.endpoint != "pages.static":
        response.headers["Cache-Control"] = "no-store"
        response.headers["Vary"] = "Accept-Language, Cookie"
    response.headers.setdefault("Content-Security-Policy", _POLICY)
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Referrer-Policy", "same-origin")
    return response


def _refused(error: JpegstowError) -> Response:
    """Answer a refusal: to a page's script as a problem, to a person as a page."""
    if "HX-Request" in request.headers:
        return problem_answer(problem_from(error), transient=error.transient)
    page = render_template("error.html", error=error, status=error.http_status)
    return Response(page, error.http_status)


def _told(response: Response) -> Response:
    """Show a person as a page what was refused elsewhere; programs don't ask for HTML there."""
    asks = request.method == "GET" and "text/html" in dict(request.accept_mimetypes)
    if response.mimetype == PROBLEM and asks and not request.path.startswith(_API):
        error = response.get_json()
        response.set_data(render_template("error.html", error=error, status=error["status"]))
        response.mimetype = "text/html"
    return response
