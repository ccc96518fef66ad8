"""The two WSGI applications, as gunicorn names them: ``service.wsgi:service()``, ``:archive()``."""

from functools import cache, partial
from pathlib import Path
from threading import Thread
from typing import Final

from flask import Flask

from service import assemble, settings, telemetry
from service.access import ARCHIVE, add_access
from service.loading import uncollected
from service.retry import Queue
from service.settings import Settings

_AT_ONCE: Final = 5.0  # seconds


def service() -> Flask:
    """Return the service under the environment's settings."""
    telemetry.silence_pydicom()
    with uncollected():
        current = settings.load()
        return application(current, assemble.retry_queue(current))


def application(current: Settings, queue: Queue) -> Flask:
    """Return the service under settings, over a retry queue that is open."""
    from service.description import add_description  # noqa: PLC0415 - each process its own half
    from service.operation import add_operation  # noqa: PLC0415
    from service.pages import add_pages  # noqa: PLC0415
    from service.push_api import add_push  # noqa: PLC0415
    from service.web import create_app  # noqa: PLC0415

    rules, store = assemble.rules(current), assemble.store(current)
    guarded = assemble.guarded(current, store)
    app = create_app(rules, store, guarded, queue, current)
    add_operation(app, rules, current)
    add_access(app, assemble.access(current))
    intake = cache(partial(assemble.intake, current, rules, guarded, queue))
    if assemble.takes_messages(current):
        intake()  # what is wrong with its rules is told at the start
    redelivery = assemble.redelivery(current, guarded, queue)
    add_push(app, intake, redelivery, assemble.push_tokens(current))
    add_description(app)
    add_pages(app, store, queue, rules, current)
    return app


def archive() -> Flask:
    """Return the embedded archive under the environment's settings."""
    telemetry.silence_pydicom()
    with uncollected():
        from service.dicomweb import create_app  # noqa: PLC0415
        from service.dicomweb.body import SILENCE, Readers  # noqa: PLC0415

        current = settings.load()
        # Two threads are left for what has no body.
        readers = Readers(max(1, current.workers * current.threads - 2), SILENCE)
        app = create_app(readers=readers)
        add_access(app, assemble.archive_access(current), ARCHIVE)
        open_archive(app, current.data_dir / "archive", _AT_ONCE)
        return app


def open_archive(app: Flask, root: Path, patience: float) -> Thread:
    """Open the archive that an application serves; go on in a thread if it takes longer.

    It does where the index has to be made anew from many files. Until then everything is answered
    503, and what is uploaded waits in the retry queue.

    Parameters
    ----------
    patience
        In seconds.
    """
    from service.archive import Archive  # noqa: PLC0415

    failed: list[BaseException] = []

    def work() -> None:
        try:
            app.extensions["archive"] = Archive(root)
        except BaseException as error:  # noqa: BLE001 - is raised below, or told
            failed.append(error)
            telemetry.log_exception("the archive can't be opened", error)

    thread = Thread(target=work, daemon=True)
    thread.start()
    thread.join(patience)
    if failed:
        raise failed[0]
    if thread.is_alive():
        telemetry.log("INFO", "the archive's index is being made anew from its files")
    return thread
