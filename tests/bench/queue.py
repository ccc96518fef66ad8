"""Measure the retry queue with many entries waiting: what each call costs, and a real drain.

usage: python -m tests.bench.queue [--quick]

Times are those of this machine's disk, of whole calls with their flushes. Keeping an instance is
compared with an empty queue by ratios of medians over rounds that take turns.
"""

import argparse
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Final
from urllib.request import urlopen

from pydicom import Dataset

from service import processes
from service.ingest import Described, Upload, digest_of
from service.retry import Filter, Lease, Limits, Past, SqliteQueue, kept, schema
from service.retry import entry as entries
from tests.bench.upload import sink
from tests.describing import PHOTOGRAPH, described
from tests.jpegs import make_jpeg
from tests.serving import COMMAND

MAX_LEASE: Final = 5.0  # milliseconds, the median
MAX_PAGE: Final = 50.0  # milliseconds, the median
MAX_PUT: Final = 1.5  # times what it costs into an empty queue
MAX_GROWTH: Final = (1.10, 8.0)  # times the drain's peak of its first quarter, and MiB

DEAD: Final = 1000  # besides those that wait
WAIT: Final = 900.0  # seconds, within what any entry may wait
LINKS: Final = 50_000  # names of one file; ext4 allows 65,000
LIMITS: Final = Limits(1_000_000, 1 << 40)
BOUND: Final = 60.0  # seconds that the drain may take

_FILL: Final = """
WITH RECURSIVE count (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM count WHERE i < :rows)
INSERT INTO entry (
    sop_instance_uid, series_instance_uid, study_instance_uid, sop_class_uid, transfer_syntax,
    template, source, wire, size, state, first_seen, since, due, attempts, reason, history
) SELECT
    '2.25.' || abs(random()) || i, series_instance_uid, '2.25.1' || (i / 10), sop_class_uid,
    transfer_syntax, template, source, 'json', size, :state, first_seen + i, since, :due, 3,
    :reason, :history
FROM entry, count WHERE entry.sop_instance_uid = :model
"""
_DUE: Final = """
UPDATE entry SET state = 'pending', token = NULL,
    due = CASE WHEN number <= :half THEN :older ELSE :newer END
WHERE due IS NOT NULL
"""


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    waiting: int
    calls: int
    rounds: int
    drained: int


@dataclass(frozen=True)
class Picture:
    """What is put again and again, each time as an instance of its own."""

    upload: Upload
    described: Described

    def named(self, uid: str) -> Described:
        instance = self.described.instance
        dataset = copy(instance.dataset)
        dataset.SOPInstanceUID = uid
        return replace(self.described, instance=replace(instance, dataset=dataset))


class Report:
    """The table, printed as it grows, and the bounds in words with whether they are kept."""

    def __init__(self) -> None:
        self.verdicts: list[tuple[str, bool]] = []

    def times(self, label: str, milliseconds: Sequence[float], most: float | None = None) -> None:
        """Print a row; with `most`, bound its median."""
        middle, slowest = median(milliseconds), quantiles(milliseconds, n=100)[98]
        print(f"{label:46}{middle:10.2f}{slowest:10.2f}{1000 / middle:10.0f}")
        if most is not None:
            self.bound(f"{label}: {middle:.2f} ms, below {most}", kept=middle < most)

    def bound(self, text: str, *, kept: bool) -> None:
        self.verdicts.append((text, kept))


def picture(width: int, height: int, quality: int) -> Picture:
    image = make_jpeg(width, height, quality=quality)
    upload = Upload(image, digest_of(image), Dataset(), PHOTOGRAPH, "http", "request")
    return Picture(upload, described(image))


def timed(work: Callable[[], object], times: int) -> list[float]:
    """Return the milliseconds of each call."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        found.append((time.perf_counter() - started) * 1000)
    return found


@contextmanager
def index(folder: Path) -> Iterator[sqlite3.Connection]:
    """Yield the queue's own SQLite file, within a transaction."""
    connection = sqlite3.connect(folder / "queue.sqlite")
    try:
        with connection:
            yield connection
    finally:
        connection.close()


def fill(folder: Path, model: str, rows: int, state: str, reason: str) -> None:
    """Add entries that are as the model, with names of their own for its file."""
    now = time.time()
    history = [Past(now, "unavailable", 503, reason, "json")] * 3
    values = {
        "model": model,
        "rows": rows,
        "state": state,
        "due": None if state == "dead" else now + WAIT,
        "reason": reason,
        "history": schema.history_text(history),
    }
    with index(folder) as connection:
        (last,) = connection.execute("SELECT max(number) FROM entry").fetchone()
        connection.execute(_FILL, values)
        added = connection.execute("SELECT sop_instance_uid FROM entry WHERE number > ?", (last,))
        for number, (name,) in enumerate(added):
            if number % LINKS == 0:
                linked = folder / "entries" / name
                shutil.copyfile(folder / "entries" / model, linked)
            else:
                (folder / "entries" / name).hardlink_to(linked)


def set_due(folder: Path, older: float, newer: float) -> None:
    """Let the older half and the newer half of what isn't dead be due at moments."""
    with index(folder) as connection:
        (half,) = connection.execute(
            "SELECT (min(number) + max(number)) / 2 FROM entry WHERE due IS NOT NULL"
        ).fetchone()
        connection.execute(_DUE, {"half": half, "older": older, "newer": newer})


def measure_leases(report: Report, queue: SqliteQueue, folder: Path, calls: int) -> None:
    now = time.time()
    cases = {
        "lease, all are due": (now - 1, now - 1),
        "lease, the older half waits": (now + WAIT, now - 1),
        "lease, none is due": (now + WAIT, now + WAIT),
    }
    for label, (older, newer) in cases.items():
        set_due(folder, older, newer)
        taken: list[Lease | None] = []
        work = partial(take, queue, now, taken)
        report.times(label, timed(work, calls), MAX_LEASE)
        leases = [lease for lease in taken if lease]
        assert len(leases) == (calls if newer < now else 0)
        if leases:
            settle(report, queue, leases)


def take(queue: SqliteQueue, now: float, taken: list[Lease | None]) -> None:
    taken.append(queue.lease(now))


def measure_disk(report: Report, folder: Path, calls: int) -> None:
    """Print what the disk itself takes: a transaction flushes its log once."""
    with (folder / "flushed").open("wb") as file:

        def flush() -> None:
            file.write(bytes(8192))
            file.flush()
            os.fdatasync(file.fileno())

        report.times("the disk: 8 kB written and flushed", timed(flush, calls))


def settle(report: Report, queue: SqliteQueue, leases: list[Lease]) -> None:
    """Put half of what was leased back, and finish the other half."""
    half = len(leases) // 2
    back, done = iter(leases[:half]), iter(leases[half:])
    later = time.time() + WAIT
    report.times("  put back", timed(lambda: queue.put_back(next(back), later, None), half))
    report.times("  finish", timed(lambda: queue.finish(next(done).entry.sop_instance_uid), half))


def measure_pages(report: Report, queue: SqliteQueue, folder: Path, calls: int) -> None:
    with index(folder) as connection:
        (deep,) = connection.execute("SELECT max(number) * 9 / 10 FROM entry").fetchone()
    filters = {
        "all": Filter(),
        "state=pending": Filter(state="pending"),
        "state=leased": Filter(state="leased"),
        "state=dead": Filter(state="dead"),
        "study": Filter(study="2.25.177"),
        "a frequent reason": Filter(reason="503"),
        "a rare reason": Filter(reason="Refused"),
        "a reason that none has": Filter(reason="certificate"),
        "state=dead and a reason": Filter(state="dead", reason="refused"),
    }
    for label, chosen in filters.items():
        report.times(f"list, {label}", timed(partial(queue.list, chosen, 100), calls), MAX_PAGE)
    report.times(
        "list, a deep page", timed(lambda: queue.list(Filter(), 100, str(deep)), calls), MAX_PAGE
    )
    report.times("totals", timed(queue.totals, calls))


def measure_puts(report: Report, queue: SqliteQueue, empty: SqliteQueue, rounds: int) -> None:
    pictures = {"1 MB": picture(2000, 1500, 92), "20 kB": picture(320, 240, 90)}
    for label, each in pictures.items():
        size = len(each.upload.image) / 1000

        def put(into: SqliteQueue, each: Picture = each) -> float:
            one = each.named(f"2.25.{time.time_ns()}")
            (spent,) = timed(lambda: into.put(each.upload, one, None, time.time()), 1)
            if into is empty:
                into.finish(one.instance.sop_instance_uid)
            return spent

        pairs = [(put(queue), put(empty)) for _ in range(rounds)]
        report.times(f"put of {size:.0f} kB, many waiting", [many for many, _ in pairs])
        report.times(f"put of {size:.0f} kB, empty queue", [none for _, none in pairs])
        ratio = median(many for many, _ in pairs) / median(none for _, none in pairs)
        text = f"put of {label}: {ratio:.2f} x that into an empty queue, at most {MAX_PUT}"
        report.bound(text, kept=ratio <= MAX_PUT)


def add_due(folder: Path, rows: int) -> None:
    """Add entries that are due, each with a file of its own."""
    small = picture(320, 240, 90)
    now = time.time()
    with index(folder) as connection:
        for number in range(rows):
            one = small.named(f"2.25.7{number:08}")
            pieces = kept.encode(small.upload, one, now)
            path = folder / "entries" / one.instance.sop_instance_uid
            path.write_bytes(b"".join(bytes(piece) for piece in pieces))
            entry = entries.new(small.upload, one, None, now, path.stat().st_size)
            schema.save(connection, entry)


@contextmanager
def draining(folder: Path, store: str) -> Iterator[int]:
    """Run `jpegstow retry` on the queue; yield its process id."""
    environment = processes.environment() | {
        "DATA_DIR": str(folder.parent),
        "RETRY_QUEUE": str(folder),
        "DICOMWEB_URL": f"{store}/dicomWeb",
        "DICOMWEB_WIRE": "json",
        "READ_BACK": "never",
        "UID_NAMESPACE": "bench",
    }
    with (
        (folder.parent / "retry.log").open("wb") as log,
        subprocess.Popen([COMMAND, "retry"], stdout=log, env=environment) as process,
    ):
        try:
            yield process.pid
        finally:
            process.terminate()


def resident(pid: int) -> float:
    """Return the MiB that a process holds in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure_drain(report: Report, folder: Path, rows: int) -> None:
    add_due(folder, rows)
    peaks = [0.0] * 4
    times: list[tuple[float, int]] = []
    with sink() as store, draining(folder, store) as pid:
        end = time.monotonic() + BOUND
        while not times or times[-1][1] < rows:
            assert time.monotonic() < end, f"{times[-1]} of {rows} after {BOUND} s"
            with urlopen(f"{store}/count", timeout=BOUND) as answer:
                stored = json.load(answer)["requests"]
            times.append((time.monotonic(), stored))
            quarter = min(3, stored * 4 // rows)
            if stored:
                peaks[quarter] = max(peaks[quarter], resident(pid))
            time.sleep(0.02)
    begun = max(moment for moment, stored in times if not stored)
    per_second = rows / (times[-1][0] - begun)
    print(f"{'drain, whole (20 kB pictures)':66}{per_second:10.0f}")
    print(f"{'  peak MiB of each quarter':46}" + "".join(f"{peak:10.1f}" for peak in peaks))
    share, more = MAX_GROWTH
    text = f"drain: {peaks[3]:.1f} MiB at the end, at most {share} x {peaks[0]:.1f} + {more:g}"
    report.bound(text, kept=peaks[3] <= share * peaks[0] + more)


def run(scale: Scale, root: Path) -> list[tuple[str, bool]]:
    """Measure everything; return each bound in words, with whether it is kept."""
    report, folder = Report(), root / "queue"
    queue, empty = SqliteQueue(folder, LIMITS), SqliteQueue(root / "empty", LIMITS)
    small = picture(320, 240, 90)
    queue.put(small.upload, small.described, None, time.time())
    model = small.described.instance.sop_instance_uid
    fill(folder, model, scale.waiting, "pending", "the store answered 503")
    fill(folder, model, DEAD, "dead", "the store refused the instance: A700")
    print(f"{scale.waiting:,} waiting".ljust(46) + f"{'p50 ms':>10}{'p99 ms':>10}{'per s':>10}")
    try:
        measure_disk(report, root, scale.calls)
        measure_leases(report, queue, folder, scale.calls)
        measure_pages(report, queue, folder, scale.rounds)
        measure_puts(report, queue, empty, scale.rounds)
    finally:
        queue.close()
        empty.close()
    (opened,) = timed(lambda: SqliteQueue(folder, LIMITS).close(), 1)
    print(f"{'open alone':46}{opened:10.2f}")
    set_due(folder, time.time() + WAIT, time.time() + WAIT)
    measure_drain(report, folder, scale.drained)
    return report.verdicts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the entries")
    arguments, _ = parser.parse_known_args()
    scale = Scale(10_000, 60, 15, 300) if arguments.quick else Scale(100_000, 300, 40, 2000)
    with TemporaryDirectory(prefix="jpegstow-bench-") as folder:
        verdicts = run(scale, Path(folder))
    for text, is_kept in verdicts:
        print(f"{'PASS' if is_kept else 'FAIL'}  {text}")
    sys.exit(0 if all(is_kept for _, is_kept in verdicts) else 1)


if __name__ == "__main__":
    main()
