"""A full disk: uploads are refused, and nothing that was acknowledged is lost."""

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, redirect_stdout, suppress
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path

import pytest

from service.retry import Filter, SqliteQueue
from tests.jpegs import make_jpeg
from tests.queue_gang import keep
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
from tests.queues import NOW, sqlite_queue


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
    with service(folder) as client, sqlite_queue(folder) as queue:
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
    with sqlite_queue(folder) as queue:
        assert set(kept) <= names(queue)
        assert set(kept) <= drained(queue, NOW * 2)
    assert list((folder / "entries").iterdir()) == []


def test_a_queue_that_takes_no_more_leaves_its_disk_room_to_be_drained(tmp_path: Path) -> None:
    with ExitStack() as stack:
        disk = mounted(stack, tmp_path)
        if disk is None:
            pytest.skip("to mount a small disk takes root")
        disk.grow()  # to 64 MiB, of which an eighth is to be left
        with (tmp_path / "filler").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(tmp_path).free - (9 << 20))
        with sqlite_queue(tmp_path / "queue") as queue:
            kept: list[str] = []
            while not is_refused(partial(keep, queue, f"1.9.{len(kept)}", NOW)):
                kept.append(f"1.9.{len(kept)}")
            assert shutil.disk_usage(tmp_path).free > 7 << 20
            assert len(kept) > 5
            assert drained(queue, NOW * 2) == set(kept)


@pytest.mark.parametrize("restarted", [False, True])
def test_what_cannot_be_changed_on_a_full_disk_stays_as_it_is(
    small_disk: SmallDisk, *, restarted: bool
) -> None:
    folder = small_disk.folder / "queue"
    with sqlite_queue(folder) as queue, sqlite_queue(folder) as another:
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
            is_refused(lambda: queue.bury(leases[2], BURIED)),
        ]
        small_disk.grow()
        if not restarted:
            assert_unchanged(queue, set(kept), refused)
    with sqlite_queue(folder) as queue:
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
