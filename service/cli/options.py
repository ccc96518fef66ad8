"""What several commands share: how they report errors, and how they are told of pictures."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import asdict, replace
from functools import wraps
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click

from service import assemble, settings
from service.errors import BadSettings, JpegstowError
from service.ingest import Rules
from service.settings import Settings, store_url_of
from service.terminal import plain

Command = Callable[..., Any]


def reports_errors(command: Command) -> Command:
    """Print what jpegstow refuses as text, with exit status 2, instead of a traceback."""

    @wraps(command)
    def reporting(*args: Any, **options: Any) -> Any:
        try:
            return command(*args, **options)
        except BadSettings as error:
            for problem in error.problems:
                click.echo(f"jpegstow: {problem}", err=True)
        except BrokenPipeError:
            raise  # whoever reads has had enough; click ends quietly
        except (JpegstowError, OSError) as error:
            click.echo(f"jpegstow: {error}", err=True)
        sys.exit(2)

    return reporting


class Told(Protocol):
    """What became of one thing; a data class."""

    @property
    def path(self) -> Path | str:
        """Which it was."""

    @property
    def outcome(self) -> str:
        """What became of it."""

    @property
    def reason(self) -> str:
        """Why it isn't as was wanted; else empty."""


AnyTold = TypeVar("AnyTold", bound=Told)


def connecting_options(command: Command) -> Command:
    """Add the options that say where the store is, and how much is asked of it at once."""
    for option in (
        click.option(
            "-j", "--jobs", type=click.IntRange(1, 64), default=4, help="So many at once."
        ),
        click.option("--url", help="The DICOMweb server's base URL, instead of DICOMWEB_URL."),
    ):
        command = option(command)
    return command


def connected(url: str | None, jobs: int) -> Settings:
    """Return the settings, with the store that the command line names.

    Raises
    ------
    BadSettings
        For settings that can't be used, and a URL that isn't one.
    """
    current = settings.load()
    if url:
        try:
            current = replace(current, dicomweb_url=store_url_of(url))
        except ValueError as error:
            raise BadSettings([f"--url: {error}"]) from error
    return replace(current, threads=max(jobs, current.threads))


def rules_of(current: Settings) -> Rules:
    """Return how pictures are described; tell if the namespace of their UIDs has just been made.

    Who calls a command in another folder, with another DATA_DIR, would else make other instances
    of pictures that are stored already, and never know.
    """
    kept = assemble.namespace_file(current)
    is_new = kept is not None and not kept.exists()
    rules = assemble.rules(current)
    if is_new:
        click.echo(
            f"jpegstow: made a new UID namespace, {kept}: under any other the same pictures become"
            " other instances. Elsewhere, set DATA_DIR to this one, or UID_NAMESPACE",
            err=True,
        )
    return rules


def with_progress(
    told: Iterable[AnyTold], total: int, unit: str = "file", *, aloud: bool = True
) -> Iterator[AnyTold]:
    """Yield what became of things, and show how many there are; tell why of those with a reason."""
    from tqdm import tqdm  # noqa: PLC0415 - only here

    with tqdm(total=total, unit=unit, disable=None, file=sys.stderr) as bar:
        for one in told:
            if aloud and one.reason:
                bar.write(plain(f"{one.path}: {one.outcome}: {one.reason}"), file=sys.stderr)
            bar.update()
            yield one


def summary(told: Iterable[Told], good: Collection[str], *, as_json: bool = False) -> int:
    """Print how many came to what, or what became of each as JSON; return the exit status."""
    if as_json:
        rows = [asdict(one) for one in told]  # type: ignore[call-overload] # they are data classes
        click.echo(json.dumps(rows, indent=2, default=str))
        outcomes = [row["outcome"] for row in rows]
    else:
        outcomes = [one.outcome for one in told]
        counts = Counter(outcomes)
        told_all = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
        click.echo(told_all or "nothing there")
    return 0 if set(outcomes) <= set(good) else 1


def describing_options(command: Command) -> Command:
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
