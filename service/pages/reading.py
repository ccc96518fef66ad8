"""What the pages read of a store: any DICOMweb server, by the store's own client."""

import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from flask import Response

from service.dicom import json_model, multipart
from service.dicom.json_model import JsonObject
from service.dicom.outcome import Rejected, Unavailable
from service.dicom.resource import Resource
from service.dicom.uid import is_uid
from service.errors import BadRequest
from service.pages.rows import texts
from service.pages.thumbnail import SIDE, thumbnail
from service.store import DicomwebStore, refusal, watch
from service.store.client import Answer, Download

_JSON: Final = "application/dicom+json, application/json;q=0.5"
_RENDERED: Final = "image/jpeg"
_DICOM: Final = "application/dicom"
_PATIENCE: Final = 15.0  # seconds that a person waits for a page
_LARGEST: Final = 64 * 1024 * 1024  # bytes of a rendered picture
_WORD: Final = re.compile(r"[^\s,^*?\\]+")

Refusal = Rejected | Unavailable


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads a store for people; what goes wrong is a value."""

    store: DicomwebStore

    def studies(
        self, matching: Mapping[str, str], limit: int, offset: int
    ) -> list[JsonObject] | Refusal:
        """Return studies that match.

        A name matches by its words where the store can do that (PS3.18 8.3.4.2), else by wildcards;
        some stores know the one, some the other.
        """
        paging = {"limit": str(limit), "offset": str(offset)}
        words = _WORD.findall(matching.get("PatientName", ""))
        if not words:
            return self._search("/studies", {**matching, **paging})
        fuzzy = {"PatientName": " ".join(words), "fuzzymatching": "true"}
        found = self._search("/studies", {**matching, **paging, **fuzzy})
        if found and isinstance(found, list):
            return found
        wild = {"PatientName": f"*{'*'.join(words)}*"}
        again = self._search("/studies", {**matching, **paging, **wild})
        return again if isinstance(again, list) else found

    def instances(self, study: str, limit: int, offset: int) -> list[JsonObject] | Refusal:
        """Return instances of a study."""
        path = f"{Resource(study).path}/instances"
        return self._search(path, {"limit": str(limit), "offset": str(offset)})

    def metadata(self, resource: Resource) -> JsonObject | Refusal:
        """Return an instance's attributes."""
        found = self._array(f"{resource.path}/metadata")
        if isinstance(found, list):
            return found[0] if found else Rejected("the store doesn't have it", status=404)
        return found

    def is_gone(self, resource: Resource) -> bool:
        """Tell whether a search finds nothing of a study or an instance any more."""
        asked = {"StudyInstanceUID": resource.study, "SOPInstanceUID": resource.instance}
        within = f"{Resource(resource.study).path}/instances" if resource.instance else "/studies"
        key = "SOPInstanceUID" if resource.instance else "StudyInstanceUID"
        return self._search(within, {key: asked[key], "limit": "1"}) == []

    def thumbnail(self, resource: Resource) -> bytes | None:
        """Return a small JPEG of an instance, or of the first of a study; None without any."""
        if not resource.instance:
            found = self.instances(resource.study, 1, 0)
            if not isinstance(found, list) or not found:
                return None
            told = texts(found[0])
            series, instance = told.get("SeriesInstanceUID", ""), told.get("SOPInstanceUID", "")
            if not (is_uid(series) and is_uid(instance)):
                return None
            resource = Resource(resource.study, series, instance)
        answer = self._get(f"{resource.path}/rendered?viewport={SIDE},{SIDE}", _RENDERED)
        if isinstance(answer, Answer) and answer.status in {400, 406, 501}:
            answer = self._get(f"{resource.path}/rendered", _RENDERED)  # it knows no viewport
        if isinstance(answer, Unavailable) or answer.status != 200:
            return None
        return thumbnail(answer.body)

    def rendered(self, resource: Resource) -> bytes | None:
        """Return an instance's picture as JPEG; None of what the store can't render."""
        answer = self._get(f"{resource.path}/rendered", _RENDERED)
        if isinstance(answer, Unavailable) or answer.status != 200:
            return None
        return answer.body if answer.body.startswith(b"\xff\xd8") else None

    def file(self, resource: Resource) -> Response | Refusal:
        """Answer with an instance as it is stored, while it comes from the store."""
        stack = ExitStack()
        answer = stack.enter_context(self.store.download(resource.path))
        try:
            if isinstance(answer, Unavailable):
                return answer
            if answer.status != 200:
                return refusal.read(answer.status, answer.headers)
            response = _passing_on(answer)
        except BadRequest as error:
            return Rejected(error.detail)
        else:
            response.call_on_close(stack.pop_all().close)
            return response
        finally:
            stack.close()

    def _search(self, path: str, query: Mapping[str, str]) -> list[JsonObject] | Refusal:
        # Orthanc knows a wildcard only as it is, not percent-encoded.
        return self._array(f"{path}?{urlencode(query, safe='*')}")

    def _array(self, path: str) -> list[JsonObject] | Refusal:
        answer = self._get(path, _JSON)
        if isinstance(answer, Unavailable):
            return answer
        if answer.status == 204:  # nothing found
            return []
        if answer.status != 200:
            return refusal.read(answer.status, answer.headers)
        try:
            found = json_model.loads(answer.body)
        except ValueError:
            return Unavailable("the store's answer isn't JSON", operator=True)
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            return Rejected("the store's answer isn't an array of data sets")
        return found

    def _get(self, path: str, accept: str) -> Answer | Unavailable:
        with watch.within(_PATIENCE):
            return self.store.get(path, accept, _LARGEST)


def _passing_on(answer: Download) -> Response:
    """Return an answer's DICOM file, whatever it is wrapped in.

    Raises
    ------
    BadRequest
        If it isn't one.
    """
    content_type = answer.headers.get("content-type", "")
    media_type, _ = multipart.parse_media_type(content_type)
    if media_type == "multipart/related":
        return Response(multipart.only_part(answer.blocks, content_type), content_type=_DICOM)
    if media_type != _DICOM:
        raise BadRequest("the store's answer isn't a DICOM file")
    response = Response(answer.blocks, content_type=_DICOM)
    if answer.headers.get("content-length", "").isdecimal():
        response.content_length = int(answer.headers["content-length"])
    return response
