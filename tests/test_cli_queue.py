"""The commands for the retry queue: what an operator sees of it, and what comes of handling it."""

import json
import os
import re
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pydicom import dcmread

from service import assemble, sending
from service.cli import main
from service.dicom.outcome import Outcome, Rejected, Unavailable
from service.ingest import Attempt, Described, describe_upload
from service.retry import Entry, Filter, SqliteQueue
from tests.describing import CAPTURE, PHOTOGRAPH, dicom_file
from tests.jpegs import make_jpeg
from tests.peers import BOUND, refused_port
from tests.serving import COMMAND, SECRET, Serving, settings_for
from tests.test_line import run

KEYS = [
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
AWAY = Unavailable("no connection (ConnectionRefusedError)")
REFUSED = Rejected("Data Set does not match SOP Class", 0xA900, 409)
SAID = {"PatientName": "Quixote^Alonso", "PatientID": "Rocinante-7", "StudyID": "S-1605"}
STORE = "http://127.0.0.1:9/dicomWeb"  # no command of these may ask a store
HOSTILE = "\x1b[2J\x1b]0;title\x07red\r\nnext\x9b31m line\u2028\u202eesrever"


@dataclass(frozen=True)
class Bench:
    """A queue that this process has open, and the command beside it."""

    queue: SqliteQueue
    environment: dict[str, str]

    @property
    def folder(self) -> Path:
        return Path(self.environment["RETRY_QUEUE"])

    def put(self, outcome: Outcome = REFUSED, seed: int = 0, **said: str) -> Described:
        rules = assemble.rules(settings_for(STORE, **self.environment))
        upload = sending.upload_of(make_jpeg(seed=seed), SAID | said, PHOTOGRAPH)
        described = describe_upload(upload, rules)
        now = time.time()
        self.queue.put(upload, described, Attempt(now, outcome, "json"), now)
        return described

    def put_name(self, outcome: Outcome = REFUSED, seed: int = 0, **said: str) -> str:
        return self.put(outcome, seed, **said).instance.sop_instance_uid

    def run(self, *arguments: str | Path, text: str = "", **environment: str) -> Result:
        runner = CliRunner(env=self.environment | environment)
        return runner.invoke(main, ["queue", *map(str, arguments)], input=text)

    def listed(self, *arguments: str) -> list[dict[str, Any]]:
        ended = self.run("list", "--json", *arguments)
        assert (ended.exit_code, ended.stderr) == (0, "")
        found = json.loads(ended.stdout)
        assert isinstance(found, list)
        return found

    def ids(self, *arguments: str) -> list[str]:
        return [entry["id"] for entry in self.listed(*arguments)]

    def state(self, name: str) -> str:
        return self.queue.show(name).state


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    folder = tmp_path / "queue"
    given = {"DICOMWEB_URL": STORE, "UID_NAMESPACE": SECRET, "RETRY_QUEUE": str(folder)}
    given["DATA_DIR"] = str(tmp_path / "data")
    with closing(assemble.retry_queue(settings_for(STORE, **given))) as queue:
        yield Bench(queue, given)


def lose(bench: Bench, name: str) -> None:
    """Take away what the queue keeps of an entry, as a damaged disk does."""
    (bench.folder / "entries" / name).unlink()


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
    assert list(dead) == list(waiting) == KEYS
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
    assert list(shown) == [*KEYS, "history", "normalised", "attributes", "instance"]
    assert {key: shown[key] for key in KEYS} == bench.listed()[0]
    (past,) = shown["history"]
    assert list(past) == ["at", "outcome", "status", "reason", "wire"]
    assert (past["outcome"], past["status"], past["reason"]) == ("rejected", 409, REFUSED.reason)
    assert shown["normalised"] == list(described.changes)
    assert shown["attributes"]["00100020"] == {"vr": "LO", "Value": ["Rocinante-7"]}
    assert shown["instance"]["00080018"]["Value"] == [name]
    assert "7FE00010" not in shown["instance"]


def test_a_named_entry_is_tried_again_dead_or_not(bench: Bench) -> None:
    dead = bench.put_name()
    waiting = bench.put_name(Unavailable("busy", retry_after=500), seed=1)
    ended = bench.run("retry", dead, waiting)
    assert (ended.exit_code, ended.stdout, ended.stderr) == (0, "2 retried\n", "")
    assert bench.state(dead) == "pending"
    assert (bench.queue.show(waiting).next_attempt or 0) <= time.time()


def test_filters_retry_the_dead_unless_a_state_is_given(bench: Bench) -> None:
    dead = bench.put_name()
    other = bench.put_name(Rejected("no space"), seed=1)
    waiting = bench.put_name(Unavailable("no space", retry_after=500), seed=2)
    due = bench.queue.show(waiting).next_attempt
    assert bench.run("retry", "--reason", "NO SPACE").stdout == "1 retried\n"
    assert (bench.state(dead), bench.state(other)) == ("dead", "pending")
    assert bench.queue.show(waiting).next_attempt == due
    assert bench.run("retry", "--all").stdout == "1 retried\n"
    assert bench.state(dead) == "pending"
    assert bench.run("retry", "--state", "pending").stdout == "3 retried\n"
    assert bench.queue.show(waiting).next_attempt != due


@pytest.mark.parametrize("further", [[], ["--set", "PatientID=Rucio-8"]])
def test_what_cant_be_retried_now_keeps_no_other_from_it(further: list[str], bench: Bench) -> None:
    name, dead = bench.put_name(AWAY), bench.put_name(seed=1)
    assert bench.queue.lease(time.time())
    ended = bench.run("retry", "2.25.1", name, dead, *further)
    assert ended.exit_code == 1
    absent, leased = ended.stderr.splitlines()
    assert absent.startswith("2.25.1: the retry queue holds no such entry")
    assert leased.startswith(f"{name}: the entry is being sent at this moment")
    done = ended.stdout.split()
    left = bench.listed()
    assert [(one["id"], one["state"]) for one in left] == [
        (name, "leased"),
        (done[0] if further else dead, "pending"),
    ]
    assert further or done == ["1", "retried"]


def test_a_dead_entry_is_described_anew(bench: Bench) -> None:
    old = bench.put_name()
    ended = bench.run("retry", "--all", "--set", "PatientID=Rucio-8", "--template", CAPTURE)
    assert (ended.exit_code, ended.stderr) == (0, "")
    (new,) = ended.stdout.split()
    assert new != old
    assert bench.ids() == [new]
    dataset = bench.queue.load(new).described.instance.dataset
    assert (dataset.PatientID, dataset.PatientName) == ("Rucio-8", "Quixote^Alonso")
    assert bench.listed()[0]["template"] == CAPTURE
    assert bench.state(new) == "pending"


def test_a_metadata_file_describes_anew_too(bench: Bench, tmp_path: Path) -> None:
    old = bench.put_name(AWAY)
    said = tmp_path / "said.json"
    said.write_text('{"PatientID": "Rucio-8"}')
    (new,) = bench.run("retry", old, "--metadata", said).stdout.split()
    assert bench.queue.load(new).described.instance.dataset.PatientID == "Rucio-8"


def test_one_that_cant_be_mended_keeps_no_other_from_it(bench: Bench) -> None:
    lost, sound_one = bench.put_name(), bench.put_name(seed=1)
    waiting = bench.put_name(AWAY, seed=2)
    lose(bench, lost)
    ended = bench.run("retry", "--state", "dead", "--set", "PatientID=Rucio-8")
    assert ended.exit_code == 1
    assert ended.stderr.startswith(f"{lost}: what the queue kept of the instance is damaged")
    (new,) = ended.stdout.split()
    assert bench.ids() == [lost, waiting, new]
    assert sound_one not in bench.ids()


def test_entries_are_discarded(bench: Bench) -> None:
    names = [bench.put_name(seed=seed) for seed in range(3)]
    ended = bench.run("drop", names[0], names[2], names[0], "--yes")
    assert (ended.exit_code, ended.output) == (0, "2 dropped\n")
    assert bench.ids() == [names[1]]
    assert [path.name for path in (bench.folder / "entries").iterdir()] == [names[1]]


def test_discarding_asks_with_the_number_of_entries(bench: Bench) -> None:
    bench.put()
    bench.put(seed=1)
    waiting = bench.put_name(AWAY, seed=2)
    for answer in ("n\n", ""):
        ended = bench.run("drop", "--state", "dead", text=answer)
        assert (ended.exit_code, len(bench.ids())) == (1, 3)
        assert "discarded for good: 2." in ended.output
    ended = bench.run("drop", "--study", bench.listed()[0]["StudyInstanceUID"], text="y\n")
    assert (ended.exit_code, ended.stdout.splitlines()[-1]) == (0, "2 dropped")
    assert bench.ids() == [waiting]


def test_nothing_is_asked_where_nothing_is_chosen(bench: Bench) -> None:
    ended = bench.run("drop", "--reason", "absent")
    assert (ended.exit_code, ended.output) == (0, "0 dropped\n")


def test_one_that_is_being_sent_isnt_discarded(bench: Bench) -> None:
    leased, dead = bench.put_name(AWAY), bench.put_name(seed=1)
    assert bench.queue.lease(time.time())
    ended = bench.run("drop", leased, dead, "--yes")
    assert (ended.exit_code, ended.stdout) == (1, "1 dropped\n")
    assert ended.stderr.startswith(f"{leased}: the entry is being sent at this moment")
    assert bench.ids() == [leased]


def test_instances_are_written_as_dicom_files(bench: Bench, tmp_path: Path) -> None:
    described = [bench.put(), bench.put(AWAY, seed=1)]
    out = tmp_path / "new" / "out"
    study = described[0].instance.study_instance_uid
    for _ in range(2):  # the second time, they are there
        ended = bench.run("export", "--study", study, "-o", out)
        assert (ended.exit_code, ended.output) == (0, "2 exported\n")
        files = {path.name: path.read_bytes() for path in out.iterdir()}
        assert files == {
            f"{one.instance.sop_instance_uid}.dcm": dicom_file(one) for one in described
        }
    assert bench.ids() == [one.instance.sop_instance_uid for one in described]


def test_anothers_file_is_left_alone(bench: Bench, tmp_path: Path) -> None:
    first, second = bench.put_name(), bench.put_name(seed=1)
    (tmp_path / f"{first}.dcm").write_bytes(b"another's")
    ended = bench.run("export", first, second, "2.25.1", "-o", tmp_path)
    assert (ended.exit_code, ended.stdout) == (1, "1 exported\n")
    problems = ended.stderr.splitlines()
    assert problems[0].startswith(f"{first}: another file has the name")
    assert problems[1].startswith("2.25.1: the retry queue holds no such entry")
    assert len(problems) == 2
    assert (tmp_path / f"{first}.dcm").read_bytes() == b"another's"
    assert dcmread(tmp_path / f"{second}.dcm").SOPInstanceUID == second


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


def whole(bench: Bench) -> list[Entry]:
    return list(bench.queue.list(Filter(), 100).entries)


def test_a_queue_that_cant_be_opened_is_told_in_a_line(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    ended = bench.run("list", RETRY_QUEUE=str(file / "queue"))
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


def test_an_operators_way_beside_a_running_service(tmp_path: Path) -> None:
    with refused_port() as port:
        url = f"http://127.0.0.1:{port}/dicomWeb"
        given = {"DICOMWEB_URL": url, "RETRY_WORKERS": "0", "READ_BACK": "never"}
        with Serving(tmp_path / "data", **given) as serving:
            answer = serving.post(make_jpeg(), **SAID)
            assert answer.status_code == 202
            (instance,) = answer.json()["instances"]
            name = instance["SOPInstanceUID"]

            def queue(*arguments: str | Path) -> str:
                return command(serving, given, *arguments)

            (entry,) = json.loads(queue("list", "--json"))
            assert (entry["id"], entry["state"], entry["attempts"]) == (name, "pending", 1)
            assert queue("export", name, "-o", tmp_path / "out") == "1 exported\n"
            exported = tmp_path / "out" / f"{name}.dcm"
            assert dcmread(exported).PatientID == SAID["PatientID"]
            assert "Error" not in run("dciodvfy", exported)
            mended = queue("retry", name, "--set", "PatientID=Rucio-8").strip()
            assert mended != name
            assert "PatientID: Rucio-8" in queue("show", mended)
            assert queue("drop", mended, "--yes") == "1 dropped\n"
        log = serving.log.read_text()
        assert [value for value in SAID.values() if value in log] == []
        table = command(serving, given, "list")  # the service has ended
        assert table.splitlines()[-1].startswith("0 pending, 0 leased, 0 dead; 0 B in ")


def command(serving: Serving, given: dict[str, str], *arguments: str | Path) -> str:
    """Run the real executable; return what it printed."""
    environment = {"PATH": os.environ["PATH"], "DATA_DIR": str(serving.data_dir)} | given
    ended = subprocess.run(
        [COMMAND, "queue", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=BOUND,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout
