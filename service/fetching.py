"""What a store has, to files ``study/series/instance.dcm``, each of them whole or not there."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from service.dicom import multipart
from service.dicom.outcome import Rejected, Unavailable
from service.dicom.resource import Resource
from service.dicom.uid import is_uid
from service.durable import incoming, publish, sharing
from service.errors import BadRequest
from service.patience import Pause, patiently
from service.store import DicomwebStore, refusal
from service.store.client import Download, Interrupted
from service.store.search import Search, Searcher, identity

PARTIAL: Final = ".part"  # what a file's name ends with until it is whole
DICOM: Final = "application/dicom"
_UIDS: Final = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


@dataclass(frozen=True, slots=True)
class Kind:
    """The form in which instances are wanted.

    Attributes
    ----------
    media_type
        ``application/dicom``, or ``image/jpeg`` or ``image/png`` for rendered images.
    transfer_syntax
        Of DICOM files: a UID, or ``*`` for the one that is stored.
    """

    media_type: str = DICOM
    transfer_syntax: str = "*"

    @property
    def is_rendered(self) -> bool:
        """Whether pixels are wanted as they are shown."""
        return self.media_type != DICOM

    @property
    def accept(self) -> str:
        """What a request says of it."""
        if self.is_rendered:
            return self.media_type
        syntax = f"transfer-syntax={self.transfer_syntax}"
        return f'multipart/related; type="{DICOM}"; {syntax}, {DICOM}; {syntax}'

    @property
    def suffix(self) -> str:
        """How the names of its files end."""
        return {DICOM: ".dcm", "image/jpeg": ".jpg", "image/png": ".png"}[self.media_type]


@dataclass(frozen=True, slots=True)
class Fetched:
    """What became of one resource; `reason` is empty unless it failed."""

    path: str
    outcome: str
    reason: str = ""
    size: int = 0


def instances(
    chosen: Iterable[Resource], searcher: Callable[[], Searcher]
) -> tuple[list[Resource], list[Fetched]]:
    """Return the instances of what is chosen, each once, and where a search failed.

    All are known before the first is fetched: were one deleted meanwhile, later pages of a search
    would leave out others. What is an instance already needs no search, and no searcher.
    """
    found: dict[Resource, None] = {}
    failed: list[Fetched] = []
    searching = None
    for resource in chosen:
        if resource.instance:
            found[resource] = None
            continue
        searching = searching or searcher()
        several = 0
        for one in _instances(searching, resource):
            several += 1
            if isinstance(one, Resource):
                found[one] = None
            else:
                failed.append(_failed(resource, one))
        if not several and resource.study:
            failed.append(Fetched(resource.name, "failed", "the store has no instances of it"))
    return list(found), failed


def _instances(
    searcher: Searcher, resource: Resource
) -> Iterator[Resource | Rejected | Unavailable]:
    """Yield the instances of a store, a study or a series, as a search tells.

    Where the search fails, that is the last. A match whose UIDs are none, or not of what was asked
    for, is a failure of its own: they would become the names of folders.
    """
    for page in searcher.pages(Search("instance", resource)):
        if isinstance(page, list):
            yield from (_found(resource, identity(match)) for match in page)
        else:
            yield page


def _failed(resource: Resource, because: Rejected | Unavailable) -> Fetched:
    outcome = "unavailable" if isinstance(because, Unavailable) else "failed"
    return Fetched(resource.name, outcome, because.reason)


def _found(within: Resource, uids: tuple[str, ...]) -> Resource | Rejected:
    study, series, instance = uids
    found = Resource(study or within.study, series or within.series, instance)
    if not all(map(is_uid, (found.study, found.series, found.instance))):
        return Rejected("the store names an instance by what isn't a UID")
    if (within.study or found.study, within.series or found.series) != (found.study, found.series):
        return Rejected("the store names an instance of another study or series")
    return found


class Fetcher:
    """Writes instances of a store to files in a folder."""

    def __init__(self, store: DicomwebStore, folder: Path, kind: Kind, pause: Pause) -> None:
        self._store = store
        self._folder = folder
        self._kind = kind
        self._pause = pause

    def target(self, resource: Resource) -> Path:
        """Return where a resource goes."""
        frame = f"_frame_{resource.frame}" if resource.frame else ""
        name = f"{resource.instance}{frame}{self._kind.suffix}"
        return self._folder / resource.study / resource.series / name

    def fetch(self, resource: Resource, *, again: bool = False) -> Fetched:
        """Write one instance or frame, unless its file is there or it is wanted again."""
        target = self.target(resource)
        if target.exists() and not again:
            return Fetched(resource.name, "already there")
        made = patiently(lambda: self._try(resource, target), self._pause)
        if isinstance(made, int):
            return Fetched(resource.name, "retrieved", size=made)
        return _failed(resource, made)

    def _try(self, resource: Resource, target: Path) -> int | Rejected | Unavailable:
        """Return the bytes written."""
        path = resource.path + ("/rendered" if self._kind.is_rendered else "")
        with self._store.download(path, self._kind.accept) as answer:
            if isinstance(answer, Unavailable):
                return answer
            if answer.status != 200:
                return refusal.read(answer.status, answer.headers)
            try:
                return self._write(answer, resource, target)
            except Interrupted as error:
                return error.outcome
            except BadRequest as error:
                return Rejected(str(error))

    def _write(self, answer: Download, resource: Resource, target: Path) -> int:
        target.parent.mkdir(parents=True, exist_ok=True)
        pieces = _body(answer, self._kind)
        with incoming(target.parent, pieces, PARTIAL) as temporary:
            if self._kind.is_rendered:
                _check_image(temporary, self._kind)
            else:
                _check_identity(temporary, resource)
            size = temporary.stat().st_size
            publish(temporary, target)
        return size


def into(folder: Path) -> AbstractContextManager[None]:
    """Make a folder ready for files, and remove what a process left there that was killed."""
    folder.mkdir(parents=True, exist_ok=True)

    def tidy() -> None:
        for left in folder.glob(f"*/*/tmp*{PARTIAL}"):
            left.unlink(missing_ok=True)

    return sharing(folder, tidy)


def _body(answer: Download, kind: Kind) -> Iterator[bytes]:
    """Return the bytes of a file, whatever they are wrapped in.

    Raises
    ------
    BadRequest
        If the answer is of another kind, or its end couldn't be told from a broken connection.
    """
    content_type = answer.headers.get("content-type", "")
    media_type, _ = multipart.parse_media_type(content_type)
    if media_type == "multipart/related" and not kind.is_rendered:
        return multipart.only_part(answer.blocks, content_type)
    if media_type != kind.media_type:
        raise BadRequest(f"the store's answer isn't {kind.media_type}")
    if not answer.is_framed:
        raise BadRequest("the store's answer doesn't say where it ends")
    return answer.blocks


def _check_identity(file: Path, resource: Resource) -> None:
    """Refuse a file that isn't the instance that was asked for."""
    try:
        dataset = dcmread(file, stop_before_pixels=True, specific_tags=list(_UIDS))
        told = tuple(str(dataset.get(keyword, "")) for keyword in _UIDS)
    except InvalidDicomError as error:
        raise BadRequest("the store's answer isn't a DICOM file") from error
    except Exception as error:  # pydicom raises whatever it meets
        raise BadRequest("the store's answer is a malformed DICOM file") from error
    if told != (resource.study, resource.series, resource.instance):
        raise BadRequest("the store's answer is another instance")


def _check_image(file: Path, kind: Kind) -> None:
    starts = {"image/jpeg": b"\xff\xd8\xff", "image/png": b"\x89PNG\r\n\x1a\n"}
    start = starts[kind.media_type]
    with file.open("rb") as opened:
        if opened.read(len(start)) != start:
            raise BadRequest(f"the store's answer isn't {kind.media_type}")
