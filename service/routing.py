"""Routes that are read at once, and written only when somebody wants a URL of them."""

from collections.abc import Callable
from functools import cache
from typing import Any

import werkzeug.routing

Builder = Callable[..., tuple[str, str]]


class Rule(werkzeug.routing.Rule):
    """A rule whose two functions that build its URL are compiled when one is called first.

    Werkzeug compiles them as it learns the rule: for some thirty rules a twentieth of the way to
    the first answer, and two of them are ever asked for a URL.
    """

    def _compile_builder(self, append_unknown: bool = True) -> Builder:  # noqa: FBT001, FBT002 - Werkzeug's signature
        compiled = cache(super()._compile_builder)

        def build(rule: Rule, **values: Any) -> tuple[str, str]:
            return compiled(append_unknown)(rule, **values)

        return build
