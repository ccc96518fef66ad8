"""A DICOMweb store as its users see it, and what is put into it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import requests
from pydicom import Dataset

from service.archive import InstanceUids
from service.dicom.multipart import Payload
from service.store.watch import watched
from tests.archive_instances import dicom_file, file_request
from tests.archive_server import Answer
from tests.peers import BOUND

EXPLICIT = "1.2.840.10008.1.2.1"
DICOM_JSON = "application/dicom+json"
DICOM_XML = "application/dicom+xml"
FILE = "application/dicom; transfer-syntax=*"
FILES = 'multipart/related; type="application/dicom"; transfer-syntax=*'
PROFILE, ICONS = b"a profile of colours", (b"\0\1", b"\2\3")


@dataclass
class Store:
    """A store, by what sends requests to it and what it is called in `DEVIATIONS`.

    Parameters
    ----------
    root
        The UID under which this run, and nobody else, has all its studies.
    """

    name: str
    base: str
    session: requests.Session
    root: str
    made: set[str] = field(default_factory=set)
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def ask(
        self,
        method: str,
        path: str,
        accept: str = "*/*",
        query: str = "",
        body: bytes | None = None,
        **headers: str,
    ) -> Answer:
        """Send a request; `path` is behind the base or absolute, headers are named with _ for -."""
        url = path if path.startswith("http") else self.base + path
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        with watched(BOUND):  # as the service's own sessions want it
            response = self.session.request(
                method,
                url + f"?{query}" * bool(query),
                data=body,
                headers={"Accept": accept, "Accept-Encoding": "identity", **given},
                timeout=BOUND,
            )
        received = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status_code, received, response.content)

    def get(self, path: str, accept: str = "*/*", query: str = "") -> Answer:
        """Read something."""
        return self.ask("GET", path, accept, query)

    def search(self, level: str, query: str = "") -> list[Any]:
        """Return what is found; nothing where the answer says so without a body."""
        answer = self.get(f"/{level}", DICOM_JSON, query)
        assert answer.status in {200, 204}, answer
        found = answer.json() if answer.body else []
        assert isinstance(found, list)
        return found

    def post(self, payload: Payload, accept: str = DICOM_JSON, path: str = "/studies") -> Answer:
        """Store something."""
        kind = payload.content_type
        return self.ask("POST", path, accept, body=b"".join(payload), Content_Type=kind)

    def put(self, *files: bytes) -> None:
        """Store files in the form that every store takes."""
        answer = self.post(file_request(*files))
        assert answer.status == 200, answer

    def study(self) -> str:
        """Return the UID of a study that nobody has yet; it is deleted at the end."""
        uid = f"{self.root}.{next(self._numbers)}"
        self.made.add(uid)
        return uid

    def photograph(self, study: str = "", number: int = 1, **changes: Any) -> "Photograph":
        """Return an instance, not stored yet: of a study, its series 1 and so many other ones."""
        study = study or self.study()
        uids = InstanceUids(study, f"{study}.{changes.pop('series', 1)}", f"{study}.0.{number}")
        return Photograph(uids, changes)


@dataclass(frozen=True)
class Photograph:
    """An instance, stored or not."""

    uids: InstanceUids
    changes: dict[str, Any]

    @property
    def named(self) -> dict[str, Any]:
        """The keywords and values in which it isn't as every other photograph."""
        study, series, instance = self.uids
        uids = {
            "StudyInstanceUID": study,
            "SeriesInstanceUID": series,
            "SOPInstanceUID": instance,
        }
        return uids | self.changes

    @property
    def file(self) -> bytes:
        """It as a DICOM file."""
        return dicom_file(**self.named)

    @property
    def study(self) -> str:
        """The path of its study."""
        return f"/studies/{self.uids.study}"

    @property
    def series(self) -> str:
        """The path of its series."""
        return f"{self.study}/series/{self.uids.series}"

    @property
    def path(self) -> str:
        """Its path."""
        return f"{self.series}/instances/{self.uids.instance}"


def icons() -> list[Dataset]:
    """Return items with bulk data, for a sequence."""
    items = []
    for data in ICONS:
        item = Dataset()
        item.add_new(0x7FE00010, "OB", data)
        items.append(item)
    return items


def values(models: Sequence[Any], tag: str) -> list[Any]:
    """Return the first value of an attribute in each of some data sets, in their order."""
    return [model[tag]["Value"][0] for model in models]


def instances(models: Sequence[Any]) -> set[str]:
    """Return the SOP Instance UIDs of data sets."""
    return set(values(models, "00080018"))
