"""Asking a store again that can't answer now."""

import random
import time
from collections.abc import Callable
from typing import Final, TypeVar

from service.dicom.outcome import Unavailable

_Answer = TypeVar("_Answer")
Pause = Callable[[float], object]
"""Waits for so many seconds."""

ATTEMPTS: Final = 5
LONGEST: Final = 60.0  # seconds that are waited because a store says so


def patiently(ask: Callable[[], _Answer], pause: Pause = time.sleep) -> _Answer:
    """Ask until the answer isn't `Unavailable`, five times at most; return the last answer.

    What only an operator can mend isn't asked for again. The wait is that of Retry-After, up to a
    minute, and at least a random time below 0.5, 1, 2 and 4 seconds: many that are refused at once
    don't come back at once.
    """
    answer = ask()
    for attempt in range(1, ATTEMPTS):
        if not isinstance(answer, Unavailable) or answer.operator:
            break
        wanted = min(answer.retry_after or 0.0, LONGEST)
        pause(wanted + random.uniform(0, 2.0 ** (attempt - 2)))  # noqa: S311 - no secret
        answer = ask()
    return answer
