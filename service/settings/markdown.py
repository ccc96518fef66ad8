"""The settings as the README shows them."""

from dataclasses import Field, fields
from typing import Any

from service.settings.fields import Settings


def table() -> str:
    """Return the settings as a Markdown table, for the README."""
    rows = [
        f"| `{s.name.upper()}` | {_shown(s)} | {s.metadata['text']} |" for s in fields(Settings)
    ]
    return "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows])


def _shown(setting: Field[Any]) -> str:
    default = setting.default
    if isinstance(default, bool):
        return "`on`" if default else "`off`"
    if default is None or default in ("", ()):
        return ""
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"
