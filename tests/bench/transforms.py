"""Measure what it costs to verify a picture, to recode it and to turn it.

usage: python -m tests.bench.transforms [--quick]

All pictures have 12 megapixels, 4:2:0, as a telephone makes them. Times are the CPU's; the ratios
are to a plain decoding of the same picture in the same round, because machines are noisy.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

from service.dicom import jpegtran
from tests.describing import normalised
from tests.jpegs import make_jpeg

COLUMNS, ROWS = 4032, 3024
PLAIN = "decode (libturbojpeg)"


def works() -> dict[str, Callable[[], object]]:
    """Return what is measured, by name; what has a turn or a recoding includes verifying it."""
    baseline = make_jpeg(COLUMNS, ROWS, quality=91)
    progressive = make_jpeg(COLUMNS, ROWS, quality=91, progressive=True)
    turned = make_jpeg(COLUMNS, ROWS, quality=91, orientation=6)
    imperfect = make_jpeg(COLUMNS, ROWS - 8, quality=91, orientation=6)
    return {
        PLAIN: lambda: jpegtran.decode(baseline, COLUMNS, ROWS),
        "headers alone": lambda: normalised(baseline, VERIFY_SCAN="off"),
        "headers and verify": lambda: normalised(baseline),
        "progressive to baseline": lambda: normalised(progressive),
        "  without verify": lambda: normalised(progressive, VERIFY_SCAN="off"),
        "a quarter turn": lambda: normalised(turned),
        "  without verify ": lambda: normalised(turned, VERIFY_SCAN="off"),
        "a turn, encoded again": lambda: normalised(imperfect),
    }


def seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def run(rounds: int) -> None:
    measured = works()
    for work in measured.values():  # a rehearsal
        work()
    times = [{name: seconds(work) for name, work in measured.items()} for _ in range(rounds)]
    print(f"{'12 megapixels':26}{'CPU ms':>10}{'ratio':>10}")
    for name in measured:
        cost = median(each[name] for each in times)
        ratio = median(each[name] / each[PLAIN] for each in times)
        print(f"{name:26}{cost * 1000:10.1f}{ratio:10.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a first look of three rounds")
    arguments, _ = parser.parse_known_args()
    run(3 if arguments.quick else 9)


if __name__ == "__main__":
    main()
