"""The two WSGI applications, as gunicorn names them: ``service.wsgi:service()``, ``:archive()``."""

from flask import Flask

from service import assemble, settings, telemetry


def service() -> Flask:
    """Return the service under the environment's settings."""
    from service.push_api import add_push  # noqa: PLC0415 - each process loads its own half only
    from service.web import create_app  # noqa: PLC0415

    telemetry.silence_pydicom()
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
    from service.archive import Archive  # noqa: PLC0415
    from service.dicomweb import create_app  # noqa: PLC0415

    telemetry.silence_pydicom()
    return create_app(Archive(settings.load().data_dir / "archive"))
