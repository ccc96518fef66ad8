"""The process that drains the queue until it is told to stop."""

import queue
import signal
import threading
import time
from types import FrameType
from typing import Final

from service import telemetry
from service.dicom.outcome import Outcome
from service.errors import JpegstowError
from service.retry.drain import Drain
from service.retry.protocol import LEASE, Lease

GRACE: Final = 6.0  # seconds that what is being sent may go on once the process shall end

_POLL: Final = 0.5  # seconds between two looks for what others have put into the queue
_PAUSE: Final = 2.0  # seconds after the queue could not be used

Sent = tuple[Lease, Outcome]
"""What a sending thread tells; None in its place tells to stop."""


def work(drain: Drain, poll: float = _POLL) -> None:
    """Drain the queue until SIGTERM or SIGINT; then finish what is being sent, or put it back.

    `poll` is in seconds: how often to look for what others have put into the queue.
    """
    told: queue.SimpleQueue[Sent | None] = queue.SimpleQueue()  # its put may be a signal handler's

    def stop(_number: int, _frame: FrameType | None) -> None:
        told.put(None)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    _until_stopped(drain, told, poll)
    _wind_up(drain, told)


def _until_stopped(drain: Drain, told: "queue.SimpleQueue[Sent | None]", poll: float) -> None:
    renewed = time.monotonic()
    while True:
        wait = poll
        try:
            _start_what_may(drain, told)
            if time.monotonic() - renewed > LEASE / 3:
                drain.renew(time.time())
                renewed = time.monotonic()
        except JpegstowError as error:
            telemetry.log("ERROR", "the retry queue can't be used", reason=str(error))
            wait = _PAUSE
        try:
            sent = told.get(timeout=wait)
        except queue.Empty:
            continue
        if sent is None:
            return
        _settle(drain, sent)


def _start_what_may(drain: Drain, told: "queue.SimpleQueue[Sent | None]") -> None:
    while lease := drain.take(time.time()):
        threading.Thread(target=_send, args=(drain, lease, told), daemon=True).start()


def _send(drain: Drain, lease: Lease, told: "queue.SimpleQueue[Sent | None]") -> None:
    told.put((lease, drain.send(lease)))


def _settle(drain: Drain, sent: Sent) -> None:
    try:
        drain.settle(*sent, time.time())
    except JpegstowError as error:
        telemetry.log("ERROR", "the retry queue can't be used", reason=str(error))


def _wind_up(drain: Drain, told: "queue.SimpleQueue[Sent | None]") -> None:
    telemetry.log("INFO", "told to stop", being_sent=len(drain.held))
    end = time.monotonic() + GRACE
    while drain.held and (left := end - time.monotonic()) > 0:
        try:
            sent = told.get(timeout=left)
        except queue.Empty:
            break
        if sent:
            _settle(drain, sent)
    try:
        drain.put_back_all(time.time())
    except JpegstowError as error:
        # Their leases run out, and they come back by themselves.
        telemetry.log("ERROR", "the retry queue can't be used", reason=str(error))
