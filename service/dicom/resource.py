"""The resources of the studies service (PS3.18 10.1.1): what a path names, and nothing else."""

import re
from typing import Final, Literal, NamedTuple

from service.dicom.uid import is_uid
from service.errors import BadRequest

Level = Literal["store", "study", "series", "instance", "frame"]
Searched = Literal["study", "series", "instance"]

_PATH: Final = re.compile(
    r"studies/([^/]+)(?:/series/([^/]+)(?:/instances/([^/]+)(?:/frames/([1-9][0-9]{0,8}))?)?)?"
)
_SHAPE: Final = "studies/UID, studies/UID/series/UID or studies/UID/series/UID/instances/UID"
_SEARCHED: Final[dict[str, Searched]] = {
    "studies": "study",
    "series": "series",
    "instances": "instance",
}


class Resource(NamedTuple):
    """A study, a series, an instance, a frame (from 1), or without any of them the whole store."""

    study: str = ""
    series: str = ""
    instance: str = ""
    frame: int = 0

    @property
    def level(self) -> Level:
        """What it is."""
        if self.frame:
            return "frame"
        if self.instance:
            return "instance"
        return "series" if self.series else "study" if self.study else "store"

    @property
    def path(self) -> str:
        """Its path behind the service's base URL; empty for the whole store."""
        steps = {
            "studies": self.study,
            "series": self.series,
            "instances": self.instance,
            "frames": self.frame or "",
        }
        return "".join(f"/{name}/{value}" for name, value in steps.items() if value)

    @property
    def name(self) -> str:
        """Its path as people type it; ``/`` for the whole store."""
        return self.path[1:] or "/"

    def __str__(self) -> str:
        """Name it for people."""
        if self.level == "frame":
            return f"frame {self.frame} of instance {self.instance}"
        names = {"study": self.study, "series": self.series, "instance": self.instance}
        return f"{self.level} {names.get(self.level, '')}".rstrip()


def parse(text: str, base: str) -> Resource:
    """Read a path such as ``studies/1.2/series/3.4``, or a URL below `base`.

    Raises
    ------
    BadRequest
        For any other text; it isn't quoted.
    """
    below = text.removeprefix(base) if text.startswith(f"{base}/") else text
    found = _PATH.fullmatch(below.strip("/"))
    if not found:
        raise BadRequest(f"it has to be {_SHAPE}, or a URL of the store's", where="PATH")
    *uids, frame = (part or "" for part in found.groups())
    if not all(is_uid(uid) for uid in uids if uid):
        raise BadRequest("it holds what isn't a UID", where="PATH")
    study, series, instance = uids
    return Resource(study, series, instance, int(frame or 0))


def parse_search(text: str) -> tuple[Searched, Resource]:
    """Read what is searched for, and in what: ``studies``, ``studies/1.2/series``, ...

    Raises
    ------
    BadRequest
        For any other text.
    """
    above, _, last = text.strip("/").rpartition("/")
    within = parse(above, "") if above else Resource()
    level = _SEARCHED.get(last)
    deep = {"study": "", "series": "study", "instance": "study series"}
    if not level or (above and within.level not in deep[level].split()):
        raise BadRequest(
            "it has to be studies, series or instances, or those of a study or a series, as in "
            "studies/UID/series/UID/instances",
            where="what is searched for",
        )
    return level, within
