"""The commands that run for long: the service, the archive, what drains the retry queue."""

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final, NoReturn

import click

from service import __version__, assemble, processes, settings
from service.access import make
from service.cli.options import reports_errors
from service.errors import BadSettings
from service.observing import observe
from service.retry import worker
from service.settings import Settings

_LOOK: Final = 15.0  # seconds between two looks through a bucket, each of which lists it
_TOLD: Final = 10_000  # files of a rebuild between two lines
_MESSAGES: Final = 1 << 20  # bytes of alarms, each of which is an entry's id


@click.command()
@reports_errors
def serve() -> None:
    """Run the service, the embedded archive where DICOMWEB_URL is not set, and retries."""
    current = settings.load()
    # What would keep every process from starting is told once, here.
    assemble.rules(current)
    assemble.metadata_rules(current)
    assemble.store(current)
    assemble.access(current)
    assemble.retry_queue(current).close()
    taken = processes.ports_in_use(current)
    if taken:
        raise BadSettings([f"{name}: {port} is another program's" for name, port in taken.items()])
    _say(f"jpegstow {__version__}: uploads at http://{current.host}:{current.port}/v1/instances")
    _say(f"storing in {current.store_url}" + (" (embedded)" if current.embedded else ""))
    _say(f"keeping what can't be stored in {current.queue_place}")
    _say(_told_of_access(current))
    commands = {"service": processes.service_command(current)}
    for number in range(current.retry_workers):
        commands[f"retry {number}"] = processes.retry_command()
    if current.embedded:
        commands["archive"] = processes.archive_command(current)
    if len(commands) == 1:
        processes.become(commands["service"])
    health = f"http://127.0.0.1:{current.archive_port}/healthz"
    sys.exit(processes.supervise(commands, health, _archive_key(current)))


def _told_of_access(current: Settings) -> str:
    if current.auth == "none":
        return "open to everybody who reaches it"
    usable = [key for key in (*current.keys, *assemble.key_file(current).read()) if not key.revoked]
    return f"{len(usable)} API keys" if usable else "no API keys yet: jpegstow keys make"


def _archive_key(current: Settings) -> dict[str, str]:
    """Return the key by which the processes are known to the embedded archive."""
    if current.auth == "none" or current.archive_key:
        return {}
    key, _ = make("jpegstow", ())
    return {"ARCHIVE_KEY": key}


@click.command()
@click.option(
    "-j",
    "--concurrency",
    type=click.IntRange(1, 64),
    help="Instances at once, instead of RETRY_CONCURRENCY.",
)
@reports_errors
def retry(concurrency: int | None) -> None:
    """Send what is in the retry queue, until told to stop; `serve` runs this beside itself."""
    current = settings.load()
    _say(f"sending what is in {current.queue_place} to {current.store_url}")
    observe(current)
    place = current.queue_place
    if isinstance(place, Path):
        worker.work(assemble.drain(current, concurrency))
    elif place.subscription:
        _pull(current, place.subscription, concurrency or current.retry_concurrency)
    else:
        worker.work(assemble.drain(current, concurrency), _LOOK)


def _pull(current: Settings, subscription: str, concurrency: int) -> None:
    """Send what the alarms of a subscription ring for."""
    from service.gcp.pull import pull  # noqa: PLC0415 - slow to import

    queue = assemble.retry_queue(current)
    guarded = assemble.guarded(current, assemble.store(current))
    redelivery = assemble.redelivery(current, guarded, queue)
    try:
        if redelivery:
            counts = pull(subscription, redelivery.take, concurrency, _MESSAGES)
            _say(f"{counts['acknowledged']} at their end, {counts['returned']} to come again")
    finally:
        queue.close()


@click.command()
@click.option("--rebuild", is_flag=True, help="Make the index anew from the files alone, and end.")
@reports_errors
def archive(*, rebuild: bool) -> None:
    """Run the embedded archive alone: a DICOM store to develop and test against."""
    current = settings.load()
    root = current.data_dir / "archive"
    if rebuild:
        _rebuild(root)
    problems = list(_in_the_way(current.archive_port, root))
    if problems:
        raise BadSettings(problems)
    _say(f"DICOMweb at http://127.0.0.1:{current.archive_port}/dicomWeb")
    processes.become(processes.archive_command(current))


def _in_the_way(port: int, root: Path) -> Iterator[str]:
    """Yield what would keep the archive from starting, which its worker tells by a traceback."""
    if processes.is_in_use("127.0.0.1", port):
        yield f"ARCHIVE_PORT: {port} is another program's"
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with TemporaryFile(dir=root):
            pass
    except OSError as error:
        yield (
            f"DATA_DIR: the archive can't be kept in {root} ({type(error).__name__}); make the"
            " folder writable"
        )


def _rebuild(root: Path) -> NoReturn:
    """Make the index anew; end with 1 if a file isn't what its name says."""
    from service.archive import Rebuilt, rebuild  # noqa: PLC0415 - what serve needn't load

    def tell(so_far: Rebuilt) -> None:
        if sum(so_far) % _TOLD == 0:
            click.echo(f"{sum(so_far)} files", err=True)

    indexed, skipped = rebuild(root, tell)
    click.echo(f"{indexed} indexed, {skipped} skipped")
    sys.exit(1 if skipped else 0)


def _say(text: str) -> None:
    # A standard output that is full or closed is no reason to stand still.
    with suppress(OSError):
        click.echo(text)
