"""What a store means by a status that brings no resource."""

from collections.abc import Mapping
from typing import Final

from service.dicom import stow_answer
from service.dicom.outcome import Rejected, Unavailable

_OPERATOR: Final = {
    401: "the store doesn't accept the credentials (401)",
    403: "the store denies access, or doesn't exist (403)",
    407: "a proxy wants credentials (407)",
}
ABSENT: Final = frozenset({404, 410})


def read(status: int, headers: Mapping[str, str]) -> Rejected | Unavailable:
    """Tell whether it is worth another try; no text of the store's, which may quote a value."""
    if status in _OPERATOR:
        return Unavailable(_OPERATOR[status], None, status, operator=True)
    if status in ABSENT:
        return Rejected(f"the store doesn't have it ({status})", status=status)
    if status in {408, 425, 429} or status >= 500:
        wait = stow_answer.retry_after(headers)
        return Unavailable(f"the store answered {status}", wait, status)
    if status == 406:
        return Rejected("the store can't give it in the form that is wanted (406)", status=status)
    if status == 200:
        return Unavailable("the store answered 200 without a word", None, status, operator=True)
    return Rejected(f"the store answered {status}", status=status)
