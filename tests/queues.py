"""Retry queues under test, and what is put into them: uploads that were described for real.

A queue joins the contract suite by one line of `OPENERS`.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from pydicom import Dataset
from pydicom.uid import UID

from service.dicom import attributes, part10
from service.dicom.dataset import Instance, overlay
from service.dicom.outcome import Outcome, Rejected, Stored, Unavailable
from service.dicom.stow import package
from service.gcp.objects import Buckets
from service.gcp.queue import BucketQueue, Records
from service.ingest import Attempt, Described, Store, Upload, describe_upload, digest_of
from service.retry import (
    Drain,
    Entry,
    Filter,
    Kept,
    Lease,
    Limits,
    Pace,
    Queue,
    SqliteQueue,
)
from service.retry import kept as kept_file
from tests.describing import PHOTOGRAPH, SAID, rules
from tests.jpegs import make_jpeg
from tests.peers.buckets import Bucket, BucketServer

WEEK = 604_800.0  # seconds, the default of RETRY_MAX_AGE
NOW = 1_700_000_000.0  # seconds since 1970, the morning of every test
ROOMY = Limits(1_000_000, 1 << 40)
DOWN = Unavailable("the store is down", status=503)
REFUSED = Rejected("the store says no", failure_reason=0x0110, status=409)

# What is shown of an entry, over HTTP and by the commands.
ENTRY_KEYS = [
    "id",
    "state",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "SOPClassUID",
    "TransferSyntaxUID",
    "template",
    "source",
    "wire",
    "bytes",
    "first_seen",
    "attempts",
    "next_attempt",
    "reason",
]

_BUCKET_URL = "JPEGSTOW_TESTS_BUCKET"

Opener = Callable[[Path, Limits], AbstractContextManager[Queue]]


@contextmanager
def sqlite_queue(folder: Path, limits: Limits = ROOMY) -> Iterator[SqliteQueue]:
    """Open the embedded queue."""
    queue = SqliteQueue(folder, limits)
    try:
        yield queue
    finally:
        queue.close()


@dataclass
class Bell:
    """An alarm clock that notes whom it is set for."""

    rung: list[str] = field(default_factory=list)

    def set(self, names: Sequence[str]) -> None:
        """Note them."""
        self.rung += names

    def missing(self) -> str:
        """Be there."""
        return ""

    def close(self) -> None:
        """Do nothing."""


@contextmanager
def bucket_queue(folder: Path, limits: Limits = ROOMY) -> Iterator[BucketQueue]:
    """Open a queue in a bucket that all processes of the tests share, a prefix for each folder."""
    prefix = sha256(bytes(folder.absolute())).hexdigest()[:16]
    yield BucketQueue(Records(Buckets(shared_bucket()), "gs://pictures", prefix), Bell(), limits)


def shared_bucket() -> str:
    """Return the URL of a bucket server, which the first process that asks runs to its own end."""
    if _BUCKET_URL not in os.environ:
        os.environ[_BUCKET_URL] = BucketServer(Bucket(), lasting=True).__enter__().url
    return os.environ[_BUCKET_URL]


OPENERS: Mapping[str, Opener] = {"sqlite": sqlite_queue, "bucket": bucket_queue}


@cache
def picture(number: int = 0) -> bytes:
    """Return one of many small JPEGs."""
    return make_jpeg(16, 16, seed=number)


class Made(NamedTuple):
    """An upload, and what it became."""

    upload: Upload
    described: Described


def decoded(data: bytes) -> Made:
    """Read the file of an instance."""
    return _made(kept_file.decode(data))


def fetched(queue: Queue, name: str) -> Made:
    """Return the instance that an entry keeps."""
    return _made(queue.load(name))


def _made(found: Kept) -> Made:
    assert found.described
    return Made(found.upload, found.described)


def describe(image: bytes, template: str = PHOTOGRAPH, said: Mapping[str, Any] = SAID) -> Made:
    """Describe a picture for real; the upload still has its image."""
    digest, checked = digest_of(image), attributes.parse(said)
    upload = Upload(image, digest, checked, template, "file", "request")
    return Made(upload, describe_upload(upload, rules()))


@cache
def numbered(number: int = 0) -> Made:
    """Return an upload of its own for each number; those of a hundred share a study."""
    said = SAID | {"InstanceNumber": number, "StudyInstanceUID": f"1.2.{number // 100}"}
    return describe(picture(), said=said)


def copies(count: int) -> Sequence[Made]:
    """Return many instances cheaply: one that was described, under other UIDs."""
    upload, described = numbered()
    return [
        Made(upload, replace(described, instance=_renamed(described.instance, f"2.25.{number}")))
        for number in range(1, count + 1)
    ]


def _renamed(instance: Instance, sop_instance_uid: str) -> Instance:
    name = Dataset()
    name.SOPInstanceUID = UID(sop_instance_uid)
    return replace(instance, dataset=overlay(instance.dataset, name))


def uid_of(kept: Made) -> str:
    """Return the SOP Instance UID, which is the entry's id."""
    return kept.described.instance.sop_instance_uid


def bodies(instance: Instance) -> tuple[bytes, bytes, bytes]:
    """Return all that can be made of an instance: both wire formats, and the DICOM file."""
    file = part10.encode(instance.dataset, instance.codestream, instance.transfer_syntax)
    wires = (b"".join(package([instance], wire)) for wire in ("json", "part10"))
    return (*wires, b"".join(file))  # type: ignore[return-value] # mypy can't count a generator


def attempt(outcome: Outcome = DOWN, at: float = NOW, wire: str = "json") -> Attempt:
    """Return one try."""
    return Attempt(at, outcome, wire)


def put(queue: Queue, kept: Made, tried: Attempt | None = None, now: float = NOW) -> str:
    """Put an upload into a queue, and return its id."""
    queue.put(kept.upload, kept.described, tried, now)
    return uid_of(kept)


def leased(queue: Queue, now: float = NOW) -> Lease:
    """Lease what is surely there."""
    lease = queue.lease(now)
    assert lease
    return lease


def drain_of(queue: Queue, store: Store, concurrency: int = 4, max_age: float = WEEK) -> Drain:
    """Drain a queue into a store, with the longest waits that there may be."""
    return Drain(queue, store, Pace(concurrency, max_age), lambda: 1.0)


def everything(queue: Queue, chosen: Filter = Filter()) -> list[Entry]:  # noqa: B008 - a value
    """Return all entries of a list without pages."""
    page = queue.list(chosen, 1_000_000)
    assert page.after == ""
    return list(page.entries)


def uids(queue: Queue, chosen: Filter = Filter()) -> list[str]:  # noqa: B008 - a value
    """Return the ids of all entries, in their order."""
    return [entry.sop_instance_uid for entry in everything(queue, chosen)]


@dataclass
class Shelf:
    """A store that is a list: it answers whatever it is given, at once."""

    answer: Outcome | Exception = field(default_factory=Stored)
    wire: str = "json"
    asked: list[str] = field(default_factory=list)
    deadlines: list[float | None] = field(default_factory=list)

    def store(
        self, instances: Sequence[Instance], within: float | None = None
    ) -> dict[str, Outcome]:
        """Note the instances, and answer the same of each, or raise."""
        names = [instance.sop_instance_uid for instance in instances]
        self.asked += names
        self.deadlines.append(within)
        if isinstance(self.answer, Exception):
            raise self.answer
        return dict.fromkeys(names, self.answer)
