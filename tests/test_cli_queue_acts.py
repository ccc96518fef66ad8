"""The commands for the retry queue: what comes of handling its entries."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from pydicom import dcmread

from service.dicom.outcome import Rejected, Unavailable
from tests.describing import CAPTURE, dicom_file
from tests.jpegs import make_jpeg
from tests.peers import BOUND, refused_port
from tests.queue_bench import AWAY, SAID, Bench, benched, lose
from tests.serving import COMMAND, Serving
from tests.test_line import run


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with benched(tmp_path) as opened:
        yield opened


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
    dataset = bench.queue.load(new).instance.dataset
    assert (dataset.PatientID, dataset.PatientName) == ("Rucio-8", "Quixote^Alonso")
    assert bench.listed()[0]["template"] == CAPTURE
    assert bench.state(new) == "pending"


def test_a_metadata_file_describes_anew_too(bench: Bench, tmp_path: Path) -> None:
    old = bench.put_name(AWAY)
    said = tmp_path / "said.json"
    said.write_text('{"PatientID": "Rucio-8"}')
    (new,) = bench.run("retry", old, "--metadata", said).stdout.split()
    assert bench.queue.load(new).instance.dataset.PatientID == "Rucio-8"


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


def said_as_json(ended: Result) -> dict[str, Any]:
    """Return what was printed, which is nothing but one object."""
    assert ended.stderr == ""
    told = json.loads(ended.stdout)
    assert isinstance(told, dict)
    return told


ACTS: dict[str, tuple[str, list[str]]] = {
    "retry": ("retried", []),
    "drop": ("dropped", ["--yes"]),
    "export": ("exported", ["-o", "{}/out"]),
}


@pytest.mark.parametrize("act", ACTS)
def test_what_was_done_and_what_could_not_be_is_told_as_json(
    act: str, bench: Bench, tmp_path: Path
) -> None:
    first, second = bench.put_name(), bench.put_name(seed=1)
    done, more = ACTS[act]
    more = [text.format(tmp_path) for text in more]
    ended = bench.run(act, first, "2.25.1", second, "--json", *more)
    assert ended.exit_code == 1
    told = said_as_json(ended)
    assert list(told) == [done, "failed"]
    assert (told[done], list(told["failed"])) == ([first, second], ["2.25.1"])
    assert told["failed"]["2.25.1"].startswith("the retry queue holds no such entry")
    if act != "drop":
        ended = bench.run(act, first, "--json", *more)
        assert (ended.exit_code, said_as_json(ended)) == (0, {done: [first], "failed": {}})


def test_the_new_names_of_what_is_described_anew_are_told_as_json(bench: Bench) -> None:
    lost, other = bench.put_name(), bench.put_name(seed=1)
    lose(bench, lost)
    ended = bench.run("retry", "--all", "--set", "PatientID=Rucio-8", "--json")
    assert ended.exit_code == 1
    told = said_as_json(ended)
    (new,) = told["retried"]
    assert new not in {lost, other}
    assert bench.ids() == [lost, new]
    assert list(told["failed"]) == [lost]
    assert "damaged or gone" in told["failed"][lost]


def test_which_were_chosen_by_a_filter_is_told_as_json(bench: Bench) -> None:
    names = [bench.put_name(), bench.put_name(seed=1)]
    ended = bench.run("retry", "--all", "--json")
    assert (ended.exit_code, said_as_json(ended)) == (0, {"retried": names, "failed": {}})


def test_a_question_is_no_part_of_what_is_told_as_json(bench: Bench) -> None:
    name = bench.put_name()
    ended = bench.run("drop", name, "--json", text="y\n")
    assert json.loads(ended.stdout) == {"dropped": [name], "failed": {}}
    assert "discarded for good: 1." in ended.stderr


def test_all_can_be_exported_whatever_their_state(bench: Bench, tmp_path: Path) -> None:
    names = [bench.put_name(), bench.put_name(AWAY, seed=1), bench.put_name(AWAY, seed=2)]
    assert bench.queue.lease(time.time())
    ended = bench.run("export", "--all", "-o", tmp_path / "out")
    assert (ended.exit_code, ended.output) == (0, "3 exported\n")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"{n}.dcm" for n in names}


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
