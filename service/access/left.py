"""The sessions that were signed out of: their cookies are good for nothing more."""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from service.access.watched import Watched

_MOST: Final = 10_000  # sessions that are remembered


class Left:
    """The names of such sessions, in a file of DATA_DIR that all processes read.

    Parameters
    ----------
    clock
        Seconds since 1970.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._file: Watched[Mapping[str, float]] = Watched(path, _read, {})
        self._clock = clock

    def __contains__(self, session: str) -> bool:
        """Tell whether a session was left.

        Raises
        ------
        OSError, ValueError
            If the file is broken.
        """
        return session in self._file.value()

    def add(self, session: str, until: float) -> None:
        """Remember a session until its end; of very many those that end the latest.

        Raises
        ------
        OSError, ValueError
            If the file can't be read or written.
        """

        def added(kept: Mapping[str, float]) -> Iterable[bytes]:
            now = self._clock()
            latest = sorted(({**kept, session: until}).items(), key=lambda item: -item[1])[:_MOST]
            yield json.dumps({name: end for name, end in latest if end > now}).encode()

        self._file.change(added)


def _read(text: bytes) -> Mapping[str, float]:
    said = json.loads(text)
    if not isinstance(said, dict):
        raise ValueError("it is no object")  # noqa: TRY004 - of the file, not of a caller
    return said
