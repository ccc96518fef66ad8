"""Entries described anew: what was wrong is mended, and nothing is lost on the way."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.errors import BadAttribute, BeingSent, NoSuchEntry, UnknownTemplate
from service.retry import Filter, SqliteQueue
from service.retry.mend import Correction, mend
from tests.describing import CAPTURE, PHOTOGRAPH, SAID, rules
from tests.queues import (
    NOW,
    REFUSED,
    attempt,
    bodies,
    describe,
    everything,
    fetched,
    leased,
    numbered,
    picture,
    put,
    sqlite_queue,
    uid_of,
    uids,
)

RULES = rules()


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[SqliteQueue]:
    with sqlite_queue(tmp_path / "queue") as opened:
        yield opened


@pytest.fixture
def dead(queue: SqliteQueue) -> str:
    """Put in what the store has refused."""
    return put(queue, describe(picture()), attempt(REFUSED))


def test_a_mended_entry_is_what_an_upload_with_these_words_would_have_been(
    queue: SqliteQueue, dead: str
) -> None:
    name = mend(queue, dead, Correction({"PatientID": "P-8", "PatientSex": "M"}), RULES, NOW + 9)
    expected = describe(picture(), said=SAID | {"PatientID": "P-8", "PatientSex": "M"})
    assert name == uid_of(expected) != dead
    assert uids(queue) == [name]
    loaded = fetched(queue, name)
    assert bodies(loaded.described.instance) == bodies(expected.described.instance)
    assert loaded.upload.attributes == expected.upload.attributes
    entry = queue.show(name)
    assert (entry.state, entry.next_attempt, entry.attempts) == ("pending", NOW + 9, 0)


def test_another_template_makes_another_instance(queue: SqliteQueue, dead: str) -> None:
    name = mend(queue, dead, Correction(template=CAPTURE), RULES, NOW)
    assert uids(queue) == [name]
    assert queue.show(name).template == CAPTURE
    assert name == uid_of(describe(picture(), CAPTURE))


def test_an_attribute_may_be_taken_away(queue: SqliteQueue, dead: str) -> None:
    name = mend(queue, dead, Correction({"PatientSex": ""}), RULES, NOW)
    assert not queue.load(name).instance.dataset.PatientSex


def test_a_mended_entry_can_be_mended_again(queue: SqliteQueue, dead: str) -> None:
    first = mend(queue, dead, Correction({"PatientID": "P-8"}), RULES, NOW)
    second = mend(queue, first, Correction({"PatientID": "P-7"}), RULES, NOW)
    assert second == dead
    assert uids(queue) == [dead]


@pytest.mark.parametrize(
    "said", [Correction(), Correction({"PatientID": "P-7"}), Correction(template=PHOTOGRAPH)]
)
def test_what_says_nothing_new_is_only_tried_again(
    queue: SqliteQueue, dead: str, said: Correction
) -> None:
    assert mend(queue, dead, said, RULES, NOW + 5) == dead
    entry = queue.show(dead)
    assert (entry.state, entry.next_attempt, entry.attempts) == ("pending", NOW + 5, 1)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (Correction({"PatientBirthDate": "yesterday"}), BadAttribute),
        (Correction({"Rows": 5}), BadAttribute),
        (Correction({"Nonsense": "x"}), BadAttribute),
        (Correction(template="nonsense"), UnknownTemplate),
        (Correction(template="dermoscopic-photography-image"), BadAttribute),
    ],
)
def test_what_cannot_be_described_changes_nothing(
    queue: SqliteQueue, dead: str, said: Correction, kind: type[Exception]
) -> None:
    before = queue.show(dead)
    with pytest.raises(kind):
        mend(queue, dead, said, RULES, NOW + 5)
    assert uids(queue) == [dead]
    assert queue.show(dead) == before


def test_what_is_not_there_cannot_be_mended(queue: SqliteQueue) -> None:
    with pytest.raises(NoSuchEntry):
        mend(queue, "1.2.3", Correction({"PatientID": "P-8"}), RULES, NOW)
    assert uids(queue) == []


@pytest.mark.parametrize("said", [Correction({"PatientID": "P-8"}), Correction()])
def test_what_is_being_sent_is_not_mended(queue: SqliteQueue, said: Correction) -> None:
    name = put(queue, numbered())
    lease = leased(queue)
    with pytest.raises(BeingSent):
        mend(queue, name, said, RULES, NOW + 1)
    assert everything(queue) == [lease.entry]
    queue.put_back(lease, NOW + 2, None)
    mended = mend(queue, name, said, RULES, NOW + 3)
    assert uids(queue) == [mended]
    assert queue.show(mended).next_attempt == NOW + 3


def test_what_has_become_another_entry_joins_it(queue: SqliteQueue, dead: str) -> None:
    other = put(queue, describe(picture(), said=SAID | {"PatientID": "P-8"}), attempt(REFUSED))
    assert mend(queue, dead, Correction({"PatientID": "P-8"}), RULES, NOW) == other
    assert uids(queue, Filter(state="pending")) == [other]
