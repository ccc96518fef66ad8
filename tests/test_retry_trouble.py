"""What a hostile machine does to the retry queue: nothing that was acknowledged is lost."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest

from service.errors import DamagedEntry, QueueUnusable
from service.retry import Drain, Filter, Pace, SqliteQueue, UnaskedStore
from tests.peers import BOUND
from tests.queue_gang import LIMITS, keep, lines
from tests.queue_trouble import (
    AWAY,
    BURIED,
    DAY,
    STORED,
    drained,
    is_refused,
    names,
    post,
    service,
)
from tests.queues import NOW, attempt, sqlite_queue
from tests.users import of_a_user

ROOT: Final = Path(__file__).parents[1]


@pytest.fixture
def memory() -> Iterator[Path]:
    """Yield a folder in memory if there is such: a kill needs no disk to be survived."""
    with TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[SqliteQueue]:
    with sqlite_queue(tmp_path / "queue") as one:
        yield one


def test_a_standard_output_on_a_full_disk_costs_neither_an_answer_nor_an_attempt(
    tmp_path: Path,
) -> None:
    kept = []
    with (
        service(tmp_path / "queue") as client,
        sqlite_queue(tmp_path / "queue") as queue,
        suppress(OSError),  # of the file, when it is closed
        Path("/dev/full").open("w") as full,
        redirect_stdout(full),
    ):
        kept.append(post(client, "A"))
        drain = Drain(queue, UnaskedStore(), Pace(concurrency=1, max_age=DAY), lambda: 0.0)
        lease = drain.take(NOW * 2)
        assert lease
        drain.settle(lease, drain.send(lease), NOW * 2)
        kept.append(queue.show(kept[0]).state)
    assert kept[1:] == ["pending"]


# A folder that can't be written


def protect(folder: Path, *, mode: int) -> None:
    """Set what its owner may do with a folder and all in it."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(mode | 0o100 if path.is_dir() else mode)


def test_a_folder_that_cannot_be_written_is_refused_at_the_start() -> None:
    with of_a_user() as folder:
        with sqlite_queue(folder / "queue") as queue:
            keep(queue, "1.9.1", NOW)
        protect(folder, mode=0o400)
        for name in ("queue", "another"):
            with pytest.raises(QueueUnusable, match=r"opened.*RETRY_QUEUE.*writable"):
                SqliteQueue(folder / name, LIMITS)
        protect(folder, mode=0o600)
        with sqlite_queue(folder / "queue") as queue:
            assert names(queue) == {"1.9.1"}


def test_nothing_is_acknowledged_once_the_folder_cannot_be_written() -> None:
    with of_a_user() as folder:
        with service(folder / "queue") as client, sqlite_queue(folder / "queue") as queue:
            kept = {post(client, "A1"), post(client, "A2")}
            lease = queue.lease(NOW * 2)
            assert lease
            protect(folder, mode=0o400)
            assert [post(client, name) for name in ("A3", "A4")] == ["", ""]
            assert client.get("/readyz").status_code == 503
            assert is_refused(lambda: queue.put_back(lease, NOW, AWAY))
            assert is_refused(lambda: queue.finish(lease.entry.sop_instance_uid))
            assert is_refused(lambda: queue.lease(NOW * 2))
            assert names(queue) == kept
            assert queue.totals().entries == {"pending": 1, "leased": 1, "dead": 0}
            protect(folder, mode=0o600)
            kept.add(post(client, "A5"))
        with sqlite_queue(folder / "queue") as queue:
            assert names(queue) == kept


# A careless hand


def overwrite(path: Path) -> None:
    path.write_bytes(b"\xa5" * path.stat().st_size)


def truncate(path: Path) -> None:
    os.truncate(path, 0)


def replace(path: Path) -> None:
    """Put an empty one in its place."""
    path.unlink()
    path.touch()


@pytest.mark.parametrize("before", [1, 30])
@pytest.mark.parametrize("hand", [overwrite, truncate, Path.unlink, replace])
@pytest.mark.parametrize("pattern", ["queue.sqlite", "queue.sqlite-wal", "queue.sqlite*[el]"])
def test_an_index_that_is_spoilt_while_running_costs_no_instance(
    memory: Path, hand: Callable[[Path], None], pattern: str, before: int
) -> None:
    folder = memory / "queue"
    kept = {f"1.9.{number}" for number in range(before + 1)}
    with sqlite_queue(folder) as queue:
        keep(queue, "1.9.0", NOW)
    with service(folder) as client, sqlite_queue(folder) as queue:
        for number in range(before):
            keep(queue, f"1.9.{number + 1}", NOW)
        spoilt = list(folder.glob(pattern))
        assert spoilt
        for path in spoilt:
            hand(path)
        kept |= {post(client, f"C{number}") for number in range(3)} - {""}
    for _ in range(2):
        with sqlite_queue(folder) as queue:
            assert names(queue) == kept
    with sqlite_queue(folder) as queue:
        assert drained(queue, NOW * 2) == kept
    assert list((folder / "entries").iterdir()) == []


def test_an_index_that_is_found_damaged_is_set_aside_and_the_new_one_is_used(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "queue"
    with sqlite_queue(folder) as queue:
        for number in range(30):
            keep(queue, f"1.9.{number}", NOW)
    index = folder / "queue.sqlite"
    with index.open("r+b") as file:
        file.seek(2 * 4096)
        file.write(b"\xa5" * 4096)  # the header is sound
    damaged = index.read_bytes()
    with sqlite_queue(folder) as queue:
        keep(queue, "1.9.30", NOW)
        assert names(queue) == {f"1.9.{number}" for number in range(31)}
        with sqlite_queue(folder) as another:
            assert names(another) == names(queue)
    assert (folder / "queue.sqlite.damaged-0").read_bytes() == damaged


def test_files_that_are_gone_are_told_and_what_comes_later_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "queue"
    with service(folder) as client, sqlite_queue(folder) as queue:
        lost = post(client, "A1")
        shutil.rmtree(folder / "entries")
        with pytest.raises((DamagedEntry, QueueUnusable), match=r"entr|RETRY_QUEUE"):
            queue.load(lost)
        later = {post(client, "A2"), post(client, "A3")} - {""}
    with sqlite_queue(folder) as queue:
        with pytest.raises(DamagedEntry, match=r"damaged or gone.*upload the picture again"):
            queue.load(lost)
        queue.drop(lost, NOW)
        assert names(queue) == later
    with service(folder) as client:
        assert post(client, "A1") == lost
    with sqlite_queue(folder) as queue:
        assert names(queue) == later | {lost}


def test_a_queue_whose_disk_is_gone_is_unusable_and_nothing_is_acknowledged(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "queue"
    with service(folder) as client, sqlite_queue(folder) as queue:
        kept = {post(client, "A1"), post(client, "A2")}
        lease = queue.lease(NOW * 2)
        assert lease
        (tmp_path / "queue").rename(tmp_path / "elsewhere")
        assert [post(client, name) for name in ("A3", "A4")] == ["", ""]
        assert client.get("/readyz").status_code == 503
        assert is_refused(lambda: queue.lease(NOW * 2))
        assert is_refused(lambda: queue.renew([lease], NOW * 2))
        assert is_refused(lambda: queue.put_back(lease, NOW, AWAY))
        assert is_refused(lambda: queue.bury(lease, BURIED))
        assert is_refused(lambda: queue.finish(lease.entry.sop_instance_uid))
        assert is_refused(lambda: queue.drop(lease.entry.sop_instance_uid, NOW))
        assert is_refused(lambda: queue.revive(Filter(), NOW))
        (tmp_path / "elsewhere").rename(tmp_path / "queue")
        kept.add(post(client, "A5"))
        assert names(queue) == kept


# A clock that is set anew


@pytest.mark.parametrize("shift", [-DAY, -300.0, 30 * DAY])
@pytest.mark.parametrize("moment", ["put", "leased", "put back"])
def test_a_clock_that_is_set_anew_delays_an_entry_by_no_more_than_the_longest_wait(
    queue: SqliteQueue, shift: float, moment: str
) -> None:
    clock = NOW
    keep(queue, "1.9.1", clock)
    clock += shift * (moment == "put")
    lease = queue.lease(clock + 300)
    assert lease
    clock += shift * (moment == "leased")
    queue.put_back(lease, clock + 600, attempt(at=clock))
    assert queue.lease(clock + 599) is None
    clock += shift * (moment == "put back")
    again = queue.lease(clock + 901)
    assert again
    assert again.entry.attempts == 1
    assert queue.lease(clock + 902) is None
    queue.finish("1.9.1", STORED)
    assert queue.totals().entries == {"pending": 0, "leased": 0, "dead": 0}


@pytest.mark.parametrize("shift", [-DAY, 30 * DAY])
def test_the_order_is_that_of_arrival_whatever_the_clock_says(
    queue: SqliteQueue, shift: float
) -> None:
    keep(queue, "1.9.1", NOW)
    keep(queue, "1.9.2", NOW + shift)
    keep(queue, "1.9.3", NOW)
    listed = [entry.sop_instance_uid for entry in queue.list(Filter(), 10).entries]
    assert listed == ["1.9.1", "1.9.2", "1.9.3"]
    taken = [queue.lease(NOW + max(shift, 0)) for _ in listed]
    assert [lease and lease.entry.sop_instance_uid for lease in taken] == listed


# Death


def test_nothing_is_lost_when_all_that_use_a_queue_are_killed_ten_times(memory: Path) -> None:
    folder, ledger = memory / "queue", memory / "ledger"
    gang = [sys.executable, "-m", "tests.queue_gang", str(folder), str(ledger), "10", "100"]
    subprocess.run(gang, cwd=ROOT, check=True, timeout=5 * BOUND)
    kept, sent = lines(ledger, "kept"), lines(ledger, "sent")
    assert len(kept) >= 1000
    assert sent
    with sqlite_queue(folder) as queue:
        there = names(queue)
        assert kept - sent <= there
        assert {path.name for path in (folder / "entries").iterdir()} == there
        assert list((folder / "incoming").iterdir()) == []
        assert list((folder / "damaged").iterdir()) == []
        assert queue.totals().entries["leased"] == 0
        sizes = sum(path.stat().st_size for path in (folder / "entries").iterdir())
        assert queue.totals().size == sizes
        queue.revive(Filter(), NOW * 2)
        assert drained(queue, NOW * 2) == there
        assert queue.totals().size == 0
