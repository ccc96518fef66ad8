"""What several commands share: how they report errors, and how they are told of pictures."""

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from service.errors import BadSettings, JpegstowError

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
