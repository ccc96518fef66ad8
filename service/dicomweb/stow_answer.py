"""The Store Instances Response (PS3.18 I.2), with the failure texts of the Cloud Healthcare API."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flask import Response

from service.archive import InstanceUids
from service.dicom.json_model import JsonObject, dumps
from service.dicomweb.accept import Offer
from service.dicomweb.answers import JSON
from service.dicomweb.context import url
from service.dicomweb.native_xml import to_xml

_PROCESSING_FAILURE = 0x0110
OUT_OF_RESOURCES = 0xA700  # PS3.4 B.2.3: the same may be taken later


@dataclass(frozen=True, slots=True)
class Referenced:
    """An instance that is stored; `already` if it was so before this request."""

    sop_class: str
    uids: InstanceUids
    already: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """An instance that isn't stored; its UIDs as far as they are known.

    Parameters
    ----------
    study
        Where the store has the study; it then belongs to the answer's Retrieve URL.
    reason
        The Failure Reason (0008,1197).
    """

    detail: str
    sop_class: str = ""
    sop_instance: str = ""
    study: str = ""
    reason: int = _PROCESSING_FAILURE


def answer(results: Sequence[Referenced | Failed], offer: Offer) -> Response:
    """Answer a store request, as JSON or as XML."""
    stored = [result for result in results if isinstance(result, Referenced)]
    failed = [result for result in results if isinstance(result, Failed)]
    studies = {result.uids.study for result in stored}
    studies |= {result.study for result in failed if result.study}
    model: JsonObject = {}
    if len(studies) == 1:
        model["00081190"] = _element("UR", url(*studies))
    if failed:
        model["00081198"] = _element("SQ", *map(_failed, failed))
    if stored:
        model["00081199"] = _element("SQ", *map(_referenced, stored))
    body = dumps(model) if offer == JSON else to_xml(model)
    return Response(body, status=409 if failed else 200, content_type=offer.media_type)


def _referenced(result: Referenced) -> JsonObject:
    private = {
        "00090010": _element("LO", "JPEGSTOW"),
        "00091001": _element("LO", "already stored"),
    }
    return {
        "00081150": _element("UI", result.sop_class),
        "00081155": _element("UI", result.uids.instance),
        "00081190": _element("UR", url(*result.uids)),
    } | (private if result.already else {})


def _failed(result: Failed) -> JsonObject:
    return {
        "00081150": _element("UI", result.sop_class),
        "00081155": _element("UI", result.sop_instance),
        "00081197": _element("US", result.reason),
        "00090010": _element("LO", "GOOGLE"),
        "00091097": _element("LT", result.detail),
    }


def _element(vr: str, *values: Any) -> JsonObject:
    given = [value for value in values if value != ""]
    return {"vr": vr, "Value": given} if given else {"vr": vr}
