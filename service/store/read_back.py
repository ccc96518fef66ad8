"""What a store has, held against what it was sent.

Some stores answer 200 and name an instance as stored when they have had it before with other
content, and keep that.
"""

from typing import Literal
from urllib.parse import urlsplit

from service.dicom import multipart, part10, stow_answer
from service.dicom.dataset import Instance
from service.dicom.outcome import Conflict, Outcome, Rejected, Stored, Unavailable
from service.errors import JpegstowError
from service.settings import GOOGLE_HOST, Settings
from service.store.client import Answer

Before = Literal["there", "absent", "unknown"]
"""Whether the store had an instance before it was sent: it's `absent` too if it can't tell."""

_ABSENT = frozenset({204, 404, 410})
_CANT_TELL = frozenset({400, 405, 406, 501})


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


def fault(verdict: Stored | Conflict, answer: Answer, instance: Instance) -> Outcome | None:
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
    if _holds(answer, instance):
        return None
    failure_reason = verdict.failure_reason if isinstance(verdict, Conflict) else 0
    return Rejected(f"{said}, with other content", failure_reason, 409)


def _holds(answer: Answer, instance: Instance) -> bool:
    """Tell whether an answer's DICOM file has the content of an instance."""
    content_type = answer.headers.get("content-type", "")
    try:
        media_type, _ = multipart.parse_media_type(content_type)
        file: bytes | memoryview = answer.body
        if media_type == "multipart/related":
            file = bytes(multipart.decode(answer.body, content_type)[0].body)
        return part10.holds(part10.decode(file), instance.dataset, instance.codestream)
    except (JpegstowError, IndexError):
        return False
