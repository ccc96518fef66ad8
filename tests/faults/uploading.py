"""Clients that post all the time, and post some of it again."""

import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from random import Random
from typing import Final

import requests

from tests.faults.ledger import Ledger
from tests.faults.pictures import Request, Requests
from tests.peers import BOUND
from tests.serving import UPLOAD

CLIENTS: Final = 8
AGAIN: Final = 0.12  # the share of requests that are sent once more later on, for no reason
ANEW: Final = 0.9  # the share of those not acknowledged that are sent again, each time
PAUSE: Final = 0.5  # seconds before that


class Client:
    """One client, whose requests are noted before and after they are sent."""

    def __init__(
        self,
        url: str,
        ledger: Ledger,
        seed: int = 0,
        again: float = 1,
        halt: threading.Event | None = None,
    ) -> None:
        """Take the service's address; `again` times the usual share is sent again, until `halt`."""
        self._again = again
        self._halt = halt or threading.Event()
        self._url = url + UPLOAD
        self._ledger = ledger
        self._random = Random(seed)
        self._sent: deque[Request] = deque(maxlen=50)

    def send(self, request: Request, session: requests.Session) -> None:
        """Post a request; now and then the same again, or an earlier one."""
        self._ledger.sending(request)
        self._sent.append(request)
        while not self.post(request, session) and self._chance(ANEW):
            if self._halt.wait(PAUSE):
                return
        if self._chance(AGAIN):
            self.post(self._random.choice(self._sent), session)

    def _chance(self, of: float) -> bool:
        return self._random.random() < of * self._again

    def post(self, request: Request, session: requests.Session) -> bool:
        """Post a request once; tell whether all of it was acknowledged."""
        files = [("image", ("photo.jpg", picture)) for picture in request.pictures]
        headers = {"Prefer": "respond-async"} if request.asynchronous else {}
        try:
            response = session.post(
                self._url, data=request.fields, files=files, headers=headers, timeout=BOUND
            )
        except requests.RequestException as error:
            self._ledger.broken(request, error)
            return False
        return self._ledger.answered(request, response)


@contextmanager
def uploading(
    url: str, requests_: Requests, ledger: Ledger, within: tuple[float, float], seed: int = 0
) -> Iterator[None]:
    """Post requests, spread over so many seconds, while the block runs and until all are sent.

    An error of the block ends it at once.

    Parameters
    ----------
    within
        The seconds over which they are spread, and those after which no further one is sent.
    """
    seconds, most = within
    started = time.monotonic()
    halt = threading.Event()

    def run(number: int) -> None:
        client = Client(url, ledger, seed + number, halt=halt)
        with requests.Session() as session:
            session.trust_env = False
            for share, request in requests_:
                if halt.wait(max(0.0, started + share * seconds - time.monotonic())):
                    return
                client.send(request, session)

    with ThreadPoolExecutor(CLIENTS) as pool:
        try:  # from the first client on
            clients = [pool.submit(run, number) for number in range(CLIENTS)]
            yield
            wait(clients, max(0.0, started + most - time.monotonic()))
        finally:
            halt.set()
    for client in clients:
        client.result()
