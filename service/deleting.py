"""Studies, series and instances taken out of a store, and the proof that they are gone."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from service.dicom.outcome import Rejected, Unavailable
from service.dicom.resource import Resource
from service.patience import Pause, patiently
from service.store import DicomwebStore
from service.store.deletion import Deleted, Deleting, Missing, settle
from service.store.search import Search, Searcher, identity

NOT_THERE: Final = "not there"


@dataclass(frozen=True, slots=True)
class Counted:
    """How much of something a store has."""

    series: int
    instances: int


@dataclass(frozen=True, slots=True)
class Told:
    """What became of one resource; `operation` is the store's, where it goes on."""

    path: str
    outcome: str
    reason: str = ""
    operation: str = ""


def count(searcher: Searcher, resource: Resource) -> Counted | Rejected | Unavailable:
    """Count what a store has of a study, a series or an instance."""
    series: set[str] = set()
    instances = 0
    for page in searcher.pages(_all_of(resource)):
        if not isinstance(page, list):
            return page
        series.update(identity(match)[1] for match in page)
        instances += len(page)
    return Counted(len(series), instances)


def _all_of(resource: Resource) -> Search:
    if resource.instance:
        within = Resource(resource.study, resource.series)
        return Search("instance", within, {"SOPInstanceUID": resource.instance})
    return Search("instance", resource)


@dataclass(frozen=True, slots=True)
class Deleter:
    """Deletes, waits for the store's operation, and looks whether anything is left.

    Attributes
    ----------
    timeout
        Seconds to wait for an operation; 0 not to wait.
    clock
        Tells seconds.
    pause
        Waits for so many seconds, and answers true where nobody wants to wait any more.
    """

    store: DicomwebStore
    searcher: Searcher
    timeout: float
    clock: Callable[[], float]
    pause: Pause

    def delete(self, resource: Resource) -> Told:
        """Delete one, and tell what became of it."""
        path = resource.name
        answer = patiently(lambda: self.store.delete(resource), self.pause)
        if isinstance(answer, Deleting) and not self.timeout:
            return Told(path, "begun", operation=answer.name)
        if isinstance(answer, Deleting):
            begun = answer
            answer = settle(
                lambda: self.store.operation(begun), begun, self.timeout, self.clock, self.pause
            )
        match answer:
            case Deleting(name):
                return Told(path, "unfinished", "its operation goes on in the store", name)
            case Missing():
                # Of what was there: it was deleted by others, or by a request whose answer is lost.
                return self._proven(resource, "the store doesn't know it")
            case Deleted():
                return self._proven(resource, "the store says that it's deleted")
        return _refused(path, answer)

    def _proven(self, resource: Resource, said: str) -> Told:
        """Believe a store that says that something is gone if a search finds nothing of it."""
        left = patiently(lambda: self._left(resource, said), self.pause)
        return _refused(resource.name, left) if left else Told(resource.name, "deleted")

    def _left(self, resource: Resource, said: str) -> Rejected | Unavailable | None:
        found = self.searcher.find(replace(_all_of(resource), limit=1))
        if isinstance(found, list):
            return Unavailable(f"{said}, but a search still finds it") if found else None
        absent = isinstance(found, Rejected) and found.status in {404, 410}
        return None if absent else found


def _refused(path: str, because: Rejected | Unavailable) -> Told:
    outcome = "unavailable" if isinstance(because, Unavailable) else "refused"
    return Told(path, outcome, because.reason)
