"""SECURITY.md names files and settings that there are."""

import re
from pathlib import Path
from typing import Final

from service import settings

ROOT: Final = Path(__file__).parents[1]
TEXT: Final = (ROOT / "SECURITY.md").read_text()


def test_every_file_that_it_names_is_there() -> None:
    named = set(re.findall(r"`((?:service|tests|docs)/[\w./-]+)`", TEXT))
    assert len(named) > 20
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def test_every_setting_that_it_names_is_one() -> None:
    named = set(re.findall(r"`([A-Z][A-Z_]+)`", TEXT))
    known = set(re.findall(r"`([A-Z_]+)`", settings.table()))
    assert named - known == set()


def test_every_threat_has_a_place_and_a_test() -> None:
    _, _, rest = TEXT.partition("| threat |")
    rows = [line for line in rest.splitlines()[2:] if line.startswith("|")]
    assert len(rows) > 10
    for row in rows:
        threat, done, where, tested = (cell.strip() for cell in row.strip("|").split("|"))
        assert threat
        assert done
        assert where.count("`") >= 2
        assert "`tests/" in tested
