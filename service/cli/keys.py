"""The commands that make, list and revoke API keys."""

import os
import shutil
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from datetime import UTC, datetime

import click

from service import assemble, settings
from service.access import Caller, audit, make
from service.cli.options import reports_errors
from service.settings import SCOPES, ApiKey, ordered
from service.terminal import table

_UNCUT = 1 << 20  # columns, where no terminal ends the line


@click.group(name="keys")
def group() -> None:
    """Make, list and revoke the API keys of AUTH=apikey.

    A running service knows at once.
    """


@group.command(name="make")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(SCOPES),
    help="What its holder may do; may be repeated. Without any: read /metrics.",
)
@click.option(
    "--setting", is_flag=True, help="Keep nothing; print what to add to KEYS, on the second line."
)
@reports_errors
def make_(name: str, scopes: tuple[str, ...], *, setting: bool) -> None:
    """Make a key and print it, this once: only its digest is kept."""
    key, kept = make(name, scopes)
    if not setting:
        assemble.key_file(settings.load()).add(replace(kept, made=_now()))
        _tell("made", name)
    click.echo(key)
    if setting:
        click.echo(str(kept))


@group.command(name="list")
@reports_errors
def list_() -> None:
    """List the keys by name, those of KEYS too."""
    current = settings.load()
    rows = [_row(key, "KEYS") for key in current.keys]
    rows += [_row(key, "DATA_DIR") for key in assemble.key_file(current).read()]
    if not rows:
        click.echo("no keys", err=True)
        return
    head = ("name", "scopes", "kept in", "made", "revoked")
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else _UNCUT
    click.echo(table(head, rows, columns, 64))


def _row(key: ApiKey, where: str) -> list[str]:
    return [key.name, " ".join(ordered(key.scopes)), where, key.made, key.revoked]


@group.command()
@click.argument("name")
@reports_errors
def revoke(name: str) -> None:
    """Let a key be good for nothing from now on."""
    assemble.key_file(settings.load()).revoke(name, _now())
    _tell("revoked", name)
    click.echo(f"{name} is revoked")


def _tell(what: str, name: str) -> None:
    """Write the audit's line, beside what is printed; whose the account is, the system knows."""
    whose = Caller(f"uid {os.getuid()}", "command", frozenset())
    with redirect_stdout(sys.stderr):
        audit.write(audit.KEYS, whose, 200, key=name, change=what)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
