"""The command that searches a store."""

import json
import re
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import parse_qsl

import click
from pydicom.datadict import keyword_for_tag, tag_for_keyword

from service.cli.options import connected, reports_errors
from service.dicom.json_model import JsonObject
from service.dicom.resource import Searched, parse_search
from service.errors import BadRequest
from service.store.search import Search, Searcher, text_of
from service.terminal import table

_UNCUT: Final = 1 << 20  # columns, where no terminal ends the line
_WIDEST: Final = 64  # a UID
_FEWEST: Final = 100  # matches, that any store gives without being asked for a number
_COLUMNS: Final[dict[Searched, str]] = {
    "study": "StudyDate PatientID PatientName AccessionNumber ModalitiesInStudy "
    "NumberOfStudyRelatedInstances StudyInstanceUID",
    "series": "Modality SeriesNumber SeriesDescription NumberOfSeriesRelatedInstances "
    "StudyInstanceUID SeriesInstanceUID",
    "instance": "InstanceNumber Rows Columns StudyInstanceUID SeriesInstanceUID SOPInstanceUID",
}
_SHORT: Final = {
    "NumberOfStudyRelatedInstances": "Instances",
    "NumberOfSeriesRelatedInstances": "Instances",
    "ModalitiesInStudy": "Modalities",
}


@dataclass(frozen=True, slots=True)
class _Found:
    """The matches, and why there are no more of them if the store gave no answer."""

    matches: list[JsonObject]
    reason: str = ""


@click.command()
@click.argument("asked", nargs=-1, metavar="[studies|series|instances] [KEYWORD=VALUE]...")
@click.option("--url", help="The DICOMweb server's base URL, instead of DICOMWEB_URL.")
@click.option("--fuzzy", is_flag=True, help="Find names by how their words begin.")
@click.option("--include", multiple=True, metavar="KEYWORD", help="One more attribute; or all.")
@click.option("--limit", type=click.IntRange(min=1), help="So many at most.")
@click.option("--offset", type=click.IntRange(min=0), default=0, help="Leave out the first.")
@click.option("--all", "everything", is_flag=True, help="All, page by page.")
@click.option("--json", "as_json", is_flag=True, help="Print the DICOM JSON model.")
@reports_errors
def search(asked: Sequence[str], url: str | None, *, as_json: bool, **options: Any) -> None:
    """Search studies, series or instances.

    What is searched for may be inside of a study or series: studies/UID/series/UID/instances.
    Values are matched as the server does; "A=B&C=D" is read as in a URL. Ends with status 0,
    whether there are matches or not, if the store has answered.
    """
    wanted = _search(asked, **options)
    searcher = Searcher(connected(url, 1), time.sleep)
    found = _found(searcher, wanted, everything=options["everything"])
    if as_json:
        click.echo(json.dumps(found.matches, indent=2))
    elif found.matches:
        click.echo(_table(wanted, found.matches))
    if found.reason:
        click.echo(f"jpegstow: {found.reason}", err=True)
        sys.exit(1)
    if not found.matches:
        click.echo("nothing found", err=True)
    elif not options["everything"] and len(found.matches) >= (wanted.limit or _FEWEST):
        click.echo(f"{len(found.matches)} found; there may be more: --all", err=True)


def _found(searcher: Searcher, wanted: Search, *, everything: bool) -> _Found:
    matches: list[JsonObject] = []
    for page in searcher.pages(wanted) if everything else iter([searcher.find(wanted)]):
        if not isinstance(page, list):
            return _Found(matches, page.reason)
        matches += page
    return _Found(matches)


def _search(asked: Sequence[str], **options: Any) -> Search:
    named = bool(asked) and "=" not in asked[0]
    level, within = parse_search(asked[0] if named else "studies")
    include = tuple(name for text in options["include"] for name in text.split(","))
    made = Search(level, within, {}, (), options["fuzzy"], options["limit"] or 0, options["offset"])
    return _with_pairs(made, list(_pairs(asked[named:])), include)


def _pairs(texts: Sequence[str]) -> Iterator[tuple[str, str]]:
    for text in texts:
        if "&" in text:
            yield from parse_qsl(text, keep_blank_values=True)
        else:
            keyword, equals, value = text.partition("=")
            if not equals:
                raise click.UsageError("each condition has to be KEYWORD=VALUE")
            yield keyword, value


def _with_pairs(made: Search, pairs: Sequence[tuple[str, str]], include: tuple[str, ...]) -> Search:
    """Add conditions; those that are the protocol's own words mean what the options mean."""
    matching: dict[str, str] = {}
    for name, value in pairs:
        if name == "limit":
            made = replace(made, limit=_number(name, value))
        elif name == "offset":
            made = replace(made, offset=_number(name, value))
        elif name == "fuzzymatching":
            made = replace(made, fuzzy=value.lower() == "true")
        elif name == "includefield":
            include += tuple(value.split(","))
        elif matching.setdefault(_attribute(name), value) != value:
            raise click.UsageError(f"there are two conditions for {name}")
    return replace(made, matching=matching, include=tuple(map(_included, include)))


def _number(name: str, value: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", value):
        raise click.UsageError(f"{name} has to be a number")
    return int(value)


def _included(name: str) -> str:
    return name if name == "all" else _attribute(name)


def _attribute(name: str) -> str:
    """Return the name of an attribute, or of one in sequences; what else it holds isn't quoted."""
    steps = name.split(".")
    if not all(re.fullmatch("[0-9A-Fa-f]{8}", step) or tag_for_keyword(step) for step in steps):
        raise BadRequest("the name of a condition or field isn't an attribute's keyword or tag")
    return name


def _table(wanted: Search, matches: Sequence[JsonObject]) -> str:
    above = {"StudyInstanceUID": wanted.within.study, "SeriesInstanceUID": wanted.within.series}
    names = [name for name in _COLUMNS[wanted.level].split() if not above.get(name)]
    names = [*(_keyword(n) for n in (*wanted.matching, *wanted.include) if n != "all"), *names]
    columns = list(dict.fromkeys(names))
    head = [_SHORT.get(name, name) for name in columns]
    rows = [[_cell(match, name) for name in columns] for match in matches]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _UNCUT
    return table(head, rows, width, _WIDEST)


def _keyword(name: str) -> str:
    return keyword_for_tag(int(name, 16)) or name if re.fullmatch("[0-9A-Fa-f]{8}", name) else name


def _cell(match: JsonObject, name: str) -> str:
    tag = tag_for_keyword(name)
    key = f"{tag:08X}" if tag is not None else name.upper()
    element = match.get(key)
    values = element.get("Value") if isinstance(element, dict) else None
    return "\\".join(map(text_of, values)) if isinstance(values, list) else ""
