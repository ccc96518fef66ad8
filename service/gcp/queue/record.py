"""What stands in a bucket of an entry besides its payload, and the names of both.

PREFIX/entries/SOP/ARRIVAL-EDITION-TOKEN    what is kept of an instance, whole (`retry.kept`)
PREFIX/records/SOP/ARRIVAL-EDITION-TOKEN    what has been tried, and what is to be done: JSON

A place is used once and never again, so that whoever deletes one, however late, deletes nothing
that has come since. Neither object ever changes its place; only the record's content changes.
"""

import json
import re
import secrets
import sys
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, NamedTuple

from service.retry.entry import Entry, Past
from service.retry.timing import LONGEST_WAIT

_VERSION: Final = 1
_ID: Final = r"[0-9A-Za-z][0-9A-Za-z.-]{0,79}"
_PLACE: Final = re.compile(rf"({_ID})/([0-9]{{20}})-([0-9]{{6}})-([0-9a-f]{{8}})")


class Place(NamedTuple):
    """Where an entry is.

    Attributes
    ----------
    arrival
        When the entry came, in nanoseconds since 1970: the order of the queue.
    edition
        How often other content has taken its place.
    """

    arrival: int
    edition: int
    token: str
    sop_instance_uid: str

    @property
    def name(self) -> str:
        """The end of both objects' names."""
        number = f"{self.arrival:020}-{self.edition:06}-{self.token}"
        return f"{self.sop_instance_uid}/{number}"

    @property
    def rank(self) -> tuple[int, int, str]:
        """What decides between several places of one instance: the latest content, then age."""
        return self.edition, -self.arrival, self.token


@dataclass(frozen=True, slots=True)
class Record:
    """An entry, and who holds it.

    Attributes
    ----------
    token
        That of the lease, empty without one.
    rung
        When the alarm was set last, in seconds since 1970.
    dropped
        Whether it is gone for every reader, for good.
    """

    entry: Entry
    token: str = ""
    rung: float = 0.0
    dropped: bool = False

    def with_entry(self, entry: Entry, token: str = "") -> "Record":
        """Return the record of an entry that has changed, by default without a lease."""
        return replace(self, entry=entry, token=token)


def is_id(text: str) -> bool:
    """Tell whether a text can be an entry's id."""
    return re.fullmatch(_ID, text) is not None


def new_place(sop_instance_uid: str, arrival: int) -> Place:
    """Return the place of an entry that comes."""
    return Place(arrival, 0, secrets.token_hex(4), sop_instance_uid)


def next_edition(place: Place) -> Place:
    """Return a place of the same turn for other content."""
    return place._replace(edition=place.edition + 1, token=secrets.token_hex(4))


def place_of(name: str) -> Place | None:
    """Read the end of an object's name; None if it isn't of our making."""
    found = _PLACE.fullmatch(name)
    return found and Place(int(found[2]), int(found[3]), found[4], found[1])


def encode(record: Record) -> bytes:
    """Return a record as JSON, which is never twice the same: `stamp` tells two writers apart."""
    model = {"version": _VERSION, "stamp": secrets.token_hex(8), **asdict(record)}
    return json.dumps(model, separators=(",", ":")).encode()


def decode(data: bytes) -> Record:
    """Read a record.

    Raises
    ------
    ValueError
        If it isn't what was written.
    """
    try:
        model: dict[str, Any] = json.loads(data, object_pairs_hook=_sharing)
        if model["version"] != _VERSION:
            raise ValueError(f"the record isn't of version {_VERSION}")
        said = dict(model["entry"])
        said["history"] = tuple(Past(**past) for past in said["history"])
        return Record(Entry(**said), model["token"], model["rung"], model["dropped"])
    except (LookupError, TypeError) as error:
        raise ValueError("the record isn't what was written") from error


def _sharing(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object whose texts are those of all others: a hundred thousand may be kept."""
    return {name: sys.intern(value) if isinstance(value, str) else value for name, value in pairs}


def is_due(entry: Entry, now: float) -> bool:
    """Tell whether an entry may be leased: its time has come, or its lease has run out.

    A moment further ahead than any wait could be was set by a clock that has since been put back.
    """
    due = entry.next_attempt
    return due is not None and (due <= now or due > now + 2 * LONGEST_WAIT)
