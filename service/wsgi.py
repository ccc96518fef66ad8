"""The two WSGI applications, as gunicorn names them: ``service.wsgi:service()``, ``:archive()``."""

from flask import Flask

from service import assemble, settings, telemetry
from service.loading import uncollected


def service() -> Flask:
    """Return the service under the environment's settings."""
    telemetry.silence_pydicom()
    with uncollected():
        from service.push_api import add_push  # noqa: PLC0415 - each process loads its own half
        from service.web import create_app  # noqa: PLC0415

        current = settings.load()
        rules, store = assemble.rules(current), assemble.store(current)
        guarded, queue = assemble.guarded(current, store), assemble.retry_queue(current)
        app = create_app(rules, store, guarded, queue, current)
        intake = assemble.intake(current, rules, guarded, queue)
        redelivery = assemble.redelivery(current, guarded, queue)
        add_push(app, intake, redelivery, assemble.push_tokens(current))
        return app


def archive() -> Flask:
    """Return the embedded archive under the environment's settings."""
    telemetry.silence_pydicom()
    with uncollected():
        from service.archive import Archive  # noqa: PLC0415
        from service.dicomweb import create_app  # noqa: PLC0415

        return create_app(Archive(settings.load().data_dir / "archive"))
