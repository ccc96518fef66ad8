"""The same thing to many items, several at once."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Final, TypeVar

_Given = TypeVar("_Given")
_Made = TypeVar("_Made")
_AHEAD: Final = 4  # items for each thread that are taken before their turn


def at_once(
    function: Callable[[_Given], _Made], items: Iterable[_Given], jobs: int
) -> Iterator[_Made]:
    """Yield what a function makes of items, `jobs` at a time, in their order.

    Items are taken as they are needed: a million of them make no million of futures. Whoever stops
    early waits for those that have begun, and no others begin.
    """
    left = iter(items)
    with ThreadPoolExecutor(jobs) as pool:
        begun: deque[Future[_Made]] = deque()
        try:
            begun.extend(pool.submit(function, item) for item in islice(left, _AHEAD * jobs))
            while begun:
                yield begun.popleft().result()
                begun.extend(pool.submit(function, item) for item in islice(left, 1))
        finally:
            for each in begun:
                each.cancel()
