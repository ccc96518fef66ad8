"""Search (PS3.18 10.6) within the limits of the Cloud Healthcare API."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from flask import Response, g, request
from pydicom.datadict import keyword_dict, keyword_for_tag

from service.archive import (
    SEARCHABLE,
    AnyPrefix,
    Between,
    Condition,
    Level,
    Listed,
    OneOf,
    Query,
    fields,
    name_tokens,
)
from service.dicom.json_model import JsonObject, dumps
from service.dicom.uid import is_uid
from service.dicomweb.answers import JSON, XML_PARTS, data_sets, json_array
from service.dicomweb.context import absolute, archive, negotiated, url_of
from service.errors import BadRequest

_OWN = frozenset({"limit", "offset", "includefield", "fuzzymatching", "accept"})
# The system parameters of Google's APIs, which their client libraries put into every request.
_SYSTEM = frozenset(
    {
        *("$.xgafv", "$alt", "access_token", "alt", "callback", "fields", "key", "oauth_token"),
        *("prettyPrint", "quotaUser", "uploadType", "upload_protocol"),
    }
)
MAX_OFFSET = 1_000_000
MAX_UIDS = 500
MAX_TOKENS = 100
# Level: what is returned where no limit is given, and the highest limit.
LIMITS: dict[Level, tuple[int, int]] = {
    "study": (100, 5_000),
    "series": (100, 5_000),
    "instance": (1_000, 50_000),
}


_DATE_RANGE = re.compile(r"([0-9]{8})?-([0-9]{8})?")


def search_studies() -> Response:
    """Answer ``/studies``."""
    return _search("study", fields.STUDY_RESULT)


def search_series(study: str | None = None) -> Response:
    """Answer ``/series`` and ``/studies/{study}/series``."""
    wanted = fields.SERIES_RESULT if study else fields.SERIES_RESULT | fields.STUDY_RESULT
    return _search("series", wanted, StudyInstanceUID=study)


def search_instances(study: str | None = None, series: str | None = None) -> Response:
    """Answer ``/instances`` of everything, of a study and of a series."""
    wanted = fields.INSTANCE_RESULT
    wanted |= frozenset() if series else fields.SERIES_RESULT
    wanted |= frozenset() if study else fields.STUDY_RESULT
    return _search("instance", wanted, StudyInstanceUID=study, SeriesInstanceUID=series)


def _search(level: Level, wanted: frozenset[str], **path: str | None) -> Response:
    offer = negotiated((JSON, XML_PARTS))
    asked = _read(level)
    within = tuple(OneOf(keyword, (uid,)) for keyword, uid in path.items() if uid)
    query = Query(level, within + asked.conditions, asked.limit, asked.offset)
    if level == "instance" and not within and not asked.include and offer == JSON:
        return json_array(map(partial(_listed, g.base), archive().listed(query)))
    chosen = None if "all" in asked.include else wanted | asked.include
    base = g.base  # the request is over when the last of them are made
    found = (_result(base, model, chosen) for model in archive().found(query))
    return data_sets(found, offer)


def _listed(base: str, found: Listed) -> bytes:
    """Return the default fields of an instance, with its URL, as JSON.

    Bulk data among them has URLs that are to be completed; there hardly ever is any.
    """
    first, second, third, last = found.fields.split("\n")
    url = dumps({fields.RETRIEVE_URL: _url(base, *found.uids)})[1:-1].decode()
    pieces = (first, found.modalities, second, url, third, found.counted, last)
    text = "{" + ",".join(filter(None, pieces)) + "}"
    if '"BulkDataURI"' in text:
        return dumps(absolute(json.loads(text), url_of(base, *found.uids)))
    return text.encode()


def _url(base: str, *uids: str) -> JsonObject:
    return {"vr": "UR", "Value": [url_of(base, *uids)]}


def _result(base: str, model: JsonObject, wanted: frozenset[str] | None) -> JsonObject:
    """Return the fields of one match (all, if None), with its URL."""
    uids = [model[tag]["Value"][0] for tag in ("0020000D", "0020000E", "00080018") if tag in model]
    model[fields.RETRIEVE_URL] = _url(base, *uids)
    absolute(model, url_of(base, *uids))
    return {tag: model[tag] for tag in sorted(model) if wanted is None or tag in wanted}


@dataclass(frozen=True, slots=True)
class _Asked:
    conditions: tuple[Condition, ...]
    include: frozenset[str]
    limit: int
    offset: int


def _read(level: Level) -> _Asked:
    """Read the query parameters.

    Raises
    ------
    BadRequest
        For any that is unknown, malformed or out of range; its text never quotes a value.
    """
    default, maximum = LIMITS[level]
    fuzzy = request.args.get("fuzzymatching", "false").lower()
    if fuzzy not in ("true", "false"):
        raise BadRequest("fuzzymatching is neither true nor false", where="fuzzymatching")
    conditions = []
    for number, (name, value) in enumerate(request.args.items(multi=True), 1):
        if name in _OWN | _SYSTEM:
            continue
        keyword = _keyword(name, f"query parameter {number}")
        if keyword not in SEARCHABLE[level]:
            raise BadRequest(
                f"a search for this level can't match {keyword}",
                where=f"query parameter {number}",
                mend=f"searchable are {', '.join(SEARCHABLE[level])}",
            )
        if value:  # an attribute without a value matches everything: PS3.4 C.2.2.2.3
            conditions.append(_condition(keyword, value, fuzzy=fuzzy == "true"))
    return _Asked(
        tuple(conditions),
        frozenset(_include()),
        _number("limit", default, maximum),
        _number("offset", 0, MAX_OFFSET),
    )


def _keyword(name: str, where: str) -> str:
    """Return the keyword of an attribute that is named by keyword or by eight hex digits."""
    keyword = keyword_for_tag(int(name, 16)) if re.fullmatch(r"[0-9A-Fa-f]{8}", name) else name
    if keyword not in keyword_dict:
        raise BadRequest("that isn't an attribute that PS3.6 knows", where=where)
    return keyword


def _condition(keyword: str, value: str, *, fuzzy: bool) -> Condition:
    if re.search(r"[*?]", value):
        raise BadRequest("wildcard matching with * or ? isn't available", where=keyword)
    if keyword == "PatientName" and fuzzy:
        tokens = tuple(sorted(name_tokens(value)))
        if len(tokens) > MAX_TOKENS:
            raise BadRequest(f"a name of more than {MAX_TOKENS} words", where=keyword)
        return AnyPrefix(tokens)
    if keyword == "StudyDate":
        return _date(value)
    if keyword.endswith("UID"):
        uids = tuple(re.split(r"[,\\]", value))
        if len(uids) > MAX_UIDS or not all(map(is_uid, uids)):
            raise BadRequest(f"not a list of at most {MAX_UIDS} UIDs", where=keyword)
        return OneOf(keyword, uids)
    return OneOf(keyword, (value,))


def _date(value: str) -> Condition:
    if re.fullmatch("[0-9]{8}", value):
        return OneOf("StudyDate", (value,))
    ends = _DATE_RANGE.fullmatch(value)
    if not ends or value == "-":
        raise BadRequest(
            "not a date or a range of dates",
            where="StudyDate",
            mend="write YYYYMMDD, YYYYMMDD-YYYYMMDD, YYYYMMDD- or -YYYYMMDD",
        )
    return Between("StudyDate", ends[1] or "", ends[2] or "")


def _include() -> Iterator[str]:
    """Yield the tags of every includefield; ``all`` for all of them."""
    for text in request.args.getlist("includefield"):
        for number, name in enumerate(text.split(","), 1):
            if name == "all" or re.fullmatch(r"[0-9A-Fa-f]{8}", name):
                yield name if name == "all" else name.upper()
            else:
                keyword = _keyword(name, f"includefield, item {number}")
                yield f"{keyword_dict[keyword]:08X}"


def _number(name: str, default: int, maximum: int) -> int:
    text = request.args.get(name) or str(default)
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) > maximum:
        raise BadRequest(f"{name} isn't a whole number from 0 to {maximum}", where=name)
    return int(text)
