"""Values against their VRs: what is stored, what is refused, what is never told."""

import math
import re
import traceback
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.dicom import values
from service.errors import BadAttribute

WHERE = "AnatomicRegionSequence[1].CodeValue"

ARABIC_34 = "\u0663\u0664"

GOOD: list[tuple[str, Any, Any]] = [
    ("AE", "  STORE scp-1 ", "STORE scp-1"),
    ("AE", "A" * 16, "A" * 16),
    ("AS", "034Y", "034Y"),
    ("AS", "999D", "999D"),
    ("AT", "0010000d", 0x0010000D),
    ("AT", "FFFFFFFF", 0xFFFFFFFF),
    ("CS", " OT_1 2 ", "OT_1 2"),
    ("DA", "20240229", "20240229"),
    ("DA", " 00010101 ", "00010101"),
    ("DT", "2024", "2024"),
    ("DT", "20240229235960.123456+0530", "20240229235960.123456+0530"),
    ("DT", "202402-0500", "202402-0500"),
    ("DS", "1.50", "1.5"),
    ("DS", " -0.5e-3 ", "-0.0005"),
    ("DS", ".5", "0.5"),
    ("DS", "5.", "5"),
    ("DS", 1 / 3, "0.33333333333333"),
    ("DS", -1 / 3, "-0.3333333333333"),
    ("DS", -0.0, "0"),
    ("DS", 12345678901234567, "1.2345678901e+16"),
    ("DS", 10**20, "1e+20"),
    ("DS", 5e-324, "5e-324"),
    ("FD", 1.5, 1.5),
    ("FD", " -2.5 ", -2.5),
    ("FL", 7, 7.0),
    ("IS", 7, "7"),
    ("IS", " +07 ", "7"),
    ("IS", 7.0, "7"),
    ("IS", -(2**31), "-2147483648"),
    ("LO", " a=b^c ", "a=b^c"),
    ("LO", "é" * 64, "é" * 64),
    ("LO", "🦷" * 64, "🦷" * 64),
    ("LT", " two\r\nlines\t\f ", " two\r\nlines"),
    ("LT", "a\\b", "a\\b"),
    ("PN", "Doe^Jane", "Doe^Jane"),
    ("PN", " Doe ^ Jane ^^^ ", "Doe^Jane"),
    ("PN", "Yamada^Tarou=山田^太郎=やまだ^たろう", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    ("PN", {"Alphabetic": "Doe^Jane"}, "Doe^Jane"),
    ("PN", {"Alphabetic": "Doe", "Ideographic": None, "Phonetic": "do"}, "Doe==do"),
    ("PN", {"Ideographic": "山田"}, "=山田"),
    ("PN", "^^^^", ""),
    ("PN", {}, ""),
    ("PN", "=".join(["x" * 64] * 3), "=".join(["x" * 64] * 3)),
    ("SH", "x" * 16, "x" * 16),
    ("SL", -(2**31), -(2**31)),
    ("SS", "-32768", -32768),
    ("ST", "x" * 1024, "x" * 1024),
    ("SV", 2**63 - 1, 2**63 - 1),
    ("TM", "07", "07"),
    ("TM", "235960.5", "235960.5"),
    ("UC", "x" * 5000, "x" * 5000),
    ("UI", "1.2.840.10008.1.1", "1.2.840.10008.1.1"),
    ("UI", "2.25." + "9" * 59, "2.25." + "9" * 59),
    ("UL", 2**32 - 1, 2**32 - 1),
    ("UR", "https://example.org/a?b=%20#c", "https://example.org/a?b=%20#c"),
    ("US", 65_535.0, 65_535),
    ("US", "0", 0),
    ("UT", "x\n" * 9000, "x\n" * 8999 + "x"),
    ("UV", 2**64 - 1, 2**64 - 1),
]


@pytest.mark.parametrize(("vr", "given_value", "stored"), GOOD)
def test_a_good_value_has_one_stored_form(vr: str, given_value: Any, stored: Any) -> None:
    found = values.check("", vr, given_value, WHERE)
    assert (found, type(found)) == (stored, type(stored))


@pytest.mark.parametrize(("vr", "given_value", "stored"), GOOD)
def test_the_stored_form_is_its_own(vr: str, given_value: Any, stored: Any) -> None:
    if vr == "AT":
        stored = f"{stored:08X}"
    once = values.check("", vr, stored, WHERE) if stored != "" else ""
    assert once == values.check("", vr, given_value, WHERE)


INTEGERS = {"IS", "SL", "SS", "SV", "UL", "US", "UV"}
BAD: dict[str, list[Any]] = {
    "AE": ["x" * 17, "é", "a\\b", "", "a\tb"],
    "AS": ["34Y", "034y", "034 Y", ARABIC_34 + "Y", ""],
    "AT": ["0010000", "0010000G", "(0010,0010)", 0x00100010, ""],
    "CS": ["ot", "É", "A-B", "X" * 17, "A\\B", ""],
    "DA": [
        "2024-02-29",
        "20230229",
        "20241301",
        "20240100",
        "00000101",
        "2024",
        ARABIC_34 + "240229",
    ],
    "DT": ["20241301", "20240230", "2024-01-01T00:00:00Z", "2024010124", "2024+1500", "202", ""],
    "DS": ["1,5", "nan", "inf", "1e999", "0x10", "1.2345678901234567", "--1", "", 1e300, 10**400],
    "FD": ["abc", "nan", "inf", math.nan, math.inf, -math.inf, 10**400, "1e999"],
    "FL": [1e39, "-1e39", "abc"],
    "IS": ["1.5", 1.5, 2**31, -(2**31) - 1, 10**400, "9" * 21, math.nan, math.inf, ARABIC_34, ""],
    "LO": ["x" * 65, "a\\b", "a\nb", "a\0b", "a\x1bb", "a\x85b", "\ud800"],
    "LT": ["x" * 10_241, "a\0b", "a\x1bb", "\udfff"],
    "PN": ["a=b=c=d", "x" * 65, "a^b^c^d^e^f", "a\\b", "a\nb", "\ud83e", 7, None, ["a"], "==" * 9],
    "SH": ["x" * 17, "a\\b", "a\tb"],
    "SL": [2**31],
    "SS": [2**15, -(2**15) - 1],
    "ST": ["x" * 1025, "a\x07b"],
    "SV": [2**63],
    "TM": ["24", "2360", "126060", "12:30", "120000.1234567", "120000.", "7", ""],
    "UC": ["a\\b", "a\rb"],
    "UI": ["1", "1.02", "3.1", "1..2", ".1", "1.2.", "1.a", "2.25." + "9" * 60, "urn:oid:1.2", ""],
    "UL": [2**32, -1],
    "UR": ["a b", "http://[x y]", "a\\b", "a\nb", "é", "<x>", ""],
    "US": [65_536, -1, 0.5, "", "one", 10**400, math.nan],
    "UT": ["a\0b", "\x9f"],
    "UV": [2**64],
}


@pytest.mark.parametrize(("vr", "value"), [(vr, value) for vr in BAD for value in BAD[vr]])
def test_a_bad_value_is_refused_where_it_stands(vr: str, value: Any) -> None:
    with pytest.raises(BadAttribute) as caught:
        values.check("", vr, value, WHERE)
    assert caught.value.where == WHERE
    assert caught.value.http_status == 400


@pytest.mark.parametrize("vr", sorted(BAD.keys() - {"PN"}))
@pytest.mark.parametrize("value", [True, False, None, [], ["1"], {}, {"Alphabetic": "x"}, b"1"])
def test_a_value_is_text_or_a_number(vr: str, value: Any) -> None:
    with pytest.raises(BadAttribute, match="text or a number"):
        values.check("", vr, value, WHERE)


@pytest.mark.parametrize("vr", sorted(BAD.keys() - {"PN", *INTEGERS}))
def test_text_is_not_made_of_numbers(vr: str) -> None:
    if vr in {"DS", "FD", "FL"}:
        assert float(values.check("", vr, 7, WHERE)) == 7
        return
    with pytest.raises(BadAttribute, match="is text"):
        values.check("", vr, 7, WHERE)


@pytest.mark.parametrize(
    "groups",
    [
        {"Alphabetic": 7},
        {"Alphabetic": "a=b"},
        {"alphabetic": "a"},
        {"Alphabetic": "a", "Other": "b"},
        {"Alphabetic": "x" * 65},
        {"Phonetic": "a\\b"},
        {"Alphabetic": ["a"]},
    ],
)
def test_a_person_name_has_three_groups_of_text(groups: dict[str, Any]) -> None:
    with pytest.raises(BadAttribute, match=r"group|backslash"):
        values.check("", "PN", groups, WHERE)


@pytest.mark.parametrize(
    ("keyword", "good", "bad"),
    [
        ("PatientSex", ["M", "F", "O"], ["m", "W", "X", "MALE", ""]),
        ("Laterality", ["R", "L"], ["B", "LEFT"]),
        ("ImageLaterality", ["R", "L", "U", "B"], ["LR"]),
        ("BurnedInAnnotation", ["YES", "NO"], ["TRUE", "Y"]),
        ("PatientIdentityRemoved", ["YES", "NO"], ["Z"]),
    ],
)
def test_enumerated_values_are_enumerated(keyword: str, good: list[str], bad: list[str]) -> None:
    assert [values.check(keyword, "CS", value, WHERE) for value in good] == good
    for value in bad:
        with pytest.raises(BadAttribute):
            values.check(keyword, "CS", value, WHERE)


MARKER = "Zebedee"
SPOILED = [
    MARKER,
    MARKER + "\0",
    MARKER + "\\x",
    MARKER + "\ud800",
    MARKER * 2000,
    f"{MARKER}=" * 5,
    f"{MARKER}^" * 6,
    f"http://[{MARKER}",
    [MARKER],
    {MARKER: MARKER},
    {"Alphabetic": [MARKER]},
]


@pytest.mark.parametrize("vr", sorted(BAD))
def test_no_error_tells_the_value(vr: str) -> None:
    told = [complaint(vr, value) for value in SPOILED]
    assert any(told), "nothing was refused"
    assert [text for text in told if MARKER.lower() in text.lower()] == []


def complaint(vr: str, value: Any) -> str:
    """Return everything that a log could show of a refusal, the errors beneath it included."""
    try:
        values.check("PatientSex", vr, value, WHERE)
    except BadAttribute as error:
        return str(error) + repr(error) + "".join(traceback.format_exception(error))
    return ""


@settings(deadline=None)
@given(st.floats(-1e299, 1e299))
def test_any_number_fits_a_decimal_string(number: float) -> None:
    text = values.decimal_string(number)
    assert len(text) <= 16
    assert re.fullmatch(r"-?\d+(\.\d+)?(e[+-]\d+)?", text)
    assert math.isclose(float(text), number, rel_tol=1e-8, abs_tol=1e-14)
    assert float(values.check("", "DS", text, WHERE)) == float(text)


@settings(deadline=None)
@given(st.integers(-(10**40), 10**40))
def test_any_whole_number_fits_a_decimal_string(number: int) -> None:
    assert math.isclose(float(str(values.check("", "DS", number, WHERE))), number, rel_tol=1e-8)


ANYTHING = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=80)
    | st.text("0123456789.+-eE \\^=", max_size=20)
    | st.lists(st.text(max_size=3), max_size=2)
    | st.dictionaries(st.sampled_from(["Alphabetic", "Ideographic", "x"]), st.text(max_size=70))
)


@settings(deadline=None)
@given(st.sampled_from(sorted(BAD)), ANYTHING)
def test_any_value_has_a_stored_form_or_is_refused(vr: str, value: Any) -> None:
    try:
        once = values.check("", vr, value, WHERE)
    except BadAttribute:
        return
    if once != "":
        again = values.check("", vr, f"{once:08X}" if vr == "AT" else once, WHERE)
        assert float(again) == float(once) if vr == "DS" else again == once
    if isinstance(once, str):
        assert "\0" not in once.encode().decode()


def test_a_float_is_one_of_32_bits() -> None:
    """It is compared with what a store gives back, which has no more."""
    assert values.check("AlongScanSpatialResolution", "FL", 0.1, "x") == 0.10000000149011612
