"""Routes whose URLs are written late are those that Werkzeug writes."""

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import werkzeug.routing
from werkzeug.routing import Map

from service.routing import Rule

VALUES = {"study": "1.2", "series": "1.2.3", "name": "a b/c", "filename": "x/y.css", "other": "q?"}
RULES = ["/", "/studies/<study>", "/studies/<study>/series/<series>", "/static/<path:filename>"]


@pytest.mark.parametrize("text", RULES)
@pytest.mark.parametrize("unknown", [True, False])
def test_a_url_is_that_of_werkzeug(text: str, *, unknown: bool) -> None:
    def url(kind: type[werkzeug.routing.Rule]) -> str:
        routes = Map([kind(text, endpoint="it")]).bind("host", "/")
        return routes.build("it", VALUES, append_unknown=unknown)

    assert url(Rule) == url(werkzeug.routing.Rule)
    assert ("q" in url(Rule)) == unknown


class Counting(werkzeug.routing.Rule):
    """A rule of Werkzeug's that tells when it is compiled."""

    compiled: ClassVar[list[str]] = []

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:  # noqa: FBT001, FBT002 - Werkzeug's signature
        self.compiled.append(self.rule)
        return super()._compile_builder(append_unknown)


class Late(Rule, Counting):
    """A rule of ours on top of one that tells."""


def test_nothing_is_compiled_before_a_url_is_wanted_and_then_once() -> None:
    routes: Any = Map([Late(text, endpoint=text) for text in RULES]).bind("host", "/")
    assert routes.match("/studies/1.2")[1] == {"study": "1.2"}
    assert Counting.compiled == []
    for _ in range(2):
        assert routes.build("/studies/<study>", VALUES).startswith("/studies/1.2?")
    assert Counting.compiled == ["/studies/<study>"]
