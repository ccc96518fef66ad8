"""What a crash, a full disk or a careless hand has left in a queue's folder."""

import hashlib
import json
import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from service.errors import DamagedEntry, NoSuchEntry, QueueUnusable
from service.retry import Limits
from tests.queues import (
    NOW,
    REFUSED,
    ROOMY,
    attempt,
    bodies,
    everything,
    leased,
    numbered,
    put,
    sqlite_queue,
    uid_of,
    uids,
)

COUNT = 5
NAMES = [uid_of(numbered(n)) for n in range(COUNT)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Fill a queue, and close it."""
    with sqlite_queue(tmp_path / "queue") as queue:
        for n in range(COUNT):
            put(queue, numbered(n), attempt(), NOW + n)
    for n, name in enumerate(NAMES):
        os.utime(tmp_path / "queue" / "entries" / name, (NOW + n, NOW + n))
    return tmp_path / "queue"


def execute(folder: Path, statement: str) -> None:
    """Change the index behind the queue's back."""
    index = sqlite3.connect(folder / "queue.sqlite")
    index.execute(statement)
    index.commit()
    index.close()


def check_whole(folder: Path, names: list[str]) -> None:
    """Hold a queue that is opened anew to the instances that it must have, in this order."""
    with sqlite_queue(folder) as queue:
        assert uids(queue) == names
        for name in names:
            expected = numbered(NAMES.index(name)).described.instance
            assert bodies(queue.load(name).instance) == bodies(expected)
        totals = queue.totals()
        assert totals.size == sum(entry.size for entry in everything(queue))
        assert sum(totals.entries.values()) == len(names)
        assert [leased(queue, NOW + 99).entry.sop_instance_uid for _ in names] == names


def test_a_queue_that_was_closed_is_as_it_was(folder: Path) -> None:
    check_whole(folder, NAMES)
    assert list((folder / "damaged").iterdir()) == []


def test_nobody_else_can_read_what_is_kept(folder: Path) -> None:
    with sqlite_queue(folder) as queue:
        put(queue, numbered(9))
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert {path.name for path in files} >= {"queue.sqlite", "queue.sqlite-wal", NAMES[0]}
        private = [path for path in files if path.suffix != ".lock"]
        assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
        folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
        assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}


def test_what_was_not_whole_is_removed_by_whoever_opens_alone(folder: Path) -> None:
    leftover = folder / "incoming" / "tmpxyz"
    with sqlite_queue(folder):
        leftover.write_bytes(b"half")
        with sqlite_queue(folder):
            assert leftover.exists()  # it may be about to become whole
    check_whole(folder, NAMES)
    assert not leftover.exists()


def test_a_file_without_a_row_is_taken_in_by_whoever_opens_alone(folder: Path) -> None:
    execute(folder, f"DELETE FROM entry WHERE sop_instance_uid = '{NAMES[1]}'")
    with sqlite_queue(folder) as queue:
        assert uids(queue) == [NAMES[0], *NAMES[2:], NAMES[1]]
        taken_in = queue.show(NAMES[1])
        assert (taken_in.state, taken_in.first_seen, taken_in.attempts) == ("pending", NOW + 1, 0)
        other = queue.show(NAMES[2])
        assert (taken_in.study_instance_uid, taken_in.template, taken_in.source) == (
            other.study_instance_uid,
            other.template,
            other.source,
        )


def test_a_file_without_a_row_is_left_to_whoever_is_about_to_write_one(folder: Path) -> None:
    with sqlite_queue(folder) as queue:
        execute(folder, f"DELETE FROM entry WHERE sop_instance_uid = '{NAMES[1]}'")
        with sqlite_queue(folder) as second:
            assert len(uids(second)) == len(uids(queue)) == COUNT - 1
        assert (folder / "entries" / NAMES[1]).exists()


@pytest.mark.parametrize("name", ["1.2.3", "README", "2.25.1 (copy)"])
def test_a_file_that_is_no_entry_is_put_aside(
    folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "entries" / name).write_bytes(b"what is this")
    check_whole(folder, NAMES)
    assert (folder / "damaged" / name).read_bytes() == b"what is this"
    assert '"severity": "ERROR"' in capsys.readouterr().out


def test_a_file_under_another_name_is_put_aside(folder: Path) -> None:
    (folder / "entries" / "1.2.3").write_bytes((folder / "entries" / NAMES[0]).read_bytes())
    check_whole(folder, NAMES)
    assert (folder / "damaged" / "1.2.3").exists()


def flipped(data: bytes) -> bytes:
    return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


DAMAGES: list[Callable[[bytes], bytes]] = [flipped, lambda data: data[:-1], lambda _: b""]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_never_sent(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    path = folder / "entries" / NAMES[0]
    path.write_bytes(damage(path.read_bytes()))
    with sqlite_queue(folder) as queue:
        with pytest.raises(DamagedEntry, match=f"entries/{NAMES[0]}"):
            queue.load(NAMES[0])
        assert uids(queue) == NAMES


def test_a_file_of_another_entry_is_never_shown_nor_sent_and_is_mended(folder: Path) -> None:
    entries = folder / "entries"
    (entries / NAMES[0]).write_bytes((entries / NAMES[1]).read_bytes())
    with sqlite_queue(folder) as queue:
        with pytest.raises(DamagedEntry, match=f"entries/{NAMES[0]}"):
            queue.load(NAMES[0])
        put(queue, numbered(0), attempt(), NOW + 99)
        assert queue.load(NAMES[0]).instance.sop_instance_uid == NAMES[0]


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_upload_of_the_same_mends_a_damaged_file(
    folder: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = folder / "entries" / NAMES[0]
    path.write_bytes(damage(path.read_bytes()))
    with sqlite_queue(folder) as queue:
        put(queue, numbered(0), attempt(), NOW + 99)
        assert queue.load(NAMES[0])


def test_a_row_without_a_file_is_a_damaged_entry(folder: Path) -> None:
    (folder / "entries" / NAMES[0]).unlink()
    with sqlite_queue(folder) as queue:
        with pytest.raises(DamagedEntry):
            queue.load(NAMES[0])
        put(queue, numbered(0), attempt(), NOW + 99)
        assert queue.load(NAMES[0])
        (folder / "entries" / NAMES[0]).unlink()
        queue.drop(NAMES[0], NOW)
    check_whole(folder, NAMES[1:])


def test_a_trouble_of_the_index_costs_no_file_that_was_kept(folder: Path) -> None:
    with sqlite_queue(folder) as queue:
        execute(folder, "ALTER TABLE entry RENAME TO elsewhere")
        with pytest.raises(QueueUnusable):
            put(queue, numbered(0), attempt(), NOW + 99)
        execute(folder, "ALTER TABLE elsewhere RENAME TO entry")
        assert queue.load(NAMES[0])


def garbage(index: Path) -> None:
    index.write_bytes(Random(0).randbytes(20_000))


def half(index: Path) -> None:
    index.write_bytes(index.read_bytes()[: index.stat().st_size // 2])


def empty(index: Path) -> None:
    index.write_bytes(b"")


def deleted(index: Path) -> None:
    index.unlink()


def torn_page(index: Path) -> None:
    """Overwrite each page but the first, as a disk does that has lost them."""
    data = index.read_bytes()
    index.write_bytes(data[:4096] + bytes(len(data) - 4096))


def torn_row(index: Path) -> None:
    """Overwrite a row's cells and no more: the file looks sound until all of it is read."""
    data = bytearray(index.read_bytes())
    place = data.rfind(b"vl-photographic-image")
    page = place // 4096 * 4096
    data[page + 8 : page + 48] = b"\xff" * 40
    index.write_bytes(data)


@pytest.mark.parametrize("ruin", [garbage, half, empty, deleted, torn_page, torn_row])
def test_a_ruined_index_is_made_anew_from_the_files(
    folder: Path, ruin: Callable[[Path], None]
) -> None:
    ruin(folder / "queue.sqlite")
    check_whole(folder, NAMES)
    check_whole(folder, NAMES)
    aside = list(folder.glob("queue.sqlite.damaged-*"))
    assert len(aside) == (ruin not in {empty, deleted})


def test_a_second_ruin_is_kept_beside_the_first(folder: Path) -> None:
    for _ in range(2):
        garbage(folder / "queue.sqlite")
        check_whole(folder, NAMES)
    assert {path.name for path in folder.glob("queue.sqlite.*")} == {
        "queue.sqlite.damaged-0",
        "queue.sqlite.damaged-1",
    }


@pytest.mark.parametrize("seed", range(6))
def test_a_cut_index_loses_no_instance(folder: Path, seed: int) -> None:
    index = folder / "queue.sqlite"
    data = index.read_bytes()
    index.write_bytes(data[: Random(seed).randrange(1, len(data))])
    check_whole(folder, NAMES)


def test_a_damaged_index_is_not_touched_while_others_use_it(folder: Path) -> None:
    with sqlite_queue(folder):
        garbage(folder / "queue.sqlite")
        before = (folder / "queue.sqlite").read_bytes()
        with pytest.raises(QueueUnusable), sqlite_queue(folder):
            pass
        assert (folder / "queue.sqlite").read_bytes() == before


def test_an_index_of_another_version_is_left_as_it_is(folder: Path) -> None:
    execute(folder, "PRAGMA user_version = 2")
    before = hashlib.sha256((folder / "queue.sqlite").read_bytes()).digest()
    with pytest.raises(QueueUnusable, match="version 2"), sqlite_queue(folder):
        pass
    assert hashlib.sha256((folder / "queue.sqlite").read_bytes()).digest() == before
    assert {path.name for path in (folder / "entries").iterdir()} == set(NAMES)


def test_what_was_being_dropped_never_comes_back(folder: Path) -> None:
    execute(
        folder,
        "UPDATE entry SET state = 'dropped', due = NULL, token = NULL"
        f" WHERE sop_instance_uid IN ('{NAMES[0]}', '{NAMES[3]}')",
    )
    (folder / "entries" / NAMES[3]).unlink()
    with sqlite_queue(folder) as queue, pytest.raises(NoSuchEntry):
        queue.show(NAMES[0])
    assert not (folder / "entries" / NAMES[0]).exists()
    check_whole(folder, [NAMES[1], NAMES[2], NAMES[4]])


def test_what_is_marked_as_dropped_is_gone_for_every_reader(folder: Path) -> None:
    with sqlite_queue(folder) as queue:
        execute(
            folder,
            f"UPDATE entry SET state = 'dropped', due = NULL WHERE sop_instance_uid = '{NAMES[0]}'",
        )
        assert uids(queue) == NAMES[1:]
        assert sum(queue.totals().entries.values()) == COUNT - 1
        assert leased(queue, NOW + 99).entry.sop_instance_uid == NAMES[1]
        put(queue, numbered(0), None, NOW + 50)
        assert queue.load(NAMES[0])


def test_what_was_finished_or_dropped_leaves_nothing(folder: Path) -> None:
    with sqlite_queue(folder) as queue:
        queue.finish(NAMES[0])
        queue.drop(NAMES[1], NOW)
        assert {path.name for path in (folder / "entries").iterdir()} == set(NAMES[2:])
    check_whole(folder, NAMES[2:])


def test_what_nobody_holds_any_more_is_free_at_once(folder: Path) -> None:
    with sqlite_queue(folder) as queue:
        for _ in range(3):
            leased(queue, NOW + 9)
        with sqlite_queue(folder) as second:
            assert second.totals().entries["leased"] == 3
    with sqlite_queue(folder) as queue:
        assert queue.totals().entries["leased"] == 0
        assert [entry.attempts for entry in everything(queue)] == [1] * COUNT
    check_whole(folder, NAMES)


def test_the_dead_are_dead_after_a_restart(folder: Path) -> None:
    with sqlite_queue(folder) as queue:
        put(queue, numbered(0), attempt(REFUSED))
    with sqlite_queue(folder) as queue:
        assert queue.show(NAMES[0]).state == "dead"
        assert leased(queue, NOW + 99).entry.sop_instance_uid == NAMES[1]


def test_a_queue_tells_why_it_takes_nothing(folder: Path, tmp_path: Path) -> None:
    with sqlite_queue(folder, ROOMY) as queue:
        assert queue.unusable() == ""
    with sqlite_queue(folder, Limits(COUNT, 1 << 30)) as queue:
        assert queue.unusable().startswith("it is full: 5 entries of ")
        (folder / "incoming").rmdir()
        assert "RETRY_QUEUE" in queue.unusable()
        with pytest.raises(QueueUnusable, match="can't be written"):
            put(queue, numbered(0))
    (tmp_path / "file").touch()
    with pytest.raises(QueueUnusable, match="can't be opened"), sqlite_queue(tmp_path / "file"):
        pass


def test_no_name_of_a_file_and_no_row_says_whom_a_picture_is_of(folder: Path) -> None:
    with sqlite_queue(folder) as queue:
        assert "Yamada" not in json.dumps([repr(entry) for entry in everything(queue)])
    assert b"Yamada" not in (folder / "queue.sqlite").read_bytes()
    assert "Yamada" not in " ".join(map(str, folder.rglob("*")))
