"""Measure uploads: speed, CPU and memory, against only receiving them, Orthanc and img2dcm.

Everything runs on this machine over 127.0.0.1. Absolute figures are for people; the bounds are
ratios within one run, medians over rounds that take turns, because machines are noisy.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory

from service import processes, settings
from tests.bench.processes import PeakMemory, cpu_seconds
from tests.jpegs import make_jpeg
from tests.judges import find_tool
from tests.peers import Orthanc, free_port, wait_for_http

CLIENTS = 8
# With its scan verified, and only wrapped (VERIFY_SCAN=off): times the CPU of only receiving a
# large picture, and MiB of all processes of the service together while large pictures come.
MAX_CPU = {"upload": 11.0, "wrap": 3.0}
MAX_MEMORY = {"upload": 384.0, "wrap": 200.0}
MIN_SPEED = 15.0  # times the pictures per second of Orthanc's create-dicom, only wrapped

SECONDS = {"large": 3, "small": 2, "orthanc": 4, "img2dcm": 4}  # of one turn
BESIDES = 22  # seconds: pictures, starting, rehearsal, img2dcm

PATHS = {"upload": "/v1/instances", "wrap": "/v1/instances", "receive": "/receive"}
ROUND = len(PATHS) * (SECONDS["large"] + SECONDS["small"]) + 2 * SECONDS["orthanc"]

NAMES = ("per_second", "cpu", "p50", "p99", "peak")


@dataclass(frozen=True)
class Server:
    """A running service: where to post, and its first process."""

    url: str
    pid: int


@dataclass(frozen=True)
class Figures:
    """What one turn of posting showed."""

    per_second: float
    cpu: float  # milliseconds a picture
    p50: float
    p99: float
    peak: int  # bytes


@dataclass
class Found:
    """Every turn: of the service by size of picture and path; pictures a second of two peers."""

    service: dict[tuple[str, str], list[Figures]]
    bare: list[float]
    orthanc: list[float]


def make_pictures(folder: Path) -> dict[str, Path]:
    """Make a picture as a telephone's camera does, and one as a thumbnail might be."""
    pictures = {"large": (4032, 3024, 91), "small": (1024, 768, 89)}
    for name, (width, height, quality) in pictures.items():
        picture = make_jpeg(width, height, quality=quality, taken="2024:03:05 14:07:09")
        (folder / f"{name}.jpg").write_bytes(picture)
    return {name: folder / f"{name}.jpg" for name in pictures}


@contextmanager
def sink() -> Iterator[str]:
    """Run the store that keeps nothing; yield its address."""
    command = [sys.executable, "-m", "tests.bench.sink"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


@contextmanager
def service(folder: Path, store: str, path: str) -> Iterator[Server]:
    """Run the service as ``jpegstow serve`` does."""
    given = {
        "DATA_DIR": str(folder / "data"),
        "DICOMWEB_URL": f"{store}/dicomWeb",
        "DICOMWEB_WIRE": "json",
        "PORT": str(free_port()),
        "UID_NAMESPACE": "bench",
        "VERIFY_SCAN": "on" if path == "upload" else "off",
    }
    environment = processes.environment() | given
    *command, _ = processes.service_command(settings.load(environment))
    command.append("tests.bench.receive:service()")
    with (
        (folder / f"{path}.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, env=environment) as process,
    ):
        try:
            url = f"http://127.0.0.1:{given['PORT']}"
            wait_for_http(f"{url}/healthz", alive=lambda: process.poll() is None)
            yield Server(url + PATHS[path], process.pid)
        finally:
            process.terminate()


def load(
    url: str, picture: Path, shape: str, status: int, seconds: int
) -> tuple[float, list[float]]:
    """Post a picture from all clients; return pictures per second, and each one's milliseconds."""
    numbers = map(str, (status, CLIENTS, seconds))
    command = [sys.executable, "-m", "tests.bench.load", url, str(picture), shape, *numbers]
    result = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    times = result["milliseconds"]
    return len(times) / result["seconds"], times


def measure(server: Server, picture: Path, seconds: int) -> Figures:
    """Measure one turn of uploads."""
    before = cpu_seconds(server.pid)
    with PeakMemory(server.pid) as memory:
        per_second, times = load(server.url, picture, "form", 201, seconds)
    cpu = (cpu_seconds(server.pid) - before) * 1000 / len(times)
    return Figures(per_second, cpu, median(times), quantiles(times, n=100)[98], memory.peak)


@contextmanager
def orthanc(folder: Path) -> Iterator[Orthanc | None]:
    """Run an Orthanc where one is installed."""
    if not find_tool("Orthanc"):
        yield None
        return
    folder.mkdir()
    with Orthanc(folder) as server:
        yield server


def measure_all(folder: Path, pictures: dict[str, Path], rounds: int) -> Found:
    """Measure the service, only receiving, and Orthanc, turn by turn."""
    found = Found({(size, path): [] for size in pictures for path in PATHS}, [], [])
    with ExitStack() as running:
        store = running.enter_context(sink())
        peer = running.enter_context(orthanc(folder / "orthanc"))
        servers = {
            # Each has a server of its own, so that neither inherits memory that the other left.
            path: running.enter_context(service(folder, store, path))
            for path in PATHS
        }
        for server in servers.values():  # a rehearsal: imports, first allocations
            load(server.url, pictures["large"], "form", 201, 1)
        for _ in range(rounds):
            for size, path in found.service:
                figures = measure(servers[path], pictures[size], SECONDS[size])
                found.service[size, path].append(figures)
            if peer:
                found.bare.append(speed(servers["wrap"], pictures["large"]))
                found.orthanc.append(measure_orthanc(peer, pictures["large"]))
    return found


def speed(server: Server, picture: Path) -> float:
    """Return the pictures per second that are stored as bare bodies, the plainest upload."""
    per_second, _ = load(server.url, picture, "bare", 201, SECONDS["orthanc"])
    return per_second


def measure_orthanc(server: Orthanc, picture: Path) -> float:
    """Return the pictures per second that Orthanc turns into instances, and delete them."""
    url = f"{server.url}/tools/create-dicom"
    per_second, _ = load(url, picture, "json", 200, SECONDS["orthanc"])
    server.empty()
    return per_second


def measure_img2dcm(folder: Path, picture: Path) -> float:
    """Return the pictures per second that one ``img2dcm`` each makes, two at a time."""
    end = time.monotonic() + SECONDS["img2dcm"]

    def convert(worker: int) -> int:
        command = ["img2dcm", "-q", "-vlp", str(picture), str(folder / f"{worker}.dcm")]
        count = 0
        while time.monotonic() < end:
            subprocess.run(command, check=True)
            count += 1
        return count

    started = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        count = sum(pool.map(convert, range(2)))
    return count / (time.monotonic() - started)


def middle(figures: list[Figures], name: str) -> float:
    values: list[float] = [getattr(each, name) for each in figures]
    return median(values)


def print_table(found: Found, pictures: dict[str, Path]) -> None:
    print(f"{'':24}{'images/s':>10}{'CPU ms':>10}{'p50 ms':>10}{'p99 ms':>10}{'peak MiB':>10}")
    for size, picture in pictures.items():
        rows = {path: [middle(found.service[size, path], name) for name in NAMES] for path in PATHS}
        for path, (*numbers, peak) in rows.items():
            label = f"{size} ({picture.stat().st_size / 1e6:.1f} MB), {path}"
            print(f"{label:24}" + "".join(f"{each:10.1f}" for each in (*numbers, peak / 2**20)))
        for path in MAX_CPU:
            ratios = [a / b for a, b in zip(rows[path], rows["receive"], strict=True)]
            print(f"{f'  {path} : receive':24}" + "".join(f"{each:10.2f}" for each in ratios))


def bounds(found: Found) -> list[tuple[str, bool]]:
    """Return each bound in words, with whether it is kept."""
    received = found.service["large", "receive"]
    verdicts = []
    for path, most in MAX_CPU.items():
        turns = found.service["large", path]
        cpu = median(ours.cpu / bare.cpu for ours, bare in zip(turns, received, strict=True))
        text = f"{path}: CPU of a large picture {cpu:.2f} x receiving it, at most {most}"
        verdicts.append((text, cpu <= most))
        peak = max(each.peak for each in turns) / 2**20
        text = f"{path}: memory {peak:.0f} MiB in all, below {MAX_MEMORY[path]}"
        verdicts.append((text, peak < MAX_MEMORY[path]))
    if found.orthanc:
        ratio = median(a / b for a, b in zip(found.bare, found.orthanc, strict=True))
        text = f"bare: {ratio:.1f} x the speed of Orthanc's create-dicom, at least {MIN_SPEED}"
        verdicts.append((text, ratio >= MIN_SPEED))
    return verdicts


def run(rounds: int) -> int:
    """Measure everything; return the exit status."""
    with TemporaryDirectory(prefix="jpegstow-bench-") as name:
        folder = Path(name)
        pictures = make_pictures(folder)
        found = measure_all(folder, pictures, rounds)
        print_table(found, pictures)
        if found.orthanc:
            print(f"{'large, bare body':24}{median(found.bare):10.1f}")
            print(f"{'large, Orthanc':24}{median(found.orthanc):10.1f}")
        if find_tool("img2dcm"):
            print(f"{'large, img2dcm':24}{measure_img2dcm(folder, pictures['large']):10.1f}")
    verdicts = bounds(found)
    for text, kept in verdicts:
        print(f"{'PASS' if kept else 'FAIL'}  {text}")
    return 0 if all(kept for _, kept in verdicts) else 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=110, help="about how long it may take")
    parser.add_argument("--quick", action="store_true", help="a first look of two rounds")
    arguments = parser.parse_args()
    whole = int((arguments.seconds - BESIDES) // ROUND)
    sys.exit(run(2 if arguments.quick else max(2, whole)))


if __name__ == "__main__":
    main()
