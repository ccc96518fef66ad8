"""Finding entries in a bucket: which are meant, in the order of their arrival."""

import re
from collections.abc import Iterator

from service.errors import BadRequest
from service.gcp.queue import record as form
from service.gcp.queue.records import Placed, Records, Sighting
from service.retry.entry import Entry
from service.retry.protocol import Filter


def matching(records: Records, chosen: Filter, after: int = -1) -> Iterator[Placed]:
    """Yield the records that are meant, oldest first."""
    if chosen.instance and not form.is_id(chosen.instance):
        return
    listed = records.sightings(chosen.instance)
    found = [one for one in listed if one.place.arrival > after]
    best = {one.place.sop_instance_uid: one for one in sorted(found, key=_rank)}
    for seen in records.read(sorted(best.values())):
        placed: Placed | None = seen
        if seen.record.dropped:  # the same instance may have come again
            placed = records.find(seen.place.sop_instance_uid)
        if placed and matches(placed.record.entry, chosen):
            yield placed


def arrival(after: str) -> int:
    """Read where a page begins: the arrival of the last entry before it; BadRequest."""
    if not re.fullmatch(r"\d{0,19}", after, re.ASCII):
        raise BadRequest("there is no such place in the list", where="after")
    return int(after or -1)


def _rank(one: Sighting) -> tuple[int, int, str]:
    return one.place.rank


def matches(entry: Entry, chosen: Filter) -> bool:
    """Tell whether an entry is meant."""
    return (
        chosen.state in ("", entry.state)
        and chosen.study in ("", entry.study_instance_uid)
        and chosen.instance in ("", entry.sop_instance_uid)
        and chosen.reason.lower() in entry.reason.lower()
    )
