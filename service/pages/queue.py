"""The pages of the retry queue; what changes an entry is the JSON API's."""

import hashlib
import time
from http import HTTPStatus
from typing import Final

from flask import Blueprint, Response, g, render_template, request

from service import telemetry
from service.dicom import decoding, json_model
from service.errors import BadRequest, DamagedEntry, NoSuchEntry
from service.ingest import Rules
from service.pages.rows import Row, rows
from service.pages.thumbnail import NONE, thumbnail
from service.retry import STATES, Entry, Filter, Kept, Queue, shown

_PAGE: Final = 50  # entries
_UNITS: Final = {"d": 86_400, "h": 3_600, "m": 60}
_ASKED_FIRST: Final = ("PatientID", "PatientName", "PatientBirthDate", "AccessionNumber")
_NOT_TYPED: Final = frozenset({"SQ", "OB", "OW", "OD", "OF", "OL", "OV", "UN", "AT"})


def add_queue_pages(pages: Blueprint, queue: Queue, rules: Rules) -> None:
    """Serve the queue under ``/queue``."""

    @pages.get("/queue")
    def entries() -> str:
        listed, seen = _listed(queue, {})
        return render_template("queue.html", states=STATES, listed=listed, seen=seen)

    @pages.post("/queue/list")
    def listed() -> Response:
        # By POST: a reason may quote a value, and URLs are logged.
        text, seen = _listed(queue, request.form.to_dict())
        if request.form.get("seen") == seen:
            return Response(status=HTTPStatus.NO_CONTENT)
        return Response(render_template("listed.html", listed=text, seen=seen))

    @pages.post("/queue/retry")
    def retry_listed() -> Response:
        # The JSON API has the filter in its URL, where a reason that quotes a value doesn't belong.
        retried = queue.revive(Filter(**_chosen(request.form.to_dict())), time.time())
        telemetry.log("INFO", "queue retry", retried=retried)
        return Response(status=HTTPStatus.NO_CONTENT)

    @pages.get("/queue/<name>")
    def waiting(name: str) -> str:
        kept, entry = shown.loaded(queue, name), queue.show(name)
        return render_template(
            "entry.html",
            entry=entry,
            next=_next(entry, time.time()),
            damaged=str(kept) if isinstance(kept, DamagedEntry) else "",
            attributes=[] if isinstance(kept, DamagedEntry) else _typed(kept),
            templates=list(rules.templates),
            age=_span(time.time() - entry.first_seen),
        )

    @pages.get("/queue/<name>/thumbnail")
    def small(name: str) -> Response:
        try:
            kept = queue.load(name)
        except (DamagedEntry, NoSuchEntry):  # it may be stored between the list and its pictures
            return picture(None)
        return picture(thumbnail(_image(kept)))


def picture(image: bytes | None) -> Response:
    """Answer with a JPEG, or with the sign of a picture that can't be shown."""
    if image is None:
        return Response(NONE, content_type="image/svg+xml")
    return Response(image, content_type="image/jpeg")


def _listed(queue: Queue, form: dict[str, str]) -> tuple[str, str]:
    """Return the list as HTML, and its digest, by which the browser asks whether it has changed."""
    chosen = _chosen(form)
    filtered = _digest(repr(chosen))
    # The page that is seen stays, until another filter or another page is wanted.
    stays = form.get("page", "") if form.get("filtered") == filtered else ""
    begin = form.get("after", stays)
    page = queue.list(Filter(**chosen), _PAGE, begin)
    now = time.time()
    text = render_template(
        "entries.html",
        entries=[(one, _span(now - one.first_seen), _next(one, now)) for one in page.entries],
        totals=queue.totals().entries,
        page=begin,
        after=page.after,
        filtered=filtered,
        is_filtered=any(chosen.values()),
        # What is typed into the filter meanwhile is not what is seen.
        seen=chosen if any(chosen.values()) else {"state": "dead"},
    )
    return text, _digest(text)


def _chosen(form: dict[str, str]) -> dict[str, str]:
    """Return what a form says of the entries to be chosen."""
    chosen = {name: form.get(name, "").strip() for name in ("state", "reason", "study")}
    if chosen["state"] and chosen["state"] not in STATES:
        raise BadRequest("there is no such state", where="state", mend=f"use {', '.join(STATES)}")
    return chosen


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _next(entry: Entry, now: float) -> str:
    """Return when an entry is tried again; empty if it isn't."""
    if entry.state != "pending" or entry.next_attempt is None:
        return ""
    left = entry.next_attempt - now
    return str(g.say("queue.in", span=_span(left)) if left > 0 else g.say("queue.now"))


def _span(seconds: float) -> str:
    """Return a time in the page's language, no finer than minutes."""
    for unit, length in _UNITS.items():
        if seconds >= length:
            return str(g.say(f"age.{unit}", n=f"{seconds // length:.0f}"))
    return str(g.say("age.s"))


def _typed(kept: Kept) -> list[Row]:
    """Return what the upload said that can be typed anew, and what is asked for first."""
    model = json_model.to_json(kept.upload.attributes)
    said = {row.keyword: row for row in rows(model) if not row.depth and row.keyword}
    asked = {keyword: Row("", keyword, keyword, "", "") for keyword in _ASKED_FIRST}
    return [row for row in (asked | said).values() if row.vr not in _NOT_TYPED]


def _image(kept: Kept) -> bytes:
    """Return what a browser can show of an entry: its codestream, or the upload's own bytes."""
    if kept.described is None:
        return kept.upload.image
    instance = kept.described.instance
    photometric = instance.dataset.get("PhotometricInterpretation")
    profile = decoding.profile(instance.dataset)
    codestream = bytes(instance.codestream)
    return decoding.shown(codestream, instance.transfer_syntax, photometric, profile)
