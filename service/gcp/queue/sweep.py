"""What nobody does on the way: alarms that were lost, and what crashes have left in the bucket."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from service import telemetry
from service.gcp.queue.record import Place, Record
from service.gcp.queue.records import Records, Sighting
from service.retry import entry as entries
from service.retry import kept
from service.retry.protocol import is_on_its_way
from service.retry.timing import LONGEST_WAIT

_UNDER_WAY: Final = 3600.0  # seconds that an upload may take between its payload and its record


_AT_ONCE: Final = 100  # alarms

Ring = Callable[[Sequence[str]], None]
"""Sets the alarms of entries; QueueUnusable."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What was done: alarms set again, payloads taken in without a record, leftovers removed."""

    rearmed: int
    adopted: int
    removed: int


def sweep(records: Records, ring: Ring, now: float, silence: float) -> Swept:
    """Set the alarms again of entries that nothing was heard of for `silence` seconds.

    A message is lost when it has expired, or has gone to the dead letters. To set one twice is
    harmless: whoever comes second finds the entry gone, or not due.

    Raises
    ------
    QueueUnusable
        If the bucket or the topic can't be used; what is done until then stays done.
    """
    listed = records.sightings()
    removed = _settle(records, listed)
    silent = []
    for place, record in records.read(listed):
        if record.dropped:
            records.clear(place)
            removed += 1
        elif _is_silent(record, now, silence):
            silent.append(place.sop_instance_uid)
    rearmed = _rearm(records, ring, silent, now, silence)
    known = {one.place for one in listed}
    adopted = [place for place in _orphans(records, known, now) if _adopt(records, place, now)]
    ring([place.sop_instance_uid for place in adopted])
    return Swept(rearmed, len(adopted), removed)


def _settle(records: Records, listed: Sequence[Sighting]) -> int:
    """Leave one place of each instance, and return how many others there were."""
    places = Counter(one.place.sop_instance_uid for one in listed)
    crowded = {name: count for name, count in places.items() if count > 1}
    return sum(count - 1 for name, count in crowded.items() if records.settle(name))


def _rearm(records: Records, ring: Ring, silent: Sequence[str], now: float, silence: float) -> int:
    """Set alarms again, and only then note it: who dies in between leaves nobody unheard."""

    def rearmed(record: Record) -> Record | None:
        return replace(record, rung=now) if _is_silent(record, now, silence) else None

    count = 0
    for start in range(0, len(silent), _AT_ONCE):
        several = silent[start : start + _AT_ONCE]
        ring(several)
        count += sum(map(len, records.change_many(several, rearmed)))
    return count


def _is_silent(record: Record, now: float, silence: float) -> bool:
    entry = record.entry
    if entry.state == "dead" or is_on_its_way(entry, now):
        return False
    # Who tried in vain has named the next time; but no store may have been asked.
    tried = (entry.next_attempt or 0.0) - LONGEST_WAIT
    heard = max([record.rung, tried, *(past.at for past in entry.history)])
    return not 0.0 <= now - heard < silence


def _orphans(records: Records, known: set[Place], now: float) -> list[Place]:
    """Return the payloads without a record whose upload can't be under way any more.

    They come of a crash between the two: before the upload was acknowledged, or after the entry
    was finished. To send them is harmless in both cases.
    """
    # An edition has the arrival of the first; a bucket's clock and ours needn't agree.
    old = now - _UNDER_WAY
    return [
        place
        for place, one in records.payloads().items()
        if place not in known and max(place.arrival / 1e9, one.updated) < old
    ]


def _adopt(records: Records, place: Place, now: float) -> bool:
    """Give a payload a record, which an upload that is under way all the same comes upon.

    Where the instance is kept in another place it is marked as dropped, for the next sweep. Who
    finishes the entry at this moment deletes the record after the payload: either he or we see
    the other.
    """
    data = records.payload(place)
    if data is None:
        return False  # it has been finished meanwhile
    try:
        found = kept.decode(data)
    except ValueError:
        telemetry.log("ERROR", "a payload of the retry queue is damaged", entry=place.name)
        return False
    entry = entries.new(found.upload, found.described, None, place.arrival / 1e9, len(data))
    is_kept = records.find(place.sop_instance_uid) is not None
    if not records.record(place, Record(entry, rung=now, dropped=is_kept)):
        return False
    if records.payload(place) is None:
        records.finish(place)
        return False
    return not is_kept
