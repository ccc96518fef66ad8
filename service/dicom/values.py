"""One value against its value representation: PS3.5 6.2, more strictly than pydicom checks."""

import math
import re
import struct
from collections.abc import Callable
from datetime import date
from typing import Any

from pydicom.valuerep import format_number_as_ds

from service.errors import BadAttribute

Checked = str | int | float

_LENGTHS = {"AE": 16, "CS": 16, "SH": 16, "LO": 64, "ST": 1024, "LT": 10_240, "UI": 64}
_INTEGERS = {
    "US": (0, 2**16 - 1),
    "UL": (0, 2**32 - 1),
    "UV": (0, 2**64 - 1),
    "SS": (-(2**15), 2**15 - 1),
    "SL": (-(2**31), 2**31 - 1),
    "SV": (-(2**63), 2**63 - 1),
    "IS": (-(2**31), 2**31 - 1),
}
_FORMS = {
    "AE": (r"[ -\[\]-~]+", "of printable ASCII without backslash"),
    "AS": (r"\d{3}[DWMY]", "three digits and D, W, M or Y, such as 034Y"),
    "AT": (r"[0-9A-Fa-f]{8}", "eight hexadecimal digits"),
    "CS": (r"[A-Z0-9 _]+", "of capital letters, digits, space and underscore"),
    "DA": (r"\d{8}", "a date YYYYMMDD"),
    "DS": (r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", "a decimal number"),
    "IS": (r"[+-]?\d+", "a whole number"),
    "TM": (r"([01]\d|2[0-3])([0-5]\d(([0-5]\d|60)(\.\d{1,6})?)?)?", "a time HHMMSS.FFFFFF"),
    "UI": (r"[0-2](\.(0|[1-9]\d*))+", "numbers joined by dots, without leading zeros"),
    "UR": (r"[!#-;=?-\[\]_a-z~]+", "a URI without spaces"),
}
# From -1200 to +1400, and never -0000: PS3.5 Table 6.2-1, PS3.3 C.12.1.1.8.
_OFFSET = r"(\+(0\d|1[0-3])[0-5]\d|\+1400|-(0[1-9]|1[01])[0-5]\d|-00(0[1-9]|[1-5]\d)|-1200)"
_KEYWORD_FORMS = {
    "TimezoneOffsetFromUTC": (_OFFSET, "an offset such as +0200"),
    "PatientOrientation": (r"[LRAPHF]{1,3}", "of the letters L, R, A, P, H, F"),
}
_DATE_TIME = re.compile(
    r"(?P<year>\d{4})((?P<month>\d\d)((?P<day>\d\d)"
    r"(([01]\d|2[0-3])([0-5]\d(([0-5]\d|60)(\.\d{1,6})?)?)?)?)?)?"
    rf"(?P<offset>{_OFFSET})?"
)
# Control characters; text of several lines may hold TAB, LF, FF and CR (PS3.5 6.1.3).
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_CONTROL_IN_LINES = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_LINES = frozenset({"LT", "ST", "UT"})
_MAY_HOLD_BACKSLASH = frozenset({"LT", "ST", "UT", "UR"})
_NUMBERS = frozenset({*_INTEGERS, "DS", "FD", "FL"})

# Enumerated values that clients get wrong, and that decide how a picture is read.
_ENUMERATED = {
    "PatientSex": ("M", "F", "O"),
    "Laterality": ("R", "L"),
    "ImageLaterality": ("R", "L", "U", "B"),
    "BurnedInAnnotation": ("YES", "NO"),
    "PatientIdentityRemoved": ("YES", "NO"),
}


def check(keyword: str, vr: str, value: Any, where: str) -> Checked:
    """Return a value in the one form that is stored.

    Parameters
    ----------
    value
        Text, a number, or for PN also the DICOM JSON model's object of component groups.
    where
        Names the attribute in errors, as ``AnatomicRegionSequence[1].CodeValue``.

    Raises
    ------
    BadAttribute
        If the value representation forbids the value; the text never holds the value.
    """
    if vr == "PN":
        return _person_name(value, where)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise _bad(where, f"a value of {vr} is text or a number")
    if vr in _NUMBERS:
        return _NUMBER_CHECKS.get(vr, _integer)(vr, value, where)
    if not isinstance(value, str):
        raise _bad(where, f"a value of {vr} is text")
    text = value.rstrip() if vr in _LINES else value.strip()
    _check_characters(vr, text, where)
    _check_length(vr, text, where)
    _check_form(vr, text, where)
    form, description = _KEYWORD_FORMS.get(keyword, (".*", ""))
    if not re.fullmatch(form, text, re.DOTALL):
        raise _bad(where, f"the value isn't {description}")
    allowed = _ENUMERATED.get(keyword)
    if allowed and text not in allowed:
        raise _bad(where, f"the value isn't one of {', '.join(allowed)}")
    return int(text, 16) if vr == "AT" else text


def _check_characters(vr: str, text: str, where: str) -> None:
    if (_CONTROL_IN_LINES if vr in _LINES else _CONTROL).search(text):
        raise _bad(where, "the value holds a control character or half of a surrogate pair")
    if "\\" in text and vr not in _MAY_HOLD_BACKSLASH:
        raise _bad(
            where,
            "the value holds a backslash, which separates values in DICOM",
            "give several values as a list",
        )


def _check_length(vr: str, text: str, where: str) -> None:
    most = _LENGTHS.get(vr)
    if most and len(text) > most:
        raise _bad(where, f"the value has {len(text)} characters, {vr} allows {most}")


def _check_form(vr: str, text: str, where: str) -> None:
    form, description = _FORMS.get(vr, (None, ""))
    if form and not re.fullmatch(form, text, re.ASCII):
        raise _bad(where, f"the value isn't {description} ({vr})")
    if vr == "DA":
        _check_calendar(text[:4], text[4:6], text[6:], where)
    if vr == "DT":
        found = _DATE_TIME.fullmatch(text)
        if not found or not text.isascii():
            raise _bad(where, "the value isn't a date and time YYYYMMDDHHMMSS.FFFFFF&ZZXX (DT)")
        _check_calendar(found["year"], found["month"] or "01", found["day"] or "01", where)


def _check_calendar(year: str, month: str, day: str, where: str) -> None:
    try:
        date(int(year), int(month), int(day))
    except ValueError:
        raise _bad(where, "the value isn't a day of the calendar") from None


def _integer(vr: str, value: Checked, where: str) -> int | str:
    """Return an integer; IS as text (PS3.5 6.2)."""
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d{1,20}\s*", value, re.ASCII):
        value = int(value)
    if isinstance(value, str) or value != value // 1:
        raise _bad(where, f"the value isn't a whole number ({vr})")
    least, most = _INTEGERS[vr]
    number = int(value) if abs(value) < 2**65 else 2**65
    if not least <= number <= most:
        raise _bad(where, f"the value isn't in the range of {vr}, {least} to {most}")
    return str(number) if vr == "IS" else number


def _decimal(_vr: str, value: Checked, where: str) -> str:
    """Return a decimal string of at most 16 characters (PS3.5 6.2)."""
    if isinstance(value, str):
        text = value.strip()
        if len(text) > 16 or not re.fullmatch(_FORMS["DS"][0], text, re.ASCII):
            raise _bad(where, "the value isn't a decimal number of at most 16 characters (DS)")
        value = float(text)
    if not abs(value) < 1e300 or not math.isfinite(value):
        raise _bad(where, "the value isn't a finite number (DS)")
    return decimal_string(value)


def decimal_string(value: float) -> str:
    """Write a finite number as DS: the shortest text that is exact, cut to 16 characters."""
    text = repr(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(value)
    return text if len(text) <= 16 else format_number_as_ds(float(value))


def _floating(vr: str, value: Checked, where: str) -> float:
    try:
        number = float(value)
    except (OverflowError, ValueError):
        raise _bad(where, f"the value isn't a number ({vr})") from None
    if not math.isfinite(number) or (vr == "FL" and abs(number) > 3.4e38):
        raise _bad(where, f"the value isn't a finite number ({vr})")
    # A stored FL has 32 bits; the same number must compare equal when it is read back.
    return float(struct.unpack("<f", struct.pack("<f", number))[0]) if vr == "FL" else number


_NUMBER_CHECKS: dict[str, Callable[[str, Checked, str], Checked]] = {
    "DS": _decimal,
    "FD": _floating,
    "FL": _floating,
}


def _person_name(value: Any, where: str) -> str:
    """Return ``alphabetic=ideographic=phonetic``, trailing separators left out (PS3.5 6.2.1)."""
    if isinstance(value, dict):
        names = ("Alphabetic", "Ideographic", "Phonetic")
        if not set(value) <= set(names):
            raise _bad(where, "a person name has Alphabetic, Ideographic and Phonetic groups only")
        groups = [value.get(name) or "" for name in names]
    elif isinstance(value, str):
        groups = value.split("=")
    else:
        raise _bad(where, "a person name is text, Family^Given^Middle^Prefix^Suffix")
    if len(groups) > 3 or not all(isinstance(group, str) for group in groups):
        raise _bad(where, "a person name has at most three component groups")
    if isinstance(value, dict) and any("=" in group for group in groups):
        raise _bad(where, "a component group holds =, which separates component groups")
    return "=".join(_component_group(group, where) for group in groups).rstrip("=")


def _component_group(group: str, where: str) -> str:
    _check_characters("PN", group, where)
    if len(group) > 64:
        raise _bad(where, f"a component group has {len(group)} characters, PN allows 64")
    if group.count("^") > 4:
        raise _bad(where, "a component group has more than five components")
    return "^".join(component.strip() for component in group.split("^")).rstrip("^")


def _bad(where: str, detail: str, mend: str = "") -> BadAttribute:
    return BadAttribute(detail, where=where, mend=mend)
