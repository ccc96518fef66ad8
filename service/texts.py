"""What the pages say, in the languages that they speak; one catalogue for all of it."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

from werkzeug.datastructures import LanguageAccept

CHOSEN: Final = "language"  # the cookie of who has chosen one
LANGUAGES: Final = {"en": "English", "de": "Deutsch", "es": "Español"}
_CATALOGUE: Final = Path(__file__).with_name("texts.json")

Say = Callable[..., str]


@cache
def catalogue() -> dict[str, dict[str, str]]:
    """Return each text by its key, then by language."""
    texts = json.loads(_CATALOGUE.read_text("utf-8"))
    return {key: dict(zip(LANGUAGES, said, strict=True)) for key, said in texts.items()}


def language_of(chosen: str | None, accepted: LanguageAccept) -> str:
    """Return the language that somebody chose, else the best that the browser accepts."""
    # Not best_match: of "de-AT,en;q=0.5" it would take English, since that alone is named exactly.
    wanted = (language.partition("-")[0].lower() for language in accepted.values())
    return next((each for each in (chosen, *wanted) if each in LANGUAGES), "en")


def speaker(language: str) -> Say:
    """Return what says a text of the catalogue in a language, with the named values put in.

    Without values its places stay as they are, for a script to fill in.
    """

    def say(key: str, **values: object) -> str:
        text = catalogue()[key][language]
        return text.format_map(values) if values else text

    return say


def label(key: str, language: str, otherwise: str) -> str:
    """Return a text of the catalogue, or another where it has none, as of a user's own template."""
    return catalogue().get(key, {}).get(language, otherwise)
