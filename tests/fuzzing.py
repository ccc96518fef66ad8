"""Mutated pictures through the line, in a process of its own whose time and memory are measured.

usage: python -m tests.fuzzing SEED COUNT

Prints one JSON object: what went wrong, how many were stored, the most CPU seconds of one file,
and the most MiB that the process had before any pixel was compared.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from service.dicom.jpeg import inspect
from service.errors import JpegstowError
from service.ingest import Described
from tests.decoding import cjpeg, djpeg, furthest, jpegtran, psnr, upright
from tests.describing import CAPTURE, described
from tests.jpegs import make_jpeg, picture
from tests.streams import SOI

LARGEST = 120_000  # bytes of a file that is mutated
REPAIRS = ("added the missing", "added the standard", "removed", "took the number")


def originals() -> list[bytes]:
    """Return made pictures of every kind, and real ones where JPEGSTOW_CORPUS names a folder."""
    made = [
        make_jpeg(64, 48),
        make_jpeg(61, 47, restart_blocks=2, icc=True),
        make_jpeg(64, 48, "L", comment=b"Zebedee"),
        make_jpeg(64, 48, progressive=True),
        make_jpeg(64, 48, orientation=6, taken="2024:03:05 14:07:09", gps=True),
        make_jpeg(61, 47, orientation=3, progressive=True),
        make_jpeg(64, 48, keep_rgb=True),
        make_jpeg(40, 32, "CMYK"),
        jpegtran(make_jpeg(64, 48), "-arithmetic"),
        jpegtran(make_jpeg(64, 48), "-arithmetic", "-progressive"),
        cjpeg(picture(64, 48), "-sample", "4x2"),
    ]
    folder = os.environ.get("JPEGSTOW_CORPUS")
    real = sorted(Path(folder).rglob("*.jp*g")) if folder else []
    return made + [p.read_bytes() for p in real if p.stat().st_size <= LARGEST]


def place(data: bytes, random: Random) -> int:
    """Choose an offset; half of them in the headers, where the meaning is."""
    end = len(data)
    if random.random() < 0.5:
        end = max(1, min(len(data), data.find(b"\xff\xda") + 16))
    return random.randrange(max(1, end))


def _flip(data: bytes, at: int, random: Random) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]


def _write(data: bytes, at: int, random: Random) -> bytes:
    written = random.choice([b"\0", b"\xff", b"\xff\xd9", b"\xff\xd8", random.randbytes(3)])
    return data[:at] + written + data[at + len(written) :]


def _remove(data: bytes, at: int, random: Random) -> bytes:
    return data[:at] + data[at + random.choice([1, 2, 16, 200]) :]


def _insert(data: bytes, at: int, random: Random) -> bytes:
    return data[:at] + random.randbytes(random.choice([1, 2, 16, 200])) + data[at:]


def _repeat(data: bytes, at: int, random: Random) -> bytes:
    return data[:at] + data[at : at + random.choice([2, 20, 400])] * 2 + data[at:]


def _cut(data: bytes, at: int, _random: Random) -> bytes:
    return data[:at]


def _put_in_front(data: bytes, at: int, _random: Random) -> bytes:
    return data[at : at + 40] + data


def _start_again(data: bytes, _at: int, _random: Random) -> bytes:
    return SOI + data


MUTATIONS: Sequence[Callable[[bytes, int, Random], bytes]] = (
    *[_flip, _write] * 4,
    *[_remove, _insert, _repeat] * 2,
    *[_cut, _put_in_front, _start_again],
)


def mutated(data: bytes, random: Random) -> bytes:
    for _ in range(random.choice([1, 1, 1, 2, 3, 8])):
        data = random.choice(MUTATIONS)(data or b"\0", place(data, random), random)
    return data


def judge(data: bytes, made: Described) -> str:
    """Return what is wrong with an instance, empty if nothing is.

    What djpeg decodes without a warning must look the same; what it warns of, or can't decode,
    must have been repaired by name, or else its damage must not show.
    """
    ink = "CMYK" in made.instance.dataset.get("DerivationDescription", "")
    if ink or not made.instance.transfer_syntax.endswith(".50"):
        return ""  # djpeg is no judge of these
    stored, warning = djpeg(bytes(made.instance.codestream))
    if stored is None or warning:
        return f"djpeg says of the instance: {warning}"
    shown, warning = djpeg(data)
    if shown is None:
        named = any(change.startswith(REPAIRS) for change in made.changes)
        return "" if named else f"djpeg can't decode the file: {warning}"
    orientation = inspect(data).orientation
    shown = upright(shown, orientation)
    if shown.shape != stored.shape:
        return f"the shapes differ: {shown.shape}, {stored.shape}"
    if "DerivationDescription" in made.instance.dataset:
        return "" if psnr(shown, stored) > 30 else "it was encoded again to something else"
    if orientation != 1:  # the integer inverse DCT wraps what is out of range, each way up its own
        exact = "-dct", "float", "-nosmooth"
        stored, shown = djpeg(bytes(made.instance.codestream), *exact)[0], djpeg(data, *exact)[0]
        assert stored is not None
        assert shown is not None
        shown = upright(shown, orientation)
    far = furthest(shown, stored)
    return f"the pixels differ by {far}; {warning}" if far > (orientation != 1) * 2 else ""


def fuzz(seed: int, count: int) -> dict[str, Any]:
    random, sources = Random(seed), originals()
    wrong: list[dict[str, Any]] = []
    stored: list[tuple[bytes, Described]] = []
    slowest = 0.0
    for number in range(count):
        data = mutated(random.choice(sources), random)
        started = time.process_time()
        try:
            stored.append((data, described(data, CAPTURE, CMYK="convert")))
        except JpegstowError:
            pass
        except Exception:  # noqa: BLE001 - the worst that can happen, and what is looked for
            wrong.append({"number": number, "what": traceback.format_exc(limit=-3)})
        slowest = max(slowest, time.process_time() - started)
    peak = _peak()
    verdicts = [(data, judge(data, made)) for data, made in stored]
    wrong += [{"what": verdict, "bytes": len(data)} for data, verdict in verdicts if verdict]
    return {"wrong": wrong, "stored": len(stored), "slowest": slowest, "peak": peak}


def _peak() -> int:
    """Return the most MiB resident; ru_maxrss would count the parent's before the exec as well."""
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) >> 10


def main() -> None:
    Image.init()
    seed, count = map(int, sys.argv[1:])
    print(json.dumps(fuzz(seed, count)))


if __name__ == "__main__":
    main()
