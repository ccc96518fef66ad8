"""The command that writes what a store has to files."""

import sys
import time
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final

import click

from service import assemble
from service.cli.options import (
    connected,
    connecting_options,
    reports_errors,
    summary,
    with_progress,
)
from service.dicom.resource import Resource, parse
from service.dicom.uid import is_uid
from service.fetching import DICOM, Fetcher, Kind, instances, into
from service.parallel import at_once
from service.store.search import Searcher

_GOOD: Final = frozenset({"retrieved", "already there"})


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@connecting_options
@click.option(
    "-o",
    "--output",
    default=".",
    type=click.Path(file_okay=False, path_type=Path),
    help="A folder.",
)
@click.option(
    "--type",
    "media_type",
    type=click.Choice([DICOM, "image/jpeg", "image/png"]),
    default=DICOM,
    help="DICOM files, or images as they are shown.",
)
@click.option(
    "--transfer-syntax", metavar="UID", default="*", help="Of DICOM files; else as they are stored."
)
@click.option("--force", is_flag=True, help="Write also what is there already.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@reports_errors
def retrieve(
    paths: Sequence[str], url: str | None, jobs: int, output: Path, *, as_json: bool, **options: str
) -> None:
    """Write instances to files study/series/instance.dcm of a folder.

    PATH is studies/UID, studies/UID/series/UID, studies/UID/series/UID/instances/UID, the same with
    /frames/N for an image of one frame, or a URL of the store's; without one it's all that the
    store has. A file is there whole or not at all, and what is there isn't fetched again: the
    command goes on where it was stopped. Ends with status 0 only if all are there.
    """
    current = connected(url, jobs)
    kind = _kind(options["media_type"], options["transfer_syntax"])
    chosen = [parse(path, current.store_url) for path in paths] or [Resource()]
    if any(resource.frame for resource in chosen) and not kind.is_rendered:
        raise click.UsageError("a frame is had as an image: --type image/jpeg or image/png")
    fetcher = Fetcher(assemble.store(current), output, kind, time.sleep)
    with into(output):
        wanted, failed = instances(chosen, partial(Searcher, current, time.sleep))
        fetch = partial(fetcher.fetch, again=bool(options["force"]))
        told = chain(failed, at_once(fetch, wanted, jobs))
        shown = with_progress(told, len(failed) + len(wanted), "instance")
        sys.exit(summary(shown, _GOOD, as_json=as_json))


def _kind(media_type: str, transfer_syntax: str) -> Kind:
    """Return the form that the options want; a syntax goes into a header, and has to be a UID."""
    if transfer_syntax != "*" and (media_type != DICOM or not is_uid(transfer_syntax)):
        raise click.UsageError("--transfer-syntax takes a UID, for DICOM files only")
    return Kind(media_type, transfer_syntax)
