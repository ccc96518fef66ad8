"""Delete, as Google's store has it: of an instance at once, else by an operation that is polled."""

import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from service.dicom import json_model
from service.dicom.outcome import Rejected, Unavailable
from service.dicom.resource import Resource
from service.store import refusal
from service.store.client import Answer, Client

_JSON: Final = {"Accept": "application/dicom+json, application/json"}
_NAME: Final = re.compile(
    r"projects/[\w:-][\w.:-]*/locations/[\w-]+/datasets/[\w-][\w.-]*/operations/[\w-]+", re.ASCII
)
_ROOT: Final = re.compile(r"(.*?/v1(?:beta1)?/)projects/", re.ASCII)
_FIRST, _GROWTH, _LONGEST = 0.5, 1.5, 10.0  # seconds between two looks at an operation
_PATIENCE: Final = 5  # looks in a row that may fail


@dataclass(frozen=True, slots=True)
class Deleting:
    """An operation that deletes; it goes on whether anybody looks or not."""

    name: str


@dataclass(frozen=True, slots=True)
class Deleted:
    """It is done, as the store says."""


@dataclass(frozen=True, slots=True)
class Missing:
    """There was nothing to delete."""


Answered = Deleted | Deleting | Missing | Rejected | Unavailable


def delete(client: Client, resource: Resource) -> Answered:
    """Ask a store to delete a study, a series or an instance."""
    answer = client.call("DELETE", resource.path, _JSON)
    if isinstance(answer, Unavailable):
        return answer
    if answer.status in refusal.ABSENT:
        return Missing()
    if answer.status in {405, 501}:
        return Rejected("this server has no DICOMweb delete", status=answer.status)
    if answer.status in {200, 202, 204}:
        return _begun(_model(answer), answer.status)
    return refusal.read(answer.status, answer.headers)


def _begun(model: dict[str, Any], status: int) -> Answered:
    if "name" not in model:
        return Deleted()
    name = model["name"]
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return Rejected("the store names its operation as none is named", status=status)
    return Deleting(name)


def look(client: Client, url: str, operation: Deleting) -> Answered:
    """Ask how far an operation has come; `url` is the store's."""
    answer = client.call("GET", _operation_url(url, operation.name), _JSON)
    if isinstance(answer, Unavailable):
        return answer
    if answer.status in refusal.ABSENT:
        return Rejected("the store doesn't know its operation any more", status=answer.status)
    if answer.status != 200:
        return refusal.read(answer.status, answer.headers)
    model = _model(answer)
    if model.get("done") is not True:
        return operation
    error = model.get("error")
    if error is None:
        return Deleted()
    code = error.get("code") if isinstance(error, dict) else None
    return Rejected(f"the operation failed (code {code if isinstance(code, int) else 'unknown'})")


def settle(
    ask: Callable[[], Answered],
    operation: Deleting,
    timeout: float,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], object] = time.sleep,
) -> Answered:
    """Look at an operation until it ends; return it as it is if it hasn't within the timeout.

    Parameters
    ----------
    timeout
        Seconds, by `clock`.
    pause
        Waits for so many seconds; whoever wants no more answers true.
    """
    end, wait, failures = clock() + timeout, _FIRST, 0
    while True:
        answer = ask()
        failures = failures + 1 if isinstance(answer, Unavailable) else 0
        passing = isinstance(answer, Unavailable) and not answer.operator and failures < _PATIENCE
        if not passing and not isinstance(answer, Deleting):
            return answer
        asked = answer.retry_after or 0.0 if isinstance(answer, Unavailable) else 0.0
        pausing = max(asked, wait * random.uniform(0.8, 1.2))  # noqa: S311 - no secret
        if clock() + pausing > end or pause(pausing):
            return operation
        wait = min(_LONGEST, wait * _GROWTH)


def _operation_url(store: str, name: str) -> str:
    """Return where an operation is: under the API's version, wherever the store's URL has one."""
    found = _ROOT.match(store)
    if found:
        return found[1] + name
    scheme, host, *_ = urlsplit(store)
    return f"{scheme}://{host}/v1/{name}"


def _model(answer: Answer) -> dict[str, Any]:
    try:
        model = json_model.loads(answer.body)
    except ValueError:
        return {}
    return model if isinstance(model, dict) else {}
