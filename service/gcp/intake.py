"""From a message to its instance: stored, queued, or kept as dead; only then is it acknowledged."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pydicom import Dataset
from pydicom.datadict import keyword_dict

from service import telemetry
from service.dicom import attributes
from service.dicom.outcome import Outcome, Rejected, Stored, Unavailable, loggable
from service.errors import BadRequest, JpegstowError
from service.gcp import envelope, metadata
from service.gcp.envelope import Ignored, Message, Picture, Pointer, Reference
from service.gcp.objects import Buckets
from service.ingest import Attempt, Rules, Store, Upload, digest_of, ingest, request_name
from service.retry import Queue

_LONGEST_SIDECAR: Final = 1_000_000  # bytes
_NAME: Final = re.compile("template|[0-9A-Fa-f]{8}")  # besides keywords


@dataclass(frozen=True, slots=True)
class Source:
    """Where pictures of messages come from, and what is taken of them.

    Attributes
    ----------
    rules
        METADATA_RULES.
    template
        The template of a picture that names none.
    limit
        The bytes of the largest picture.
    """

    buckets: Buckets
    rules: Sequence[metadata.Rule]
    template: str
    limit: int


class Intake:
    """Takes messages, from whatever subscription, through the line; threads may share it."""

    def __init__(
        self,
        rules: Rules,
        store: Store,
        queue: Queue,
        source: Source,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._rules = rules
        self._store = store
        self._queue = queue
        self._source = source
        self._clock = clock

    def push(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Take a push request, as `take` takes its message; header names in lower case."""
        try:
            message = envelope.read(body, headers)
        except BadRequest as error:
            self._bury(self._upload(body, {}, "pubsub"), error)
            return
        self.take(message)

    def take(self, message: Message) -> None:
        """Bring a message to its end; whoever gets no exception acknowledges it.

        Stored, queued, ignored, or kept as dead for an operator, are ends.

        Raises
        ------
        JpegstowError
            A transient one: nothing is kept, and the message must come again.
        """
        try:
            upload = self._uploaded(message)
        except BadRequest as error:
            self._bury(self._upload(message.data, {}, "pubsub"), error)
            return
        if upload is not None:
            self._ingest(upload)

    def _uploaded(self, message: Message) -> Upload | None:
        """Return a message's picture; None if it has none, or if that is dead already."""
        match envelope.meaning(message):
            case Ignored(why):
                telemetry.log("INFO", "message ignored", reason=why)
                return None
            case Picture(image, said):
                return self._said(image, dict(said), "pubsub")
            case Pointer(reference, said):
                if metadata.is_sidecar(reference.name):
                    telemetry.log("INFO", "message ignored", reason="the object is a sidecar")
                    return None
                return self._read(reference, said)
        raise AssertionError("unreachable")

    def _read(self, reference: Reference, said: Mapping[str, Any]) -> Upload | None:
        """Read a picture from its bucket, and all that is said of it there."""
        buckets = self._source.buckets
        try:
            found = buckets.read(reference, self._source.limit)
        except JpegstowError as error:
            self._give_up(b"", reference, error)
            return None
        exact = replace(reference, generation=found.generation)
        try:
            beside = buckets.sidecar(reference, _LONGEST_SIDECAR)
            sidecar = metadata.sidecar(beside) if beside is not None else {}
        except JpegstowError as error:
            self._give_up(found.data, exact, error)
            return None
        named = metadata.by_name(self._source.rules, reference.name)
        there, template = metadata.joined(named, metadata.custom(found.metadata), sidecar)
        joined, better = metadata.joined({}, there, said)
        joined["template"] = better or template
        return self._said(found.data, joined, reference.bucket, exact.key)

    def _give_up(self, image: bytes, reference: Reference, error: JpegstowError) -> None:
        """Keep as dead what can't be read, unless the next time it may be."""
        if error.transient:
            raise error
        self._bury(self._upload(image, {}, reference.bucket, reference.key), error)

    def _said(
        self, image: bytes, said: dict[str, Any], source: str, key: str = ""
    ) -> Upload | None:
        """Return a picture with its attributes; None if they aren't acceptable, and it is dead."""
        try:
            return self._upload(image, said, source, key)
        except JpegstowError as error:
            self._bury(self._upload(image, _acceptable(said), source, key), error)
            return None

    def _upload(self, image: bytes, said: Mapping[str, Any], source: str, key: str = "") -> Upload:
        """Make an upload; raises BadAttribute."""
        template = str(said.get("template") or self._source.template)
        if not template.isprintable():
            template = "?"  # no template has that name, nor could the queue write it down
        dataset = attributes.parse({name: said[name] for name in said if name != "template"})
        digest = digest_of(image)
        name = request_name([digest], [dataset], template, key)
        return Upload(image, digest, dataset, template, source, name, key)

    def _ingest(self, upload: Upload) -> None:
        (result,) = ingest([upload], self._rules, self._store, self._queue, self._clock)
        outcome = result.outcome
        if isinstance(outcome, JpegstowError):
            if outcome.transient or result.described:
                raise outcome
            self._bury(upload, outcome)
            return
        uid = result.described.instance.sop_instance_uid if result.described else None
        _log(upload, outcome, uid)

    def _bury(self, upload: Upload, error: JpegstowError) -> None:
        """Keep as dead what no second delivery would mend.

        Raises
        ------
        QueueFull, QueueUnusable
            If it isn't kept.
        """
        now = self._clock()
        dead = Attempt(now, Rejected(str(error), asked=False), "")
        self._queue.put(upload, None, dead, now)
        telemetry.log(
            "ERROR",
            "message",
            source=upload.source,
            outcome="dead",
            reason=error.reason,
            bytes_in=len(upload.image),
        )


def _acceptable(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes that are right, each for itself, for whoever mends the rest."""
    found, seen = {}, Dataset()
    for name, value in said.items():
        if not _NAME.fullmatch(name) and name not in keyword_dict:
            continue  # to look for what is meant takes so long that thousands are an attack
        try:
            one = Dataset() if name == "template" else attributes.parse({name: value})
        except JpegstowError:
            continue
        if one.keys().isdisjoint(seen.keys()):
            found[name] = value
            seen.update(one)
    return found


def _log(upload: Upload, outcome: Outcome, uid: str | None) -> None:
    queued = isinstance(outcome, Unavailable)
    telemetry.log(
        "INFO" if isinstance(outcome, Stored) and not outcome.warning else "WARNING",
        "message",
        source=upload.source,
        template=upload.template,
        outcome="queued" if queued else type(outcome).__name__.lower(),
        reason=loggable(outcome),
        bytes_in=len(upload.image),
        SOPInstanceUID=uid,
    )
