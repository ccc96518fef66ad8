"""Any DICOMweb server as a store."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from pydicom import Dataset

from service.dicom import stow, stow_answer
from service.dicom.dataset import Instance
from service.dicom.multipart import Payload
from service.dicom.outcome import Conflict, Outcome, Rejected, Stored, Unavailable, Verdict
from service.dicom.resource import Resource
from service.settings import Settings
from service.store import deletion, read_back, watch
from service.store.client import MAX_ANSWER, Answer, Client, Download

_GLANCE = 2.0  # seconds; whoever asks for readiness doesn't wait for long
_JSON = {"Accept": "application/dicom+json"}
_ANY_SYNTAX = "application/dicom; transfer-syntax=*"
_INSTANCE = {
    "Accept": f'multipart/related; type="application/dicom"; transfer-syntax=*, {_ANY_SYNTAX}'
}


class DicomwebStore:
    """A DICOMweb server, reached over connections that are kept and shared by threads."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.store_url
        self._headers = {"Storage-Class": settings.storage_class} if settings.storage_class else {}
        self._wire: stow.Wire = "part10" if settings.dicomweb_wire == "part10" else "json"
        self._may_change_wire = settings.dicomweb_wire == "auto"
        self._asks_before = settings.read_back != "never" and not read_back.is_truthful(settings)
        self._reads_all = settings.read_back == "always"
        self._client = Client(settings)

    @property
    def wire(self) -> stow.Wire:
        """The wire format in use now."""
        return self._wire

    def store(
        self, instances: Sequence[Instance], within: float | None = None
    ) -> dict[str, Outcome]:
        """Send instances in one request and return what became of each, by SOP Instance UID.

        A store that has an instance already is asked for it: the same content is a success,
        other content a refusal.

        Parameters
        ----------
        within
            Seconds after which whatever isn't decided is `Unavailable`; None for no such bound
            but the timeouts of the settings.
        """
        with watch.within(within):
            wanted = [read_back.of_instance(instance) for instance in instances]
            before = self._ask(wanted)
            verdicts = self._send(instances)
            return {
                uid: self._settled(each, verdicts[uid], before[uid])
                for each in wanted
                for uid in [each.sop_instance_uid]
            }

    def store_file(self, data: bytes, dataset: Dataset) -> Verdict:
        """Send one ready DICOM file, which was read as `dataset`, byte for byte.

        What the store says of it is believed as in `store`, where its UIDs can be asked for.
        """
        name = str(dataset.SOPInstanceUID)
        wanted = read_back.of_file(dataset, len(data))
        before = self._ask([wanted]) if wanted else {}
        verdict = self._post(stow.package_files([data]), {name: ""})[name]
        return self._settled(wanted, verdict, before[name]) if wanted else verdict

    def instance(self, resource: Resource, size: int) -> Answer | Unavailable:
        """Get an instance whole, as it is stored, into memory.

        `size` is what it should have, in bytes: of a much longer answer the body is left empty.
        """
        return self._client.call("GET", resource.path, _INSTANCE, limit=2 * size + MAX_ANSWER)

    def download(
        self, path: str, accept: str = _INSTANCE["Accept"]
    ) -> AbstractContextManager[Download | Unavailable]:
        """Get what is at a path behind the store's URL, by default an instance as it is stored."""
        return self._client.download(path, {"Accept": accept})

    def get(self, path: str, accept: str, limit: int = MAX_ANSWER) -> Answer | Unavailable:
        """Get what is at a path behind the store's URL into memory, up to `limit` bytes of it."""
        return self._client.call("GET", path, {"Accept": accept}, limit=limit)

    def delete(self, resource: Resource) -> deletion.Answered:
        """Delete a study, a series or an instance, or begin to."""
        return deletion.delete(self._client, resource)

    def operation(self, operation: deletion.Deleting) -> deletion.Answered:
        """Tell how far an operation has come."""
        return deletion.look(self._client, self._url, operation)

    def unreachable(self) -> str:
        """Return why the store can't be reached, in no words of its own; "" if it can."""
        with watch.within(_GLANCE):
            answer = self._client.call("GET", "/studies?limit=1", _JSON)
        if isinstance(answer, Unavailable):
            return answer.reason
        if answer.status == 204:  # nothing found
            return ""
        if answer.status == 200 and "json" not in answer.headers.get("content-type", ""):
            return "what answers at the store's address is no DICOMweb server"  # but a page, say
        verdict = stow_answer.read_status(answer.status, answer.headers, b"")
        return verdict.reason if isinstance(verdict, Unavailable) else ""

    def _ask(self, wanted: Sequence[read_back.Wanted]) -> dict[str, read_back.Before]:
        """Ask which instances are there already, until the store gives no answer."""
        told: read_back.Before = "unknown" if self._asks_before else "absent"
        before = {each.sop_instance_uid: told for each in wanted}
        for each in wanted if self._asks_before else ():
            answer = self._client.call("GET", f"{each.resource.path}/metadata", _JSON)
            if isinstance(answer, Unavailable):
                break
            before[each.sop_instance_uid] = read_back.before(answer)
        return before

    def _send(self, instances: Sequence[Instance]) -> dict[str, Verdict]:
        """Post in the current wire format, and in the other where the store doesn't take it."""
        sop_classes = {each.sop_instance_uid: each.sop_class_uid for each in instances}
        wire = self._wire
        verdicts = self._post(stow.package(instances, wire), sop_classes)
        if wire == "json" and self._may_change_wire and _is_unsupported(verdicts):
            verdicts = self._post(stow.package(instances, "part10"), sop_classes)
            if not _is_unsupported(verdicts):
                self._wire = "part10"
        return verdicts

    def _post(self, payload: Payload, sop_classes: Mapping[str, str]) -> dict[str, Verdict]:
        headers = {**_JSON, "Content-Type": payload.content_type, **self._headers}
        answer = self._client.call("POST", "/studies", headers, payload)
        if isinstance(answer, Unavailable):
            return dict.fromkeys(sop_classes, answer)
        return stow_answer.read_response(*answer, sop_classes)

    def _settled(
        self, wanted: read_back.Wanted, verdict: Verdict, before: read_back.Before
    ) -> Outcome:
        """Turn a verdict into an outcome; in doubt, by reading what the store has."""
        if isinstance(verdict, Rejected | Unavailable):
            return verdict
        path = wanted.resource.path
        success = _success(verdict, before, self._url + path)
        if isinstance(verdict, Stored) and before == "absent" and not self._reads_all:
            return success
        # Much more than was sent is other content, whatever it is.
        limit = 2 * wanted.size + MAX_ANSWER
        answer = self._client.call("GET", path, _INSTANCE, limit=limit)
        if isinstance(answer, Unavailable):
            return answer
        return read_back.fault(verdict, answer, wanted) or success


def _success(verdict: Stored | Conflict, before: read_back.Before, url: str) -> Stored:
    if isinstance(verdict, Conflict):
        return Stored(url, duplicate=True)
    duplicate = verdict.duplicate or before == "there"
    return replace(verdict, retrieve_url=verdict.retrieve_url or url, duplicate=duplicate)


def _is_unsupported(verdicts: Mapping[str, Verdict]) -> bool:
    return all(isinstance(v, Rejected) and v.status == 415 for v in verdicts.values())
