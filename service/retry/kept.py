r"""What the retry queue keeps of an instance, as one file.

{"version":1,...}\n      what it is: data set, what the upload said, what the image was found to be
SHA-256 in hexadecimal\n over the line above and all that follows
codestream
"""

import base64
import hashlib
import json
from dataclasses import asdict
from typing import Any, BinaryIO, Final, NamedTuple

from service.dicom import json_model
from service.dicom.codestream import Buffer, Codestream
from service.dicom.dataset import Instance
from service.dicom.encapsulation import Encapsulation
from service.dicom.exif_attributes import Tags, used
from service.dicom.normalise import Normalised
from service.errors import BadRequest
from service.ingest import Attempt, Described, Upload
from service.retry import entry as entries
from service.retry.entry import Entry

_VERSION: Final = 1
_DIGEST_LINE: Final = 65  # bytes
_LONGEST_HEAD: Final = 1 << 26


class Kept(NamedTuple):
    """An upload without its image, and what it became; or with it, if it could not be described."""

    upload: Upload
    described: Described | None

    @property
    def instance(self) -> Instance:
        """The instance; BadRequest if it has never been described."""
        if self.described is None:
            raise BadRequest("it has never been described, and is no instance yet", where="id")
        return self.described.instance


def made(
    upload: Upload, described: Described | None, attempt: Attempt | None, now: float
) -> tuple[Entry, tuple[Buffer, ...]]:
    """Return the entry of an instance that was tried once, or not yet, and its file's pieces."""
    pieces = encode(upload, described, now)
    return entries.new(upload, described, attempt, now, sum(map(len, pieces))), pieces


def encode(upload: Upload, described: Described | None, first_seen: float) -> tuple[Buffer, ...]:
    """Return the file's pieces; those of the codestream are not copied.

    Parameters
    ----------
    first_seen
        In seconds since 1970.
    """
    codestream = described.instance.codestream if described else Codestream((upload.image,))
    head = json_model.dumps(_model(upload, described, first_seen)) + b"\n"
    digest = hashlib.sha256(head)
    for piece in codestream:
        digest.update(piece)
    return (head + digest.hexdigest().encode() + b"\n", *codestream)


def decode(data: Buffer) -> Kept:
    """Read a file.

    Raises
    ------
    ValueError
        If it isn't what was written.
    """
    view = memoryview(data)
    end = bytes(view[:_LONGEST_HEAD]).find(b"\n") + 1
    start = end + _DIGEST_LINE
    digest = hashlib.sha256(view[:end])
    digest.update(view[start:])
    if not end or bytes(view[end:start]) != digest.hexdigest().encode() + b"\n":
        raise ValueError("the file isn't what was written")
    return _kept(json.loads(bytes(view[:end])), Codestream((view[start:],)))


def read_head(file: BinaryIO) -> tuple[Kept, float]:
    """Read what a file says of its instance, without the codestream; and when it was first seen.

    Raises
    ------
    ValueError
        If it says nothing of that kind.
    """
    try:
        model = json.loads(file.readline(_LONGEST_HEAD))
        return _kept(model, Codestream(())), float(model["first_seen"])
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError("the file isn't an entry's") from error


def _kept(model: dict[str, Any], codestream: Codestream) -> Kept:
    if model["version"] != _VERSION:
        raise ValueError(f"the file isn't of version {_VERSION}")
    said = dict(model["upload"])
    said["attributes"] = json_model.from_json(said["attributes"])
    if model["dataset"] is None:
        return Kept(Upload(image=bytes(codestream), **said), None)
    normalised = _normalised(model["normalised"], codestream)
    dataset = json_model.from_json(model["dataset"])
    instance = Instance(dataset, codestream, normalised.encapsulation.transfer_syntax)
    changes = tuple(model["changes"])
    return Kept(Upload(image=b"", **said), Described(instance, normalised, changes))


def _model(upload: Upload, described: Described | None, first_seen: float) -> dict[str, Any]:
    said = {
        "digest": upload.digest,
        "attributes": json_model.to_exact_json(upload.attributes),
        "template": upload.template,
        "source": upload.source,
        "request": upload.request,
        "idempotency_key": upload.idempotency_key,
    }
    return {
        "version": _VERSION,
        "first_seen": first_seen,
        "dataset": described and json_model.to_exact_json(described.instance.dataset),
        "changes": described.changes if described else [],
        "upload": said,
        "normalised": described and _found(described.normalised),
    }


def _found(normalised: Normalised) -> dict[str, Any]:
    profile = normalised.icc_profile
    return {
        "encapsulation": asdict(normalised.encapsulation),
        "changes": normalised.changes,
        "derivation": normalised.derivation,
        "original_ratio": normalised.original_ratio,
        "aspect_ratio": normalised.aspect_ratio,
        "tags": [[*key, _shown(value)] for key, value in used(normalised.tags).items()],
        "icc_profile": None if profile is None else base64.b64encode(profile).decode(),
    }


def _normalised(found: dict[str, Any], codestream: Codestream) -> Normalised:
    profile = found["icc_profile"]
    ratio = found["aspect_ratio"]
    return Normalised(
        codestream=codestream,
        encapsulation=Encapsulation(**found["encapsulation"]),
        changes=tuple(found["changes"]),
        derivation=found["derivation"],
        original_ratio=found["original_ratio"],
        aspect_ratio=None if ratio is None else (ratio[0], ratio[1]),
        tags=_tags(found["tags"]),
        icc_profile=None if profile is None else base64.b64decode(profile),
    )


def _shown(value: object) -> object:
    """Return an EXIF value as JSON can hold it: bytes, which JSON has not, as an object."""
    return {"bytes": value.hex()} if isinstance(value, bytes) else value


def _tags(shown: list[list[Any]]) -> Tags:
    return {(directory, tag): _value(value) for directory, tag, value in shown}


def _value(shown: Any) -> Any:
    if isinstance(shown, dict):
        return bytes.fromhex(shown["bytes"])
    return tuple(map(_value, shown)) if isinstance(shown, list) else shown
