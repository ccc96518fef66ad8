"""A durable DICOM store: what it has acknowledged survives a kill and a loss of power.

Storing, in this order: the file whole and flushed under `incoming`, then under the lock its final
name beside the first one, its folders flushed, its row committed, the first name removed; only then
the answer. A file that a crash leaves with both names gets its row at the next start. Where there
are no hard links, or an older index was put back, a whole file may be without a row; it is absent
for every reader until that instance is stored again. How things are deleted, `deletion` says.
"""

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event

from pydicom import Dataset

from service.archive import index as rows
from service.archive import rebuilding, reserve, search
from service.archive.attributes import Description, describe
from service.archive.deletion import Deletions, Operation
from service.archive.files import InstanceUids, class_path
from service.archive.finisher import Finisher
from service.archive.index import Kept
from service.archive.query import Query
from service.archive.rebuilding import Rebuilt
from service.archive.sameness import same_content
from service.archive.schema import VERSION
from service.archive.search import Instance, Listed, find
from service.database import Database
from service.dicom import part10
from service.dicom.codestream import Buffer
from service.dicom.json_model import JsonObject
from service.dicom.uid import is_uid
from service.durable import flush_new, incoming, locked, opening, publish_kept
from service.errors import ArchiveInUse, BadRequest

_MAPPED = 1 << 30  # bytes


@dataclass(frozen=True, slots=True)
class Stored:
    """The instance is new, and durable."""

    uids: InstanceUids


@dataclass(frozen=True, slots=True)
class AlreadyStored:
    """The same instance with the same content was there before."""

    uids: InstanceUids


@dataclass(frozen=True, slots=True)
class Conflict:
    """Another content is stored under the same UIDs; it was left alone."""

    uids: InstanceUids


@dataclass(frozen=True, slots=True)
class BeingDeleted:
    """The instance's study, its series or itself is being deleted; nothing was stored."""

    uids: InstanceUids


StoreResult = Stored | AlreadyStored | Conflict | BeingDeleted


class Archive:
    """A folder of DICOM files with an index, for several threads and processes at once."""

    def __init__(self, root: Path) -> None:
        """Open the archive in a folder; make it if it is new, and its index if that is lost.

        An index of an older version is made anew, too, which takes as long as to read all files.

        Raises
        ------
        RuntimeError
            If the index is damaged, of a newer version, or of an older one that is in use.
        """
        self._root = root.absolute()
        self._instances = self._root / "instances"
        for folder in (self._root, self._instances, self._root / "incoming"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        flush_new(self._root)
        self._index = Database(self._root / "index.sqlite", mapped=_MAPPED)
        self._deletions = Deletions(self._root, self._index)
        self._finisher = Finisher()
        with opening(self._root / "alive.lock") as (self._alive, alone):
            with suppress(sqlite3.DatabaseError):  # which the check of its version tells
                reserve.spend(self._root, self._look)
                reserve.keep(self._root)
            self._check_version(alone=alone)
            if alone:
                self._deletions.replay()
                self._recover()

    def _look(self) -> None:
        """Open the index, if there is one, and keep the files that SQLite makes for that."""
        if (self._root / "index.sqlite").exists():
            with self._index.reading() as connection:
                connection.execute("SELECT 1 FROM sqlite_master").fetchone()

    def _check_version(self, *, alone: bool) -> None:
        found = rebuilding.version(self._root)
        if found > VERSION:
            raise RuntimeError(
                f"index version {found} is newer than {VERSION}, the one that this version of"
                " jpegstow makes; run the newer jpegstow, or jpegstow archive --rebuild"
            )
        if found < VERSION and not alone:
            raise RuntimeError(f"index version {found} has to be made anew; end what uses it")
        if found < VERSION:
            self._index.close()
            self._deletions.withdraw()
            rebuilding.build(self._root)

    def close(self) -> None:
        """Finish, and let go of the index; the next process to open the archive may clean up."""
        self._finisher.close()
        self._index.close()
        self._alive.close()

    def path(self, uids: InstanceUids) -> Path:
        """Return where the file of an instance lies, if it is stored."""
        return uids.path(self._instances)

    def store(
        self, pieces: Sequence[Buffer], dataset: Dataset, storage_class: str = "STANDARD"
    ) -> StoreResult:
        """Store the instance whose file is made of `pieces` and was read as `dataset`.

        What was there already keeps its storage class.

        Raises
        ------
        BadRequest
            If a UID is missing or malformed.
        """
        description = describe(dataset)
        digest = hashlib.sha256()
        for piece in pieces:
            digest.update(piece)
        kept = Kept(sum(map(len, pieces)), digest.hexdigest(), storage_class)
        while True:
            if self._is_being_deleted(description.uids):
                return BeingDeleted(description.uids)
            known = self.instances(*description.uids)
            same = self._same(known[0], dataset, kept.sha256) if known else None
            if same is not None:
                return (AlreadyStored if same else Conflict)(description.uids)
            if self._insert(pieces, description, kept):
                return Stored(description.uids)

    def _is_being_deleted(self, uids: InstanceUids) -> bool:
        return any(operation.covers(uids) for operation in self._deletions.unfinished())

    def _same(self, known: Instance, dataset: Dataset, sha256: str) -> bool | None:
        """Compare with what is stored; None if that has gone, or is damaged and was just this."""
        try:
            data = self.path(known.uids).read_bytes()
        except FileNotFoundError:
            return None
        if hashlib.sha256(data).hexdigest() != known.sha256:  # nothing else is known to be the same
            return None if sha256 == known.sha256 else False
        try:
            return sha256 == known.sha256 or same_content(part10.decode(data), dataset)
        except BadRequest:
            return False

    def _insert(self, pieces: Sequence[Buffer], description: Description, kept: Kept) -> bool:
        """Write file and row; False if somebody else was faster, with a store or a deletion."""
        target = self.path(description.uids)
        with (
            incoming(self._root / "incoming", pieces) as temporary,
            locked(self._root / "write.lock"),
            _taken_back(target) as published,
            self._index.writing() as connection,
        ):
            if self._is_being_deleted(description.uids):
                return False
            if known := find(connection, *description.uids):
                if _is_whole(target, known[0].sha256):
                    return False
                rows.remove(connection, *description.uids)
            elif _took_in(connection, target, description.uids):
                return False
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)  # damaged, or not what its name says
            published.set()
            self._write_class(target, kept.storage_class)
            # The folders of the series, of the study, and of all studies.
            publish_kept(temporary, target, levels=3)
            rows.add(connection, description, kept)
        return True

    def _write_class(self, target: Path, storage_class: str) -> None:
        if storage_class == "STANDARD":
            class_path(target).unlink(missing_ok=True)
            return
        with incoming(self._root / "incoming", [storage_class.encode()]) as temporary:
            temporary.replace(class_path(target))

    def _recover(self) -> None:
        """Give rows to the files that a crash has left published without, and clean up."""
        for leftover in (self._root / "incoming").iterdir():
            if leftover.stat().st_nlink == 2:
                self._index_published(leftover, leftover.read_bytes())
            leftover.unlink()

    def _index_published(self, leftover: Path, data: bytes) -> None:
        description = rebuilding.described(data)
        if description is None or not _is_same_file(self.path(description.uids), leftover):
            return
        with self._index.writing() as connection:
            if not find(connection, *description.uids):
                target = self.path(description.uids)
                rows.add(connection, description, rebuilding.kept(data, target))

    def instances(
        self, study: str, series: str | None = None, instance: str | None = None
    ) -> list[Instance]:
        """Return the instances of a study, a series, or the one instance, as they arrived."""
        with self._index.reading() as connection:
            return find(connection, study, series, instance)

    def search(self, query: Query) -> list[JsonObject]:
        """Return the attributes of what matches, with ModalitiesInStudy and the counts."""
        return list(self.found(query))

    def found(self, query: Query) -> Iterator[JsonObject]:
        """Yield what `search` returns, some hundreds at a time."""
        return search.models(self._index, query)

    def listed(self, query: Query) -> Iterator[Listed]:
        """Yield of each instance that matches what a search answers by default."""
        return search.listed(self._index, query)

    def delete(self, study: str, series: str | None = None, instance: str | None = None) -> int:
        """Delete a study, a series or an instance; return how many instances it were."""
        operation = self._begin(study, series, instance, {})
        if operation is None:
            return 0
        self._deletions.finish(operation, keep=False)
        return operation.instances

    def _begin(
        self, study: str, series: str | None, instance: str | None, names: Mapping[str, str]
    ) -> Operation | None:
        if not all(is_uid(uid) for uid in (study, series, instance) if uid is not None):
            return None
        return self._deletions.begin(study, series, instance, names)

    def begin_delete(self, study: str, series: str | None, names: Mapping[str, str]) -> str | None:
        """Take a study or a series out of the archive for good; None if it isn't there.

        Its files are removed by `finish_delete`, or when the archive is opened the next time.

        Returns
        -------
        id
            Of the operation that `operation` tells of, under the same `names`.
        """
        operation = self._begin(study, series, None, names)
        return operation.id if operation else None

    def finish_delete(self, operation: str) -> None:
        """Remove the files of a deletion that has begun."""
        found = self._deletions.find(operation)
        if found and not found.finished:
            self._deletions.finish(found)

    def finish_delete_soon(self, operation: str) -> None:
        """Remove the files of a deletion that has begun, in the background."""
        self._finisher.submit(partial(self.finish_delete, operation))

    def operation(self, operation: str) -> Operation | None:
        """Return a deletion by its id, running or finished."""
        return self._deletions.find(operation)

    def rebuild(self) -> Rebuilt:
        """Make the index anew from the files alone; readers see the old one until it is done."""
        with locked(self._root / "write.lock"):
            self._deletions.withdraw()
            with self._index.writing() as connection:
                rows.clear(connection)
                return rebuilding.fill(connection, self._instances)


def rebuild(root: Path, told: Callable[[Rebuilt], None] = lambda _: None) -> Rebuilt:
    """Make the index of an archive anew from the files alone, whatever became of the old one.

    Parameters
    ----------
    told
        Is called after each thousand files.

    Raises
    ------
    ArchiveInUse
        If any process has the archive open.
    """
    index = Database(root / "index.sqlite")
    with opening(root / "alive.lock") as (alive, alone):
        if not alone:
            raise ArchiveInUse(
                "a process has the archive open",
                mend="end it first: jpegstow serve, or jpegstow archive",
            )
        Deletions(root, index).withdraw()
        rebuilt = rebuilding.build(root, told)
    alive.close()
    Archive(root).close()  # finishes what a crash has left
    return rebuilt


@contextmanager
def _taken_back(target: Path) -> Iterator[Event]:
    """Remove a file whose row can't be committed, as on a full disk, if the event is set."""
    published = Event()
    try:
        yield published
    except BaseException:
        if published.is_set():
            target.unlink(missing_ok=True)
        raise


def _took_in(connection: sqlite3.Connection, target: Path, uids: InstanceUids) -> bool:
    """Give a sound file without a row its row, as under an index of an older backup."""
    if not target.exists():
        return False
    data = target.read_bytes()
    found = rebuilding.described(data)
    if found is None or found.uids != uids:
        return False
    rows.add(connection, found, rebuilding.kept(data, target))
    return True


def _is_whole(path: Path, sha256: str) -> bool:
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def _is_same_file(one: Path, other: Path) -> bool:
    return one.exists() and one.samefile(other)
