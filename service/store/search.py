"""Search (PS3.18 10.6), by the package dicomweb-client over this store's own connections."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import urlsplit

import requests

from service.dicom import stow_answer
from service.dicom.json_model import JsonObject
from service.dicom.outcome import Rejected, Unavailable
from service.dicom.resource import Resource, Searched
from service.errors import BadSettings
from service.patience import Pause, patiently
from service.settings import Settings
from service.store import refusal
from service.store.client import Client

PAGE: Final = 5_000  # matches; the most that Google's store gives of studies and series
MAX_FOUND: Final = 256 << 20  # bytes of one answer
_BLOCK: Final = 65_536  # bytes
UIDS: Final[dict[Searched, str]] = {
    "study": "0020000D",
    "series": "0020000E",
    "instance": "00080018",
}
_MISSING: Final = (
    "searching takes the package dicomweb-client: pip install 'jpegstow[client]', or in a checkout "
    "pip install -e '.[client]'"
)


@dataclass(frozen=True, slots=True)
class Search:
    """What is searched for.

    Attributes
    ----------
    within
        The store, a study or a series.
    matching
        From keyword or tag to a value as PS3.18 8.3.4 has it.
    include
        Keywords or tags of attributes that the matches are to have beside the usual, or ``all``.
    limit
        0 for what the store gives by default.
    """

    level: Searched
    within: Resource = field(default_factory=Resource)
    matching: Mapping[str, str] = field(default_factory=dict)
    include: Sequence[str] = ()
    fuzzy: bool = False
    limit: int = 0
    offset: int = 0


class Searcher:
    """Searches a store, patiently."""

    def __init__(self, settings: Settings, pause: Pause) -> None:
        self._client = Client(settings)
        self._pause = pause
        self._dicomweb = _dicomweb_client(settings, self._client)

    def find(self, search: Search) -> list[JsonObject] | Rejected | Unavailable:
        """Return the matches of one request."""
        return patiently(lambda: self._client.attempt(lambda: self._ask(search)), self._pause)

    def pages(self, search: Search) -> Iterator[list[JsonObject] | Rejected | Unavailable]:
        """Yield all matches in pages, until one is empty; a failure is the last.

        A store may give fewer than it is asked for at once, so that a short page ends nothing.
        What was told already isn't told again, as it would be by a store that changes meanwhile.
        """
        seen: set[tuple[str, ...]] = set()
        offset, limit = search.offset, search.limit or PAGE
        while True:
            page = self.find(replace(search, offset=offset, limit=limit))
            if not isinstance(page, list):
                yield page
                return
            new = [match for match in page if identity(match) not in seen]
            seen.update(map(identity, new))
            if new:
                yield new
            elif page:
                yield from _unless_whole(len(page), limit)
            if not new:
                return
            offset += len(page)

    def _ask(self, search: Search) -> list[JsonObject] | Rejected | Unavailable:
        parameters: dict[str, Any] = dict(search.matching)
        if search.include:
            parameters["includefield"] = list(search.include)
        if search.fuzzy:
            parameters["fuzzymatching"] = "true"
        numbers = {"limit": search.limit, "offset": search.offset}
        parameters |= {name: number for name, number in numbers.items() if number}
        try:
            found = self._called(search, parameters)
        except requests.HTTPError as error:
            names = {name.lower(): value for name, value in error.response.headers.items()}
            return _explained(refusal.read(error.response.status_code, names), error, search)
        except _TooLong:
            return Rejected(
                f"the store's answer is longer than {MAX_FOUND >> 20} MiB; a smaller limit helps"
            )
        except (requests.JSONDecodeError, RecursionError):
            return Unavailable("the store's answer isn't JSON", operator=True)  # a login page
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            return Rejected("the store's answer isn't an array of matches")
        return found

    def _called(self, search: Search, parameters: dict[str, Any]) -> Any:
        within = [uid for uid in (search.within.study, search.within.series) if uid]
        asked = {
            "study": self._dicomweb.search_for_studies,
            "series": self._dicomweb.search_for_series,
            "instance": self._dicomweb.search_for_instances,
        }[search.level]
        return asked(*within, additional_params=parameters)


def _unless_whole(length: int, limit: int) -> Iterator[Rejected]:
    """Tell that a store gave a full page twice: then there is more, and no way to it."""
    if length >= limit:
        yield Rejected("the store gives the same page whatever the offset")


def _explained(
    refused: Rejected | Unavailable, error: requests.HTTPError, search: Search
) -> Rejected | Unavailable:
    """Add the store's own words to what is wrong with a search, but no word of its values."""
    if refused.status != 400:
        return refused
    told = stow_answer.read_status(400, {}, error.response.content)
    reason = told.reason if told else refused.reason
    for value in filter(None, search.matching.values()):
        words = [rf"\b{re.escape(word)}\b" for word in re.findall(r"\w+", value)]
        reason = re.sub("|".join([re.escape(value), *words]), "...", reason, flags=re.IGNORECASE)
    return replace(refused, reason=reason)


def identity(match: JsonObject) -> tuple[str, ...]:
    """Return the UIDs of a match, study first; empty texts for those that it hasn't."""
    return tuple(first(match, tag) for tag in UIDS.values())


def first(match: JsonObject, tag: str) -> str:
    """Return an attribute's first value as a text; empty if there is none."""
    element = match.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return text_of(values[0]) if isinstance(values, list) and values else ""


def text_of(value: object) -> str:
    """Return a value of the DICOM JSON model as a text, of a name its first group."""
    if isinstance(value, dict):
        value = value.get("Alphabetic")
    return str(value) if isinstance(value, str | int | float) else ""


class _TooLong(Exception):
    """An answer of more than `MAX_FOUND` bytes."""


def _read(response: requests.Response) -> None:
    """Read an answer while it isn't too long; dicomweb-client reads any into memory."""
    body = bytearray()
    for block in response.iter_content(_BLOCK):
        body += block
        if len(body) > MAX_FOUND:
            response.close()
            raise _TooLong
    response._content = bytes(body)  # noqa: SLF001 - requests has no bound of its own


def _check(response: requests.Response, *_: object, **__: object) -> None:
    """Refuse what dicomweb-client takes for "nothing found": redirects, and answers of no bytes.

    Errors aren't this function's: credentials may be refreshed after a 401, and then it's none.
    """
    _read(response)
    status = response.status_code
    if status < 400 and (status not in {200, 204} or (status == 200 and not response.content)):
        raise requests.HTTPError(response=response)


def _dicomweb_client(settings: Settings, client: Client) -> Any:
    try:
        from dicomweb_client.web import DICOMwebClient  # noqa: PLC0415 - an extra, slow to import
    except ImportError as error:
        raise BadSettings([_MISSING]) from error
    logging.getLogger("dicomweb_client").addHandler(logging.NullHandler())
    logging.getLogger("dicomweb_client").propagate = False  # it passes on a store's own words
    timeouts = settings.store_connect_timeout, settings.store_read_timeout
    made = DICOMwebClient(
        settings.store_url, session=client.session, timeout=timeouts, callback=_check
    )
    made.set_http_retry_params(retry=False)
    made.host = urlsplit(settings.store_url).netloc  # its Host header would lack the port
    return made
