"""The commands that let an operator see and handle the retry queue."""

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, redirect_stdout
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from service import assemble, sending, settings
from service.cli.options import Command, describing_options, reports_errors
from service.dicom import attributes, part10
from service.durable import incoming, publish
from service.errors import BadRequest, BadSettings, JpegstowError, NoSuchEntry
from service.retry import STATES, Entry, Filter, Queue, SqliteQueue, shown
from service.retry.mend import Correction, mend
from service.retry.mend import retry as retry_one
from service.settings import Settings

if TYPE_CHECKING:
    from service.gcp.queue import BucketQueue

_PAGE: Final = 500  # entries that are read at once, and twice as many each time
_LONGEST_PAGE: Final = 16_000
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


_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@group.command(name="list")
@_filters
@click.option("--limit", type=click.IntRange(min=1), help="The first so many only.")
@_as_json
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
            click.echo(f"{_totals(queue)} in {current.queue_place}")


@group.command()
@click.argument("name", metavar="ID")
@_as_json
@reports_errors
def show(name: str, *, as_json: bool) -> None:
    """Show an entry whole, but for its pixels."""
    with _opened(settings.load()) as queue:
        entry, kept = queue.show(name), shown.loaded(queue, name)
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
@_as_json
@reports_errors
def retry(names: Sequence[str], *, everything: bool, as_json: bool, **options: Any) -> None:
    """Let entries be tried at once.

    Filters choose dead ones unless --state says otherwise. With --set, --metadata or --template
    each is described anew from what its sender said and from this; where that changes the
    instance, it has another ID, which is printed.
    """
    described = {name: options.pop(name) for name in ("pairs", "metadata", "template_name")}
    correction = _correction(**described)
    chosen = _choice(names, _filter(options) or (Filter() if everything else None), "dead")
    if correction and chosen and chosen.state != "dead":
        raise click.UsageError("only dead entries are described anew, or those given by ID")
    current = settings.load()
    with _opened(current) as queue:
        if correction:
            act = _mending(queue, correction, current)
            sys.exit(_each("retried", _ids(queue, names, chosen), act, as_json=as_json))
        if chosen and not as_json:
            click.echo(f"{queue.revive(chosen, time.time())} retried")
        else:
            act = _acting(lambda name: retry_one(queue, name, time.time()))
            sys.exit(_each("retried", _ids(queue, names, chosen), act, as_json=as_json))


@group.command()
@click.argument("names", nargs=-1, metavar="[ID]...")
@_filters
@click.option("--yes", is_flag=True, help="Don't ask.")
@_as_json
@reports_errors
def drop(names: Sequence[str], *, yes: bool, as_json: bool, **filters: str | None) -> None:
    """Discard entries for good.

    Filters choose dead ones unless --state says otherwise.
    """
    chosen = _choice(names, _filter(filters), "dead")
    with _opened(settings.load()) as queue:
        found = {name: _state(queue, name) for name in _ids(queue, names, chosen)}
        if found and not yes:
            question = f"Entries to be discarded for good: {len(found)}. Go on?"
            click.confirm(question, abort=True, err=True)
        # What has come to life again while the question stood is not what was asked for.
        act = _acting(lambda name: queue.drop(name, time.time(), found[name]))
        sys.exit(_each("dropped", list(found), act, as_json=as_json))


@group.command()
@click.argument("names", nargs=-1, metavar="[ID]...")
@_filters
@click.option("--all", "everything", is_flag=True, help="All that there are.")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="A folder.",
)
@_as_json
@reports_errors
def export(
    names: Sequence[str], output: Path, *, everything: bool, as_json: bool, **filters: str | None
) -> None:
    """Write instances as DICOM files.

    Each is named by its SOP Instance UID; the entries stay as they are.
    """
    chosen = _choice(names, _filter(filters) or (Filter() if everything else None))
    with _opened(settings.load()) as queue:
        found = _ids(queue, names, chosen)
        output.mkdir(parents=True, exist_ok=True)
        act = _acting(lambda name: _export(queue, name, output))
        sys.exit(_each("exported", found, act, as_json=as_json))


@group.command(name="sweep")
@click.option(
    "--silence",
    type=click.IntRange(min=60),
    default=86_400,
    show_default=True,
    metavar="SECONDS",
    help="Wake entries of which nothing was heard for so long.",
)
@_as_json
@reports_errors
def sweep_(silence: int, *, as_json: bool) -> None:
    """Wake what a queue in a bucket has lost the alarm of, and clear away what crashes have left.

    A queue in a folder needs none of it. Let something run this once a day.
    """
    with _opened(settings.load()) as queue:
        if isinstance(queue, SqliteQueue):
            raise click.UsageError("RETRY_QUEUE is a folder: it wakes by itself")
        swept = queue.sweep(time.time(), silence)
    if as_json:
        click.echo(json.dumps(asdict(swept)))
    else:
        click.echo(f"{swept.rearmed} woken, {swept.adopted} taken in, {swept.removed} removed")


def _opened(current: Settings) -> "closing[SqliteQueue | BucketQueue]":
    place = current.queue_place
    if isinstance(place, Path) and not (place / "entries").is_dir():
        # To make one here would tell an operator in another folder that nothing waits.
        problem = f"RETRY_QUEUE: there is no retry queue in {place.absolute()}"
        raise BadSettings([problem + "; set DATA_DIR or RETRY_QUEUE as the service has it"])
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


def _entries(queue: Queue, chosen: Filter) -> Iterator[Entry]:
    """Yield all that are meant; for each page a bucket is listed from its start."""
    size = _PAGE
    page = queue.list(chosen, size)
    yield from page.entries
    while page.after:
        size = min(2 * size, _LONGEST_PAGE)
        page = queue.list(chosen, size, page.after)
        yield from page.entries


def _ids(queue: Queue, names: Sequence[str], chosen: Filter | None) -> list[str]:
    """Return the ids of all that is meant, before any of it changes."""
    found = (entry.sop_instance_uid for entry in _entries(queue, chosen)) if chosen else names
    return list(dict.fromkeys(found))


def _state(queue: Queue, name: str) -> str:
    """Return an entry's state; none of one that isn't there, which is told when its turn comes."""
    try:
        return queue.show(name).state
    except NoSuchEntry:
        return ""


def _each(done: str, names: Sequence[str], act: Callable[[str], str], *, as_json: bool) -> int:
    """Do something with each entry, the others too where one can't be; return the exit status.

    `act` returns the id that an entry has afterwards.
    """
    acted: list[str] = []
    failed: dict[str, str] = {}
    for name in names:
        try:
            acted.append(act(name))
        except (JpegstowError, OSError) as error:
            failed[name] = str(error)
    if as_json:
        click.echo(json.dumps({done: acted, "failed": failed}))
        return 1 if failed else 0
    for name, reason in failed.items():
        click.echo(f"{name}: {reason}", err=True)
    renamed = set(acted) - set(names)
    for line in acted if renamed else [f"{len(acted)} {done}"]:
        click.echo(line)
    return 1 if failed else 0


def _acting(act: Callable[[str], object]) -> Callable[[str], str]:
    """Return an act that leaves an entry its id."""

    def acting(name: str) -> str:
        act(name)
        return name

    return acting


def _correction(
    pairs: Sequence[str], metadata: Path | None, template_name: str | None
) -> Correction | None:
    """Return what is to be described otherwise; what is wrong with it is told before any entry."""
    said = sending.parse_settings(pairs, metadata)
    attributes.parse(said)
    return Correction(said, template_name or "") if said or template_name else None


def _mending(queue: Queue, correction: Correction, current: Settings) -> Callable[[str], str]:
    """Return what describes an entry anew."""
    rules = assemble.rules(current)
    template = correction.template
    if template and template not in rules.templates:
        known = ", ".join(sorted(rules.templates))
        raise click.UsageError(f"there is no template {template}; there are {known}")
    return lambda name: mend(queue, name, correction, rules, time.time())


def _export(queue: Queue, name: str, folder: Path) -> None:
    instance = queue.load(name).instance
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


def _totals(queue: Queue) -> str:
    totals = queue.totals()
    counts = ", ".join(f"{totals.entries[state]} {state}" for state in STATES)
    return f"{counts}; {shown.size(totals.size)}"
