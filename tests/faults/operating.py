"""An operator who mends, tries again and drops what has just been queued, all the time."""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http import HTTPStatus
from random import Random
from typing import Final

import requests

from tests.faults.ledger import Ledger
from tests.faults.pictures import Request, describe, numbered, rules
from tests.faults.uploading import Client
from tests.jpegs import make_jpeg
from tests.peers import BOUND

PAUSE: Final = 0.3  # seconds
FIRST: Final = 5_000_000  # the number of the first picture; no uploader comes so far
BETTER: Final = {"PatientID": "P-mended"}
# It may have been stored, or be on its way.
UNCHANGED: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT})


class Operator:
    """Uploads pictures of its own, which nobody sends again, and changes what waits of them.

    Attributes
    ----------
    done
        How many of its acts were answered how.
    """

    def __init__(self, url: str, ledger: Ledger, seed: int = 0) -> None:
        """Take the service's address."""
        self.done: Counter[str] = Counter()
        self._url = url
        self._ledger = ledger
        self._random = Random(seed)
        self._picture = make_jpeg(seed=seed % 1000)
        self._rules = rules()
        self._client = Client(url, ledger, again=0)

    def work(self, number: int, session: requests.Session) -> None:
        """Have one picture queued, and do something with it."""
        picture = numbered(self._picture, FIRST + number)
        said = {"PatientID": "P-wrong", "AccessionNumber": f"O-{number}"}
        made = describe([picture], said, self._rules)
        better = describe([picture], said | BETTER, self._rules)
        self._ledger.making(made | better)
        request = Request((picture,), said, asynchronous=True, made=made)
        if self._client.post(request, session):
            act = self._random.choice((self.mend, self.drop, self.retry))
            act(next(iter(made)), next(iter(better)), session)

    def mend(self, uid: str, better: str, session: requests.Session) -> None:
        """Describe it anew; whatever breaks, the one or the other has to be there."""
        body = {"attributes": BETTER}
        status = self._asked("mend", session, "POST", f"/{uid}/retry", body)
        if status == HTTPStatus.ACCEPTED:
            self._ledger.replaced(uid, better)
        elif status not in UNCHANGED:
            self._ledger.unsure(uid, better)

    def drop(self, uid: str, _: str, session: requests.Session) -> None:
        """Discard it; whatever breaks, it may be gone."""
        if self._asked("drop", session, "DELETE", f"/{uid}") not in UNCHANGED:
            self._ledger.dropped(uid)

    def retry(self, uid: str, _: str, session: requests.Session) -> None:
        """Have it tried at once, which changes nothing of it."""
        self._asked("retry", session, "POST", f"/{uid}/retry")

    def _asked(
        self, act: str, session: requests.Session, method: str, path: str, body: object = None
    ) -> int:
        """Return the status of the answer; 0 if there is none."""
        url = f"{self._url}/v1/queue{path}"
        try:
            status = session.request(method, url, json=body, timeout=BOUND).status_code
        except requests.RequestException:
            status = 0
        self.done[f"{act} {status or 'broken'}"] += 1
        return status


@contextmanager
def operating(url: str, ledger: Ledger, seed: int = 0) -> Iterator[Operator]:
    """Let an operator work while the block runs."""
    halt = threading.Event()
    operator = Operator(url, ledger, seed)

    def run() -> None:
        number = 0
        with requests.Session() as session:
            session.trust_env = False
            while not halt.wait(PAUSE):
                operator.work(number, session)
                number += 1

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(run)
        try:
            yield operator
        finally:
            halt.set()
    working.result()
