"""The last word: what is in the archive against what was acknowledged, and against the pictures."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import requests

from tests.faults.ledger import Ledger
from tests.peers import BOUND

MOST: Final = 50_000  # instances that the archive lists at once
FILE: Final = {"Accept": "application/dicom; transfer-syntax=*"}


class Verdict(NamedTuple):
    """How many instances the archive lists, and what is wrong: with UIDs and their history."""

    instances: int
    wrong: list[str]


def judge(archive: str, service: str, queue: Path, ledger: Ledger) -> Verdict:
    """Compare archive and queue with the books.

    Parameters
    ----------
    archive
        The archive's DICOMweb address.
    service
        The service's address.
    queue
        The folder of its retry queue.
    """
    with requests.Session() as session:
        session.trust_env = False
        listed = instances(session, archive)
        found = [*_counted(listed, ledger), *_compared(session, listed, ledger)]
        found += [*_queued(session, service, ledger), *_left(queue)]
        return Verdict(len(listed), ledger.wrong + found)


def instances(session: requests.Session, archive: str) -> list[tuple[str, str]]:
    """Return the SOP Instance UID and the URL of all that the archive lists."""
    response = session.get(f"{archive}/instances", params={"limit": MOST}, timeout=BOUND)
    response.raise_for_status()
    models: list[Any] = response.json() if response.content else []
    return [(_value(model, "00080018"), _value(model, "00081190")) for model in models]


def _value(model: Any, tag: str) -> str:
    return str(model[tag]["Value"][0])


def _counted(listed: list[tuple[str, str]], ledger: Ledger) -> Iterator[str]:
    """Find what is missing, what is there twice and what nobody has sent."""
    counts = Counter(uid for uid, _ in listed)
    for uid in sorted(ledger.acknowledged - counts.keys()):
        yield f"{uid}: acknowledged and not in the archive ({ledger.history(uid)})"
    for pair in ledger.either:
        if not counts.keys() & set(pair):
            yield f"{pair[0]}: neither it nor its better is there ({ledger.history(pair[0])})"
    for uid, times in counts.items():
        if times > 1:
            yield f"{uid}: {times} times in the archive ({ledger.history(uid)})"
        if uid not in ledger.made:
            yield f"{uid}: in the archive, and nobody has sent it"


def _compared(
    session: requests.Session, listed: list[tuple[str, str]], ledger: Ledger
) -> Iterator[str]:
    """Find files that aren't, to the last bit, what their picture gives."""
    for uid, url in listed:
        response = session.get(url, headers=FILE, timeout=BOUND)
        digest = hashlib.sha256(response.content).hexdigest()
        if response.status_code != 200:
            yield f"{uid}: retrieving it was answered {response.status_code}"
        elif digest not in ledger.made.get(uid, [digest]):
            length = len(response.content)
            yield f"{uid}: the file of {length} bytes is another ({ledger.history(uid)})"


def _queued(session: requests.Session, service: str, ledger: Ledger) -> Iterator[str]:
    """Find what is still in the queue, as the service lists it."""
    url: str | None = f"{service}/v1/queue"
    while url:
        page = session.get(url, timeout=BOUND).json()
        for entry in page["entries"]:
            history = ledger.history(entry["SOPInstanceUID"])
            said = f"{entry['state']} in the queue, {entry['reason']}"
            yield f"{entry['SOPInstanceUID']}: {said} ({history})"
        url = page["next"] and requests.compat.urljoin(service, page["next"])


def _left(queue: Path) -> Iterator[str]:
    """Find payloads that no entry needs."""
    for path in sorted((queue / "entries").iterdir()):
        yield f"{path.name}: its payload is left in the queue's folder"
