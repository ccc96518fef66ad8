"""The command that stores ready DICOM files."""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import click

from service import assemble, sending
from service.cli.options import (
    connected,
    connecting_options,
    reports_errors,
    summary,
    with_progress,
)
from service.settings import STORAGE_CLASSES


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="PATH|GLOB...")
@connecting_options
@click.option(
    "--storage-class", type=click.Choice(STORAGE_CLASSES), help="Instead of STORAGE_CLASS."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@reports_errors
def store(
    files: Sequence[str], url: str | None, jobs: int, storage_class: str | None, *, as_json: bool
) -> None:
    """Store DICOM files byte for byte: files, folders and globs such as "./**.dcm".

    Ends with status 0 only if every file is stored.
    """
    current = connected(url, jobs)
    current = replace(current, storage_class=storage_class or current.storage_class)
    found = list(sending.find(files, sending.is_ready))
    if any(path.suffix.lower() in sending.JPEG_SUFFIXES for path in found):
        raise click.UsageError("it takes ready DICOM files; JPEGs are for: jpegstow send")
    one = sending.storer(assemble.store(current), time.sleep)
    items = [sending.Item(path, {}) for path in found]
    sent = with_progress(sending.send_all(items, one, jobs), len(items))
    sys.exit(summary(sent, sending.GOOD, as_json=as_json))
