"""How often a caller may ask, counted in each process for itself."""

import threading
import time
from collections.abc import Callable
from typing import Final

from flask import g

from service.errors import JpegstowError

_MINUTE: Final = 60.0
_MOST: Final = 10_000  # callers that are remembered


class TooManyRequests(JpegstowError):
    """A caller asks more often than the settings allow."""

    http_status = 429
    transient = True
    title = "Too many requests"
    reason = "too-many-requests"


class Rate:
    """So many requests a minute for each caller, all at once or one after the other.

    Of a caller only one moment is kept: until when the requests so far would take if they came
    evenly (the generic cell rate algorithm). Whoever is more than a minute ahead has to wait.

    Parameters
    ----------
    a_minute
        Requests.
    clock
        Seconds that only grow.
    """

    def __init__(self, a_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = _MINUTE / a_minute
        self._clock = clock
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()

    def wait(self, caller: str) -> float:
        """Count a request; return in how many seconds it may be made, 0 for now."""
        with self._lock:
            now = self._clock()
            until = max(now, self._until.pop(caller, now)) + self._interval
            ahead = until - now - _MINUTE
            if ahead > 1e-6:
                self._until[caller] = until - self._interval
                return ahead
            self._make_room(now)
            self._until[caller] = until
            return 0.0

    def _make_room(self, now: float) -> None:
        """Forget who has been quiet for long, and of too many those who asked the longest ago."""
        if len(self._until) < _MOST:
            return
        self._until = {name: until for name, until in self._until.items() if until > now}
        while len(self._until) >= _MOST:
            del self._until[next(iter(self._until))]


def check_rate(rate: Rate | None, caller: str) -> None:
    """Count a request of a caller's; the answer's Retry-After is ``flask.g.wait``.

    Raises
    ------
    TooManyRequests
        If it may not be made now.
    """
    g.wait = rate.wait(caller) if rate else 0.0
    if g.wait:
        detail = "there are more requests than RATE_LIMIT allows in a minute"
        raise TooManyRequests(
            detail, mend="send it again after as many seconds as Retry-After says"
        )
