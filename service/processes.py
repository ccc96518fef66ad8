"""The processes of `jpegstow serve`: the service and the archive under gunicorn, and retries."""

import ctypes
import errno
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from service import telemetry
from service.loading import uncollected
from service.settings import Settings

GRACE: Final = 7  # seconds; Cloud Run kills after 10

_RUN: Final = "from service.__main__ import server; server()"
_ARGUMENTS: Final = 4  # the place of gunicorn's own in its command line
_RETRY: Final = "from service.__main__ import main; main()"
_ALLOCATOR: Final = {
    "MALLOC_MMAP_THRESHOLD_": str(16 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(32 << 20),
    "MALLOC_ARENA_MAX": "2",
}
_START: Final = 30.0  # seconds that a process may take until it answers
_POLL: Final = 0.1
_LONGEST: Final = "8190"  # characters of a URL and of a header; gunicorn allows no more
_PR_SET_PDEATHSIG: Final = 1


def service_command(settings: Settings) -> list[str]:
    """Return the command line of the service."""
    workers = ["--workers", str(settings.workers), "--threads", str(settings.threads)]
    bind = f"{_bracketed(settings.host)}:{settings.port}"
    workers += ["--worker-class", "service.worker.Worker"]
    return [*_gunicorn(bind), *workers, "--preload", "service.wsgi:service()"]


def archive_command(settings: Settings) -> list[str]:
    """Return the command line of the embedded archive: one process, since it is one index."""
    bind = f"127.0.0.1:{settings.archive_port}"
    threads = ["--threads", str(settings.workers * settings.threads)]
    worker = ["--worker-class", "service.dicomweb.worker.ArchiveWorker"]
    limits = ["--limit-request-line", _LONGEST, "--limit-request-field_size", _LONGEST]
    options = ["--workers", "1", *threads, *worker, *limits]
    return [*_gunicorn(bind), *options, "service.wsgi:archive()"]


def retry_command() -> list[str]:
    """Return the command line of what drains the retry queue."""
    return [sys.executable, "-P", "-c", _RETRY, "retry"]


def _gunicorn(bind: str) -> list[str]:
    command = [sys.executable, "-P", "-c", _RUN]  # as many as _ARGUMENTS
    command += ["--bind", bind, "--graceful-timeout", str(GRACE), "--no-control-socket"]
    # Else who calls from this machine could ask for a path by another name than a proxy sees.
    command += ["--forwarder-headers", ""]
    # Its warnings quote malformed requests, whose query may hold a patient's name.
    command += ["--log-level", "error"]
    # A worker's heartbeat is a file that it touches; on a disk that can stall it.
    return command + (["--worker-tmp-dir", "/dev/shm"] if Path("/dev/shm").is_dir() else [])  # noqa: S108


def ports_in_use(settings: Settings) -> dict[str, int]:
    """Return, by setting, the ports that the processes would bind and that are another's.

    An archive that can't bind its port would go unnoticed where another answers there already.
    """
    wanted = {"PORT": (settings.host, settings.port)}
    if settings.embedded:
        wanted["ARCHIVE_PORT"] = ("127.0.0.1", settings.archive_port)
    return {name: port for name, (host, port) in wanted.items() if is_in_use(host, port)}


def is_in_use(host: str, port: int) -> bool:
    """Tell whether another program listens there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def environment(given: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of the processes, with what glibc's allocator reads at their start.

    By itself it gives the pages of every picture back, and faults them in again for the next:
    a fifth of the CPU of an upload.
    """
    return _ALLOCATOR | os.environ | dict(given or {})


def become(command: Sequence[str]) -> NoReturn:
    """Replace this process with a command of gunicorn's, which then gets its signals itself.

    Where the allocator is set up already, as in the container, gunicorn is run right here: starting
    Python a second time would be half of the time to the first answer.
    """
    if _ALLOCATOR.items() <= os.environ.items():
        with uncollected():
            from gunicorn.app.wsgiapp import run  # noqa: PLC0415 - slow to import

        sys.argv = ["gunicorn", *command[_ARGUMENTS:]]
        run(prog="gunicorn")
        sys.exit(0)
    os.execve(command[0], list(command), environment())  # noqa: S606 - our own, no shell


def supervise(commands: Mapping[str, Sequence[str]], health: str, given: Mapping[str, str]) -> int:
    """Run processes until a signal comes or the service ends; return an exit status.

    Parameters
    ----------
    commands
        By name. The others start once the ``archive``, if there is one, answers at `health`. When
        the ``service`` ends, all end; any other process that dies is started again, and what is
        uploaded meanwhile waits in the retry queue.
    given
        Settings that they have beside those of this process; a command line would show them to
        everybody on this machine, an environment is this user's alone.
    """
    stop = _stop_on_signals()
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        if "archive" in commands:
            running["archive"] = _start(commands["archive"], given)
            if not _answers(health, running["archive"], stop):
                return 1
        running |= {name: _start(commands[name], given) for name in commands if name not in running}
        while not stop() and running["service"].poll() is None:
            time.sleep(_POLL)
            _start_again(running, commands, given)
        return 0 if stop() else running["service"].returncode or 1
    finally:
        # The archive last: what is under way still needs it.
        _end([process for name, process in running.items() if name != "archive"])
        _end([process for name, process in running.items() if name == "archive"])


def _start_again(
    running: dict[str, subprocess.Popen[bytes]],
    commands: Mapping[str, Sequence[str]],
    given: Mapping[str, str],
) -> None:
    ended = {name: process.poll() for name, process in running.items()}
    dead = {name: status for name, status in ended.items() if status is not None}
    if dead and "service" not in dead:
        time.sleep(1)  # one that can't start shan't take the whole machine
        for name, status in dead.items():
            telemetry.log(
                "ERROR", "a process has ended, and is started again", name=name, status=status
            )
            running[name] = _start(commands[name], given)


def _stop_on_signals() -> Callable[[], bool]:
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    signal.signal(signal.SIGTERM, note)
    signal.signal(signal.SIGINT, note)
    return lambda: bool(received)


def _start(command: Sequence[str], given: Mapping[str, str]) -> subprocess.Popen[bytes]:
    # A session of its own keeps the terminal's Ctrl-C from reaching the archive before its turn.
    return subprocess.Popen(  # noqa: S603
        command,
        env=environment(given),
        start_new_session=True,
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
    )


def _die_with_parent() -> None:
    """Ask Linux for SIGTERM when the supervisor is killed, so that nothing is left behind."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End processes, all at once; kill what is still there when their time is up."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + GRACE + 1
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(health: str, process: subprocess.Popen[bytes], stop: Callable[[], bool]) -> bool:
    """Wait until a URL answers 200; False if the process ends first, or takes too long."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + _START
    while time.monotonic() < deadline and process.poll() is None and not stop():
        try:
            with opener.open(health, timeout=1):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(_POLL)
    return False
