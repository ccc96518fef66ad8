"""The command `jpegstow`."""

import click

from service import __version__, telemetry
from service.cli import knowledge, messages, offline, queue, running
from service.cli.doctor import doctor
from service.cli.send import send


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="jpegstow")
def main() -> None:
    """Turn JPEG photographs into DICOM instances and store them over DICOMweb.

    Settings come from environment variables; `jpegstow settings` lists them.
    """
    telemetry.silence_pydicom()


for command in (
    running.serve,
    running.retry,
    queue.group,
    running.archive,
    messages.pull_,
    messages.backfill_,
    send,
    offline.convert,
    offline.inspect,
    offline.census,
    knowledge.templates,
    knowledge.codes,
    knowledge.settings_,
    doctor,
):
    main.add_command(command)
