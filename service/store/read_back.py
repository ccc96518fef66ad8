"""What a store has, held against what it was sent.

Some stores answer 200 and name an instance as stored when they have had it before with other
content, and keep that.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from pydicom import Dataset

from service.dicom import multipart, part10, stow_answer
from service.dicom.dataset import Instance
from service.dicom.outcome import Conflict, Outcome, Rejected, Stored, Unavailable
from service.dicom.resource import Resource
from service.errors import JpegstowError
from service.settings import GOOGLE_HOST, Settings
from service.store.client import Answer

Before = Literal["there", "absent", "unknown"]
"""Whether the store had an instance before it was sent: it's `absent` too if it can't tell."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a store should have: where, of about how many bytes, and whether a data set is that."""

    resource: Resource
    size: int
    is_this: Callable[[Dataset], bool]

    @property
    def sop_instance_uid(self) -> str:
        """SOP Instance UID (0008,0018)."""
        return self.resource.instance


_ABSENT = frozenset({204, 404, 410})
_CANT_TELL = frozenset({400, 405, 406, 501})


def of_instance(instance: Instance) -> Wanted:
    """Return what a store should have of a described instance."""
    resource = Resource(
        instance.study_instance_uid, instance.series_instance_uid, instance.sop_instance_uid
    )
    return Wanted(
        resource,
        len(instance.codestream),
        lambda stored: part10.holds(stored, instance.dataset, instance.codestream),
    )


def of_file(dataset: Dataset, size: int) -> Wanted | None:
    """Return what a store should have of a DICOM file; None if its UIDs can't stand in a URL."""
    names = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    study, series, instance = (str(dataset.get(name) or "") for name in names)
    # Not as strictly as a UID of our own: files of others have leading zeros.
    if not all(
        re.fullmatch(r"[0-9][0-9.]{0,63}", uid, re.ASCII) for uid in (study, series, instance)
    ):
        return None
    return Wanted(
        Resource(study, series, instance), size, lambda stored: _is_same_file(stored, dataset)
    )


def _is_same_file(stored: Dataset, dataset: Dataset) -> bool:
    syntaxes = {str(one.file_meta.get("TransferSyntaxUID", "")) for one in (stored, dataset)}
    same = len(syntaxes) == 1 and part10.frames_of(stored) == part10.frames_of(dataset)
    return same and not part10.differences(stored, dataset)


def is_truthful(settings: Settings) -> bool:
    """Tell whether the store is known to say of an instance that it has had it before."""
    return settings.embedded or urlsplit(settings.store_url).hostname == GOOGLE_HOST


def before(answer: Answer) -> Before:
    """Read the answer to a request for the metadata of an instance (PS3.18 10.4.1.1.2)."""
    if answer.status in _ABSENT | _CANT_TELL:
        return "absent"
    if answer.status != 200:
        return "unknown"
    return "absent" if b"".join(answer.body.split()) == b"[]" else "there"


def fault(verdict: Stored | Conflict, answer: Answer, wanted: Wanted) -> Outcome | None:
    """Tell what is wrong with an instance that was asked for whole; None if it is as sent."""
    said = "the store named the instance as stored"
    if isinstance(verdict, Conflict):
        said = verdict.reason
    elif answer.status in _ABSENT:
        # With the status of the store request: this speaks of one instance, not of the store.
        return Unavailable(f"{said}, but doesn't have it", status=200)
    if answer.status != 200:
        found = stow_answer.read_status(answer.status, answer.headers, b"")
        passing = isinstance(found, Unavailable) and not found.operator
        reason = f"{said}; reading it back to compare was answered {answer.status}"
        wait = stow_answer.retry_after(answer.headers)
        return Unavailable(reason, wait, answer.status, operator=not passing)
    if _holds(answer, wanted):
        return None
    failure_reason = verdict.failure_reason if isinstance(verdict, Conflict) else 0
    return Rejected(f"{said}, with other content", failure_reason, 409)


def _holds(answer: Answer, wanted: Wanted) -> bool:
    """Tell whether an answer's DICOM file has the content that is wanted."""
    content_type = answer.headers.get("content-type", "")
    try:
        media_type, _ = multipart.parse_media_type(content_type)
        file: bytes | memoryview = answer.body
        if media_type == "multipart/related":
            file = bytes(multipart.decode(answer.body, content_type)[0].body)
        return wanted.is_this(part10.decode(file))
    except (JpegstowError, IndexError):
        return False
