"""STOW-RS: the answer to a store request, read as what became of each instance (PS3.18 10.5.3).

Google's failures explain themselves in the private FailureDetail of its conformance statement.
"""

import re
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from ipaddress import IPv6Address
from typing import Any, Final
from xml.etree import ElementTree as ET

from service.dicom import json_model
from service.dicom.outcome import (
    ANSWERING_STATUSES,
    Conflict,
    Rejected,
    Stored,
    Unavailable,
    Verdict,
)

MAX_REASON: Final = 500  # characters of a store's own text that are passed on

# Failure Reasons (0008,1197) that another try may mend: PS3.18 Table 10.5.3-2, PS3.4 Table B.2-1.
_TRANSIENT_FAILURES: Final = {
    0x0124: "not authorized",
    0x0213: "resource limitation",
    45071: "the instance is being stored by another request",
}
_OUT_OF_RESOURCES: Final = range(0xA700, 0xA800)
_PROCESSING_FAILURE: Final = 0x0110
_DUPLICATE_FAILURES: Final = frozenset({0x0111, 45070})
_FAILURES: Final = {
    0x0110: "processing failure",
    0x0111: "duplicate SOP instance",
    0x0117: "invalid object instance",
    0x0122: "SOP class not supported",
    0xC122: "transfer syntax not supported",
    43264: "validation failed",
    43265: "the instance's study is not that of the request",
}

# Statuses that say nothing of the instance; for the rest of 4xx the request itself is at fault.
_TRANSIENT_STATUSES: Final = frozenset({408, 425, 429})
_OPERATOR_STATUSES: Final = {
    401: "the store doesn't accept the credentials (401)",
    403: "the store denies access, or doesn't exist (403)",
    404: "nothing is at the store's address (404)",
    405: "the store's address takes no POST (405)",
    407: "a proxy wants credentials (407)",
}

# With a host that is sound: the Location header of an answer can't be made of another.
_URL: Final = re.compile(
    r"https?://(?:(?:[\w-]{1,63}\.)*[\w-]{1,63}\.?|\[(?P<address>[0-9A-Fa-f:.]+)\])"
    r"(?::(?P<port>\d{1,5}))?(?:[/?#][!-~]{0,2000})?",
    re.ASCII,
)


def read_response(
    status: int, headers: Mapping[str, str], body: bytes, sop_classes: Mapping[str, str]
) -> dict[str, Verdict]:
    """Tell what became of each instance.

    An instance counts as stored only if Referenced SOP Sequence (0008,1199) names it and Failed
    SOP Sequence (0008,1198) doesn't. The body is read on every status that may carry one. An
    answer that contradicts itself stores nothing.

    Parameters
    ----------
    headers
        With lower-case names.
    body
        DICOM JSON, a Native DICOM Model in XML, Google's JSON error, or anything else.
    sop_classes
        From the SOP Instance UID of each instance sent to its SOP Class UID, "" if not known.
    """
    verdict = read_status(status, headers, body)
    if verdict:
        return dict.fromkeys(sop_classes, verdict)
    answer = _answer(body)
    nameless = [item for item in _items(answer, "00081198") if not _text(item, "00081155")]
    # Other Failures Sequence tells of what could not be named (PS3.18 Table 10.5.3-1).
    others = nameless + _items(answer, "0008119A")
    unnamed = _failure(status, others[0]) if others else _unnamed(status, answer, body)
    failed = {uid: _failure(status, item) for uid, item in _by_uid(answer, "00081198").items()}
    named = _stored(answer, sop_classes) | failed
    if len(nameless) > sum(uid not in named for uid in sop_classes):
        named = failed  # one of those named as stored has failed
    return {uid: named.get(uid, unnamed) for uid in sop_classes}


def _stored(answer: dict[str, Any], sop_classes: Mapping[str, str]) -> dict[str, Verdict]:
    """Return the instances that an answer names as stored, none of them with another SOP class."""
    others = {
        _text(item, "00081155")
        for item in _items(answer, "00081199")
        if not _is_of_class(item, sop_classes.get(_text(item, "00081155"), ""))
    }
    items = _by_uid(answer, "00081199").items()
    return {uid: _success(item) for uid, item in items if uid not in others}


def _is_of_class(item: dict[str, Any], sop_class: str) -> bool:
    said = _text(item, "00081150")
    return not said or not sop_class or said == sop_class


def _success(item: dict[str, Any]) -> Stored:
    return Stored(
        retrieve_url=_url(_text(item, "00081190")),
        duplicate=_text(item, "00091001", "00090001") == "already stored",
        warning_reason=_number(item, "00081196"),
    )


def _url(text: str) -> str:
    """Return a URL that may be passed on; "" for anything else that a store may write there."""
    found = _URL.fullmatch(text)
    if not found or int(found["port"] or 0) > 65_535:
        return ""
    try:
        IPv6Address(found["address"] or "::")
    except ValueError:
        return ""
    return text


def _failure(status: int, item: dict[str, Any]) -> Verdict:
    reason = _number(item, "00081197")
    detail = _printable(_text(item, "00091097", "00090097"))
    text = detail or _FAILURES.get(reason) or _TRANSIENT_FAILURES.get(reason) or "no reason given"
    said = f"the store refused the instance: {text} (failure reason {reason:04X}H)"
    already = "already exists" in detail.lower()
    if reason in _DUPLICATE_FAILURES or (reason == _PROCESSING_FAILURE and already):
        return Conflict(said, reason, status)
    if reason in _TRANSIENT_FAILURES or reason in _OUT_OF_RESOURCES:
        return Unavailable(said, status=status, operator=reason == 0x0124)
    return Rejected(said, reason, status)


def _unnamed(status: int, answer: dict[str, Any], body: bytes) -> Verdict:
    """Judge an answer that should have named the instance and didn't."""
    detail = _detail(answer, body)
    if status != 409:
        said = f"the store answered {status} without naming the instance as stored"
        # What isn't even DICOM comes of a login page, a proxy, another service.
        is_dicom = any(re.fullmatch("[0-9A-Fa-f]{8}", tag) for tag in answer)
        return Unavailable(said, status=status, operator=not is_dicom)
    if "already exists" in detail.lower():
        return Conflict(f"the store answered 409: {detail}", status=status)
    return Rejected(f"the store answered 409: {detail or 'no reason given'}", status=status)


def read_status(
    status: int, headers: Mapping[str, str], body: bytes
) -> Unavailable | Rejected | None:
    """Judge a status that speaks for all instances at once; None for one that doesn't."""
    if status in ANSWERING_STATUSES:
        return None
    detail = _detail(_answer(body), body)
    said = f"the store answered {status}" + (f": {detail}" if detail else "")
    if status in _OPERATOR_STATUSES:
        because = _OPERATOR_STATUSES[status] + (f": {detail}" if detail else "")
        return Unavailable(because, retry_after(headers), status, operator=True)
    if status in _TRANSIENT_STATUSES or status >= 500:
        return Unavailable(said, retry_after(headers), status)
    if 400 <= status < 500:
        return Rejected(said, status=status)
    return Unavailable(
        f"{said}, which is no answer to a store request", None, status, operator=True
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of Retry-After; a date is taken relative to the answer's own Date."""
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}", value):
        return float(value)
    try:
        wait = parsedate_to_datetime(value) - parsedate_to_datetime(headers.get("date", ""))
    except (OverflowError, TypeError, ValueError):
        return None
    return max(0.0, wait.total_seconds())


def _answer(body: bytes) -> dict[str, Any]:
    """Read a body as a DICOM JSON object, whatever its Content-Type says; {} if it isn't one."""
    start = body.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    try:
        if start in {b"{", b"["}:
            model = json_model.loads(body)
            return _merged(model if isinstance(model, list) else [model])
        # A document type could define entities that unfold without end.
        if start == b"<" and b"<!DOCTYPE" not in body.replace(b"\0", b""):  # UTF-16 has zeros
            return _from_xml(ET.fromstring(body))  # noqa: S314 - no document type, see above
    except (ValueError, RecursionError, ET.ParseError):
        pass
    return {}


def _merged(models: Sequence[Any]) -> dict[str, Any]:
    """Make one answer of an array: its first object's, with the items of all."""
    if not models or not all(isinstance(model, dict) for model in models):
        return {}
    merged: dict[str, Any] = dict(models[0])
    for tag in ("00081198", "00081199", "0008119A"):
        values = [value for model in models for value in _values(model, tag)]
        if values:
            merged[tag] = {"vr": "SQ", "Value": values}
    return merged


def _from_xml(element: ET.Element) -> dict[str, Any]:
    """Turn a Native DICOM Model (PS3.19 A.1) into the DICOM JSON model, as far as answers go."""
    return json_model.once(
        [
            (attribute.get("tag", ""), _element(attribute))
            for attribute in element
            if _local(attribute) == "DicomAttribute"
        ]
    )


def _element(attribute: ET.Element) -> dict[str, Any]:
    values = [
        _from_xml(child) if _local(child) == "Item" else child.text or "" for child in attribute
    ]
    return {"vr": attribute.get("vr", ""), "Value": values}


def _local(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _by_uid(answer: dict[str, Any], sequence: str) -> dict[str, dict[str, Any]]:
    """Return the items of a sequence by their Referenced SOP Instance UID (0008,1155)."""
    return {_text(item, "00081155"): item for item in _items(answer, sequence)}


def _items(answer: dict[str, Any], sequence: str) -> list[dict[str, Any]]:
    return [item for item in _values(answer, sequence) if isinstance(item, dict)]


def _values(model: dict[str, Any], tag: str) -> list[Any]:
    element = model.get(tag)
    found = element.get("Value") if isinstance(element, dict) else None
    return found if isinstance(found, list) else []


def _text(model: dict[str, Any], *tags: str) -> str:
    for tag in tags:
        for value in _values(model, tag):
            if isinstance(value, (str, int)):
                return str(value).strip(" \0")
    return ""


def _number(model: dict[str, Any], tag: str) -> int:
    text = _text(model, tag)
    return int(text) if re.fullmatch(r"\d{1,5}", text, re.ASCII) else 0


def _detail(answer: dict[str, Any], body: bytes) -> str:
    """Return whatever the store says of its reasons, in one printable line."""
    error = answer.get("error")
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        return _printable(error["message"])
    for key in ("detail", "message", "Message", "Details", "title"):
        if isinstance(answer.get(key), str):
            return _printable(answer[key])
    if answer or body.lstrip()[:1] in {b"<", b"{", b"["}:
        return ""
    return _printable(body[: 4 * MAX_REASON].decode("utf-8", "replace"))


def _printable(text: str) -> str:
    line = "".join(c if c.isprintable() else " " for c in text[: 4 * MAX_REASON])
    return " ".join(line.split())[:MAX_REASON]
