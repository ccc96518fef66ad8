"""The objects of the queue in their bucket: read, listed, and written only over what was read.

Every change of a record is conditional on the generation that it was made of: of two who change
one at the same time, one has to look again. Deleting needs no condition, since no place is used
twice.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from typing import Final, NamedTuple

from service import telemetry
from service.dicom.codestream import Buffer
from service.errors import ObjectGone, ObjectUnavailable, QueueUnusable
from service.gcp.envelope import Reference
from service.gcp.objects import ABSENT, Buckets, Found, Listed
from service.gcp.queue import record as form
from service.gcp.queue.record import Place, Record

_LONGEST_RECORD: Final = 1_000_000  # bytes
_LONGEST_PAYLOAD: Final = 1 << 33
_AT_ONCE: Final = 32  # records that are being read
_TRIES: Final = 30  # of a change that others keep coming before

Change = Callable[[Record], Record | None]
"""Returns what a record shall become; None to leave it. What it raises leaves it too."""


class Sighting(NamedTuple):
    """A record as the bucket lists it; another `etag` means another content."""

    place: Place
    etag: str


class Placed(NamedTuple):
    """A record as it was read or written, and where."""

    place: Place
    record: Record


class Records:
    """The records and payloads under a prefix of a bucket; threads and machines share them.

    All methods raise QueueUnusable where the bucket can't be read or written.
    """

    def __init__(self, buckets: Buckets, bucket: str, prefix: str) -> None:
        self._buckets = buckets
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._seen: dict[Place, tuple[str, Record]] = {}

    def sightings(self, sop_instance_uid: str = "") -> list[Sighting]:
        """List the records there are, of one instance or of all, in the order of their arrival."""
        end = f"{sop_instance_uid}/" if sop_instance_uid else ""
        found = self._list("records/", end)
        if not sop_instance_uid:
            # What is gone needs no memory; what is seen again need not be read again.
            seen = self._seen  # another thread may put another in its place meanwhile
            self._seen = {place: seen[place] for place, _ in found if place in seen}
        return sorted(found)

    def places(self, sop_instance_uid: str) -> set[Place]:
        """List where an instance is: in one place but for moments."""
        if not form.is_id(sop_instance_uid):
            return set()
        return {one.place for one in self.sightings(sop_instance_uid)}

    def payloads(self) -> dict[Place, Listed]:
        """List what is kept of instances."""
        with _explained():
            listed = self._buckets.list(self._bucket, f"{self._prefix}entries/")
            found = {self._place("entries/", one.name): one for one in listed}
        return {place: one for place, one in found.items() if place}

    def find(self, sop_instance_uid: str) -> Placed | None:
        """Read the record of an instance as it is now."""
        found = self._current(sop_instance_uid)
        return found and Placed(found[0], found[1])

    def read(self, sightings: Sequence[Sighting]) -> Iterator[Placed]:
        """Read many records, in their order, dropped ones too; what is gone is left out."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for start in range(0, len(sightings), _AT_ONCE):
                several = sightings[start : start + _AT_ONCE]
                unknown = [one for one in several if self._known(one) is None]
                fresh = dict(zip(unknown, pool.map(self._learn, unknown), strict=True))
                for one in several:
                    record = fresh[one] if one in fresh else self._known(one)
                    if record:
                        yield Placed(one.place, record)

    def create(self, place: Place, record: Record, pieces: Iterable[Buffer]) -> bool:
        """Keep a new entry durably, its payload first; False if a sweep came in between."""
        with _explained():
            self._buckets.put(self._bucket, self._payload(place), map(bytes, pieces))
        return self.record(place, record)

    def record(self, place: Place, record: Record) -> bool:
        """Write the record of a payload that has none; False if somebody else has."""
        return self._write(place, record, ABSENT)

    def change(self, sop_instance_uid: str, change: Change) -> Placed | None:
        """Change the record of an instance; None if it isn't there, or isn't to be changed."""
        for _ in range(_TRIES):
            found = self._current(sop_instance_uid)
            wanted = change(found[1]) if found else None
            if found is None or wanted is None:
                return None
            place, _, generation = found
            if self._write(place, wanted, generation):
                return Placed(place, wanted)
        raise QueueUnusable(
            "others keep changing an entry of the retry queue", where="RETRY_QUEUE", mend="wait"
        )

    def change_many(self, names: Sequence[str], change: Change) -> Iterator[list[str]]:
        """Change many records, and tell some at a time which have been, also before raising."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for start in range(0, len(names), _AT_ONCE):
                several = names[start : start + _AT_ONCE]
                calls = {name: pool.submit(self.change, name, change) for name in several}
                wait(calls.values())
                yield [name for name, one in calls.items() if not one.exception() and one.result()]
                for one in calls.values():
                    one.result()

    def settle(self, sop_instance_uid: str) -> Place | None:
        """Discard all places of an instance but the one that counts, and return that."""
        several = {one.place for one in self.sightings(sop_instance_uid)}
        if len(several) == 1:
            return several.pop()
        counting = self.find(sop_instance_uid)
        if counting is None:
            return None
        for other in several - {counting.place}:
            self.discard(other)
        return counting.place

    def finish(self, place: Place) -> None:
        """Remove an entry that the store has: a payload that stays behind is only sent again.

        A sweep may have given it a record anew before it was gone; so the record goes twice.
        """
        with _explained():
            self._buckets.delete(self._bucket, self._record(place))
            self._buckets.delete(self._bucket, self._payload(place))
            self._buckets.delete(self._bucket, self._record(place))

    def discard(self, place: Place) -> None:
        """Remove an entry that must not come back: it is marked until all else of it is gone."""
        for _ in range(_TRIES):
            found = self._read(self._record(place), _LONGEST_RECORD)
            record = _decoded(found.data) if found else None
            if not found or not record or record.dropped:
                break
            if self._write(place, replace(record, dropped=True), found.generation):
                break
        self.clear(place)

    def clear(self, place: Place) -> None:
        """Remove an entry that is marked as dropped, the mark last."""
        with _explained():
            self._buckets.delete(self._bucket, self._payload(place))
            self._buckets.delete(self._bucket, self._record(place))

    def payload(self, place: Place) -> bytes | None:
        """Read what is kept of an instance; None if it is gone."""
        found = self._read(self._payload(place), _LONGEST_PAYLOAD)
        return found.data if found else None

    def try_to_write(self) -> None:
        """Write an object and delete it."""
        place = form.new_place("check", 0)
        with _explained():
            self._buckets.put(self._bucket, f"{self._prefix}checks/{place.token}", [b"check"])
            self._buckets.delete(self._bucket, f"{self._prefix}checks/{place.token}")

    def _list(self, folder: str, end: str) -> list[Sighting]:
        with _explained():
            listed = list(self._buckets.list(self._bucket, f"{self._prefix}{folder}{end}"))
        places = [(self._place(folder, one.name), one.etag) for one in listed]
        return [Sighting(place, etag) for place, etag in places if place]

    def _current(self, sop_instance_uid: str) -> tuple[Place, Record, str] | None:
        """Return the record that counts, with its generation.

        There may be several, of two who came at once or of one who has replaced a content and not
        yet deleted the other; each holds the same instance, and the others' days are counted.
        """
        if not form.is_id(sop_instance_uid):
            return None
        several = sorted((one.place for one in self.sightings(sop_instance_uid)), key=_rank)
        for place in reversed(several):
            found = self._read(self._record(place), _LONGEST_RECORD)
            record = _decoded(found.data) if found else None
            if found and record and not record.dropped:
                return place, record, found.generation
        return None

    def _write(self, place: Place, record: Record, generation: str) -> bool:
        """Write a record over a generation; False if somebody else has written first."""
        data = form.encode(record)
        name = self._record(place)
        with _explained():
            if self._buckets.put(self._bucket, name, [data], generation) is not None:
                return True
        there = self._read(name, _LONGEST_RECORD)
        return there is not None and there.data == data  # our own, whose first answer was lost

    def _known(self, one: Sighting) -> Record | None:
        etag, record = self._seen.get(one.place, ("", None))
        return record if etag == one.etag and etag else None

    def _learn(self, one: Sighting) -> Record | None:
        found = self._read(self._record(one.place), _LONGEST_RECORD)
        record = _decoded(found.data) if found else None
        if record:
            self._seen[one.place] = (one.etag, record)
        return record

    def _read(self, name: str, limit: int) -> Found | None:
        with _explained():
            try:
                return self._buckets.read(Reference(self._bucket, name), limit)
            except ObjectGone:
                return None

    def _record(self, place: Place) -> str:
        return f"{self._prefix}records/{place.name}"

    def _payload(self, place: Place) -> str:
        return f"{self._prefix}entries/{place.name}"

    def _place(self, folder: str, name: str) -> Place | None:
        return form.place_of(name.removeprefix(self._prefix + folder))


def _rank(place: Place) -> tuple[int, int, str]:
    return place.rank


def _decoded(data: bytes) -> Record | None:
    """Read a record; one that can't be is left to whoever knows better, and told of."""
    try:
        return form.decode(data)
    except ValueError:
        telemetry.log("ERROR", "a record of the retry queue can't be read")
        return None


@contextmanager
def _explained() -> Iterator[None]:
    """Turn the troubles of a bucket into those of the queue."""
    try:
        yield
    except ObjectUnavailable as error:
        mend = error.mend or "look at the bucket, and at the rights of the service account"
        if error.reason == "bucket-forbidden":
            mend = "grant the service account roles/storage.objectUser on it"
        raise QueueUnusable(
            f"the retry queue can't be used: {error.detail}", where="RETRY_QUEUE", mend=mend
        ) from None
