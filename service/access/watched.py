"""A file that is read again once it has changed, and that is whole whoever reads it."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Generic, TypeVar

from service.durable import incoming, locked, publish

_Value = TypeVar("_Value")


class Watched(Generic[_Value]):
    """What a small file holds, for threads and processes that share it.

    Parameters
    ----------
    read
        Makes a value of its bytes.
    empty
        The value without a file.
    """

    def __init__(self, path: Path, read: Callable[[bytes], _Value], empty: _Value) -> None:
        self.path = path
        self._read = read
        self._empty = empty
        # What the file was, and what is in it: one value, because threads read it without a lock.
        self._seen: tuple[tuple[int, ...], _Value] = (), empty

    def value(self) -> _Value:
        """Return what the file holds.

        Raises
        ------
        OSError
            If it can't be read, and whatever `read` raises.
        """
        try:
            state = self.path.stat()
        except FileNotFoundError:
            return self._empty
        # A new version is a new file, under another number.
        seen = state.st_ino, state.st_mtime_ns, state.st_size
        if self._seen[0] != seen:
            self._seen = seen, self._read(self.path.read_bytes())
        return self._seen[1]

    def change(self, change: Callable[[_Value], Iterable[bytes]]) -> None:
        """Write the file anew, whole or not at all, one after the other; for this user alone.

        Raises
        ------
        OSError
            If it can't be read or written, and whatever `change` and `read` raise.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.path.with_suffix(".lock")):
            pieces = change(self.value())
            with incoming(self.path.parent, pieces, self.path.suffix) as draft:
                publish(draft, self.path)
