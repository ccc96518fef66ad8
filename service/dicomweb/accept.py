"""Which of the representations on offer an Accept header wants (RFC 9110 12.5.1, PS3.18 8.7)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from werkzeug.exceptions import NotAcceptable

from service.dicom.multipart import parse_media_type

_MAX_HEADER = 2048  # characters; splitting takes the square of them
_ELEMENT = re.compile(r'(?:[^,"]|"(?:\\.|[^"\\])*")+')

_WEIGHT = re.compile(r"[0-9]{1,3}(?:\.[0-9]{0,9})?|\.[0-9]{1,9}")

# Java's default header has a bare asterisk; browsers and generic clients ask for plain JSON.
_ALIASES = {"*": "*/*", "application/json": "application/dicom+json"}

# The transfer syntax that a media type stands for where none is named: PS3.18 8.7.3.
_DEFAULT_SYNTAX = {
    "application/dicom": "1.2.840.10008.1.2.1",
    "application/octet-stream": "1.2.840.10008.1.2.1",
}


@dataclass(frozen=True, slots=True)
class Offer:
    """A representation that can be had.

    Parameters
    ----------
    transfer_syntax
        Empty where it makes no difference; ``*`` for instances of several transfer syntaxes.
    multipart
        Whether the media type is that of the parts of a ``multipart/related``.
    transcoded
        Whether it isn't what is stored, which ``transfer-syntax=*`` asks for (PS3.18 8.7.3.5.2).
    """

    media_type: str
    transfer_syntax: str = ""
    multipart: bool = False
    transcoded: bool = False

    def __str__(self) -> str:
        """Return the media range that asks for this offer."""
        syntax = f"; transfer-syntax={self.transfer_syntax}" if self.transfer_syntax else ""
        if self.multipart:
            return f'multipart/related; type="{self.media_type}"{syntax}'
        return self.media_type + syntax


@dataclass(frozen=True, slots=True)
class _Range:
    media_type: str
    transfer_syntax: str
    multipart: bool
    quality: float

    def precision(self, offer: Offer) -> int:
        """Return how precisely the range names the offer; 0 if it doesn't."""
        if self.media_type == "*/*" and not self.multipart:
            return 1
        if self.multipart != offer.multipart:
            return 0
        if self.media_type.endswith("/*"):
            kind = self.media_type.removesuffix("*")
            return 2 if kind == "*/" or offer.media_type.startswith(kind) else 0
        if self.media_type != offer.media_type or not self._has_syntax(offer):
            return 0
        return 4 if self.transfer_syntax else 3

    def _has_syntax(self, offer: Offer) -> bool:
        wanted = self.transfer_syntax or _DEFAULT_SYNTAX.get(self.media_type, "*")
        return wanted == "*" or offer.transfer_syntax in ("", wanted)


def choose(header: str | None, offers: Sequence[Offer]) -> Offer:
    """Return the offer that an Accept header prefers, the first of them among equals.

    Raises
    ------
    NotAcceptable
        With the list of what can be had.
    """
    if len(header or "") > _MAX_HEADER:
        raise NotAcceptable(f"the Accept header is longer than {_MAX_HEADER} characters")
    ranges = [_range(element) for element in _ELEMENT.findall(header or "*/*")]
    qualities = [_quality(ranges, offer) for offer in offers]
    best = max(qualities)
    if best[0] <= 0:
        available = ", or ".join(map(str, offers))
        raise NotAcceptable(f"the Accept header can't be met; available is {available}")
    return offers[qualities.index(best)]


def _quality(ranges: Sequence[_Range], offer: Offer) -> tuple[float, bool]:
    """Return the quality of the most precise range that names the offer, and whether it's as meant.

    Where any transfer syntax will do, the stored one is meant.
    """
    found = [
        (range_.precision(offer), range_.quality, range_.transfer_syntax != "*")
        for range_ in ranges
    ]
    precision, quality, one = max(found, default=(0, 0.0, True))
    return (quality if precision else 0, one or not offer.transcoded)


def _range(element: str) -> _Range:
    media_type, parameters = parse_media_type(element)
    multipart = media_type in ("multipart/related", "multipart/*")
    media_type = _ALIASES.get(media_type, media_type)
    if multipart:
        media_type = parameters.get("type", "*/*").lower()
    syntax = parameters.get("transfer-syntax", "")
    return _Range(media_type, syntax, multipart, _number(parameters.get("q", "1")))


def _number(text: str) -> float:
    """Read a weight as Java writes it, too (``.2``); what can't be read says nothing."""
    return min(1.0, float(text)) if _WEIGHT.fullmatch(text) else 1.0
