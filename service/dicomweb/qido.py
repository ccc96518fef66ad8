"""Search (PS3.18 10.6) within the limits of the Cloud Healthcare API."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from flask import Response, request
from pydicom.datadict import keyword_dict, keyword_for_tag

from service.archive import (
    SEARCHABLE,
    AnyPrefix,
    Between,
    Condition,
    Level,
    OneOf,
    Query,
    name_tokens,
)
from service.dicom.json_model import JsonObject
from service.dicom.uid import is_uid
from service.dicomweb.accept import choose
from service.dicomweb.answers import JSON, XML_PARTS, data_sets
from service.dicomweb.context import absolute, archive, url
from service.errors import BadRequest

_OWN = frozenset({"limit", "offset", "includefield", "fuzzymatching"})
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


def _tags(keywords: str) -> frozenset[str]:
    return frozenset(f"{keyword_dict[keyword]:08X}" for keyword in keywords.split())


# PS3.18 Tables 10.6.3-3, 10.6.3-4 and 10.6.3-5, without InstanceAvailability: all is online.
_STUDY_FIELDS = _tags(
    "SpecificCharacterSet StudyDate StudyTime AccessionNumber"
    " ModalitiesInStudy ReferringPhysicianName TimezoneOffsetFromUTC RetrieveURL PatientName"
    " PatientID PatientBirthDate PatientSex StudyInstanceUID StudyID"
    " NumberOfStudyRelatedSeries NumberOfStudyRelatedInstances"
)
_SERIES_FIELDS = _tags(
    "SpecificCharacterSet Modality TimezoneOffsetFromUTC SeriesDescription RetrieveURL"
    " StudyInstanceUID SeriesInstanceUID SeriesNumber NumberOfSeriesRelatedInstances"
    " PerformedProcedureStepStartDate PerformedProcedureStepStartTime"
    " RequestAttributesSequence"
)
_INSTANCE_FIELDS = _tags(
    "SpecificCharacterSet SOPClassUID SOPInstanceUID"
    " TimezoneOffsetFromUTC RetrieveURL StudyInstanceUID SeriesInstanceUID InstanceNumber"
    " NumberOfFrames Rows Columns BitsAllocated"
)

_DATE_RANGE = re.compile(r"([0-9]{8})?-([0-9]{8})?")


def search_studies() -> Response:
    """Answer ``/studies``."""
    return _search("study", _STUDY_FIELDS)


def search_series(study: str | None = None) -> Response:
    """Answer ``/series`` and ``/studies/{study}/series``."""
    fields = _SERIES_FIELDS if study else _SERIES_FIELDS | _STUDY_FIELDS
    return _search("series", fields, StudyInstanceUID=study)


def search_instances(study: str | None = None, series: str | None = None) -> Response:
    """Answer ``/instances`` of everything, of a study and of a series."""
    fields = _INSTANCE_FIELDS
    fields |= frozenset() if series else _SERIES_FIELDS
    fields |= frozenset() if study else _STUDY_FIELDS
    return _search("instance", fields, StudyInstanceUID=study, SeriesInstanceUID=series)


def _search(level: Level, fields: frozenset[str], **path: str | None) -> Response:
    offer = choose(request.headers.get("Accept"), (JSON, XML_PARTS))
    asked = _read(level)
    within = tuple(OneOf(keyword, (uid,)) for keyword, uid in path.items() if uid)
    found = archive().search(Query(level, within + asked.conditions, asked.limit, asked.offset))
    wanted = None if "all" in asked.include else fields | asked.include
    return data_sets([_result(model, wanted) for model in found], offer)


def _result(model: JsonObject, fields: frozenset[str] | None) -> JsonObject:
    """Return the fields of one match (all, if None), with its URL."""
    uids = [model[tag]["Value"][0] for tag in ("0020000D", "0020000E", "00080018") if tag in model]
    model["00081190"] = {"vr": "UR", "Value": [url(*uids)]}
    absolute(model, url(*uids))
    return {tag: model[tag] for tag in sorted(model) if fields is None or tag in fields}


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
