"""What a process loads at its start, and keeps to its end."""

import gc
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Final

# pydicom takes them in where they are: to decode pixels, and to show how far a download of test
# files is. Nothing here asks that of it; what needs one of them imports it itself, and only then.
# So does requests, which pydicom takes in, to guess the charset of texts; it warns that it can't.
_SPARED: Final = ("PIL", "tqdm", "chardet", "charset_normalizer")
_EXAMPLES: Final = "pydicom.examples"  # looks for a dozen files as it is imported


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep the garbage collector from what is made within, now and for good.

    It would go through all modules again and again while they come, and find nothing: a sixth of
    the time to the first answer. Later it would go through them in each worker, whose memory the
    kernel then copies.
    """
    gc.disable()
    try:
        yield
    finally:
        collect_again()


def collect_again() -> None:
    """Let the garbage collector work if it does not, but for what is there already."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def lean_pydicom() -> None:
    """Import pydicom as if the packages that only it would want weren't there."""
    absent = [name for name in _SPARED if name not in sys.modules]
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment] # to import it is an ImportError now
    if "pydicom" not in sys.modules:
        sys.modules[_EXAMPLES] = ModuleType(_EXAMPLES)
        absent.append(_EXAMPLES)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pydicom  # noqa: F401, PLC0415 - this is the place
    finally:
        for name in absent:
            del sys.modules[name]
