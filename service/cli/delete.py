"""The command that deletes from a store."""

import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, Final

import click

from service import assemble
from service.cli.options import (
    connected,
    connecting_options,
    reports_errors,
    summary,
    with_progress,
)
from service.deleting import NOT_THERE, Counted, Deleter, Told, count
from service.dicom.outcome import Rejected, Unavailable
from service.dicom.resource import Resource, parse
from service.errors import BadRequest
from service.parallel import at_once
from service.store.search import Searcher

_GOOD: Final = frozenset({"deleted", "begun"})


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@connecting_options
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=600.0,
    show_default=True,
    help="Seconds to wait for an operation's end.",
)
@click.option("--no-wait", is_flag=True, help="Don't wait; print the operation's name.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@reports_errors
def delete(paths: Sequence[str], url: str | None, jobs: int, *, yes: bool, **options: Any) -> None:
    """Delete studies, series and instances for good.

    PATH is studies/UID, studies/UID/series/UID, studies/UID/series/UID/instances/UID, or a URL of
    the store's. What the store has of it is counted first, and you are asked; the store's operation
    is waited for. Ends with status 0 only if all that was named was there, and is gone.
    """
    current = connected(url, jobs)
    chosen = list(dict.fromkeys(_parsed(path, current.store_url) for path in paths))
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask at: --yes deletes without asking")
    with _interruptible() as stopped:
        searcher = Searcher(current, stopped.wait)
        timeout = 0.0 if options["no_wait"] else options["timeout"]
        deleter = Deleter(assemble.store(current), searcher, timeout, time.monotonic, stopped.wait)
        there, failed = _counted(searcher, chosen)
        if there and not yes:
            _ask(there, current.store_url)
        told = chain(failed, at_once(deleter.delete, there, jobs))
        shown = with_progress(told, len(chosen), "path")
        sys.exit(
            summary(_printing(shown, err=options["as_json"]), _GOOD, as_json=options["as_json"])
        )


def _parsed(path: str, base: str) -> Resource:
    resource = parse(path, base)
    if resource.frame:
        raise BadRequest("a frame can't be deleted, only its instance", where="PATH")
    return resource


def _counted(
    searcher: Searcher, chosen: Sequence[Resource]
) -> tuple[dict[Resource, Counted], list[Told]]:
    """Return what is there, and what can't be deleted since it isn't or can't be told."""
    there: dict[Resource, Counted] = {}
    failed: list[Told] = []
    for resource in chosen:
        counted = count(searcher, resource)
        if isinstance(counted, Counted) and counted.instances:
            there[resource] = counted
        else:
            failed.append(_failed(resource, counted))
    return there, failed


def _failed(resource: Resource, counted: Counted | Rejected | Unavailable) -> Told:
    absent = isinstance(counted, Counted) or counted.status in {404, 410}
    if absent:
        return Told(resource.name, NOT_THERE, "the store has no instances of it")
    assert not isinstance(counted, Counted)  # noqa: S101 - that is absent
    return Told(resource.name, "not deleted", f"it can't be counted: {counted.reason}")


def _ask(there: dict[Resource, Counted], url: str) -> None:
    """Tell what would be deleted, and end unless somebody wants it."""
    things = [f"{resource}{_size(resource, counted)}" for resource, counted in there.items()]
    for thing in things if len(things) > 1 else ():
        click.echo(thing, err=True)
    what = things[0] if len(things) == 1 else f"these {len(things)}"
    click.confirm(f"Delete {what} at {url}?", abort=True, err=True)


def _size(resource: Resource, counted: Counted) -> str:
    series = f"{counted.series} series, "
    instances = f"{counted.instances} instance{'s' if counted.instances != 1 else ''}"
    return {"study": f" ({series}{instances})", "series": f" ({instances})"}.get(resource.level, "")


def _printing(told: Iterator[Told], *, err: bool) -> Iterator[Told]:
    """Print the names of operations that go on."""
    for one in told:
        if one.operation:
            click.echo(one.operation, err=err)
        yield one


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Yield what is set by Ctrl-C, so that no thread goes on waiting for an operation."""
    stopped = threading.Event()

    def stop(*_: object) -> None:
        stopped.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield stopped
    except KeyboardInterrupt:
        click.echo("stopped; operations that have begun go on in the store", err=True)
        sys.exit(1)
    finally:
        signal.signal(signal.SIGINT, before)
