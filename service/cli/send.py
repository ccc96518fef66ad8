"""The command that stores files."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from service import assemble, sending
from service.cli.options import (
    connected,
    connecting_options,
    describing_options,
    reports_errors,
    rules_of,
    summary,
    with_progress,
)


@click.command()
@click.argument("files", nargs=-1, metavar="PATH|GLOB...")
@connecting_options
@click.option(
    "--manifest",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A CSV file: a column path, and columns named by keyword.",
)
@describing_options
@reports_errors
def send(
    files: Sequence[str], url: str | None, manifest: Path | None, jobs: int, **describing: Any
) -> None:
    """Store JPEGs and ready DICOM files.

    Ends with status 0 only if every file is stored.
    """
    current = connected(url, jobs)
    items = sending.items_of(files, manifest, describing["pairs"], describing["metadata"])
    name = describing["template_name"] or current.default_template
    one = sending.sender(rules_of(current), assemble.store(current), name)
    sent = with_progress(sending.send_all(items, one, jobs), len(items))
    sys.exit(summary(sent, sending.GOOD))
