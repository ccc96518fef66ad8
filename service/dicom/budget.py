"""A bound on the memory of transforms that run at once."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import Busy, TooLarge


class Budget:
    """So many bytes for all threads together; who asks for more than is free waits."""

    def __init__(self, total: int, patience: float | None = None) -> None:
        """Share out `total` bytes; `patience` is in seconds, without end if None."""
        self.total = total
        self._free = total
        self._patience = patience
        self._changed = threading.Condition()

    @contextmanager
    def take(self, size: int) -> Iterator[None]:
        """Hold `size` bytes of the budget while the block runs.

        Raises
        ------
        TooLarge
            If even the whole budget would not do.
        Busy
            If too little is free for longer than the budget's patience.
        """
        if size > self.total:
            raise TooLarge(
                f"the picture has to be transformed, which takes {size >> 20} MiB of memory, "
                f"more than the {self.total >> 20} MiB allowed",
                reason="too-large-to-transform",
                mend="send it upright and baseline, or raise TRANSFORM_MEMORY",
            )
        with self._changed:
            if not self._changed.wait_for(lambda: self._free >= size, self._patience):
                raise Busy("too many pictures are being decoded", mend="ask again later")
            self._free -= size
        try:
            yield
        finally:
            with self._changed:
                self._free += size
                self._changed.notify_all()
