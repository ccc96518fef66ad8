"""python -m tests.faults: run the fault campaign and end with 0 only if nothing is wrong."""

import argparse
import secrets
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import tests.faults
from tests.faults.campaign import run
from tests.faults.stage import stage

UPLOADS: Final = 0.6  # of all the time, if the pictures come as fast as they should
DRAINED: Final = 0.9  # of all the time: when the drain must have ended
SPARE: Final = 50  # seconds to start, to check and to end


def main() -> None:
    parser = argparse.ArgumentParser(
        description=tests.faults.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=5000, help="how many are uploaded")
    parser.add_argument("--seconds", type=float, default=540, help="how long all may take")
    parser.add_argument("--seed", type=int, default=None, help="of the faults and the kills")
    parser.add_argument("--folder", type=Path, help="an empty one, kept with all data and logs")
    arguments = parser.parse_args()
    # Whatever ends it does so as Ctrl-C would: no process is left behind. A shell that starts it in
    # the background has it ignore Ctrl-C itself.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, signal.default_int_handler)
    signal.alarm(int(arguments.seconds) + SPARE)
    seed = secrets.randbits(32) if arguments.seed is None else arguments.seed
    with TemporaryDirectory(prefix="jpegstow-faults-") as temporary:
        folder = (arguments.folder or Path(temporary)).absolute()
        with stage(folder, seed) as on:
            uploads, end = UPLOADS * arguments.seconds, DRAINED * arguments.seconds
            report = run(on, arguments.pictures, uploads, end, seed)
            print(report)
    sys.exit(1 if report.wrong else 0)


if __name__ == "__main__":
    main()
