"""The pages of what the store holds: search, pictures, attributes, files, deletion."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, NamedTuple

from flask import Blueprint, Response, g, render_template, request

from service import telemetry
from service.answers import problem_answer, problem_of
from service.dicom.json_model import JsonObject
from service.dicom.outcome import Unavailable
from service.dicom.resource import Resource
from service.dicom.uid import is_uid
from service.errors import BadRequest
from service.pages.queue import picture
from service.pages.reading import Reader, Refusal
from service.pages.rows import rows, texts
from service.store import deletion

_PAGE: Final = 24  # studies
_PICTURES: Final = 60  # of a study on a page
_AROUND: Final = 200  # pictures of a study that are looked through for a picture's neighbours
_FIELDS: Final = ("PatientID", "PatientName", "AccessionNumber")
_MATCHED: Final = (*_FIELDS, "from", "to")
_SETTLING: Final = 20.0  # seconds to wait for a store's operation
_SERIES: Final = "/studies/<study>/series/<series>/instances/<instance>"


def add_study_pages(pages: Blueprint, reader: Reader) -> None:
    """Serve what the store holds under ``/studies``."""

    @pages.get("/studies")
    def studies() -> str:
        return render_template("studies.html", found=_found(reader, {}))

    @pages.post("/studies/search")
    def search() -> str:
        # By POST: whom somebody looks for doesn't belong into a URL, which is logged.
        return _found(reader, request.form.to_dict())

    @pages.get("/studies/<study>")
    def study(study: str) -> Response:
        return _study(reader, _resource(study), _number(request.args.get("offset", "0")))

    @pages.get(_SERIES)
    def instance(study: str, series: str, instance: str) -> Response:
        return _instance(reader, _resource(study, series, instance))

    @pages.get("/studies/<study>/thumbnail")
    @pages.get(f"{_SERIES}/thumbnail")
    def thumbnail(study: str, series: str = "", instance: str = "") -> Response:
        return picture(reader.thumbnail(_resource(study, series, instance)))

    @pages.get(f"{_SERIES}/rendered")
    def rendered(study: str, series: str, instance: str) -> Response:
        return picture(reader.rendered(_resource(study, series, instance)))

    @pages.get(f"{_SERIES}/file")
    def file(study: str, series: str, instance: str) -> Response:
        found = reader.file(_resource(study, series, instance))
        if not isinstance(found, Response):
            return _failed(found)
        found.headers["Content-Disposition"] = f'attachment; filename="{instance}.dcm"'
        return found

    @pages.delete("/studies/<study>")
    @pages.delete(_SERIES)
    def delete(study: str, series: str = "", instance: str = "") -> Response:
        return _delete(reader, _resource(study, series, instance))


def _resource(study: str, series: str = "", instance: str = "") -> Resource:
    if not all(is_uid(uid) for uid in (study, series, instance) if uid):
        raise BadRequest("it holds what isn't a UID", where="the page's address")
    return Resource(study, series, instance)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 8):
        raise BadRequest("it isn't a whole number", where="offset")
    return int(text)


def _found(reader: Reader, form: Mapping[str, str]) -> str:
    """Return a page of the studies that a form asks for, as HTML."""
    offset = _number(form.get("offset", "0"))
    found = reader.studies(_matching(form), _PAGE, offset)
    if not isinstance(found, list):
        return render_template("found.html", failed=found, passing=isinstance(found, Unavailable))
    following = offset + len(found) if len(found) == _PAGE else 0
    shown = [_shown(texts(one)) for one in found]
    return render_template(
        "found.html",
        studies=[one for one in shown if is_uid(one.get("StudyInstanceUID", ""))],
        following=following,
        begun=offset > 0,
        asked={name: form[name] for name in _MATCHED if form.get(name)},
    )


def _matching(form: Mapping[str, str]) -> dict[str, str]:
    """Return what a store is asked for, of the fields that were filled in."""
    given = {name: form.get(name, "").strip() for name in _FIELDS}
    begin, end = (form.get(name, "").replace("-", "") for name in ("from", "to"))
    date = f"{begin}-{end}" if begin or end else ""
    return {name: value for name, value in (given | {"StudyDate": date}).items() if value}


def _shown(said: dict[str, str]) -> dict[str, str]:
    """Return a data set's texts as people read them: names and dates."""
    dates = {name: _date(value) for name, value in said.items() if name.endswith("Date")}
    name = said.get("PatientName", "").partition(" = ")[0]
    parts = [part for part in name.split("^") if part]
    return said | dates | {"PatientName": ", ".join(parts[:2])}


def _date(text: str) -> str:
    """Return a DA as ISO 8601 has it, which reads the same in all languages."""
    whole = len(text) == 8 and text.isdecimal()
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if whole else text


def _study(reader: Reader, resource: Resource, offset: int) -> Response:
    found = reader.instances(resource.study, _PICTURES, offset)
    if not isinstance(found, list):
        return _failed(found)
    told = _pictures(resource, found)
    if not told and not offset:
        return _absent()
    said = reader.metadata(told[0]) if told else {}
    return Response(
        render_template(
            "study.html",
            study=resource,
            said=_shown(texts(said)) if isinstance(said, dict) else {},
            pictures=told,
            offset=offset,
            following=offset + len(found) if len(found) == _PICTURES else 0,
        )
    )


def _pictures(study: Resource, found: Sequence[JsonObject]) -> list[Resource]:
    """Return the instances of a study that a search has found, in the store's order."""
    told = (_resource_of(study, texts(one)) for one in found)
    return [one for one in told if one]


def _resource_of(study: Resource, told: Mapping[str, str]) -> Resource | None:
    """Return an instance that a search has found; None of what has no usable UIDs."""
    series, instance = told.get("SeriesInstanceUID", ""), told.get("SOPInstanceUID", "")
    good = is_uid(series) and is_uid(instance)
    return Resource(study.study, series, instance) if good else None


def _instance(reader: Reader, resource: Resource) -> Response:
    model = reader.metadata(resource)
    if not isinstance(model, dict):
        return _failed(model)
    return Response(
        render_template(
            "instance.html",
            instance=resource,
            place=_place(reader, resource),
            said=_shown(texts(model)),
            rows=list(rows(model)),
        )
    )


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a picture is among the `count` of its study; `number` counts from 1."""

    number: int
    count: int
    previous: Resource | None
    next: Resource | None


def _place(reader: Reader, resource: Resource) -> _Place | None:
    """Return a picture's place; None of what has no others beside it, or too many."""
    found = reader.instances(resource.study, _AROUND, 0)
    pictures = _pictures(resource, found) if isinstance(found, list) else []
    if resource not in pictures or not 1 < len(pictures) < _AROUND:
        return None
    at = pictures.index(resource)
    around: list[Resource | None] = [None, *pictures, None]
    return _Place(at + 1, len(pictures), around[at], around[at + 2])


class _Told(NamedTuple):
    """What an error page tells, as errors of ours do."""

    detail: str
    where: str
    mend: str


def _failed(refused: Refusal, key: str = "studies.unavailable") -> Response:
    """Tell that the store can't be read, or doesn't have it."""
    if refused.status in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}:
        return _absent()
    passing = isinstance(refused, Unavailable)
    mend = g.say("studies.again") if passing else g.say("studies.refused")
    status = HTTPStatus.SERVICE_UNAVAILABLE if passing else HTTPStatus.BAD_GATEWAY
    return _answer(status, _Told(f"{g.say(key)}: {refused.reason}", "", mend))


def _absent() -> Response:
    return _answer(HTTPStatus.NOT_FOUND, _Told(g.say("studies.none"), "", ""))


def _answer(status: HTTPStatus, told: _Told) -> Response:
    """Answer a page's script with a problem, and a person with a page."""
    if "HX-Request" in request.headers:
        kind = status.phrase.lower().replace(" ", "-"), status.phrase, told.detail
        return problem_answer(problem_of(status, kind, told.mend))
    return Response(render_template("error.html", error=told), status)


def _delete(reader: Reader, resource: Resource) -> Response:
    """Delete, wait for the store's operation for a while, and believe a search that it is gone."""
    answer = reader.store.delete(resource)
    if isinstance(answer, deletion.Deleting):
        begun = answer
        answer = deletion.settle(lambda: reader.store.operation(begun), begun, _SETTLING)
    failed = not isinstance(answer, deletion.Deleted | deletion.Deleting | deletion.Missing)
    telemetry.log(
        "WARNING" if failed else "INFO",
        "delete",
        StudyInstanceUID=resource.study,
        SOPInstanceUID=resource.instance or None,
        outcome=type(answer).__name__.lower(),
    )
    if not isinstance(answer, deletion.Deleted | deletion.Deleting | deletion.Missing):
        return _failed(answer, "studies.undeleted")
    gone = not isinstance(answer, deletion.Deleting) and reader.is_gone(resource)
    return Response(status=HTTPStatus.NO_CONTENT if gone else HTTPStatus.ACCEPTED)
