"""What several processes count in one folder adds up, whatever becomes of each of them."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.tally import Series, Tally

APPLES = Series("apples")
PEARS = Series("pears", ("green", "large"))
STATE = Series("state", (), stands=True)

PROCESS = """
import sys
from pathlib import Path
from service.tally import Series, Tally
tally = Tally()
tally.keep_in(Path(sys.argv[1]))
tally.set(Series("state", (), stands=True), 7)
for line in sys.stdin:
    for _ in range(int(line)):
        tally.add(Series("apples"))
    print("done", flush=True)
"""


class Counting:
    """A process that counts apples."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def add(self, number: int) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{number}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def counting(folder: Path) -> Iterator[Counting]:
    command = [sys.executable, "-c", PROCESS, str(folder)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield Counting(process)
        finally:
            process.kill()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "counts"


def tally_in(folder: Path) -> Tally:
    tally = Tally()
    tally.keep_in(folder)
    return tally


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_counted_is_read_with_its_labels(folder: Path) -> None:
    tally = tally_in(folder)
    tally.add(APPLES)
    tally.add(APPLES, 2.5)
    tally.add(PEARS)
    assert tally.read().counted == {APPLES: 3.5, PEARS: 1.0}


def test_without_a_folder_a_process_counts_for_itself() -> None:
    tally = Tally()
    tally.add(APPLES)
    tally.set(STATE, 2)
    assert tally.read() == ({APPLES: 1.0}, {STATE: [2]})


def test_processes_add_up_and_each_reads_the_same(folder: Path) -> None:
    ours = tally_in(folder)
    with counting(folder) as one, counting(folder) as other:
        one.add(100)
        other.add(20)
        ours.add(APPLES, 3)
        assert tally_in(folder).read().counted == ours.read().counted == {APPLES: 123}
        assert ours.read().standing[STATE] == [7, 7]


def test_a_killed_process_leaves_its_counts_and_takes_its_state_with_it(folder: Path) -> None:
    ours = tally_in(folder)
    ours.add(APPLES)
    with counting(folder) as one, counting(folder) as other:
        one.add(10)
        other.add(10)
        one.kill()
        assert ours.read().counted == {APPLES: 21}
        assert ours.read().standing[STATE] == [7]


def test_the_next_process_goes_on_from_the_counts_of_one_that_was_killed(folder: Path) -> None:
    ours = tally_in(folder)
    ours.add(APPLES)
    for number in range(1, 4):
        with counting(folder) as one:
            one.add(10)
            one.kill()
        assert ours.read().counted == {APPLES: 1 + 10 * number}
    assert files(folder) == ["0", "1"]


def test_a_process_that_is_killed_while_it_counts_loses_no_more_than_one_count(
    folder: Path,
) -> None:
    ours = tally_in(folder)
    ours.add(APPLES, 0)
    before = 0.0
    for _ in range(5):
        with counting(folder) as one:
            one.add(1)
            assert one.process.stdin
            one.process.stdin.write("1000000\n")
            one.process.stdin.flush()
            while ours.read().counted[APPLES] < before + 500:
                assert one.process.poll() is None
            one.kill()
        after = ours.read().counted[APPLES]
        assert after == int(after) >= before + 500
        assert ours.read().counted[APPLES] == after
        before = after


def test_threads_lose_no_count(folder: Path) -> None:
    tally = tally_in(folder)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: tally.add(APPLES), range(4000)))
    assert tally.read().counted == {APPLES: 4000}


def test_a_forked_process_has_a_file_of_its_own(folder: Path) -> None:
    tally = tally_in(folder)
    tally.add(APPLES, 5)
    child = os.fork()
    if not child:
        tally.add(APPLES, 2)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert tally.read().counted == {APPLES: 7}
    assert files(folder) == ["0", "1"]


@pytest.mark.parametrize("end", [b"x", b"\1" * 300, b"\0" * 256, b"\0" * 8 + b"[1]".ljust(248)])
def test_what_is_no_record_is_left_out_and_written_behind(folder: Path, end: bytes) -> None:
    tally = tally_in(folder)
    tally.add(APPLES)
    tally.keep_in(folder)
    (folder / "1").write_bytes((folder / "0").read_bytes() + end)
    assert tally.read().counted == {APPLES: 2}
    with counting(folder) as one:
        one.add(1)
        assert tally.read().counted == {APPLES: 3}


def test_a_folder_that_cant_be_used_is_told_once_and_keeps_nobody_from_counting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    tally = tally_in(tmp_path / "file" / "counts")
    tally.add(APPLES)
    tally.add(APPLES)
    assert tally.read().counted == {APPLES: 2}
    assert capsys.readouterr().out.count("the metrics' folder can't be used") == 1


def test_a_name_that_no_record_holds_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="apples has labels that are too long"):
        tally_in(folder).add(Series("apples", ("x" * 300,)))
