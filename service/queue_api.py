"""The retry queue over HTTP: what waits and why; try it again, describe it anew, discard it."""

import re
import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlencode

from flask import Blueprint, Flask, Response, request

from service import counting, telemetry
from service.answers import Answer, json_answer
from service.dicom import json_model, stow
from service.dicom.codestream import Codestream
from service.errors import BadRequest, NoSuchEntry, TooLarge
from service.ingest import Rules
from service.retry import STATES, Filter, Kept, Queue, shown
from service.retry.mend import Correction, mend, retry

_ROOT: Final = "/v1/queue"
_FILTERS: Final = ("state", "reason", "study")
_PAGE: Final = 100  # entries
_LONGEST_PAGE: Final = 1000
_LONGEST_BODY: Final = 1_000_000  # bytes
_UNKNOWN: Final = "application/octet-stream"
_BLOCK: Final = 65_536  # bytes
_SUFFIXES: Final = {"image/jpeg": "jpg", "image/jls": "jls", "image/jp2": "j2k"}


def add_queue(app: Flask, queue: Queue, rules: Rules) -> None:
    """Serve a retry queue under ``/v1/queue``, and its figures under ``/metrics``."""
    api = Blueprint("queue", __name__)
    api.after_request(_keep_out_of_caches)

    @api.get(_ROOT)
    def entries() -> Response:
        return json_answer(_page(queue))

    @api.post(f"{_ROOT}/retry")
    def retry_many() -> Response:
        chosen = _filter({"state": "dead"} | _query(_FILTERS))
        retried = queue.revive(chosen, time.time())
        telemetry.log("INFO", "queue retry", retried=retried)
        return json_answer({"retried": retried})

    @api.get(f"{_ROOT}/<name>")
    def show(name: str) -> Response:
        return json_answer(shown.whole_as_json(queue.show(name), shown.loaded(queue, name)))

    @api.get(f"{_ROOT}/<name>/image")
    def image(name: str) -> Response:
        return _image(name, queue.load(name))

    @api.post(f"{_ROOT}/<name>/retry")
    def retry_one(name: str) -> Response:
        correction = _correction()
        if correction is None:
            retry(queue, name, time.time())
            telemetry.log("INFO", "queue retry", SOPInstanceUID=name)
            return _accepted(queue, name)
        mended = mend(queue, name, correction, rules, time.time())
        telemetry.log("INFO", "queue mend", SOPInstanceUID=mended, replaces=name)
        return _accepted(queue, mended)

    @api.delete(f"{_ROOT}/<name>")
    def drop(name: str) -> Response:
        queue.drop(name, time.time())
        telemetry.log("INFO", "queue drop", SOPInstanceUID=name)
        return Response(status=HTTPStatus.NO_CONTENT)

    @api.get("/metrics")
    def figures() -> Response:
        # Slow to import, and asked for by few.
        from service import metrics  # noqa: PLC0415

        text = metrics.exposition(queue.totals(), counting.read(), time.time())
        return Response(text, content_type=metrics.CONTENT_TYPE)

    app.register_blueprint(api)


def _keep_out_of_caches(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _page(queue: Queue) -> Answer:
    given = _query((*_FILTERS, "limit", "after"))
    page = queue.list(_filter(given), _limit(given), given.get("after", ""))
    following = f"{_ROOT}?{urlencode(given | {'after': page.after})}"
    return {
        "entries": [shown.as_json(entry) for entry in page.entries],
        "next": following if page.after else None,
        "totals": dict(queue.totals().entries),
    }


def _query(known: tuple[str, ...]) -> dict[str, str]:
    """Return the query's parameters that have a value."""
    given = request.args.to_dict(flat=False)
    if not set(given) <= set(known):
        detail = "the query has a parameter that means nothing here"
        raise BadRequest(detail, where="query", mend=f"use {', '.join(known)}")
    for name, values in given.items():
        if len(values) > 1:
            raise BadRequest(f"{name} is given more than once", where=name)
    return {name: value for name, (value,) in given.items() if value}


def _filter(given: dict[str, str]) -> Filter:
    state = given.get("state", "")
    if state and state not in STATES:
        raise BadRequest("there is no such state", where="state", mend=f"use {', '.join(STATES)}")
    return Filter(**{name: given[name] for name in _FILTERS if name in given})


def _limit(given: dict[str, str]) -> int:
    text = given.get("limit", str(_PAGE))
    if not re.fullmatch(r"\d{1,4}", text, re.ASCII) or not 1 <= int(text) <= _LONGEST_PAGE:
        detail = f"the limit isn't a number from 1 to {_LONGEST_PAGE}"
        raise BadRequest(detail, where="limit", mend="leave it out, or ask for page after page")
    return int(text)


def _image(name: str, kept: Kept) -> Response:
    codestream, content_type, suffix = Codestream((kept.upload.image,)), _UNKNOWN, "bin"
    if kept.described:
        codestream = kept.described.instance.codestream
        content_type = stow.media_type(kept.described.instance.transfer_syntax)
        suffix = _SUFFIXES[content_type.partition(";")[0]]
    response = Response(_blocks(codestream), content_type=content_type)
    response.content_length = len(codestream)
    response.headers["Content-Disposition"] = f'inline; filename="{name}.{suffix}"'
    return response


def _blocks(codestream: Codestream) -> Iterator[bytes]:
    """Yield the bytes a few at a time; the pieces may be views of the whole file."""
    for piece in codestream:
        for start in range(0, len(piece), _BLOCK):
            yield bytes(piece[start : start + _BLOCK])


def _accepted(queue: Queue, name: str) -> Response:
    """Answer with the entry as it is now, or with its bare name if it has just been stored."""
    try:
        entry = shown.as_json(queue.show(name))
    except NoSuchEntry:
        entry = {"id": name, "SOPInstanceUID": name}
    response = json_answer(entry, HTTPStatus.ACCEPTED)
    response.headers["Location"] = f"{_ROOT}/{name}"
    return response


def _correction() -> Correction | None:
    """Return what a body says better of an entry; None if nothing is to be described anew."""
    model = _json_body()
    if not isinstance(model, dict) or not set(model) <= {"attributes", "template"}:
        raise _not_understood("the body isn't an object of attributes and template", "body")
    attributes, template = model.get("attributes", {}), model.get("template", "")
    if not isinstance(attributes, dict):
        raise _not_understood("attributes isn't an object", "attributes")
    if not isinstance(template, str):
        raise _not_understood("template isn't a template's name", "template")
    return Correction(attributes, template) if attributes or template else None


def _json_body() -> Any:
    """Return what the body holds; an empty object if it is empty."""
    data = request.get_data(cache=False)
    if request.content_length not in (None, len(data)):
        raise BadRequest("the body is cut off", reason="cut-off", mend="send it again")
    if len(data) > _LONGEST_BODY:
        raise TooLarge(f"the body is longer than {_LONGEST_BODY} bytes", where="body")
    try:
        return json_model.loads(data or b"{}")
    except ValueError as error:
        raise _not_understood("the body isn't usable JSON", "body") from error


def _not_understood(detail: str, where: str) -> BadRequest:
    mend = 'send nothing, or an object such as {"attributes": {"PatientID": "P-7"}}'
    return BadRequest(detail, where=where, mend=mend)
