"""Ports on loopback, and waiting for the server behind one."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import requests

BOUND = 30.0  # seconds that anything in this folder waits at most


@contextmanager
def refused_port() -> Iterator[int]:
    """Hold a port on which nobody listens: a connection to it is refused."""
    with socket.socket() as unlistened:
        unlistened.bind(("127.0.0.1", 0))
        yield unlistened.getsockname()[1]


def free_port() -> int:
    """Return a port that was free a moment ago, for a program that must be told one."""
    with refused_port() as port:
        return port


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
