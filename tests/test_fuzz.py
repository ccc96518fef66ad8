"""Mutated pictures: no crash, no hang, no flood of memory, and never another picture.

FUZZ_FILES says how many; a nightly run takes 10000. JPEGSTOW_CORPUS adds real pictures.
"""

import json
import os
import subprocess
import sys

import pytest

from tests.judges import require_tool

FILES = int(os.environ.get("FUZZ_FILES", "500"))
PROCESSES = 2
MOST_SECONDS = 2.0
MOST_MEMORY = 300  # MiB


@pytest.mark.parametrize("seed", range(PROCESSES))
def test_a_mutated_picture_is_refused_or_stored_as_it_looks(seed: int) -> None:
    require_tool("djpeg")
    count = FILES // PROCESSES
    command = [sys.executable, "-m", "tests.fuzzing", str(seed), str(count)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60 + count / 2
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    assert found["slowest"] < MOST_SECONDS
    assert found["peak"] < MOST_MEMORY
    assert count / 20 < found["stored"] < count
