"""How long work may take, in CPU time: what a busy machine adds to it says nothing of the work."""

import time
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

Parameters = ParamSpec("Parameters")


def quick(seconds: float) -> Callable[[Callable[Parameters, None]], Callable[Parameters, None]]:
    """Return a decorator of tests: each run, with one example, must take less than that."""

    def bounded(test: Callable[Parameters, None]) -> Callable[Parameters, None]:
        @wraps(test)
        def run(*arguments: Parameters.args, **named: Parameters.kwargs) -> None:
            began = time.process_time()
            test(*arguments, **named)
            assert time.process_time() - began < seconds

        return run

    return bounded
