"""Log lines: one JSON object a line on standard output, as Cloud Logging reads them.

Never an attribute of a patient: UIDs, sizes, times, reasons.
"""

import json
import logging
import sys
import traceback
import warnings
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from service import tracing

Severity = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


def silence_pydicom() -> None:
    """Keep pydicom's own warnings out of the logs; they quote the values they complain of."""
    logging.getLogger("pydicom").disabled = True
    warnings.filterwarnings("ignore", category=UserWarning)


def log(severity: Severity, message: str, **values: Any) -> None:
    """Write one line; values that are None or empty are left out."""
    line = {"severity": severity, "message": message, "time": datetime.now(UTC).isoformat()}
    values |= tracing.fields()
    line |= {name: value for name, value in values.items() if value not in (None, "", [], ())}
    # One write a line: lines of several threads and processes don't mix. Where it can't be written,
    # on a full disk, into a closed pipe, or without any standard output, the work goes on.
    with suppress(AttributeError, OSError, ValueError):
        sys.stdout.write(json.dumps(line, default=str) + "\n")
        sys.stdout.flush()


def log_exception(message: str, error: BaseException, **values: Any) -> None:
    """Write where an unforeseen error arose; its text, which may quote a value, is left out."""
    frames = traceback.extract_tb(error.__traceback__)
    where = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames[-8:]]
    log("ERROR", message, error=type(error).__name__, where=where, **values)
