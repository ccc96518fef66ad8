"""Retrieve (PS3.18 10.4), always in the stored transfer syntax.

What can be had is a list of offers, and each offer names its transfer syntax: a transcoder would
add offers, and change nothing else.
"""

import json
import re
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from flask import Response, request, send_file
from pydicom import Dataset
from werkzeug.exceptions import NotFound

from service.archive import Instance
from service.dicom import multipart, part10
from service.dicom.codestream import Codestream
from service.dicomweb import frames as pixels
from service.dicomweb.accept import Offer, choose
from service.dicomweb.answers import JSON, XML_PARTS, data_sets, parts
from service.dicomweb.context import absolute, archive, url
from service.dicomweb.rendered import JPEG, PNG, read_viewport, render
from service.errors import BadRequest

_CHUNK = 1 << 18  # bytes
_DICOM = "application/dicom"
_OCTETS = "application/octet-stream"
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
# A tag, or the tags of sequences and the indices of their items from 0, and a tag.
_BULK_PATH = re.compile(r"[0-9A-Fa-f]{8}(/[0-9]{1,6}/[0-9A-Fa-f]{8})*")


def retrieve(study: str, series: str | None = None, instance: str | None = None) -> Response:
    """Answer with the files of a study, a series or an instance, as they were stored."""
    found = _stored(study, series, instance)
    syntaxes = {instance.transfer_syntax for instance in found}
    syntax = syntaxes.pop() if len(syntaxes) == 1 else "*"
    offers = [Offer(_DICOM, syntax, multipart=True)]
    if instance is not None:
        offers.append(Offer(_DICOM, syntax))
    offer = choose(request.headers.get("Accept"), offers)
    files = [(archive().path(instance.uids), instance) for instance in found]
    if offer.multipart:
        return _stream(files)
    ((path, stored),) = files
    return send_file(path, f"{_DICOM}; transfer-syntax={syntax}", etag=stored.sha256)


def _stored(study: str, series: str | None, instance: str | None) -> list[Instance]:
    found = archive().instances(study, series, instance)
    if not found:
        raise NotFound("no such study, series or instance is stored")
    return found


def _stream(files: Sequence[tuple[Path, Instance]]) -> Response:
    """Answer with files as parts, read while they are sent; the length is known beforehand."""
    boundary = secrets.token_hex(20)
    heads = [
        f"\r\n--{boundary}\r\nContent-Type: {_DICOM}; transfer-syntax={instance.transfer_syntax}"
        f"\r\nContent-Location: {url(*instance.uids)}\r\n\r\n".encode()
        for _, instance in files
    ]
    end = f"\r\n--{boundary}--\r\n".encode()

    def body() -> Iterator[bytes]:
        for head, (path, _) in zip(heads, files, strict=True):
            yield head
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    yield chunk
        yield end

    content_type = f'multipart/related; type="{_DICOM}"; boundary={boundary}'
    response = Response(body(), content_type=content_type)
    response.content_length = (
        sum(map(len, heads)) + sum(instance.size for _, instance in files) + len(end)
    )
    return response


def metadata(study: str, series: str | None = None, instance: str | None = None) -> Response:
    """Answer with the attributes of every instance; binary values are BulkDataURIs."""
    found = _stored(study, series, instance)
    offer = choose(request.headers.get("Accept"), (JSON, XML_PARTS))
    models = (absolute(json.loads(row.attributes), url(*row.uids)) for row in found)
    return data_sets(list(models), offer)


def rendered(study: str, series: str, instance: str) -> Response:
    """Answer with the first frame as an image that a browser can show."""
    (stored,) = _stored(study, series, instance)
    offer = choose(request.headers.get("Accept"), (JPEG, PNG))
    viewport = read_viewport(request.args.get("viewport"))
    image = render(_image(stored), offer, viewport)
    return Response(image, content_type=offer.media_type)


def frames(study: str, series: str, instance: str, frames: str) -> Response:
    """Answer with frames as they were stored; `frames` is a list of numbers from 1.

    Raises
    ------
    BadRequest
        If the list isn't one.
    NotFound
        If a frame isn't there.
    """
    (stored,) = _stored(study, series, instance)
    if not all(map(_NUMBER.fullmatch, frames.split(","))):
        raise BadRequest("not a list of frame numbers", where="frames of the path")
    numbers = list(map(int, frames.split(",")))
    if len(set(numbers)) < len(numbers):
        raise BadRequest("a frame number occurs twice", where="frames of the path")
    return _frames(_image(stored), numbers, stored.transfer_syntax)


def _image(stored: Instance) -> Dataset:
    dataset = part10.decode(archive().path(stored.uids).read_bytes())
    if not isinstance(dataset.get("PixelData") or None, bytes):
        raise NotFound("the instance has no Pixel Data (7FE0,0010)")
    return dataset


def _frames(dataset: Dataset, numbers: Sequence[int], syntax: str) -> Response:
    count = pixels.number_of_frames(dataset)
    if max(numbers) > count or count > len(dataset.PixelData):
        raise NotFound("the instance has no such frame")
    if len(numbers) > multipart.MAX_PARTS:
        raise BadRequest(f"more than {multipart.MAX_PARTS} frames", mend="retrieve the instance")
    kinds = dict.fromkeys((pixels.media_type(syntax), _OCTETS))
    offers = [Offer(kind, syntax, multipart=True) for kind in kinds]
    if len(numbers) == 1:
        offers += [Offer(kind, syntax) for kind in kinds]
    offer = choose(request.headers.get("Accept"), offers)
    return _bodies(pixels.frames(dataset, numbers), offer)


def _bodies(bodies: Sequence[bytes], offer: Offer) -> Response:
    syntax = f"; transfer-syntax={offer.transfer_syntax}" if offer.transfer_syntax else ""
    content_type = offer.media_type + syntax
    if not offer.multipart:
        return Response(bodies[0], content_type=content_type)
    headers = {"Content-Type": content_type}
    return parts([multipart.Part(headers, Codestream((body,))) for body in bodies], offer)


def bulk_data(study: str, series: str, instance: str, where: str) -> Response:
    """Answer with a binary value; Pixel Data comes as its frames.

    Raises
    ------
    NotFound
        If the data set has no such value.
    """
    (stored,) = _stored(study, series, instance)
    if where.upper() == "7FE00010":
        dataset = _image(stored)
        every = range(1, pixels.number_of_frames(dataset) + 1)
        return _frames(dataset, every, stored.transfer_syntax)
    value = _value(part10.decode(archive().path(stored.uids).read_bytes()), where)
    offers = (Offer(_OCTETS, multipart=True), Offer(_OCTETS))
    return _bodies([value], choose(request.headers.get("Accept"), offers))


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
