"""The commands for the retry queue: what an operator sees of it."""

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from service.cli import queue as commands
from service.dicom.outcome import Rejected
from service.retry import Filter, Page
from service.retry import entry as entries
from tests.describing import PHOTOGRAPH
from tests.queue_bench import AWAY, REFUSED, SAID, Bench, benched, whole
from tests.queues import ENTRY_KEYS, NOW, numbered

HOSTILE = "\x1b[2J\x1b]0;title\x07red\r\nnext\x9b31m line\u2028\u202eesrever"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with benched(tmp_path) as opened:
        yield opened


def multiply(bench: Bench, count: int) -> None:
    """Make of the only entry so many."""
    names = "sop_instance_uid, series_instance_uid, study_instance_uid, sop_class_uid,"
    names += "transfer_syntax, template, source, wire, size, state, first_seen, since, due,"
    names += "attempts, reason, history"
    copied = names.replace("sop_instance_uid,", "sop_instance_uid || '.' || value,", 1)
    with closing(sqlite3.connect(bench.folder / "queue.sqlite")) as connection, connection:
        connection.execute(
            f"INSERT INTO entry ({names}) WITH RECURSIVE number (value) AS (SELECT 1 UNION ALL"
            f" SELECT value + 1 FROM number LIMIT {count - 1}) SELECT {copied} FROM entry, number"
        )


def test_the_table_has_a_row_for_each_entry_and_sums_up(bench: Bench) -> None:
    dead, waiting = bench.put_name(), bench.put_name(AWAY, seed=1)
    ended = bench.run("list", COLUMNS="5000")
    assert (ended.exit_code, ended.stderr) == (0, "")
    head, *rows, totals = ended.stdout.splitlines()
    assert head.split() == ["id", "state", "age", "tried", "next", "bytes", "reason"]
    cells = [row.split(maxsplit=7) for row in rows]
    assert [[*cell[:2], *cell[3:5], cell[6]] for cell in cells] == [
        [dead, "dead", "1", "-", "kB"],
        [waiting, "pending", "1", "now", "kB"],
    ]
    assert [cell[7] for cell in cells] == [REFUSED.reason, AWAY.reason]
    assert all(re.fullmatch(r"\ds", cell[2]) for cell in cells)
    assert len({row.index(cell[7]) for row, cell in zip(rows, cells, strict=True)}) == 1
    assert re.fullmatch(rf"1 pending, 0 leased, 1 dead; \d+\.\d kB in {bench.folder}", totals)


def test_no_row_tells_whom_a_picture_is_of(bench: Bench) -> None:
    bench.put()
    printed = bench.run("list").stdout + bench.run("list", "--json").stdout
    assert len(printed) > 500
    assert [value for value in SAID.values() if value in printed] == []


def test_json_is_one_array_of_what_the_http_interface_shows(bench: Bench) -> None:
    instance = bench.put().instance
    bench.put(AWAY, seed=1)
    dead, waiting = bench.listed()
    assert list(dead) == list(waiting) == ENTRY_KEYS
    assert (dead["id"], dead["state"]) == (instance.sop_instance_uid, "dead")
    assert dead["SOPInstanceUID"] == instance.sop_instance_uid
    assert dead["SeriesInstanceUID"] == instance.series_instance_uid
    assert dead["StudyInstanceUID"] == instance.study_instance_uid
    assert dead["SOPClassUID"] == instance.sop_class_uid
    assert dead["TransferSyntaxUID"] == instance.transfer_syntax
    assert (dead["template"], dead["source"], dead["wire"]) == (PHOTOGRAPH, "file", "json")
    kept = bench.folder / "entries" / instance.sop_instance_uid
    assert (dead["bytes"], dead["attempts"]) == (kept.stat().st_size, 1)
    assert (dead["next_attempt"], dead["reason"]) == (None, REFUSED.reason)
    moments = dead["first_seen"], waiting["first_seen"], waiting["next_attempt"]
    for moment in moments:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", moment)
    assert waiting["state"] == "pending"


def test_a_queue_without_entries_is_an_empty_array_and_a_line(bench: Bench) -> None:
    assert bench.listed() == []
    assert bench.run("list").stdout.splitlines()[1:] == [
        f"0 pending, 0 leased, 0 dead; 0 B in {bench.folder}"
    ]


def test_all_entries_are_listed_however_many_there_are(bench: Bench) -> None:
    bench.put()
    multiply(bench, 1001)
    names = bench.ids()
    assert (len(names), len(set(names))) == (1001, 1001)
    assert len(bench.run("list").stdout.splitlines()) == 1003
    assert bench.ids("--limit", "750") == names[:750]
    assert bench.ids("--limit", "1") == names[:1]


def test_entries_are_chosen_by_state_reason_and_study(bench: Bench) -> None:
    dead, waiting = bench.put().instance, bench.put(AWAY, seed=1, StudyID="S-1615").instance
    names = dead.sop_instance_uid, waiting.sop_instance_uid
    assert dead.study_instance_uid != waiting.study_instance_uid
    for chosen in (
        ["--state", "dead"],
        ["--reason", "sop CLASS"],
        ["--study", dead.study_instance_uid],
    ):
        assert bench.ids(*chosen) == [names[0]]
    assert bench.ids("--state", "pending") == [names[1]]
    assert bench.ids("--state", "leased") == []
    assert bench.ids("--state", "pending", "--reason", "sop class") == []


def test_a_stores_words_do_nothing_to_the_terminal(bench: Bench) -> None:
    name = bench.put_name(Rejected(HOSTILE))
    table, whole = bench.run("list").stdout, bench.run("show", name).stdout
    for printed in (table, whole):
        assert all(line.isprintable() for line in printed.split("\n"))
    assert len(table.splitlines()) == 3
    assert "[2J" in table  # what it said can still be read
    printed = bench.run("list", "--json").stdout
    assert json.loads(printed)[0]["reason"] == HOSTILE
    assert printed.isascii()
    assert all(line.isprintable() for line in printed.split("\n"))


@pytest.mark.parametrize("columns", [120, 160])
def test_a_row_ends_where_the_terminal_ends(columns: int, bench: Bench) -> None:
    bench.put(Rejected("the store said very much " * 50))
    _, row, _ = bench.run("list", COLUMNS=str(columns)).stdout.splitlines()
    assert len(row) == columns
    assert row.endswith("\N{HORIZONTAL ELLIPSIS}")
    _, row, _ = bench.run("list", COLUMNS="5000").stdout.splitlines()
    assert row.endswith("very much")


def test_an_entry_is_shown_with_its_attempts_and_its_attributes(bench: Bench) -> None:
    instance = bench.put(AnatomicRegionSequence="forearm").instance
    ended = bench.run("show", instance.sop_instance_uid)
    assert (ended.exit_code, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert lines[:2] == [f"id: {instance.sop_instance_uid}", "state: dead"]
    parts = ["history:", "normalised:", "attributes of the upload:", "attributes of the instance:"]
    starts = [lines.index(part) for part in parts]
    history, normalised, said, attributes = (
        lines[start + 1 : end] for start, end in zip(starts, [*starts[1:], None], strict=True)
    )
    assert re.fullmatch(rf"  \S+Z  rejected 409 json  {REFUSED.reason}", history[0])
    assert len(history) == 1
    assert normalised
    told = {f"  {keyword}: {value}" for keyword, value in SAID.items()}
    assert {line for line in said if "[1]" not in line} == told
    assert f"  SOPInstanceUID: {instance.sop_instance_uid}" in attributes
    assert f"  Rows: {instance.dataset.Rows}" in attributes
    code = instance.dataset.AnatomicRegionSequence[0].CodeMeaning
    assert f"  AnatomicRegionSequence[1].CodeMeaning: {code}" in attributes
    assert "PixelData" not in ended.stdout


def test_an_entry_is_shown_as_json(bench: Bench) -> None:
    described = bench.put()
    name = described.instance.sop_instance_uid
    ended = bench.run("show", name, "--json")
    shown = json.loads(ended.stdout)
    assert list(shown) == [*ENTRY_KEYS, "history", "key", "normalised", "attributes", "instance"]
    assert {key: shown[key] for key in ENTRY_KEYS} == bench.listed()[0]
    (past,) = shown["history"]
    assert list(past) == ["at", "outcome", "status", "reason", "wire"]
    assert (past["outcome"], past["status"], past["reason"]) == ("rejected", 409, REFUSED.reason)
    assert shown["normalised"] == list(described.changes)
    assert shown["attributes"]["00100020"] == {"vr": "LO", "Value": ["Rocinante-7"]}
    assert shown["instance"]["00080018"]["Value"] == [name]
    assert "7FE00010" not in shown["instance"]


MISUSES = {
    "nothing to retry": ["retry"],
    "nothing to describe anew": ["retry", "--set", "PatientID=P-8"],
    "nothing to drop": ["drop", "--yes"],
    "nothing to export": ["export", "-o", "{}/out"],
    "nowhere to export to": ["export", "2.25.1"],
    "both an ID and a filter": ["drop", "2.25.1", "--state", "dead", "--yes"],
    "both an ID and all": ["retry", "2.25.1", "--all"],
    "a filter that is empty": ["drop", "--state", "dead", "--study", "", "--yes"],
    "a list by an empty filter": ["list", "--reason", ""],
    "a state that isn't one": ["list", "--state", "lost"],
    "an unknown entry": ["show", "2.25.1"],
    "a path for an entry": ["show", "../queue.sqlite"],
    "an attribute that isn't one": ["retry", "--all", "--set", "PatientNumber=P-8"],
    "a pair without a sign": ["retry", "--all", "--set", "PatientID"],
    "a template that isn't there": ["retry", "--all", "--template", "absent"],
    "a pending entry described anew": ["retry", "--state", "pending", "--set", "PatientID=P-8"],
    "an unknown command": ["sing"],
}


@pytest.mark.parametrize("arguments", MISUSES.values(), ids=MISUSES)
def test_a_misuse_ends_with_2_and_changes_nothing(
    arguments: list[str], bench: Bench, tmp_path: Path
) -> None:
    bench.put()
    bench.put(AWAY, seed=1)
    before = whole(bench)
    ended = bench.run(*(text.format(tmp_path) for text in arguments))
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert isinstance(ended.exception, SystemExit)
    assert ended.stderr.splitlines()[-1]
    assert "P-8" not in ended.stderr
    assert whole(bench) == before


def test_a_queue_that_cant_be_opened_is_told_in_a_line(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    (folder / "entries").mkdir(parents=True)
    (folder / "queue.sqlite").mkdir()
    ended = bench.run("list", RETRY_QUEUE=str(folder))
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.startswith("jpegstow: the retry queue can't be opened")
    assert len(ended.stderr.splitlines()) == 1


def test_what_is_mended_at_the_opening_is_no_part_of_the_answer(bench: Bench) -> None:
    name = bench.put_name()
    bench.queue.close()
    (bench.folder / "queue.sqlite").unlink()
    ended = bench.run("list", "--json")
    assert [entry["id"] for entry in json.loads(ended.stdout)] == [name]
    assert "took in files without an entry" in ended.stderr


ABSENT = {
    "list": ["list"],
    "list as JSON": ["list", "--json"],
    "show": ["show", "2.25.1"],
    "retry": ["retry", "--all"],
    "drop": ["drop", "--state", "dead", "--yes"],
    "export": ["export", "--all", "-o", "{}/out"],
}


@pytest.mark.parametrize("arguments", ABSENT.values(), ids=ABSENT)
@pytest.mark.parametrize("setting", ["DATA_DIR", "RETRY_QUEUE"])
def test_where_no_queue_is_none_is_made(
    arguments: list[str], setting: str, bench: Bench, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    before = sorted(tmp_path.rglob("*"))
    given = {"RETRY_QUEUE": "", "DATA_DIR": ""} | {setting: str(elsewhere)}
    ended = bench.run(*(text.format(tmp_path) for text in arguments), **given)
    assert (ended.exit_code, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    folder = elsewhere / "queue" if setting == "DATA_DIR" else elsewhere
    assert line.startswith(f"jpegstow: RETRY_QUEUE: there is no retry queue in {folder};")
    assert "DATA_DIR" in line
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("damage", ["gone", "damaged"])
def test_of_a_damaged_entry_is_shown_what_is_left(damage: str, bench: Bench) -> None:
    name = bench.put_name()
    file = bench.folder / "entries" / name
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1])
    ended = bench.run("show", name, "--json")
    assert (ended.exit_code, ended.stderr) == (0, "")
    told = json.loads(ended.stdout)
    assert list(told) == [*ENTRY_KEYS, "history", "damaged"]
    assert {key: told[key] for key in ENTRY_KEYS} == bench.listed()[0]
    assert [past["reason"] for past in told["history"]] == [REFUSED.reason]
    assert "damaged or gone" in told["damaged"]
    ended = bench.run("show", name)
    assert (ended.exit_code, ended.stderr) == (0, "")
    *_, history, last = ended.stdout.splitlines()
    assert history.endswith(REFUSED.reason)
    assert last == f"damaged: {told['damaged']}"
    assert [value for value in SAID.values() if value in ended.stdout] == []


class Asked:
    """A queue that holds one entry so many times, and counts how often it is asked."""

    def __init__(self, count: int) -> None:
        self.held = [entries.new(*numbered(), None, NOW, 1)] * count
        self.times = 0

    def list(self, _: Filter, limit: int, after: str = "") -> Page:
        """Return a page."""
        self.times += 1
        start = int(after or 0)
        end = min(start + limit, len(self.held))
        return Page(self.held[start:end], str(end) if end < len(self.held) else "")


def test_a_long_queue_is_read_in_few_pages() -> None:
    """For each page a bucket is listed from its start: 200 of them took an hour."""
    queue = Asked(100_000)
    found = list(commands._entries(queue, Filter()))  # type: ignore[arg-type] # all it asks for
    assert found == queue.held
    assert queue.times <= 12
