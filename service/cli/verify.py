"""The command that proves that a store has what it was sent."""

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

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
from service.parallel import at_once
from service.terminal import table
from service.verifying import Finding, verifier

_HEAD: Final = ("outcome", "file", "SOP Instance UID", "reason")
_UNCUT: Final = 1 << 20  # columns, where no terminal ends the line


@click.command()
@click.argument("files", nargs=-1, metavar="PATH|GLOB...")
@connecting_options
@click.option(
    "--manifest",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The CSV file that was sent.",
)
@describing_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON: all files, not only the bad.")
@reports_errors
def verify(
    files: Sequence[str], url: str | None, jobs: int, manifest: Path | None, **options: Any
) -> None:
    """Prove instance by instance that a store has what was sent, and list what it has not.

    Each instance is read from the store: identity, attributes and codestream have to be those that
    sending the file would make now. Say what was said to `send` or `convert`, with the same
    settings (UID_NAMESPACE, UPRIGHT, CMYK, templates): under others it would be another instance.
    Ends with status 0 only if every file is stored.
    """
    current = connected(url, jobs)
    items = sending.items_of(files, manifest, options["pairs"], options["metadata"])
    name = options["template_name"] or current.default_template
    one = verifier(rules_of(current), assemble.store(current), name, time.sleep)
    findings = list(with_progress(at_once(one, items, jobs), len(items), aloud=False))
    if not options["as_json"]:
        _print_bad([finding for finding in findings if finding.outcome != "stored"])
    sys.exit(summary(findings, {"stored"}, as_json=options["as_json"]))


def _print_bad(findings: Sequence[Finding]) -> None:
    rows = [
        (finding.outcome, str(finding.path), finding.sop_instance_uid, finding.reason)
        for finding in findings
    ]
    if rows:
        columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else _UNCUT
        click.echo(table(_HEAD, rows, columns, _UNCUT))
