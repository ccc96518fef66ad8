"""What nobody does on the way: alarms that were lost, and what crashes have left in the bucket."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from service import telemetry
from service.gcp.queue.record import Place, Record
from service.gcp.queue.records import Records
from service.retry import entry as entries
from service.retry import kept
from service.retry.protocol import is_on_its_way

_UNDER_WAY: Final = 3600.0  # seconds that an upload may take between its payload and its record


@dataclass(frozen=True, slots=True)
class Swept:
    """What was done: alarms set again, payloads taken in without a record, leftovers removed."""

    rearmed: int
    adopted: int
    removed: int


def sweep(
    records: Records, ring: Callable[[Sequence[str]], None], now: float, silence: float
) -> Swept:
    """Set the alarms again of entries that nothing was heard of for `silence` seconds.

    A message is lost when it has expired, or has gone to the dead letters. To set one twice is
    harmless: whoever comes second finds the entry gone, or not due.

    Raises
    ------
    QueueUnusable
        If the bucket or the topic can't be used; what is done until then stays done.
    """
    listed = records.sightings()
    awake, removed = [], 0
    for place, record in records.read(listed):
        if record.dropped:
            records.delete(place)
            removed += 1
        elif _rearm(records, record, now, silence):
            awake.append(place.sop_instance_uid)
    known = {one.place for one in listed}
    adopted = [place for place in _orphans(records, known, now) if _adopt(records, place, now)]
    ring([*awake, *(place.sop_instance_uid for place in adopted)])
    return Swept(len(awake), len(adopted), removed)


def _rearm(records: Records, seen: Record, now: float, silence: float) -> bool:
    """Note that an alarm is set again, where nothing was heard of an entry for so long."""

    def rearmed(record: Record) -> Record | None:
        return replace(record, rung=now) if _is_silent(record, now, silence) else None

    if not _is_silent(seen, now, silence):
        return False
    return records.change(seen.entry.sop_instance_uid, rearmed) is not None


def _is_silent(record: Record, now: float, silence: float) -> bool:
    entry = record.entry
    if entry.state == "dead" or is_on_its_way(entry, now):
        return False
    heard = max([record.rung, *(past.at for past in entry.history)])
    return not 0.0 <= now - heard < silence


def _orphans(records: Records, known: set[Place], now: float) -> list[Place]:
    """Return the payloads without a record whose upload can't be under way any more.

    They come of a crash between the two: before the upload was acknowledged, or after the entry
    was finished. To send them is harmless in both cases.
    """
    old = (now - _UNDER_WAY) * 1e9
    return [place for place in records.payloads() if place not in known and place.arrival < old]


def _adopt(records: Records, place: Place, now: float) -> bool:
    data = records.payload(place)
    try:
        found = kept.decode(data) if data else None
    except ValueError:
        found = None
    if found is None or data is None:
        telemetry.log("ERROR", "a payload of the retry queue is damaged", entry=place.name)
        return False
    entry = entries.new(found.upload, found.described, None, place.arrival / 1e9, len(data))
    records.record(place, Record(entry, rung=now))
    return True
