"""The command `jpegstow`."""

from importlib import import_module
from typing import Final

import click

from service import __version__, telemetry
from service.loading import collect_again

# In which module each command is, and its name there.
_COMMANDS: Final = {
    "archive": ("running", "archive"),
    "backfill": ("messages", "backfill_"),
    "census": ("offline", "census"),
    "codes": ("knowledge", "codes"),
    "convert": ("offline", "convert"),
    "delete": ("delete", "delete"),
    "doctor": ("doctor", "doctor"),
    "inspect": ("offline", "inspect"),
    "keys": ("keys", "group"),
    "pull": ("messages", "pull_"),
    "queue": ("queue", "group"),
    "retrieve": ("retrieve", "retrieve"),
    "retry": ("running", "retry"),
    "search": ("search", "search"),
    "send": ("send", "send"),
    "serve": ("running", "serve"),
    "settings": ("knowledge", "settings_"),
    "store": ("store", "store"),
    "templates": ("knowledge", "templates"),
    "verify": ("verify", "verify"),
}


class _Commands(click.Group):
    """The commands, each loaded when it is asked for: `serve` waits for no other."""

    def list_commands(self, _: click.Context) -> list[str]:
        """Return their names."""
        return sorted(_COMMANDS)

    def get_command(self, _: click.Context, name: str) -> click.Command | None:
        """Return one; None if there is none of that name."""
        if name not in _COMMANDS:
            return None
        module, attribute = _COMMANDS[name]
        command: click.Command = getattr(import_module(f"service.cli.{module}"), attribute)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="jpegstow")
def main() -> None:
    """Turn JPEG photographs into DICOM instances and store them over DICOMweb.

    Settings come from environment variables; `jpegstow settings` lists them.
    """
    collect_again()
    telemetry.silence_pydicom()
