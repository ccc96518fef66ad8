"""Retrieve (PS3.18 10.4), in Explicit VR Little Endian or in the stored transfer syntax.

What can be had is a list of offers, and each offer names its transfer syntax.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from flask import Response, g, request, send_file
from pydicom import Dataset
from werkzeug.exceptions import NotFound

from service.archive import Instance
from service.dicom import decoding, multipart, part10
from service.dicom.decoding import EXPLICIT, number_of_frames
from service.dicomweb import frames as pixels
from service.dicomweb import transcoded
from service.dicomweb.accept import Offer
from service.dicomweb.answers import JSON, XML_PARTS, begun, data_sets, streamed
from service.dicomweb.context import absolute, archive, negotiated, url, url_of
from service.dicomweb.rendered import JPEG, PNG, read_viewport, render
from service.errors import BadRequest

_CHUNK = 1 << 18  # bytes
_DICOM = "application/dicom"
_OCTETS = "application/octet-stream"
_PIXEL_DATA = "7FE00010"
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
# A tag, or the tags of sequences and the indices of their items from 0, and a tag.
_BULK_PATH = re.compile(r"[0-9A-Fa-f]{8}(/[0-9]{1,6}/[0-9A-Fa-f]{8})*")


def retrieve(study: str, series: str | None = None, instance: str | None = None) -> Response:
    """Answer with the files of a study, a series or an instance.

    They come in Explicit VR Little Endian, or as they were stored.
    """
    found = _stored(study, series, instance)
    offers = transcoded.offers(found, single=instance is not None)
    offer = negotiated(offers)
    if offer.multipart:
        return _parts(found, EXPLICIT if offer.transcoded else "")
    path, content_type = archive().path(found[0].uids), _content_type(offer)
    if not offer.transcoded:
        return send_file(path, content_type, etag=found[0].sha256)
    length, pieces = transcoded.file(path)
    response = Response(begun(pieces), content_type=content_type)
    response.content_length = length
    return response


def _content_type(offer: Offer) -> str:
    syntax = f"; transfer-syntax={offer.transfer_syntax}" if offer.transfer_syntax else ""
    return offer.media_type + syntax


def _stored(study: str, series: str | None, instance: str | None) -> list[Instance]:
    found = archive().instances(study, series, instance)
    if not found:
        raise NotFound("no such study, series or instance is stored")
    return found


def _parts(found: Sequence[Instance], syntax: str) -> Response:
    """Answer with files as parts, read while they are sent.

    Parameters
    ----------
    syntax
        What they shall be transcoded to; empty for as they are, whose length is known beforehand.
    """
    files = [(archive().path(row.uids), row) for row in found]
    heads = [
        {
            "Content-Type": f"{_DICOM}; transfer-syntax={syntax or row.transfer_syntax}",
            "Content-Location": url(*row.uids),
        }
        for row in found
    ]
    bodies = (_pieces(path, row, syntax) for path, row in files)
    lengths = None if syntax else [row.size for row in found]
    return streamed(heads, bodies, _DICOM, lengths)


def _pieces(path: Path, instance: Instance, syntax: str) -> Iterator[bytes]:
    if syntax not in ("", instance.transfer_syntax):
        return transcoded.file(path)[1]
    return _chunks(path)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def metadata(study: str, series: str | None = None, instance: str | None = None) -> Response:
    """Answer with the attributes of every instance; binary values are BulkDataURIs."""
    found = _stored(study, series, instance)
    offer = negotiated((JSON, XML_PARTS))
    of_base = partial(url_of, g.base)  # the request is over when the last of them are made
    models = (absolute(json.loads(row.attributes), of_base(*row.uids)) for row in found)
    return data_sets(models, offer)


def rendered(study: str, series: str, instance: str, frames: str = "") -> Response:
    """Answer with frames, the first if none is named, as images that a browser can show."""
    (stored,) = _stored(study, series, instance)
    numbers = _numbers(frames or "1")
    dataset = _image(stored, numbers)
    kinds = [JPEG, PNG] if len(numbers) == 1 else []
    if frames:
        kinds += [replace(kind, multipart=True) for kind in (JPEG, PNG)]
    offer = negotiated(kinds)
    viewport = read_viewport(request.args.get("viewport"))
    images = (render(dataset, number, offer, viewport) for number in numbers)
    return _bodies(images, offer, len(numbers))


def frames(study: str, series: str, instance: str, frames: str) -> Response:
    """Answer with frames, decoded or as they were stored; `frames` is a list of numbers from 1.

    Raises
    ------
    BadRequest
        If the list isn't one.
    NotFound
        If a frame isn't there.
    """
    (stored,) = _stored(study, series, instance)
    numbers = _numbers(frames)
    dataset = _image(stored, numbers)
    forms = _forms(stored, dataset)
    offers = [replace(form, multipart=True) for form in forms]
    offers += forms if len(numbers) == 1 else []
    return _frames(dataset, numbers, negotiated(offers))


def _numbers(text: str) -> Sequence[int]:
    if not all(map(_NUMBER.fullmatch, text.split(","))):
        raise BadRequest("not a list of frame numbers", where="frames of the path")
    numbers = list(map(int, text.split(",")))
    if len(set(numbers)) < len(numbers):
        raise BadRequest("a frame number occurs twice", where="frames of the path")
    return numbers


def _image(stored: Instance, numbers: Sequence[int] = ()) -> Dataset:
    """Return a data set that has these frames; all that it says it has, if none are named."""
    dataset = part10.decode(archive().path(stored.uids).read_bytes())
    if not isinstance(dataset.get("PixelData") or None, bytes):
        raise NotFound("the instance has no Pixel Data (7FE0,0010)")
    count = number_of_frames(dataset)
    if max(numbers, default=1) > count or count > len(dataset.PixelData):
        raise NotFound("the instance has no such frame")
    if (len(numbers) or count) > multipart.MAX_PARTS:
        raise BadRequest(f"more than {multipart.MAX_PARTS} frames", mend="retrieve the instance")
    return dataset


def _forms(stored: Instance, dataset: Dataset) -> list[Offer]:
    """Return in what forms a frame can be had, Explicit VR Little Endian first, if at all."""
    syntax = stored.transfer_syntax
    kinds = dict.fromkeys((pixels.media_type(syntax), _OCTETS))
    forms = [Offer(kind, syntax) for kind in kinds]
    if syntax != EXPLICIT and transcoded.is_decodable(stored):
        compressed = pixels.is_encapsulated(dataset)
        forms.insert(0, Offer(_OCTETS, EXPLICIT, transcoded=compressed))
    return forms


def _frames(dataset: Dataset, numbers: Sequence[int], offer: Offer) -> Response:
    found: Iterable[bytes] = pixels.frames(dataset, numbers)
    if offer.transcoded:
        decoded = (decoding.frame(dataset, codestream) for codestream in found)
        found = transcoded.within_budget(decoded, dataset)
    return _bodies(found, offer, len(numbers))


def _bodies(bodies: Iterable[bytes], offer: Offer, count: int) -> Response:
    """Answer with bodies, each made when its turn comes; joined, if they aren't to be parts."""
    content_type = _content_type(offer)
    if offer.multipart:
        heads = [{"Content-Type": content_type}] * count
        return streamed(heads, ([body] for body in bodies), offer.media_type)
    whole = next(iter(bodies)) if count == 1 else begun(bodies)
    return Response(whole, content_type=content_type)


def bulk_data(study: str, series: str, instance: str, where: str) -> Response:
    """Answer with a binary value; Pixel Data comes as its frames.

    Raises
    ------
    NotFound
        If the data set has no such value.
    """
    (stored,) = _stored(study, series, instance)
    if where.upper() != _PIXEL_DATA:
        value = _value(part10.decode(archive().path(stored.uids).read_bytes()), where)
        offers = [Offer(_OCTETS, multipart=True), Offer(_OCTETS)]
        return _bodies([value], negotiated(offers), 1)
    dataset = _image(stored)
    numbers = range(1, number_of_frames(dataset) + 1)
    forms = _forms(stored, dataset)
    offers = [replace(form, multipart=True) for form in forms]
    # Uncompressed frames are one value; compressed ones can't be told apart without parts.
    compressed = pixels.is_encapsulated(dataset) and len(numbers) > 1
    offers += [form for form in forms if form.transcoded or not compressed]
    return _frames(dataset, numbers, negotiated(offers))


def _value(dataset: Any, where: str) -> bytes:
    """Follow a path such as ``00880200/0/7FE00010`` through the sequences of a data set."""
    missing = NotFound("the instance has no such bulk data")
    if not _BULK_PATH.fullmatch(where):
        raise missing
    try:
        for number, step in enumerate(where.split("/")):
            dataset = dataset[int(step)] if number % 2 else dataset[int(step, 16)].value
    except (AttributeError, LookupError, TypeError) as error:
        raise missing from error
    if not isinstance(dataset, bytes):
        raise missing
    return dataset
