"""What a process loads at its start, and keeps to its end."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep the garbage collector from what is made within, now and for good.

    It would go through all modules again and again while they come, and find nothing: a sixth of
    the time to the first answer. Later it would go through them in each worker, whose memory the
    kernel then copies.
    """
    gc.disable()
    try:
        yield
    finally:
        collect_again()


def collect_again() -> None:
    """Let the garbage collector work if it does not, but for what is there already."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
