"""The commands of Pub/Sub: what takes its messages, and what publishes what is there already."""

import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click

from service import assemble, durable, settings
from service.cli.options import reports_errors
from service.errors import BadRequest
from service.gcp.backfill import Count, backfill, pictures, publisher, unhurried
from service.gcp.objects import Buckets, Listed
from service.gcp.pull import pull
from service.observing import observe

_BATCHES: Final = 4  # of the largest uploads, that may be in memory as messages
_KEEP: Final = 1.0  # seconds between two writings of the state, each of which waits for the disk


def _shaped(pattern: str, shape: str) -> Callable[..., Any]:
    """Return what checks a parameter; it gives the parts that the pattern names by number."""

    def check(_context: click.Context, _parameter: click.Parameter, value: str | None) -> Any:
        if value is None:
            return None
        found = re.fullmatch(pattern, value, re.ASCII)
        if not found:
            raise click.BadParameter(f"it has to be {shape}")
        return found.groups()

    return check


_SUBSCRIPTION = _shaped(r"(projects/[^/\s]+/subscriptions/[^/\s]+)", "projects/P/subscriptions/S")
_TOPIC = _shaped(r"(projects/[^/\s]+/topics/[^/\s]+)", "projects/P/topics/T")
_PLACE = _shaped(r"((?:gs|s3)://[a-z0-9][a-z0-9._-]{1,221})(?:/([^\0]*))?", "gs://BUCKET/PREFIX")
_RATE = _shaped(r"(0\.\d{0,2}[1-9]|[1-9]\d{0,5}(?:\.\d{1,3})?)(?:/s)?", "N/s, N from 0.001")


@click.command("pull")
@click.argument("subscription", callback=_SUBSCRIPTION)
@click.option(
    "-j",
    "--concurrency",
    type=click.IntRange(1, 256),
    help="Messages at once, instead of THREADS.",
)
@reports_errors
def pull_(subscription: tuple[str], concurrency: int | None) -> None:
    """Store the pictures of a Pub/Sub subscription's messages, until told to stop.

    SUBSCRIPTION is projects/P/subscriptions/S. It takes what `/v1/pubsub` takes, and needs no
    `serve`. A message is acknowledged once its picture is stored, or kept in the retry queue:
    `jpegstow retry` sends what is there, as `jpegstow serve` does by itself. Give the subscription
    a retry policy, so that what can't be kept either doesn't come again at once.
    """
    current = settings.load()
    rules, store = assemble.rules(current), assemble.store(current)
    queue = assemble.retry_queue(current)
    observe(current)
    try:
        intake = assemble.intake(current, rules, assemble.guarded(current, store), queue)
        click.echo(f"storing what comes from {subscription[0]} in {current.store_url}")
        most = _BATCHES * current.max_upload_bytes
        counts = pull(subscription[0], intake.take, concurrency or current.threads, most)
    finally:
        queue.close()
    click.echo(f"{counts['acknowledged']} acknowledged, {counts['returned']} returned")


@click.command("backfill")
@click.argument("place", metavar="gs://BUCKET/PREFIX", callback=_PLACE)
@click.option("--topic", required=True, callback=_TOPIC, help="projects/P/topics/T")
@click.option("--rate", callback=_RATE, metavar="N/s", help="The most objects a second.")
@click.option("--after", default="", metavar="NAME", help="Leave out all up to this object.")
@click.option(
    "--state",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file that keeps how far it came; with it the command goes on from there.",
)
@click.option("--all", "whatever", is_flag=True, help="Whatever the names; all but sidecars.")
@click.option("--dry-run", is_flag=True, help="Count the objects, and publish nothing.")
@reports_errors
def backfill_(place: tuple[str, str | None], topic: tuple[str], **options: Any) -> None:
    """Publish a message for each JPEG that is in a bucket already.

    The messages are those that Cloud Storage sends of new objects, so whatever takes these, by
    push or by `jpegstow pull`, takes them. Some may be published twice where the command was
    killed; that makes no second instance. Ends with status 0 only if all are published.
    """
    current = settings.load()
    bucket, prefix = place[0], place[1] or ""
    task = {"source": f"{bucket}/{prefix}", "topic": topic[0], "all": options["whatever"]}
    state: Path | None = options["state"]
    after = options["after"] or (_kept(state, task) if state else "")
    found = Buckets(current.bucket_endpoint).list(bucket, prefix, after)
    objects = pictures(found, whatever=options["whatever"])
    if options["dry_run"]:
        _tell(objects, "would be published")
        return
    if options["rate"]:
        objects = unhurried(objects, float(options["rate"][0]))
    with publisher(topic[0]) as publish:
        done = backfill(bucket, objects, publish)
        _tell(_keeping(done, state, task) if state else done, "published")


def _tell(objects: Iterable[Listed], what: str) -> None:
    """Show the progress of going through objects, and how many there were, even if it breaks."""
    from tqdm import tqdm  # noqa: PLC0415 - only here

    count = Count()
    try:
        for listed in tqdm(objects, unit="object", disable=None, file=sys.stderr):
            count.add(listed)
    finally:
        click.echo(f"{count.objects} objects of {count.size} bytes {what}")


def _keeping(
    confirmed: Iterable[Listed], path: Path, task: Mapping[str, object]
) -> Iterator[Listed]:
    """Write how far it has come, now and then, and at the end, also an early one."""
    last, written = None, time.monotonic()
    try:
        for last in confirmed:
            if time.monotonic() - written > _KEEP:
                _keep(path, task, last.name)
                written = time.monotonic()
            yield last
    finally:
        if last:
            _keep(path, task, last.name)


def _keep(path: Path, task: Mapping[str, object], after: str) -> None:
    text = json.dumps({**task, "after": after})
    with durable.incoming(path.parent, [text.encode()]) as draft:
        durable.publish(draft, path)


def _kept(path: Path, task: Mapping[str, object]) -> str:
    """Return the name of the last object that was confirmed; empty before the first.

    Raises
    ------
    BadRequest
        If the file is of something else.
    """
    if not path.exists():
        return ""
    try:
        state = json.loads(path.read_bytes())
        after = state.pop("after")
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise _no_state("isn't one that backfill writes") from error
    if state != task or not isinstance(after, str):
        raise _no_state("is of another backfill: of another place, topic or --all")
    return after


def _no_state(what: str) -> BadRequest:
    return BadRequest(
        f"the file {what}", reason="state", where="--state", mend="name another file, or delete it"
    )
