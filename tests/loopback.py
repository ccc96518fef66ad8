"""Ports on loopback, and waiting for the server behind one."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

import requests

BOUND = 120.0  # seconds that the tests wait at most for anything; a machine may be slow

# Below those that Linux gives to whoever asks for any, be it for a connection: nobody takes one
# between its choice and its use. Each of pytest's workers has its own, in an order of its own.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_SHARE = range(12_000 + _WORKER, 32_768, _WORKERS)
_PORTS = iter(Random().sample(_SHARE, len(_SHARE)))


@contextmanager
def refused_port() -> Iterator[int]:
    """Hold a port on which nobody listens: a connection to it is refused."""
    with socket.socket() as unlistened:
        unlistened.bind(("127.0.0.1", 0))
        yield unlistened.getsockname()[1]


def free_port() -> int:
    """Return a port that nobody has, for a program that must be told one; never the same again."""
    return next(port for port in _PORTS if _is_free(port))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def wait_for_http(
    url: str, timeout: float = BOUND, alive: Callable[[], bool] = lambda: True
) -> requests.Response:
    """Return the first answer of a server that is starting, whatever its status."""
    end = time.monotonic() + timeout
    while alive() and time.monotonic() < end:
        try:
            return requests.get(url, timeout=timeout)
        except requests.ConnectionError:
            time.sleep(0.02)
    raise TimeoutError(f"no answer from {url} within {timeout} s, or its server has ended")
