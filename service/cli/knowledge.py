"""The commands that list what jpegstow knows: settings, templates, codes."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from service import assemble, settings
from service.cli.options import reports_errors
from service.dicom import coded, json_model, template
from service.errors import JpegstowError


@click.command(name="settings")
def settings_() -> None:
    """Print every setting with its default, as Markdown."""
    click.echo(settings.table())


@click.command()
def codes() -> None:
    """List what coded sequences take by name, with the SNOMED CT codes: body sites, devices."""
    for keyword, known in coded.LISTS.items():
        click.echo(keyword)
        for name, code in known.items():
            click.echo(f"{code:>10}  {name}")


@click.command()
@click.argument("name", required=False)
@click.option(
    "--check",
    "files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Check a template of one's own; may be repeated.",
)
@reports_errors
def templates(name: str | None, files: Sequence[Path]) -> None:
    """List the templates; print one by NAME; check one's own with --check."""
    if files:
        sys.exit(_check_templates(files))
    found = assemble.load_templates(settings.load())
    if name is None:
        width = max(map(len, found))
        for one in found.values():
            click.echo(f"{one.name:{width}}  {one.sop_class.name}")
    elif name in found:
        click.echo(
            json.dumps(json_model.to_json(found[name].dataset), indent=2, ensure_ascii=False)
        )
    else:
        raise click.UsageError(f"there is no template {name}; there are {', '.join(found)}")


def _check_templates(files: Sequence[Path]) -> int:
    failed = 0
    for path in files:
        try:
            parsed = template.parse(path.stem, path.read_bytes())
            click.echo(f"{path}: good ({parsed.sop_class.name})")
        except JpegstowError as error:
            click.echo(f"{path}: {error}", err=True)
            failed = 1
    return failed
