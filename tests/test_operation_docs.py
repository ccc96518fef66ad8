"""The dashboard, the alert rules and docs/operation.md speak of metrics that there are."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML

from tests.jpegs import make_jpeg
from tests.peers import Respond, ScriptedServer, stored
from tests.serving import client_for, post

DOCS: Final = Path(__file__).parents[1] / "docs"
OPERATION: Final = (DOCS / "operation.md").read_text()
ALERTS: Final = YAML(typ="safe").load(DOCS / "alerts.yaml")["groups"]
DASHBOARD: Final = json.loads((DOCS / "grafana-dashboard.json").read_text())
PROMETHEUS: Final = {"up": {"job", "instance"}}  # what it has by itself of each target
ADDED: Final = {"job", "instance"}  # to each series
FUNCTIONS: Final = {"sum", "max", "min", "avg", "rate", "increase", "delta", "avg_over_time"}
WORDS: Final = {"histogram_quantile", "by", "and", "or", "unless", "on", "bool"}
FUNCTIONS_AND_WORDS: Final = FUNCTIONS | WORDS

TOKEN: Final = re.compile(
    r"""\s*(?:(?P<name>[a-zA-Z_:][\w:]*)|(?P<number>\d+(?:\.\d+)?)(?![\w.])"""
    r"""|(?P<range>\[\d+[smhd]:?\])|(?P<op>==|!=|>=|<=|=~|!~|[-+*/<>=(),{}])|(?P<text>"[^"]*"))"""
)


class BadExpression(ValueError):
    """An expression that isn't what PromQL allows here."""


def tokens(expression: str) -> list[tuple[str, str]]:
    """Cut an expression into kinds and texts."""
    found, place = [], 0
    expression = expression.strip()
    while place < len(expression):
        match = TOKEN.match(expression, place)
        if not match or match.lastgroup is None:
            raise BadExpression(expression[place:])
        found.append((match.lastgroup, match[match.lastgroup]))
        place = match.end()
    return found


Selector = tuple[str, list[tuple[str, str, str]]]


def selectors(expression: str) -> tuple[list[Selector], set[str]]:
    """Return each metric with its matchers, and the labels that something is grouped by."""
    words = tokens(expression)
    check_brackets(words)
    chosen: list[Selector] = []
    grouped: set[str] = set()
    place = 0
    while place < len(words):
        kind, text = words[place]
        place += 1
        if kind == "name" and text == "by":
            labels, place = until(words, place, "(", ")")
            grouped |= {word for of, word in labels if of == "name"}
        elif kind == "name" and text not in FUNCTIONS_AND_WORDS:
            inner: list[tuple[str, str]] = []
            if place < len(words) and words[place][1] == "{":
                inner, place = until(words, place, "{", "}")
            chosen.append((text, matchers(inner)))
    return chosen, grouped


def until(
    words: list[tuple[str, str]], place: int, opening: str, closing: str
) -> tuple[list[tuple[str, str]], int]:
    if words[place][1] != opening:
        raise BadExpression(f"{opening} is missing")
    end = next(at for at in range(place, len(words)) if words[at][1] == closing)
    return words[place + 1 : end], end + 1


def matchers(words: list[tuple[str, str]]) -> list[tuple[str, str, str]]:
    found = []
    for at in range(0, len(words), 4):
        if len(words) - at < 3:
            raise BadExpression(f"no matcher: {words}")
        label, operator, (kind, text), *comma = words[at : at + 4]
        if label[0] != "name" or operator[1] not in {"=", "!=", "=~", "!~"} or kind != "text":
            raise BadExpression(f"no matcher: {words}")
        if comma not in ([], [("op", ",")]):
            raise BadExpression(f"no comma: {words}")
        found.append((label[1], operator[1], text.strip('"')))
    return found


def check_brackets(words: list[tuple[str, str]]) -> None:
    open_ones: list[str] = []
    pairs = {")": "(", "}": "{"}
    for _, text in words:
        if text in pairs.values():
            open_ones.append(text)
        elif text in pairs and (not open_ones or open_ones.pop() != pairs[text]):
            raise BadExpression(f"a {text} too many")
    if open_ones:
        raise BadExpression(f"{open_ones} not closed")


@pytest.fixture(scope="module")
def families() -> dict[str, Metric]:
    """Return what `/metrics` tells after a little work, by name without suffix."""
    with ScriptedServer(stored(), Respond(401), stored()) as store:
        client = client_for(store.dicomweb_url)
        statuses = [post(client, make_jpeg(seed=seed)).status_code for seed in range(3)]
        assert statuses == [201, 202, 201]
        text = client.get("/metrics").text
    return {family.name: family for family in text_string_to_metric_families(text)}


@pytest.fixture(scope="module")
def samples(families: dict[str, Metric]) -> dict[str, dict[str, set[str]]]:
    """Return the values of each label of each sample's name."""
    found: dict[str, dict[str, set[str]]] = {}
    for family in families.values():
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return found


def expressions() -> Iterator[tuple[str, str]]:
    for group in ALERTS:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield f"{panel['title']} {target['refId']}", target["expr"]


EXPRESSIONS: Final = dict(expressions())


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_an_expression_speaks_of_metrics_labels_and_values_that_there_are(
    name: str, samples: dict[str, dict[str, set[str]]]
) -> None:
    chosen, grouped = selectors(EXPRESSIONS[name])
    assert chosen
    for metric, conditions in chosen:
        if metric in PROMETHEUS:
            assert {label for label, _, _ in conditions} <= PROMETHEUS[metric]
            continue
        known = samples[metric]
        assert grouped <= known.keys() | ADDED
        for label, operator, value in conditions:
            if label not in ADDED:
                told = {value} if operator in {"=", "!="} else set(value.split("|"))
                assert told <= known[label]


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ('sum(rate(a_total{b="c"}[5m])) by (b) > 0', False),
        ("sum(rate(a_total[5m])", True),
        ('a_total{b="c"', True),
        ("a_total{b=c}", True),
        ('a_total{b "c"}', True),
        ("a_total ? 3", True),
        ("a_total[5x]", True),
        ("a_total)", True),
    ],
)
def test_a_wrong_expression_is_found(expression: str, wrong: bool) -> None:  # noqa: FBT001
    if wrong:
        with pytest.raises(BadExpression):
            selectors(expression)
    else:
        assert selectors(expression) == ([("a_total", [("b", "=", "c")])], {"b"})


def test_a_misspelt_metric_would_be_found(samples: dict[str, dict[str, set[str]]]) -> None:
    (found, _) = selectors("sum(rate(jpegstow_upload_total[5m]))")
    assert [metric for metric, _ in found if metric not in samples] == ["jpegstow_upload_total"]


def test_the_table_has_every_metric_with_its_type_labels_and_meaning(
    families: dict[str, Metric],
) -> None:
    _, _, rest = OPERATION.partition("<!-- metrics -->\n")
    table, mark, _ = rest.partition("\n<!-- end of metrics -->")
    assert mark
    head = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    assert table.splitlines() == head + [row(family) for family in families.values()]


def row(family: Metric) -> str:
    name = f"{family.name}_total" if family.type == "counter" else family.name
    labels = {label for each in family.samples for label in each.labels if label != "le"}
    told = ", ".join(f"`{label}`" for label in sorted(labels))
    return f"| `{name}` | {family.type} | {told} | {family.documentation} |"


def test_every_metric_is_on_the_dashboard(families: dict[str, Metric]) -> None:
    used = {
        re.sub(r"_(total|bucket|sum|count)$", "", metric)
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
        for metric, _ in selectors(target["expr"])[0]
    }
    assert families.keys() - used == set()


def test_every_alert_has_a_section_that_tells_what_to_do() -> None:
    sections: dict[str, str] = {}
    for part in re.split(r"^### ", OPERATION, flags=re.MULTILINE)[1:]:
        title, _, text = part.partition("\n")
        sections[title.lower().replace(" ", "-")] = text
    for rule in rules():
        where, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert where == "docs/operation.md"
        assert f"`{rule['alert']}`" in sections[anchor]
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert re.fullmatch(r"\d+m", rule["for"])
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]


def rules() -> list[dict[str, Any]]:
    return [rule for group in ALERTS for rule in group["rules"]]


def test_alerts_told_of_are_alerts_that_there_are() -> None:
    assert set(re.findall(r"`(Jpegstow\w+)`", OPERATION)) == {rule["alert"] for rule in rules()}


def test_panels_have_places_of_their_own_and_a_source_that_can_be_chosen() -> None:
    places: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        grid = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert grid["x"] + grid["w"] <= 24
        assert not cells & places
        places |= cells
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert all("$job" in target["expr"] for target in panel["targets"])
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
