"""The command `jpegstow`."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import click

from service import __version__, assemble, processes, sending, settings, telemetry
from service import census as counting
from service.dicom import coded, json_model, part10, template
from service.dicom.jpeg import JpegHeader
from service.dicom.jpeg import inspect as inspect_jpeg
from service.dicom.jpeg2000 import is_jpeg2000
from service.errors import BadSettings, JpegstowError
from service.ingest import Rules, describe_upload, normalise_image

Command = Callable[..., Any]


def _reports_errors(command: Command) -> Command:
    """Print what jpegstow refuses as text, with exit status 2, instead of a traceback."""

    @wraps(command)
    def reporting(*args: Any, **options: Any) -> Any:
        try:
            return command(*args, **options)
        except BadSettings as error:
            for problem in error.problems:
                click.echo(f"jpegstow: {problem}", err=True)
        except (JpegstowError, OSError) as error:
            click.echo(f"jpegstow: {error}", err=True)
        sys.exit(2)

    return reporting


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="jpegstow")
def main() -> None:
    """Turn JPEG photographs into DICOM instances and store them over DICOMweb.

    Settings come from environment variables; `jpegstow settings` lists them.
    """
    telemetry.silence_pydicom()


@main.command()
@_reports_errors
def serve() -> None:
    """Run the service, and the embedded archive where DICOMWEB_URL is not set."""
    current = settings.load()
    assemble.rules(current)  # what would keep every worker from starting is told once, here
    taken = processes.ports_in_use(current)
    if taken:
        raise BadSettings([f"{name}: {port} is another program's" for name, port in taken.items()])
    command = processes.service_command(current)
    click.echo(
        f"jpegstow {__version__}: uploads at http://{current.host}:{current.port}/v1/instances"
    )
    click.echo(f"storing in {current.store_url}" + (" (embedded)" if current.embedded else ""))
    if not current.embedded:
        assemble.store(current)
        processes.become(command)
    health = f"http://127.0.0.1:{current.archive_port}/healthz"
    sys.exit(processes.supervise(processes.archive_command(current), health, command))


@main.command()
@_reports_errors
def archive() -> None:
    """Run the embedded archive alone: a DICOM store to develop and test against."""
    current = settings.load()
    click.echo(f"DICOMweb at http://127.0.0.1:{current.archive_port}/dicomWeb")
    processes.become(processes.archive_command(current))


@main.command(name="settings")
def settings_() -> None:
    """Print every setting with its default, as Markdown."""
    click.echo(settings.table())


def _describing_options(command: Command) -> Command:
    """Add the options that say what the files are."""
    for option in (
        click.option(
            "--set",
            "pairs",
            multiple=True,
            metavar="KEYWORD=VALUE",
            help="An attribute; may be repeated.",
        ),
        click.option(
            "--metadata",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="A JSON file of attributes.",
        ),
        click.option("--template", "template_name", help="The template to use."),
    ):
        command = option(command)
    return command


@main.command()
@click.argument("files", nargs=-1, required=True, metavar="IN...")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="A file or a folder."
)
@_describing_options
@_reports_errors
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
    rules = assemble.rules(current)
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


@main.command()
@click.argument("files", nargs=-1, required=True, metavar="IN...")
@_reports_errors
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


@main.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each file.")
@click.option(
    "--html",
    "sheet",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a contact sheet.",
)
@_describing_options
@_reports_errors
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


@main.command()
def codes() -> None:
    """List what coded sequences take by name, with the SNOMED CT codes: body sites, devices."""
    for keyword, known in coded.LISTS.items():
        click.echo(keyword)
        for name, code in known.items():
            click.echo(f"{code:>10}  {name}")


@main.command()
@click.argument("files", nargs=-1, metavar="PATH|GLOB...")
@click.option("--url", help="The DICOMweb server's base URL, instead of DICOMWEB_URL.")
@click.option(
    "--manifest",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A CSV file: a column path, and columns named by keyword.",
)
@click.option("-j", "--jobs", type=click.IntRange(1, 64), default=4, help="Files at once.")
@_describing_options
@_reports_errors
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
        return settings.store_url_of(url)
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


@main.command()
@click.argument("name", required=False)
@click.option(
    "--check",
    "files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Check a template of one's own; may be repeated.",
)
@_reports_errors
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
