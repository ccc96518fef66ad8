"""Putting entries into a bucket and taking them out for good: what is written after what."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from service.dicom.codestream import Buffer
from service.errors import QueueUnusable
from service.gcp.queue import record as form
from service.gcp.queue.record import Place, Record
from service.gcp.queue.records import Change, Placed, Records
from service.gcp.queue.room import Room
from service.retry import entry as entries
from service.retry import kept
from service.retry.entry import Entry
from service.retry.kept import Kept
from service.retry.protocol import no_such_entry

_TRIES: Final = 10  # of an upload whose entry keeps coming and going

CheckRoom = Callable[[Entry], None]
"""Raises QueueFull if a new entry has no room."""


def keep(
    records: Records, room: Room, entry: Entry, pieces: Sequence[Buffer], check: CheckRoom
) -> str:
    """Keep an entry durably, or join the one there is; return the state that it has now."""
    for _ in range(_TRIES):
        if state := _put(records, room, entry, pieces, check):
            return state
    raise QueueUnusable("an entry of the retry queue keeps coming and going")


def _put(
    records: Records, room: Room, entry: Entry, pieces: Sequence[Buffer], check: CheckRoom
) -> str:
    """Return the state that the entry has now; "" if one has to look again."""
    placed = records.find(entry.sop_instance_uid)
    if placed is None:
        check(entry)
        return _add(records, room, entry, pieces)
    if placed.record.entry.state == "dead" or sound(records, placed.place) is None:
        return _supersede(records, room, placed, entry, pieces)

    def joined(record: Record) -> Record | None:
        if record.entry.state == "leased":
            return None  # whoever sends it now has the last word
        return record.with_entry(entries.joined(record.entry, entry, replaced=False))

    if changed := records.change(entry.sop_instance_uid, joined):
        return changed.record.entry.state
    return "leased" if records.find(entry.sop_instance_uid) else ""


def _add(records: Records, room: Room, entry: Entry, pieces: Sequence[Buffer]) -> str:
    """Keep a new entry; "" if another of the same instance came at the same time."""
    place = form.new_place(entry.sop_instance_uid, time.time_ns())
    if not records.create(place, Record(entry, rung=entry.since), pieces):
        return ""
    room.changed(1, entry.size)
    return entry.state if _is_alone(records, place) else ""


def _supersede(
    records: Records, room: Room, known: Placed, entry: Entry, pieces: Sequence[Buffer]
) -> str:
    """Put what came last in the place of what is dead or damaged."""
    was = known.record.entry
    if was.state == "leased":
        record = replace(known.record, entry=replace(was, size=entry.size))
    else:
        joined = entries.joined(was, entry, replaced=True)
        record = replace(known.record.with_entry(joined), rung=entry.since)
    place = form.next_edition(known.place)
    if not records.create(place, record, pieces):
        return ""
    room.changed(0, entry.size - was.size)
    return record.entry.state if _is_alone(records, place) else ""


def _is_alone(records: Records, place: Place) -> bool:
    """Leave one place of several for an instance, and tell whether none counts but this.

    It may be gone already: whoever has finished or dropped it has seen it.
    """
    return records.settle(place.sop_instance_uid) in (place, None)


def remove(records: Records, room: Room, sop_instance_uid: str, mark: Change) -> None:
    """Discard an entry once it could be marked."""
    several = records.places(sop_instance_uid)
    if len(several) > 1:
        records.settle(sop_instance_uid)  # else the next would count in its place
    placed = records.change(sop_instance_uid, mark)
    if placed is None:
        raise no_such_entry()
    for place in several - {placed.place}:
        records.discard(place)
    records.clear(placed.place)
    room.changed(-1, -placed.record.entry.size)


def sound(records: Records, place: Place) -> Kept | None:
    """Return what is kept, if it is what was written."""
    data = records.payload(place)
    try:
        return None if data is None else kept.decode(data)
    except ValueError:
        return None
