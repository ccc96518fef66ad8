"""The command that stores files."""

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from service import assemble, sending, settings
from service.cli.options import describing_options, reports_errors
from service.errors import BadSettings
from service.setting_texts import store_url_of


@click.command()
@click.argument("files", nargs=-1, metavar="PATH|GLOB...")
@click.option("--url", help="The DICOMweb server's base URL, instead of DICOMWEB_URL.")
@click.option(
    "--manifest",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A CSV file: a column path, and columns named by keyword.",
)
@click.option("-j", "--jobs", type=click.IntRange(1, 64), default=4, help="Files at once.")
@describing_options
@reports_errors
def send(
    files: Sequence[str], url: str | None, manifest: Path | None, jobs: int, **describing: Any
) -> None:
    """Store JPEGs and ready DICOM files.

    Ends with status 0 only if every file is stored.
    """
    current = settings.load()
    if url:
        current = replace(current, dicomweb_url=_checked_url(url))
    said = sending.parse_settings(describing["pairs"], describing["metadata"])
    found = [sending.Item(path, {}) for path in sending.find(files)]
    listed = sending.read_manifest(manifest) if manifest else []
    items = [sending.with_shared(item, said) for item in (*found, *listed)]
    if not items:
        raise click.UsageError("nothing to send: give a PATH, or --manifest")
    name = describing["template_name"] or current.default_template
    one = sending.sender(assemble.rules(current), assemble.store(current), name)
    sys.exit(_summary(_with_progress(sending.send_all(items, one, jobs), len(items))))


def _checked_url(url: str) -> str:
    try:
        return store_url_of(url)
    except ValueError as error:
        raise BadSettings([f"--url: {error}"]) from error


def _with_progress(sent: Iterable[sending.Sent], total: int) -> Iterable[sending.Sent]:
    from tqdm import tqdm  # noqa: PLC0415 - only here

    with tqdm(total=total, unit="file", disable=None, file=sys.stderr) as bar:
        for one in sent:
            if one.reason:
                bar.write(f"{one.path}: {one.outcome}: {one.reason}", file=sys.stderr)
            bar.update()
            yield one


def _summary(sent: Iterable[sending.Sent]) -> int:
    """Print how many files came to what; return the exit status."""
    counts = Counter(one.outcome for one in sent)
    click.echo(", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())))
    return 0 if set(counts) <= {"stored", "already stored"} else 1
