"""Proof that a store has what it was sent: each instance is read from it and compared."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydicom import Dataset

from service.dicom import multipart, part10
from service.dicom.codestream import Buffer
from service.dicom.outcome import Unavailable
from service.dicom.resource import Resource
from service.dicom.uid import is_uid
from service.errors import BadRequest, JpegstowError
from service.ingest import Rules, describe_upload
from service.patience import Pause, patiently
from service.sending import Item, is_dicom, upload_of
from service.store import DicomwebStore, refusal
from service.store.client import Answer

Outcome = Literal["stored", "different", "missing", "unreadable", "unavailable"]
_CODESTREAM: Final = "the codestream"


@dataclass(frozen=True, slots=True)
class Expected:
    """What a store should have of one file.

    Attributes
    ----------
    dataset
        With its Pixel Data only where the file is a ready DICOM file.
    frames
        Codestreams without their padding; of native pixels their bytes as one.
    size
        Bytes of them all.
    """

    resource: Resource
    dataset: Dataset
    transfer_syntax: str
    frames: tuple[bytes, ...]

    @property
    def size(self) -> int:
        """Bytes of all frames."""
        return sum(map(len, self.frames))

    @property
    def sha256(self) -> str:
        """The digest of all frames, one behind the other, in hexadecimal."""
        return hashlib.sha256(b"".join(self.frames)).hexdigest()


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one file; `sha256` is that of the pixels that should be there."""

    path: Path
    outcome: Outcome
    reason: str = ""
    sop_instance_uid: str = ""
    sha256: str = ""


def verifier(
    rules: Rules, store: DicomwebStore, template: str, pause: Pause
) -> Callable[[Item], Finding]:
    """Return the function that proves one file, and never raises for what it holds."""

    def verify(item: Item) -> Finding:
        try:
            wanted = expected(item, rules, template)
        except OSError as error:
            return Finding(item.path, "unreadable", type(error).__name__)
        except JpegstowError as error:
            return Finding(item.path, "unreadable", str(error))
        outcome, reason = check(store, wanted, pause)
        name = wanted.resource.instance
        return Finding(item.path, outcome, reason, name, wanted.sha256)

    return verify


def expected(item: Item, rules: Rules, template: str) -> Expected:
    """Return what sending a file makes, by the same rules.

    Raises
    ------
    JpegstowError
        For whatever wouldn't be sent either.
    """
    data = item.path.read_bytes()
    if is_dicom(item.path, data):
        if item.said:
            raise BadRequest("attributes can't be set in a ready DICOM file")
        return _of_file(data)
    instance = describe_upload(upload_of(data, item.said, template), rules).instance
    resource = Resource(
        instance.study_instance_uid, instance.series_instance_uid, instance.sop_instance_uid
    )
    codestream = bytes(instance.codestream)
    return Expected(resource, instance.dataset, instance.transfer_syntax, (codestream,))


def _of_file(data: bytes) -> Expected:
    dataset = part10.decode(data)
    study = str(dataset.get("StudyInstanceUID", ""))
    series = str(dataset.get("SeriesInstanceUID", ""))
    instance = str(dataset.get("SOPInstanceUID", ""))
    if not all(map(is_uid, (study, series, instance))):
        raise BadRequest("the DICOM file lacks a study, series or SOP instance UID")
    return Expected(
        Resource(study, series, instance), dataset, _syntax(dataset), part10.frames_of(dataset)
    )


def check(store: DicomwebStore, wanted: Expected, pause: Pause) -> tuple[Outcome, str]:
    """Return what a store has of an instance, and what is wrong with it, without any value."""
    answer = patiently(lambda: _ask(store, wanted), pause)
    if isinstance(answer, Unavailable):
        return "unavailable", answer.reason
    if answer.status == 204 or answer.status in refusal.ABSENT:
        return "missing", f"the store doesn't have it ({answer.status})"
    if answer.status != 200:
        return "unavailable", refusal.read(answer.status, answer.headers).reason
    try:
        stored = part10.decode(_file(answer))
    except (JpegstowError, IndexError):
        return "different", "what the store has can't be read"
    wrong = _differences(stored, wanted)
    return ("different", f"other: {', '.join(wrong)}") if wrong else ("stored", "")


def _ask(store: DicomwebStore, wanted: Expected) -> Answer | Unavailable:
    answer = store.instance(wanted.resource, wanted.size)
    if isinstance(answer, Answer) and answer.status != 200:
        told = refusal.read(answer.status, answer.headers)
        return told if isinstance(told, Unavailable) else answer
    return answer


def _file(answer: Answer) -> Buffer:
    content_type = answer.headers.get("content-type", "")
    media_type, _ = multipart.parse_media_type(content_type)
    if media_type != "multipart/related":
        return answer.body
    return bytes(multipart.decode(answer.body, content_type)[0].body)


def _differences(stored: Dataset, wanted: Expected) -> list[str]:
    """Name what a stored instance has not as it should be: attributes by keyword."""
    wrong = part10.differences(stored, wanted.dataset)
    if _syntax(stored) != wanted.transfer_syntax:
        wrong.append("TransferSyntaxUID")
    elif part10.frames_of(stored) != wanted.frames:
        wrong.append(_CODESTREAM)
    return wrong


def _syntax(dataset: Dataset) -> str:
    return str(dataset.file_meta.get("TransferSyntaxUID", ""))
