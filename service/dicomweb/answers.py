"""DICOM data sets as HTTP answers."""

import errno
import logging
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice

from flask import Response

from service.dicom import multipart
from service.dicom.codestream import Codestream
from service.dicom.json_model import JsonObject, dumps
from service.dicomweb.accept import Offer
from service.dicomweb.native_xml import to_xml

_log = logging.getLogger(__name__)

_AT_ONCE = 500  # items

JSON = Offer("application/dicom+json")
XML = Offer("application/dicom+xml")
XML_PARTS = Offer("application/dicom+xml", multipart=True)


def data_sets(models: Iterable[JsonObject], offer: Offer) -> Response:
    """Answer with data sets: a JSON array, or one XML document per part (PS3.18 8.7.3.2)."""
    if offer == JSON:
        return json_array(map(dumps, models))
    headers = {"Content-Type": XML.media_type}
    bodies = [multipart.Part(headers, Codestream((to_xml(model),))) for model in models]
    return parts(bodies, offer) if bodies else Response(status=204)


def json_array(items: Iterable[bytes]) -> Response:
    """Answer with an array of JSON texts; a long one is made while it is sent."""
    left = iter(items)
    first = b",".join(islice(left, _AT_ONCE))
    following = next(left, None)
    if following is None:
        return Response(b"[" + first + b"]", content_type=JSON.media_type)
    pieces = chain([b"[" + first], _joined(chain([following], left)), [b"]"])
    return Response(begun(pieces), content_type=JSON.media_type)


def _joined(items: Iterator[bytes]) -> Iterator[bytes]:
    """Yield a hundred items at a time, each behind a comma."""
    while some := list(islice(items, 100)):
        yield b"," + b",".join(some)


def parts(bodies: Sequence[multipart.Part], offer: Offer) -> Response:
    """Answer with a multipart/related from memory."""
    payload = multipart.encode(bodies, offer.media_type)
    return Response(b"".join(payload), content_type=payload.content_type)


def streamed(
    heads: Sequence[Mapping[str, str]],
    bodies: Iterable[Iterable[bytes]],
    media_type: str,
    lengths: Sequence[int] | None = None,
) -> Response:
    """Answer with a multipart/related whose parts are made while it is sent.

    The first piece is made at once, so that what can't begin fails with a status of its own.

    Parameters
    ----------
    lengths
        Those of the bodies in bytes, if they are known beforehand.
    """
    boundary = secrets.token_hex(20)
    leads = [f"\r\n--{boundary}\r\n{_lines(head)}\r\n".encode("ascii") for head in heads]
    end = f"\r\n--{boundary}--\r\n".encode()

    def pieces() -> Iterator[bytes]:
        for lead, body in zip(leads, bodies, strict=True):
            started = iter(body)
            yield lead + next(started, b"")
            yield from started
        yield end

    content_type = f'multipart/related; type="{media_type}"; boundary={boundary}'
    response = Response(begun(pieces()), content_type=content_type)
    if lengths is not None:
        response.content_length = sum(map(len, leads)) + sum(lengths) + len(end)
    return response


def _lines(head: Mapping[str, str]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in head.items())


def begun(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Take the first piece at once, and the others when they are sent."""
    left = iter(pieces)
    return chain([next(left, b"")], _to_the_end(left))


def _to_the_end(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the pieces; break the connection, without a word of content, where they fail.

    The status has been sent by then; the client sees that the answer isn't whole.
    """
    try:
        yield from pieces
    except Exception as error:  # noqa: BLE001 - a server would log its text, which may hold a value
        _log.error("an answer was broken off: %s", type(error).__name__)
        # What gunicorn takes for a lost connection is closed without a word.
        raise ConnectionResetError(errno.ECONNRESET, "the answer can't be completed") from None
