"""What a hostile machine does to the retry queue: nothing that was acknowledged is lost."""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest
from flask.testing import FlaskClient

from service import assemble
from service.dicom.outcome import Rejected, Stored, Unavailable
from service.errors import DamagedEntry, QueueFull, QueueUnusable
from service.ingest import Attempt
from service.retry import Drain, Filter, Pace, SqliteQueue, UnaskedStore
from service.store import DicomwebStore
from service.web import create_app
from tests.jpegs import make_jpeg
from tests.peers import refused_port
from tests.queue_gang import IMAGE, LIMITS, keep, lines
from tests.serving import form, only, settings_for, upload

ROOT: Final = Path(__file__).parents[1]
NOW: Final = 1_700_000_000.0
DAY: Final = 86_400.0
NOBODY: Final = 65_534

STORED: Final = Attempt(NOW, Stored("/instance", duplicate=False), "json")
AWAY: Final = Attempt(NOW, Unavailable("503"), "json")
REFUSED: Final = Attempt(NOW, Rejected("409"), "json")


@pytest.fixture
def memory() -> Iterator[Path]:
    """Yield a folder in memory if there is such: a kill needs no disk to be survived."""
    with TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[SqliteQueue]:
    with opened(tmp_path / "queue") as one:
        yield one


@contextmanager
def opened(folder: Path) -> Iterator[SqliteQueue]:
    queue = SqliteQueue(folder, LIMITS)
    try:
        yield queue
    finally:
        queue.close()


@contextmanager
def service(folder: Path) -> Iterator[FlaskClient]:
    """Yield a client of the real application with its queue in a folder, and no store there."""
    with refused_port() as port:
        settings = settings_for(f"http://127.0.0.1:{port}", RETRY_QUEUE=str(folder))
        queue = assemble.retry_queue(settings)
        try:
            app = create_app(assemble.rules(settings), DicomwebStore(settings), queue, settings)
            yield app.test_client()
        finally:
            queue.close()


def post(client: FlaskClient, name: str, image: bytes = IMAGE) -> str:
    """Upload a picture as an instance of its own; return its UID, or "" if the queue can't be used.

    Any other answer than these two fails.
    """
    asynchronous = {"Prefer": "respond-async"}
    response = upload(client, **form(image, AccessionNumber=name), headers=asynchronous)
    if response.status_code == 202:
        return str(only(response)["SOPInstanceUID"])
    problem = response.get_json()
    assert (response.status_code, response.mimetype) == (503, "application/problem+json")
    assert int(response.headers["Retry-After"]) > 0
    assert problem["type"] in {"urn:jpegstow:queue-unusable", "urn:jpegstow:queue-full"}
    assert (problem["where"], bool(problem["mend"])) == ("RETRY_QUEUE", True)
    assert "queue" not in problem
    return ""


def names(queue: SqliteQueue) -> set[str]:
    """Return the UIDs of all entries, each of which is whole."""
    found = {entry.sop_instance_uid for entry in queue.list(Filter(), 100_000).entries}
    for name in found:
        assert queue.load(name).described.instance.sop_instance_uid == name
    return found


def drained(queue: SqliteQueue, now: float) -> set[str]:
    """Take and finish every entry; return their UIDs."""
    taken = set()
    while lease := queue.lease(now):
        queue.load(lease.entry.sop_instance_uid)
        queue.finish(lease.entry.sop_instance_uid, STORED)
        taken.add(lease.entry.sop_instance_uid)
    return taken


def is_refused(change: Callable[[], object]) -> bool:
    """Tell whether a change is refused as it should be where the queue can't be written."""
    try:
        change()
    except (QueueFull, QueueUnusable) as error:
        return error.where == "RETRY_QUEUE" and error.mend != ""
    return False


# A full disk


@dataclass(frozen=True)
class SmallDisk:
    """A disk that gets full soon, until it grows."""

    folder: Path
    fill: Callable[[], None]
    grow: Callable[[], None]


@pytest.fixture(params=["disk", "log"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmallDisk]:
    """Yield a small disk; without the right to mount one, one whose files can't grow."""
    with ExitStack() as stack:
        if request.param == "disk" and (tmpfs := mounted(stack, tmp_path)):
            yield tmpfs
        else:
            yield limited(stack, tmp_path)


def mounted(stack: ExitStack, folder: Path) -> SmallDisk | None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, check=False).returncode:
        return None
    stack.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=True)
    grow = ["mount", "-o", "remount,size=64m", str(folder)]
    return SmallDisk(
        folder, lambda: write_all(folder / "filler"), lambda: void(subprocess.run(grow, check=True))
    )


def limited(stack: ExitStack, folder: Path) -> SmallDisk:
    """Bound the size of any file, which the log of the index is the first to reach."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

    stack.callback(limit, soft)
    stack.enter_context(redirect_stdout(StringIO()))  # pytest's own is a file
    limit(400_000)
    return SmallDisk(folder, lambda: limit(40_000), lambda: limit(soft))


def void(_: object) -> None: ...


def write_all(path: Path) -> None:
    """Take all space that is left."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.mark.parametrize("size", [(32, 24), (320, 240)], ids=["small", "large"])
def test_uploads_to_a_full_disk_are_refused_and_none_that_was_taken_is_lost(
    small_disk: SmallDisk, size: tuple[int, int]
) -> None:
    image = make_jpeg(*size)
    folder = small_disk.folder / "queue"
    with service(folder) as client, opened(folder) as queue:
        kept = [post(client, "A", image)]
        assert names(queue) == set(kept)
        while uid := post(client, f"A{len(kept)}", image):
            kept.append(uid)
        small_disk.fill()
        assert [post(client, f"B{number}", image) for number in range(3)] == [""] * 3
        assert client.get("/readyz").status_code == 503
        assert set(kept) <= names(queue)
        small_disk.grow()
        assert client.get("/readyz").status_code == 200
        assert post(client, "A", image) == kept[0]
        kept.append(post(client, "C", image))
    assert len(set(kept)) > 5
    with opened(folder) as queue:
        assert set(kept) <= names(queue)
        assert set(kept) <= drained(queue, NOW * 2)
    assert list((folder / "entries").iterdir()) == []


@pytest.mark.parametrize("restarted", [False, True])
def test_what_cannot_be_changed_on_a_full_disk_stays_as_it_is(
    small_disk: SmallDisk, *, restarted: bool
) -> None:
    folder = small_disk.folder / "queue"
    with opened(folder) as queue, opened(folder) as another:
        kept = ["1.9.0", "1.9.1", "1.9.2"]
        for uid in kept:
            keep(queue, uid, NOW)
        leases = [lease for _ in kept if (lease := queue.lease(NOW))]
        assert names(another) == set(kept)
        while not is_refused(partial(keep, queue, f"1.9.{len(kept)}", NOW)):
            kept.append(f"1.9.{len(kept)}")
        small_disk.fill()
        refused = [
            is_refused(lambda: queue.finish("1.9.0", STORED)),
            is_refused(lambda: queue.put_back(leases[1], NOW + 600, AWAY)),
            is_refused(lambda: queue.bury(leases[2], REFUSED)),
        ]
        small_disk.grow()
        if not restarted:
            assert_unchanged(queue, set(kept), refused)
    with opened(folder) as queue:
        if restarted:
            assert_unchanged(queue, set(kept), refused)
        assert names(queue) == set()


def assert_unchanged(queue: SqliteQueue, kept: set[str], refused: list[bool]) -> None:
    """Check what of the first three was finished, put back, buried: what was refused was not."""
    assert any(refused)
    there = names(queue)
    assert kept - there == (set() if refused[0] else {"1.9.0"})
    assert (queue.show("1.9.1").attempts == 0) == refused[1]
    assert (queue.show("1.9.2").state != "dead") == refused[2]
    queue.revive(Filter(), NOW + DAY)
    assert drained(queue, NOW + DAY) == there


def test_a_standard_output_on_a_full_disk_costs_neither_an_answer_nor_an_attempt(
    tmp_path: Path,
) -> None:
    kept = []
    with (
        service(tmp_path / "queue") as client,
        opened(tmp_path / "queue") as queue,
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


@contextmanager
def of_a_user() -> Iterator[Path]:
    """Yield a folder whose owner this process is; not as root, whom no missing right hinders."""
    with TemporaryDirectory() as folder:
        is_root = os.geteuid() == 0
        if is_root:
            os.chown(folder, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        try:
            yield Path(folder)
        finally:
            if is_root:
                os.seteuid(0)


def protect(folder: Path, *, mode: int) -> None:
    """Set what its owner may do with a folder and all in it."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(mode | 0o100 if path.is_dir() else mode)


def test_a_folder_that_cannot_be_written_is_refused_at_the_start() -> None:
    with of_a_user() as folder:
        with opened(folder / "queue") as queue:
            keep(queue, "1.9.1", NOW)
        protect(folder, mode=0o400)
        for name in ("queue", "another"):
            with pytest.raises(QueueUnusable, match=r"opened.*RETRY_QUEUE.*writable"):
                SqliteQueue(folder / name, LIMITS)
        protect(folder, mode=0o600)
        with opened(folder / "queue") as queue:
            assert names(queue) == {"1.9.1"}


def test_nothing_is_acknowledged_once_the_folder_cannot_be_written() -> None:
    with of_a_user() as folder:
        with service(folder / "queue") as client, opened(folder / "queue") as queue:
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
        with opened(folder / "queue") as queue:
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
    with opened(folder) as queue:
        keep(queue, "1.9.0", NOW)
    with service(folder) as client, opened(folder) as queue:
        for number in range(before):
            keep(queue, f"1.9.{number + 1}", NOW)
        spoilt = list(folder.glob(pattern))
        assert spoilt
        for path in spoilt:
            hand(path)
        kept |= {post(client, f"C{number}") for number in range(3)} - {""}
    for _ in range(2):
        with opened(folder) as queue:
            assert names(queue) == kept
    with opened(folder) as queue:
        assert drained(queue, NOW * 2) == kept
    assert list((folder / "entries").iterdir()) == []


def test_an_index_that_is_found_damaged_is_set_aside_and_the_new_one_is_used(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "queue"
    with opened(folder) as queue:
        for number in range(30):
            keep(queue, f"1.9.{number}", NOW)
    index = folder / "queue.sqlite"
    with index.open("r+b") as file:
        file.seek(2 * 4096)
        file.write(b"\xa5" * 4096)  # the header is sound
    damaged = index.read_bytes()
    with opened(folder) as queue:
        keep(queue, "1.9.30", NOW)
        assert names(queue) == {f"1.9.{number}" for number in range(31)}
        with opened(folder) as another:
            assert names(another) == names(queue)
    assert (folder / "queue.sqlite.damaged-0").read_bytes() == damaged


def test_files_that_are_gone_are_told_and_what_comes_later_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "queue"
    with service(folder) as client, opened(folder) as queue:
        lost = post(client, "A1")
        shutil.rmtree(folder / "entries")
        with pytest.raises((DamagedEntry, QueueUnusable), match=r"entr|RETRY_QUEUE"):
            queue.load(lost)
        later = {post(client, "A2"), post(client, "A3")} - {""}
    with opened(folder) as queue:
        with pytest.raises(DamagedEntry, match=r"damaged or gone.*upload the picture again"):
            queue.load(lost)
        queue.drop(lost, NOW)
        assert names(queue) == later
    with service(folder) as client:
        assert post(client, "A1") == lost
    with opened(folder) as queue:
        assert names(queue) == later | {lost}


def test_a_queue_whose_disk_is_gone_is_unusable_and_nothing_is_acknowledged(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "queue"
    with service(folder) as client, opened(folder) as queue:
        kept = {post(client, "A1"), post(client, "A2")}
        lease = queue.lease(NOW * 2)
        assert lease
        (tmp_path / "queue").rename(tmp_path / "elsewhere")
        assert [post(client, name) for name in ("A3", "A4")] == ["", ""]
        assert client.get("/readyz").status_code == 503
        assert is_refused(lambda: queue.lease(NOW * 2))
        assert is_refused(lambda: queue.renew([lease], NOW * 2))
        assert is_refused(lambda: queue.put_back(lease, NOW, AWAY))
        assert is_refused(lambda: queue.bury(lease, REFUSED))
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
    queue.put_back(lease, clock + 600, Attempt(clock, Unavailable("503"), "json"))
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
    subprocess.run(gang, cwd=ROOT, check=True, timeout=120)
    kept, sent = lines(ledger, "kept"), lines(ledger, "sent")
    assert len(kept) >= 1000
    assert sent
    with opened(folder) as queue:
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
