"""Where processes start: the command `jpegstow`, and gunicorn."""

import gc

from service.loading import lean_pydicom, uncollected


def main() -> None:
    """Run the command line; garbage is collected once the command is loaded."""
    gc.disable()
    lean_pydicom()
    from service.cli import main as command  # noqa: PLC0415 - loading is what takes the time

    command(prog_name="jpegstow")


def server() -> None:
    """Run gunicorn, with the arguments of this process."""
    with uncollected():
        lean_pydicom()
        from gunicorn.app.wsgiapp import run  # noqa: PLC0415

        # When it runs it looks first into the working folder, where another service may be.
        import service.wsgi  # noqa: F401, PLC0415
    run(prog="gunicorn")


if __name__ == "__main__":
    main()
