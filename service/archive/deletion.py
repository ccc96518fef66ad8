"""Deleting as an operation that a crash can't undo: the intent is a file, as all truth here is.

root/
    deleting/ID.json      what has begun; nothing can be stored into it until it is finished
    outgoing/ID/          what has left instances/ and isn't removed yet
    operations/ID.json    what is finished, for who asks; kept for 30 days

    reserve               room for what there is no other for

First the intent is flushed to the disk, then rows and files go, or files and rows where the index
has no room for the change. Whatever a crash leaves is finished
at the next start, so that not even an index made anew from the files brings back what was deleted.
"""

import json
import re
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from service.archive import index as rows
from service.archive import reserve
from service.archive.files import InstanceUids, targets
from service.database import Database
from service.durable import flush_folder, incoming, locked, publish

KEPT: Final = 10_000
KEPT_FOR: Final = 30 * 86_400  # seconds


@dataclass(frozen=True, slots=True)
class Operation:
    """The deletion of a study, a series or an instance.

    Parameters
    ----------
    id
        Decimal digits.
    names
        What the caller knows it by beside its id.
    instances
        How many there are to delete, or were.
    created, finished
        Times of RFC 3339; `finished` is empty while it runs.
    error
        What went wrong, if anything did; empty else.
    """

    id: str
    names: Mapping[str, str]
    study: str
    series: str | None
    instance: str | None
    instances: int
    created: str
    finished: str = ""
    error: str = ""

    def covers(self, uids: InstanceUids) -> bool:
        """Tell whether an instance is of what is deleted."""
        own = (self.study, self.series, self.instance)
        return all(part in (None, uid) for part, uid in zip(own, uids, strict=True))


class Deletions:
    """What is being deleted, and what has been."""

    def __init__(self, root: Path, index: Database) -> None:
        self._root = root
        self._index = index
        for name in ("deleting", "outgoing", "operations"):
            (root / name).mkdir(mode=0o700, exist_ok=True)
        reserve.keep(root)

    def begin(
        self, study: str, series: str | None, instance: str | None, names: Mapping[str, str]
    ) -> Operation | None:
        """Take what shall be deleted out of the archive, for good; None if it isn't there."""
        with locked(self._root / "write.lock"):
            with self._index.reading() as connection:
                count = rows.count(connection, study, series, instance)
            if not count:
                return None
            operation = self._begun(study, series, instance)
            if operation is None:
                number = str(secrets.randbelow(9 * 10**18) + 10**18)
                operation = Operation(number, dict(names), study, series, instance, count, _now())
                reserve.spend(self._root, partial(self._write, "deleting", operation))
            self._take_out(operation)
        return operation

    def _begun(self, study: str, series: str | None, instance: str | None) -> Operation | None:
        """Return this very deletion, if a process that died has begun it, or one had no room."""
        own = (study, series, instance)
        same = (o for o in self.unfinished() if (o.study, o.series, o.instance) == own)
        return next(same, None)

    def _take_out(self, operation: Operation) -> None:
        """Remove rows and files; the intent is given up if neither can go."""
        try:
            self._remove_rows(operation)
        except sqlite3.Error as error:
            self._take_out_files_first(operation, error)
        self._move(operation)

    def _take_out_files_first(self, operation: Operation, error: sqlite3.Error) -> None:
        """Remove files, and then the rows that couldn't go for want of room."""
        try:
            if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_FULL:
                raise error
            reserve.give(self._root)
            self._move(operation)
        except (sqlite3.Error, OSError):
            self._give_up(operation)
            raise
        _remove(self._root / "outgoing" / operation.id)
        self._remove_rows(operation)

    def _remove_rows(self, operation: Operation) -> None:
        with self._index.writing() as connection:
            rows.remove(connection, operation.study, operation.series, operation.instance)

    def _give_up(self, operation: Operation) -> None:
        """Forget an intent, unless an attempt before this one has removed the files."""
        (target, *_) = self._targets(operation)
        if not target.exists():
            return
        (self._root / "deleting" / f"{operation.id}.json").unlink(missing_ok=True)
        flush_folder(self._root / "deleting")

    def finish(self, operation: Operation, *, keep: bool = True) -> None:
        """Remove the files of an operation; `keep` its record for who asks."""
        error = ""
        try:
            _remove(self._root / "outgoing" / operation.id)
        except OSError:
            error = "some files can't be removed; it is tried again when the archive starts"
        self._flush(operation)
        if keep:
            self._write("operations", replace(operation, finished=_now(), error=error))
        (self._root / "deleting" / f"{operation.id}.json").unlink(missing_ok=True)
        # An intent that came back after a loss of power would delete what is stored from now on;
        # one whose record is kept is known to be finished.
        if keep:
            self._prune()
        else:
            flush_folder(self._root / "deleting")
        reserve.keep(self._root)

    def unfinished(self) -> Iterator[Operation]:
        """Yield the operations that have begun and aren't finished."""
        for path in sorted((self._root / "deleting").iterdir()):
            operation = _read(path)
            if operation:
                yield operation

    def find(self, number: str) -> Operation | None:
        """Return an operation by its id, as it is now."""
        if not re.fullmatch("[0-9]{1,19}", number):
            return None
        kept = _read(self._root / "operations" / f"{number}.json")
        if kept:
            return kept
        begun = _read(self._root / "deleting" / f"{number}.json")
        # Between the two looks it may have been finished.
        return begun or _read(self._root / "operations" / f"{number}.json")

    def withdraw(self) -> None:
        """Move the files of what has begun out of the way, before an index is made of the files."""
        for operation in self._really_unfinished():
            self._move(operation)

    def replay(self) -> None:
        """Finish what other processes have left; only for who has the archive alone."""
        for operation in self._really_unfinished():
            self._remove_rows(operation)
            self._move(operation)
            self.finish(operation, keep=operation.instance is None)
        for path in (self._root / "outgoing").iterdir():
            _remove(path)

    def _really_unfinished(self) -> Iterator[Operation]:
        for operation in self.unfinished():
            if (self._root / "operations" / f"{operation.id}.json").exists():
                (self._root / "deleting" / f"{operation.id}.json").unlink()
            else:
                yield operation

    def _move(self, operation: Operation) -> None:
        instances, outgoing = self._root / "instances", self._root / "outgoing" / operation.id
        for path in filter(Path.exists, self._targets(operation)):
            outgoing.mkdir(mode=0o700, exist_ok=True)
            if (outgoing / path.name).exists():  # what came back was put there by hand
                _remove(outgoing / path.name)
            path.rename(outgoing / path.name)
            for folder in path.parents:
                if folder == instances:
                    break
                with suppress(OSError):  # not empty
                    folder.rmdir()

    def _targets(self, operation: Operation) -> list[Path]:
        """Return where the files of an operation are, as long as they are there."""
        instances = self._root / "instances"
        return targets(instances, operation.study, operation.series, operation.instance)

    def _flush(self, operation: Operation) -> None:
        """Flush the folder that the files were in, or what is left above it."""
        (target, *_) = self._targets(operation)
        flush_folder(next(folder for folder in target.parents if folder.is_dir()))

    def _write(self, folder: str, operation: Operation) -> None:
        text = json.dumps(asdict(operation)).encode()
        with incoming(self._root / "incoming", [text]) as temporary:
            publish(temporary, self._root / folder / f"{operation.id}.json")

    def _prune(self) -> None:
        """Forget operations that are older than a month, or more than ten thousand."""
        ages = []
        for path in (self._root / "operations").iterdir():
            with suppress(FileNotFoundError):
                ages.append((path.stat().st_mtime, path))
        oldest = time.time() - KEPT_FOR
        for number, (written, path) in enumerate(sorted(ages, reverse=True)):
            if number >= KEPT or written < oldest:
                path.unlink(missing_ok=True)


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _read(path: Path) -> Operation | None:
    try:
        return Operation(**json.loads(path.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _remove(path: Path) -> None:
    """Remove a file or a folder that may have gone already."""
    with suppress(FileNotFoundError):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
