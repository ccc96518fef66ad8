"""The description as one page of HTML, which needs no script and nothing from elsewhere."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

_TEMPLATES: Final = Path(__file__).parent / "html"
_METHODS: Final = ("get", "put", "post", "delete", "patch")
_REFERENCE: Final = "#/components/"
_BOUNDS: Final = {
    "format": "{}",
    "pattern": "matching {}",
    "minimum": "from {}",
    "maximum": "up to {}",
    "maxLength": "at most {} characters",
    "maxItems": "at most {} items",
}

Part = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of a path, with the parameters of both; `scopes` are those of which one will do.

    `asks` is the name of the first security scheme, empty where nobody is asked for anything.
    """

    method: str
    path: str
    said: Part
    parameters: list[Part]
    asks: str
    scopes: list[str]


@cache
def page(description: str) -> str:
    """Render an OpenAPI document, given as YAML."""
    document = yaml.safe_load(description)
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"marked": marked, "pretty": pretty, "kind": kind}
    environment.globals["resolved"] = lambda part: resolved(document, part)
    environment.globals["properties"] = lambda schema: list(properties(document, schema))
    environment.globals["phrase"] = lambda status: HTTPStatus(int(status)).phrase
    template = environment.get_template("docs.html")
    return template.render(document=document, operations=list(operations(document)))


def operations(document: Part) -> Iterator[Operation]:
    """Yield the operations in the order in which they stand."""
    for path, item in document["paths"].items():
        for method in (name for name in item if name in _METHODS):
            said = item[method]
            given = [*item.get("parameters", []), *said.get("parameters", [])]
            asked = [one for one in said.get("security", document["security"]) if one]
            scopes = {scope: None for one in asked for each in one.values() for scope in each}
            yield Operation(
                method.upper(),
                path,
                said,
                [resolved(document, each) for each in given],
                next(iter(asked[0])) if asked else "",
                list(scopes),
            )


def resolved(document: Part, part: Part) -> Part:
    """Return what a reference stands for, or the part itself."""
    reference = part.get("$ref", "")
    if not reference.startswith(_REFERENCE):
        return part
    kind_of, name = reference.removeprefix(_REFERENCE).split("/")
    found: Part = document["components"][kind_of][name]
    return found


def properties(document: Part, schema: Part) -> Iterator[tuple[str, Part, bool]]:
    """Yield the name and schema of each member of an object, and whether it has to be there.

    Those of schemas that it refers to, or is all of, come first.
    """
    required = set(schema.get("required", []))
    inherited = [schema] if "$ref" in schema else list(schema.get("allOf", []))
    for each in inherited:
        for name, member, needed in properties(document, resolved(document, each)):
            yield name, member, needed or name in required
    for name, member in schema.get("properties", {}).items():
        yield name, member, name in required


def kind(schema: Part) -> Markup:
    """Tell the type of a value in a few words of HTML; a schema with a name is a link."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return Markup('<a href="#schema-{0}">{0}</a>').format(name)
    for choice in ("oneOf", "anyOf"):
        if choice in schema and "properties" not in schema:
            return Markup(" or ").join(kind(each) for each in schema[choice])
    if "const" in schema or "enum" in schema:
        values = schema.get("enum", [schema.get("const")])
        return Markup(", ").join(Markup("<code>{}</code>").format(_shown(one)) for one in values)
    if schema.get("type") == "array":
        return Markup("array of {}").format(kind(schema.get("items", {})))
    return escape(_plain(schema))


def _plain(schema: Part) -> str:
    types = schema.get("type", "anything")
    name = types if isinstance(types, str) else " or ".join(types)
    bounds = [text.format(schema[each]) for each, text in _BOUNDS.items() if each in schema]
    return ", ".join([name, *bounds])


def _shown(value: Any) -> str:
    return "empty" if value == "" else str(value)


def pretty(value: Any) -> str:
    """Write an example: text as it is, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


def marked(text: str) -> Markup:
    """Turn paragraphs with words in backquotes into HTML."""
    paragraphs = re.split(r"\n\s*\n", text.strip())
    return Markup("\n").join(
        Markup("<p>{}</p>").format(_with_code(" ".join(paragraph.split())))
        for paragraph in paragraphs
    )


def _with_code(text: str) -> Markup:
    pieces = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(piece) if number % 2 else escape(piece)
        for number, piece in enumerate(pieces)
    )
