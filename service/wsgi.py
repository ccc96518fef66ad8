"""The two WSGI applications, as gunicorn names them: ``service.wsgi:service()``, ``:archive()``."""

from flask import Flask

from service import assemble, settings, telemetry


def service() -> Flask:
    """Return the service under the environment's settings."""
    from service.web import create_app  # noqa: PLC0415 - each process loads its own half only

    telemetry.silence_pydicom()
    current = settings.load()
    return create_app(
        assemble.rules(current), assemble.store(current), assemble.retry_queue(current), current
    )


def archive() -> Flask:
    """Return the embedded archive under the environment's settings."""
    from service.archive import Archive  # noqa: PLC0415
    from service.dicomweb import create_app  # noqa: PLC0415

    telemetry.silence_pydicom()
    return create_app(Archive(settings.load().data_dir / "archive"))
