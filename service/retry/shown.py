"""What is shown of the retry queue: JSON objects for programs, lines of text for people."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from pydicom import DataElement, Dataset
from pydicom.multival import MultiValue

from service.dicom import json_model
from service.errors import DamagedEntry
from service.retry.entry import Entry, Past
from service.retry.kept import Kept
from service.retry.protocol import Queue
from service.terminal import cut, plain

_LEAST: Final = 20  # columns that a reason gets at least; a narrow terminal wraps the line
_ROW: Final = "{:44}  {:7}  {:>4}  {:>5}  {:>4}  {:>8}  "
_UNITS: Final = {"d": 86_400, "h": 3_600, "m": 60}

HEADING: Final = _ROW.format("id", "state", "age", "tried", "next", "bytes") + "reason"


def as_json(entry: Entry) -> dict[str, Any]:
    """Return what is shown of an entry, without what its data set says.

    Moments are texts as in RFC 3339, in UTC with milliseconds. `next_attempt` is null of the dead,
    and of an entry that is being sent the moment when its sender is taken for dead.
    """
    return {
        "id": entry.sop_instance_uid,
        "state": entry.state,
        "SOPInstanceUID": entry.sop_instance_uid if entry.is_described else "",
        "SeriesInstanceUID": entry.series_instance_uid,
        "StudyInstanceUID": entry.study_instance_uid,
        "SOPClassUID": entry.sop_class_uid,
        "TransferSyntaxUID": entry.transfer_syntax,
        "template": entry.template,
        "source": entry.source,
        "wire": entry.wire,
        "bytes": entry.size,
        "first_seen": _moment(entry.first_seen),
        "attempts": entry.attempts,
        "next_attempt": None if entry.next_attempt is None else _moment(entry.next_attempt),
        "reason": entry.reason,
    }


def past_as_json(past: Past) -> dict[str, Any]:
    """Return what is shown of an attempt; `status` is 0 where the store gave no answer."""
    return {
        "at": _moment(past.at),
        "outcome": past.outcome,
        "status": past.status,
        "reason": past.reason,
        "wire": past.wire,
    }


def loaded(queue: Queue, sop_instance_uid: str) -> Kept | DamagedEntry:
    """Return what is kept of an entry, or what is wrong with it; NoSuchEntry."""
    try:
        return queue.load(sop_instance_uid)
    except DamagedEntry as error:
        return error


def whole_as_json(entry: Entry, kept: Kept | DamagedEntry) -> dict[str, Any]:
    """Return all of an entry but its pixels: whom the picture is of, too.

    The upload's attributes and the instance are objects of the DICOM JSON model (PS3.18 Annex F).
    Of a damaged entry nothing is left to be shown but what happened to it.
    """
    told = as_json(entry) | {"history": [past_as_json(past) for past in entry.history]}
    if isinstance(kept, DamagedEntry):
        return told | {"damaged": str(kept)}
    return told | {
        "key": kept.upload.idempotency_key,
        "normalised": list(kept.described.changes) if kept.described else [],
        "attributes": json_model.to_json(kept.upload.attributes),
        "instance": kept.described and json_model.to_json(kept.described.instance.dataset),
    }


def _moment(seconds: float) -> str:
    """Return a moment, in seconds since 1970, as in RFC 3339."""
    moment = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
    return moment.isoformat(timespec="milliseconds") + "Z"


def row(entry: Entry, now: float, columns: int) -> str:
    """Return an entry as a line under `HEADING`, its reason cut to a terminal of so many columns.

    `now` is in seconds since 1970.
    """
    facts = _ROW.format(
        entry.sop_instance_uid,
        entry.state,
        _span(now - entry.first_seen),
        entry.attempts,
        _next(entry, now),
        size(entry.size),
    )
    return (facts + cut(plain(entry.reason), max(_LEAST, columns - len(facts)))).rstrip()


def _next(entry: Entry, now: float) -> str:
    if entry.next_attempt is None:
        return "-"
    waits = entry.state == "pending" and entry.next_attempt > now
    return _span(entry.next_attempt - now) if waits else "now"


def _span(seconds: float) -> str:
    """Return a time as people read it: ``12s``, ``5m``, ``3h``, ``2d``."""
    for unit, length in _UNITS.items():
        if seconds >= length:
            return f"{seconds // length:.0f}{unit}"
    return f"{max(0.0, seconds):.0f}s"


def size(count: int) -> str:
    """Return bytes as people read them: ``999 B``, ``1.2 MB``."""
    if count < 1000:
        return f"{count} B"
    scaled = count / 1000
    for unit in ("kB", "MB"):
        if scaled < 1000:
            return f"{scaled:.1f} {unit}"
        scaled /= 1000
    return f"{scaled:.1f} GB"


def lines(entry: Entry, kept: Kept | DamagedEntry) -> Iterator[str]:
    """Yield all of an entry but its pixels, for a terminal: whom the picture is of, too."""
    yield from map(plain, _lines(entry, kept))


def _lines(entry: Entry, kept: Kept | DamagedEntry) -> Iterator[str]:
    for name, value in as_json(entry).items():
        yield f"{name}: {'-' if value in (None, '') else value}"
    yield "history:"
    for past in map(past_as_json, entry.history):
        yield "  {at}  {outcome} {status} {wire}  {reason}".format_map(past)
    if isinstance(kept, DamagedEntry):
        yield f"damaged: {kept}"
        return
    if kept.described:
        yield "normalised:"
        yield from (f"  {change}" for change in kept.described.changes)
    yield f"key: {kept.upload.idempotency_key or '-'}"
    yield "attributes of the upload:"
    yield from _attributes(kept.upload.attributes, "  ")
    if kept.described is None:
        return
    yield "attributes of the instance:"
    yield from _attributes(kept.described.instance.dataset, "  ")


def _attributes(dataset: Dataset, prefix: str) -> Iterator[str]:
    for element in dataset:
        name = prefix + (element.keyword or str(element.tag))
        if element.VR != "SQ":
            yield f"{name}: {_value(element)}"
        for number, item in enumerate(element.value if element.VR == "SQ" else (), 1):
            yield from _attributes(item, f"{name}[{number}].")


def _value(element: DataElement) -> str:
    value = element.value
    if isinstance(value, bytes):
        return size(len(value))
    several = value if isinstance(value, MultiValue) else [value]
    return "\\".join("" if one is None else str(one) for one in several)
