"""The commands that work on files without any store."""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from service import assemble, sending, settings
from service import census as counting
from service.cli.options import describing_options, reports_errors, rules_of
from service.dicom import part10
from service.dicom.jpeg import JpegHeader
from service.dicom.jpeg import inspect as inspect_jpeg
from service.dicom.jpeg2000 import is_jpeg2000
from service.errors import JpegstowError
from service.ingest import Rules, describe_upload, normalise_image


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="IN...")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="A file or a folder."
)
@describing_options
@reports_errors
def convert(
    files: Sequence[str],
    output: Path,
    pairs: Sequence[str],
    metadata: Path | None,
    template_name: str | None,
) -> None:
    """Write JPEGs as DICOM files, without any store.

    With one IN and an OUT that ends in .dcm, OUT is the file; else a folder of files named as
    the JPEGs are.
    """
    current = settings.load()
    rules = rules_of(current)
    said = sending.parse_settings(pairs, metadata)
    paths = list(sending.find(files))
    failed = 0
    for path, target in _targets(paths, output):
        try:
            upload = sending.upload_of(
                path.read_bytes(), said, template_name or current.default_template
            )
            instance = describe_upload(upload, rules).instance
        except JpegstowError as error:
            click.echo(f"{path}: {error}", err=True)
            failed += 1
            continue
        pieces = part10.encode(instance.dataset, instance.codestream, instance.transfer_syntax)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"".join(pieces))
    sys.exit(1 if failed else 0)


def _targets(paths: Sequence[Path], output: Path) -> Iterable[tuple[Path, Path]]:
    if len(paths) == 1 and output.suffix == ".dcm" and not output.is_dir():
        return [(paths[0], output)]
    targets = [output / path.with_suffix(".dcm").name for path in paths]
    twice = [name for name, count in Counter(targets).items() if count > 1]
    if twice:
        raise click.UsageError(f"two files would become {twice[0]}")
    return zip(paths, targets, strict=True)


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="IN...")
@reports_errors
def inspect(files: Sequence[str]) -> None:
    """Tell as JSON what JPEGs are, and what would be done with them or why they'd be refused."""
    rules = assemble.rules(settings.load())
    reports = [_report(path, rules) for path in sending.find(files)]
    click.echo(json.dumps(reports, indent=2))


def _report(path: Path, rules: Rules) -> dict[str, Any]:
    report: dict[str, Any] = {"path": str(path)}
    try:
        data = path.read_bytes()
        if not is_jpeg2000(data):
            report |= _markers(inspect_jpeg(data))
        normalised = normalise_image(data, rules)
        report["transfer_syntax"] = normalised.encapsulation.transfer_syntax
        said = normalised.encapsulation.photometric_interpretation
        report["photometric_interpretation"] = said
        report["normalised"] = list(normalised.changes)
    except JpegstowError as error:
        report["refused"] = {"reason": error.reason, "detail": str(error)}
    return report


def _markers(header: JpegHeader) -> dict[str, Any]:
    return {
        "process": f"SOF{header.process - 0xC0}",
        "precision": header.precision,
        "rows": header.rows,
        "columns": header.columns,
        "components": [f"{c.identifier}: {c.horizontal}x{c.vertical}" for c in header.components],
        "colour": _colour(len(header.components), rgb=header.rgb),
        "orientation": header.orientation,
        "icc_profile_bytes": len(header.icc_profile or b""),
        "scans": len(header.scans),
        "bytes_behind_eoi": header.trailing,
    }


def _colour(components: int, *, rgb: bool) -> str:
    if components == 3:
        return "RGB" if rgb else "YCbCr"
    return {1: "grey", 4: "CMYK or YCCK"}.get(components, "unknown")


@click.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each file.")
@click.option(
    "--html",
    "sheet",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a contact sheet.",
)
@describing_options
@reports_errors
def census(folder: Path, sheet: Path | None, *, as_json: bool, **describing: Any) -> None:
    """Take a folder through the whole line without storing, and tell what would become of it."""
    current = settings.load()
    said = sending.parse_settings(describing["pairs"], describing["metadata"])
    name = describing["template_name"] or current.default_template
    looked = counting.look(sending.find([str(folder)]), assemble.rules(current), said, name)
    if sheet:
        with sheet.open("w", encoding="utf-8") as file:
            findings = counting.write_sheet(file, looked)
    else:
        findings = [found for found, _ in looked]
    if as_json:
        click.echo(json.dumps([counting.as_json(found) for found in findings], indent=2))
    else:
        click.echo(counting.table(findings))
