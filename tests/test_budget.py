"""Transforms wait for memory, but not for ever, and take no more of it than they said."""

import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest

from service.dicom.budget import Budget
from service.errors import TooLarge
from tests.describing import normalised
from tests.jpegs import make_jpeg
from tests.streams import SOS, frame, scan, segment, stream, take_apart

BOUND = 20.0  # seconds


def test_who_asks_for_more_than_is_free_waits_until_it_is() -> None:
    budget, order = Budget(10), []
    holding, leave = threading.Event(), threading.Event()

    def first() -> None:
        with budget.take(7):
            holding.set()
            leave.wait(BOUND)
            order.append("first")

    def second() -> None:
        with budget.take(4):
            order.append("second")

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(first)
        assert holding.wait(BOUND)
        other = pool.submit(second)
        with budget.take(3):  # what is free is had at once, whoever waits
            order.append("third")
        assert not other.done()
        leave.set()
        one.result(BOUND)
        other.result(BOUND)
    assert order == ["third", "first", "second"]


def test_more_than_all_is_refused_and_takes_nothing() -> None:
    budget = Budget(3 << 20)
    with (
        pytest.raises(TooLarge, match="4 MiB of memory, more than the 3 MiB allowed") as caught,
        budget.take(4 << 20),
    ):
        pytest.fail("it was let in")
    assert (caught.value.reason, caught.value.http_status) == ("too-large-to-transform", 413)
    assert "TRANSFORM_MEMORY" in caught.value.mend
    with budget.take(3 << 20):
        pass


def test_what_fails_gives_back_what_it_took() -> None:
    budget = Budget(10)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), budget.take(10):
            1 / 0  # noqa: B018
    with budget.take(10):
        pass


def test_many_threads_never_hold_more_than_there_is_and_all_come_to_an_end() -> None:
    budget, random, lock = Budget(100), Random(5), threading.Lock()
    held, most = [0], [0]

    def work(size: int) -> None:
        with budget.take(size):
            with lock:
                held[0] += size
                most[0] = max(most[0], held[0])
            with lock:
                held[0] -= size

    sizes = [random.choice([1, 10, 60, 100]) for _ in range(400)]
    with ThreadPoolExecutor(16) as pool:
        for done in [pool.submit(work, size) for size in sizes]:
            done.result(BOUND)
    assert held == [0]
    assert 60 <= most[0] <= 100


def test_pictures_transformed_at_once_all_come_out_right() -> None:
    """The budget lets one of these through at a time; eight threads bring them."""
    kinds = {
        "turned": make_jpeg(96, 64, orientation=6),
        "encoded again": make_jpeg(93, 61, orientation=6),
        "progressive": make_jpeg(97, 61, progressive=True),
        "verified": make_jpeg(97, 61),
    }
    wanted = {name: normalised(data).codestream for name, data in kinds.items()}
    names = [*kinds] * 10
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda name: once(kinds[name]), names))
    assert made == [wanted[name] for name in names]


def once(data: bytes) -> object:
    return normalised(data, TRANSFORM_MEMORY="1048576").codestream


@pytest.mark.parametrize(
    "options",
    [
        {"progressive": True},
        {"orientation": 6},
        {"orientation": 6, "mode": "L"},
        {"orientation": 6, "width": 1793},
        {"mode": "CMYK"},
        {"mode": "CMYK", "progressive": True},
    ],
    ids=str,
)
def test_a_picture_too_large_to_transform_is_refused_first(options: dict[str, object]) -> None:
    data = make_jpeg(**({"width": 640, "height": 481} | options))  # type: ignore[arg-type]
    with pytest.raises(TooLarge) as caught:
        normalised(data, TRANSFORM_MEMORY="1048576", CMYK="convert")
    assert caught.value.reason == "too-large-to-transform"


def test_an_upright_baseline_picture_needs_no_budget_to_speak_of() -> None:
    assert normalised(make_jpeg(1600, 1200), TRANSFORM_MEMORY="1048576").codestream


def test_a_picture_of_several_scans_is_refused_before_it_unfolds_for_verification() -> None:
    size = 640, 480
    pieces = list(take_apart(make_jpeg(*size, "L")))
    tables = [segment(p.marker, p.payload) for p in pieces if p.marker in {0xDB, 0xC4}]
    (coded,) = (piece.coded for piece in pieces if piece.marker == SOS)
    scans = [scan(bytes([n]), coded=coded) for n in (1, 2, 3)]
    data = stream(*tables, frame(size=size[::-1], sampling=[0x11] * 3), *scans)
    assert normalised(data).codestream
    with pytest.raises(TooLarge) as caught:
        normalised(data, TRANSFORM_MEMORY="1048576")
    assert caught.value.reason == "too-large-to-transform"


_MEASURE = """
import sys
from pathlib import Path
from tests.describing import normalised
from tests.jpegs import make_jpeg

for warm in (make_jpeg(progressive=True), make_jpeg(93, 61, orientation=6)):
    normalised(warm, CMYK="convert")
normalised(make_jpeg(93, 61, "CMYK"), CMYK="convert")
data = Path(sys.argv[1]).read_bytes()
Path("/proc/self/clear_refs").write_text("5")
def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))
before = status("VmRSS")
normalised(data, CMYK="convert")
print(status("VmHWM") - before >> 20)
"""


def asked_for(data: bytes) -> int:
    """Return the MiB with which a picture is transformed; one less, and it is refused."""
    asked = 0
    while True:  # the transform asks, and after it perhaps the encoder for more
        try:
            normalised(data, CMYK="convert", TRANSFORM_MEMORY=str((asked + 1) << 20))
        except TooLarge as error:
            found = re.search(r"takes (\d+) MiB", error.detail)
            assert found is not None
            assert int(found[1]) > asked
            asked = int(found[1])
        else:
            return asked


@pytest.mark.parametrize(
    "options",
    [
        {"progressive": True},
        {"progressive": True, "subsampling": "4:4:4"},
        {"orientation": 6, "height": 1600},
        {"orientation": 6},
        {"orientation": 6, "progressive": True, "mode": "L"},
        {"mode": "CMYK"},
        {"mode": "CMYK", "progressive": True, "orientation": 6},
    ],
    ids=str,
)
def test_a_transform_takes_no_more_memory_than_it_asked_for(
    options: dict[str, object], tmp_path: Path
) -> None:
    """Measured in a process of its own, as the highest resident set over what was there before."""
    data = make_jpeg(**({"width": 2403, "height": 1603} | options))  # type: ignore[arg-type]
    (tmp_path / "a.jpg").write_bytes(data)
    command = [sys.executable, "-c", _MEASURE, str(tmp_path / "a.jpg")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    asked, used = asked_for(data), int(done.stdout)
    assert 10 < asked < 200
    assert used <= asked + 4  # of the interpreter and the allocator
