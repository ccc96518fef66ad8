"""Counters that several processes keep in one folder, and that outlive each of them.

folder/
    0, 1, 2, ...     one file a process, which it alone writes and holds a lock on

A file holds records of 256 bytes: a number, then the name of what it counts. Whoever reads adds up
all files. The lock goes with its process, however that ends; the next process to start takes over
a file that nobody holds, with its numbers, so that a sum never falls and there are never more
files than processes that have run at once.
"""

import fcntl
import json
import os
import struct
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from service import telemetry

_NUMBER: Final = struct.Struct("<d")  # one aligned word: the old value or the new
_RECORD: Final = 256  # bytes; none crosses a page
_LONGEST: Final = _RECORD - _NUMBER.size  # bytes of a name
_MOST: Final = 512  # files; what runs beyond that counts for itself


class Series(NamedTuple):
    """What one number is of: a metric, and the values of its labels in their order.

    `stands` tells that it is no count but a state of one process, and ends with it.
    """

    metric: str
    labels: tuple[str, ...] = ()
    stands: bool = False


class Read(NamedTuple):
    """All files at one moment: sums of what was counted, and the states of what runs."""

    counted: Mapping[Series, float]
    standing: Mapping[Series, list[float]]


class Tally:
    """One process's numbers, and the way to all others'. Threads share it; it may be forked.

    Where the folder can't be used, each process counts for itself, and says so once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._folder: Path | None = None
        self._process = 0
        self._file: int | None = None
        self._number = -1
        self._end = 0
        self._places: dict[Series, int] = {}
        self._numbers: dict[Series, float] = {}

    def keep_in(self, folder: Path) -> None:
        """Keep the numbers in a folder from now on; nothing is opened before the first of them."""
        with self._lock:
            self._folder = folder
            self._process = 0

    def add(self, series: Series, amount: float = 1.0) -> None:
        """Count something."""
        with self._lock:
            self._own()
            self._write(series, self._numbers.get(series, 0.0) + amount)

    def set(self, series: Series, number: float) -> None:
        """Set a state of this process."""
        with self._lock:
            self._own()
            self._write(series, number)

    def read(self) -> Read:
        """Add up what all processes have counted."""
        with self._lock:
            self._own()
            folder, own = (self._folder, self._number) if self._file is not None else (None, -1)
            found = [(dict(self._numbers), True)]
        counted: defaultdict[Series, float] = defaultdict(float)
        standing: defaultdict[Series, list[float]] = defaultdict(list)
        for numbers, is_alive in found + (_others(folder, own) if folder else []):
            for series, number in numbers.items():
                if not series.stands:
                    counted[series] += number
                elif is_alive:
                    standing[series].append(number)
        return Read(counted, standing)

    def _own(self) -> None:
        """Have a file of this process's, and not that of the one which it was forked from."""
        if self._process == os.getpid():
            return
        self._let_go()
        self._process = os.getpid()
        if self._folder is not None:
            try:
                self._number, self._file = _take(self._folder)
                self._continue(_whole(self._file))
            except OSError as error:
                self._give_up(error)

    def _continue(self, data: bytes) -> None:
        """Go on from what the process has left that had the file before."""
        self._end = len(data) - len(data) % _RECORD
        for place, series, number in _records(data):
            self._places[series] = place
            self._numbers[series] = number
        for series in [each for each in self._numbers if each.stands]:
            self._write(series, 0.0)

    def _write(self, series: Series, number: float) -> None:
        self._numbers[series] = number
        if self._file is None:
            return
        place = self._places.get(series)
        record = _NUMBER.pack(number)
        try:
            if place is None:
                os.pwrite(self._file, record + _name(series), self._end)
                self._places[series] = self._end
                self._end += _RECORD
            else:
                os.pwrite(self._file, record, place)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """Count in memory from now on; what is in the file stays there."""
        self._let_go()
        reason = f"{type(error).__name__} {error.errno or ''}".strip()
        telemetry.log("WARNING", "the metrics' folder can't be used", reason=reason)

    def _let_go(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = None
        self._end = 0
        self._places = {}
        self._numbers = {}


def _take(folder: Path) -> tuple[int, int]:
    """Open and lock the first file that nobody holds; return its number and descriptor."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for number in range(_MOST):
        file = os.open(folder / str(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if _locks(file, fcntl.LOCK_EX):
            return number, file
        os.close(file)
    raise OSError("too many processes")


def _others(folder: Path, own: int) -> list[tuple[dict[Series, float], bool]]:
    """Return the numbers of each file but one's own, and whether its process lives.

    One's own isn't opened anew: on a network disk, closing it would let its lock go.
    """
    found = []
    for number in range(_MOST):
        try:
            found += [] if number == own else [_look(folder / str(number))]
        except FileNotFoundError:
            break  # they are numbered without gaps
        except OSError:
            continue
    return found


def _look(path: Path) -> tuple[dict[Series, float], bool]:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # The lock is let go at once; who starts in that moment takes the file after it.
        is_alive = not _locks(file, fcntl.LOCK_SH)
        return {series: number for _, series, number in _records(_whole(file))}, is_alive
    finally:
        os.close(file)


def _whole(file: int) -> bytes:
    return os.pread(file, os.fstat(file).st_size, 0)


def _locks(file: int, kind: int) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(file, kind | fcntl.LOCK_NB)
        return True
    return False


def _records(data: bytes) -> Iterator[tuple[int, Series, float]]:
    """Yield the place, the name and the number of each record; what isn't one is left out."""
    for place in range(0, len(data) - _RECORD + 1, _RECORD):
        (number,) = _NUMBER.unpack_from(data, place)
        text = data[place + _NUMBER.size : place + _RECORD].rstrip(b"\0")
        with suppress(ValueError, TypeError):
            metric, labels, stands = json.loads(text)
            yield place, Series(metric, tuple(labels), stands), number


def _name(series: Series) -> bytes:
    """Return a name as a record holds it; raises ValueError if that is too short for it."""
    text = json.dumps(series).encode()
    if len(text) > _LONGEST:
        raise ValueError(f"{series.metric} has labels that are too long")
    return text.ljust(_LONGEST, b"\0")
