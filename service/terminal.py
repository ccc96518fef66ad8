"""Texts of others on a terminal: harmless, in columns, and no longer than a line."""

from collections.abc import Sequence
from typing import Final

_ELLIPSIS: Final = "\N{HORIZONTAL ELLIPSIS}"
_GAP: Final = "  "


def plain(text: str) -> str:
    """Return a text that does nothing to a terminal: no escapes, no new lines, no reversed text."""
    return "".join(
        c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def cut(text: str, room: int) -> str:
    """Return as much of a text as there is room for; an ellipsis tells that there was more."""
    return text if len(text) <= room else text[: room - 1] + _ELLIPSIS


def table(head: Sequence[str], rows: Sequence[Sequence[str]], columns: int, widest: int) -> str:
    """Return rows under their heading.

    Parameters
    ----------
    columns
        Characters of a line.
    widest
        Characters of a cell.
    """
    cells = [[cut(plain(cell), widest) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = (
        _GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in cells
    )
    return "\n".join(cut(line.rstrip(), columns) for line in lines)
