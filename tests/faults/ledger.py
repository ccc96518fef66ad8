"""What was sent, what was answered, and what must therefore be in the archive."""

import threading
import time
from collections import Counter, defaultdict
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final

import requests

from tests.faults.pictures import Request

ACKNOWLEDGED: Final = frozenset({HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.ACCEPTED})
EXPECTED: Final = ACKNOWLEDGED | {HTTPStatus.SERVICE_UNAVAILABLE}


class Ledger:
    """The books of one campaign, kept by several threads.

    Attributes
    ----------
    made
        From the SOP Instance UID to what the file may be, of all that was ever sent.
    uploaded
        How many pictures the uploaders have sent.
    acknowledged
        SOP Instance UIDs.
    answers
        How many pictures met each answer.
    either
        Pairs of SOP Instance UIDs of which one has to be there: an answer was lost.
    wrong
        Answers that the service must never give.
    """

    def __init__(self) -> None:
        self.made: dict[str, frozenset[str]] = {}
        self.uploaded = 0
        self.acknowledged: set[str] = set()
        self.answers: Counter[str] = Counter()
        self.either: list[tuple[str, str]] = []
        self.wrong: list[str] = []
        self._history: dict[str, list[str]] = defaultdict(list)
        self._started = time.monotonic()
        self._lock = threading.Lock()

    def sending(self, request: Request) -> None:
        """Note a request before it leaves: whatever becomes of it, it may be stored."""
        with self._lock:
            self.made |= request.made
            self.uploaded += len(request.made)

    def making(self, made: dict[str, frozenset[str]]) -> None:
        """Note what an operator may make, before it is asked for."""
        with self._lock:
            self.made |= made

    def answered(self, request: Request, response: requests.Response) -> bool:
        """Note what the service says of each picture; tell whether all are acknowledged."""
        results = _results(request, response)
        with self._lock:
            for uid, status, said in results:
                self._answered(uid, str(status))
                if status not in EXPECTED:
                    self.wrong.append(f"{uid}: answered {status}")
                elif status in ACKNOWLEDGED:
                    self.acknowledged.add(uid)
                    if said != uid:
                        self.wrong.append(f"{uid}: the answer names {said}")
        return all(status in ACKNOWLEDGED for _, status, _ in results)

    def broken(self, request: Request, error: requests.RequestException) -> None:
        """Note a request without a whole answer."""
        with self._lock:
            for uid in request.made:
                self._answered(uid, type(error).__name__)

    def replaced(self, uid: str, better: str) -> None:
        """Note that an instance, which may be stored or not, has another in its place."""
        with self._lock:
            self.acknowledged.discard(uid)
            self.acknowledged.add(better)
            self._note(better, f"in the place of {uid}")

    def unsure(self, uid: str, better: str) -> None:
        """Note that an instance may have another in its place, or not."""
        with self._lock:
            self.acknowledged.discard(uid)
            self.either.append((uid, better))
            self._note(uid, f"perhaps replaced by {better}")

    def dropped(self, uid: str) -> None:
        """Note that an instance need not be there any more."""
        with self._lock:
            self.acknowledged.discard(uid)
            self._note(uid, "dropped")

    def history(self, uid: str) -> str:
        """Return what was answered for an instance, and when."""
        return ", ".join(self._history[uid]) or "never answered"

    def _answered(self, uid: str, answer: str) -> None:
        self.answers[answer] += 1
        self._note(uid, answer)

    def _note(self, uid: str, what: str) -> None:
        self._history[uid].append(f"{what} at {time.monotonic() - self._started:.1f} s")


def _results(request: Request, response: requests.Response) -> list[tuple[str, int, str]]:
    """Return the UID that each picture must get, its status, and the UID that the answer has.

    A problem (RFC 9457) of the whole request speaks for every picture, as does a bare status.
    """
    body: dict[str, Any] = {"status": response.status_code}
    with suppress(requests.JSONDecodeError):
        body = response.json()
    results = body.get("instances", [body] * len(request.made))
    return [
        (uid, result["status"], result.get("SOPInstanceUID", ""))
        for uid, result in zip(request.made, results, strict=True)
    ]
