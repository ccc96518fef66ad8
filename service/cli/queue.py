"""The commands that let an operator see and handle the retry queue."""

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, redirect_stdout
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

import click

from service import assemble, sending, settings
from service.cli.options import Command, describing_options, reports_errors
from service.dicom import attributes, part10
from service.durable import incoming, publish
from service.errors import BadRequest, BeingSent, JpegstowError
from service.retry import STATES, Entry, Filter, SqliteQueue, shown
from service.retry.mend import mend
from service.settings import Settings

_PAGE: Final = 500  # entries that are read at once
_UNCUT: Final = 1 << 20  # columns, where no terminal ends the line


@click.group(name="queue")
def group() -> None:
    """See and handle what waits in the retry queue.

    An ID is a SOP Instance UID. All of it works whether the service runs or not.
    """


def _filters(command: Command) -> Command:
    """Add the options that choose entries."""
    for option in (
        click.option("--study", metavar="UID", help="Those of a Study Instance UID."),
        click.option("--reason", metavar="TEXT", help="Those whose last reason has this in it."),
        click.option("--state", type=click.Choice(STATES), help="Those in a state."),
    ):
        command = option(command)
    return command


@group.command(name="list")
@_filters
@click.option("--limit", type=click.IntRange(min=1), help="The first so many only.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@reports_errors
def list_(limit: int | None, *, as_json: bool, **filters: str | None) -> None:
    """List entries, oldest first, and sum up the queue."""
    chosen = _filter(filters) or Filter()
    current = settings.load()
    with _opened(current) as queue:
        found = islice(_entries(queue, chosen), limit)
        if as_json:
            _print_array(map(shown.as_json, found))
        else:
            _print_table(found)
            click.echo(f"{_totals(queue)} in {current.queue_folder}")


@group.command()
@click.argument("name", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@reports_errors
def show(name: str, *, as_json: bool) -> None:
    """Show an entry whole, but for its pixels."""
    with _opened(settings.load()) as queue:
        entry, kept = queue.show(name), queue.load(name)
    if as_json:
        click.echo(json.dumps(shown.whole_as_json(entry, kept), indent=2))
    else:
        for line in shown.lines(entry, kept):
            click.echo(line)


@group.command()
@click.argument("names", nargs=-1, metavar="[ID]...")
@_filters
@click.option("--all", "everything", is_flag=True, help="All that are dead.")
@describing_options
@reports_errors
def retry(names: Sequence[str], *, everything: bool, **options: Any) -> None:
    """Let entries be tried at once.

    Filters choose dead ones unless --state says otherwise. With --set, --metadata or --template
    each is described anew from what its sender said and from this; where that changes the
    instance, it has another ID, which is printed.
    """
    described = {name: options.pop(name) for name in ("pairs", "metadata", "template_name")}
    said = _said(**described)
    chosen = _choice(names, _filter(options) or (Filter() if everything else None), "dead")
    if said and chosen and chosen.state != "dead":
        raise click.UsageError("only dead entries are described anew, or those given by ID")
    current = settings.load()
    with _opened(current) as queue:
        if said:
            again = _mending(queue, said, current)
            sys.exit(1 if _each(_ids(queue, names, chosen), again) else 0)
        if chosen:
            click.echo(f"{queue.revive(chosen, time.time())} retried")
        else:
            sys.exit(_summed("retried", names, lambda name: _revive(queue, name)))


@group.command()
@click.argument("names", nargs=-1, metavar="[ID]...")
@_filters
@click.option("--yes", is_flag=True, help="Don't ask.")
@reports_errors
def drop(names: Sequence[str], *, yes: bool, **filters: str | None) -> None:
    """Discard entries for good.

    Filters choose dead ones unless --state says otherwise.
    """
    chosen = _choice(names, _filter(filters), "dead")
    with _opened(settings.load()) as queue:
        found = _ids(queue, names, chosen)
        if found and not yes:
            click.confirm(f"Entries to be discarded for good: {len(found)}. Go on?", abort=True)
        sys.exit(_summed("dropped", found, lambda name: queue.drop(name, time.time())))


@group.command()
@click.argument("names", nargs=-1, metavar="[ID]...")
@_filters
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="A folder.",
)
@reports_errors
def export(names: Sequence[str], output: Path, **filters: str | None) -> None:
    """Write instances as DICOM files.

    Each is named by its SOP Instance UID; the entries stay as they are.
    """
    chosen = _choice(names, _filter(filters))
    with _opened(settings.load()) as queue:
        found = _ids(queue, names, chosen)
        output.mkdir(parents=True, exist_ok=True)
        sys.exit(_summed("exported", found, lambda name: _export(queue, name, output)))


def _opened(current: Settings) -> "closing[SqliteQueue]":
    # What is mended at the opening is logged on standard output, which here is the answer's.
    with redirect_stdout(sys.stderr):
        return closing(assemble.retry_queue(current))


def _filter(given: dict[str, str | None]) -> Filter | None:
    """Return what the options choose; None without one."""
    if "" in given.values():
        raise click.UsageError("a filter is empty: it would choose everything")
    texts = {name: text for name, text in given.items() if text}
    return Filter(**texts) if texts else None


def _choice(names: Sequence[str], chosen: Filter | None, state: str = "") -> Filter | None:
    """Check that entries are named or chosen; those chosen have a state, by default this one."""
    if bool(names) == bool(chosen):
        raise click.UsageError("give either IDs, or options that choose entries")
    return chosen and replace(chosen, state=chosen.state or state)


def _entries(queue: SqliteQueue, chosen: Filter) -> Iterator[Entry]:
    page = queue.list(chosen, _PAGE)
    yield from page.entries
    while page.after:
        page = queue.list(chosen, _PAGE, page.after)
        yield from page.entries


def _ids(queue: SqliteQueue, names: Sequence[str], chosen: Filter | None) -> list[str]:
    """Return the ids of all that is meant, before any of it changes."""
    found = (entry.sop_instance_uid for entry in _entries(queue, chosen)) if chosen else names
    return list(dict.fromkeys(found))


def _each(names: Iterable[str], act: Callable[[str], object]) -> int:
    """Do something with each entry, the others too where one can't be; return how many failed."""
    failed = 0
    for name in names:
        try:
            act(name)
        except JpegstowError as error:
            click.echo(f"{name}: {error}", err=True)
            failed += 1
    return failed


def _summed(done: str, names: Sequence[str], act: Callable[[str], object]) -> int:
    """Do something with each entry, tell with how many it went well; return the exit status."""
    failed = _each(names, act)
    click.echo(f"{len(names) - failed} {done}")
    return 1 if failed else 0


def _revive(queue: SqliteQueue, name: str) -> None:
    if not queue.revive(Filter(instance=name), time.time()):
        _check_waits(queue, name)


def _check_waits(queue: SqliteQueue, name: str) -> None:
    if queue.show(name).state == "leased":
        raise BeingSent(
            "the entry is being sent at this moment",
            where="id",
            mend="look again in half a minute: it may be stored by then",
        )


def _said(pairs: Sequence[str], metadata: Path | None, template_name: str | None) -> dict[str, Any]:
    """Return what is to be described otherwise; what is wrong with it is told before any entry."""
    said = sending.parse_settings(pairs, metadata)
    attributes.parse(said)
    return said | ({"template": template_name} if template_name else {})


def _mending(
    queue: SqliteQueue, said: dict[str, Any], current: Settings
) -> Callable[[str], object]:
    """Return what describes an entry anew and prints its id."""
    rules = assemble.rules(current)
    template = said.get("template")
    if template and template not in rules.templates:
        known = ", ".join(sorted(rules.templates))
        raise click.UsageError(f"there is no template {template}; there are {known}")

    def again(name: str) -> None:
        _check_waits(queue, name)
        click.echo(mend(queue, name, said, rules, time.time()))

    return again


def _export(queue: SqliteQueue, name: str, folder: Path) -> None:
    instance = queue.load(name).described.instance
    pieces = part10.encode(instance.dataset, instance.codestream, instance.transfer_syntax)
    target = folder / f"{name}.dcm"
    if not target.exists():
        with incoming(folder, pieces) as temporary:
            publish(temporary, target)
    elif target.read_bytes() != b"".join(pieces):
        raise BadRequest(
            "another file has the name that it would have",
            where=str(target),
            mend="move that file away, or export to another folder",
        )


def _print_array(models: Iterable[dict[str, Any]]) -> None:
    """Print a JSON array, an element a line, without ever holding it whole."""
    separator = "["
    for model in models:
        click.echo(separator + json.dumps(model), nl=False)
        separator = ",\n "
    click.echo("[]" if separator == "[" else "]")


def _print_table(entries: Iterable[Entry]) -> None:
    columns = shutil.get_terminal_size((_UNCUT, 0)).columns
    click.echo(shown.HEADING)
    for entry in entries:
        click.echo(shown.row(entry, time.time(), columns))


def _totals(queue: SqliteQueue) -> str:
    totals = queue.totals()
    counts = ", ".join(f"{totals.entries[state]} {state}" for state in STATES)
    return f"{counts}; {shown.size(totals.size)}"
