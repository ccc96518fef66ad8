"""The description of the HTTP face is whole, valid, and served."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from flask.testing import FlaskClient
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from service.description import DESCRIPTION
from tests.queue_service import NOBODY
from tests.serving import client_for

CLOUD = "pubsub://project/alarms?bucket=gs://queue/there"
METHODS = {"get", "put", "post", "delete", "patch"}
FOR_PEOPLE = re.compile(r"(pages|access)\..*|description\.(docs|style)")  # endpoints of pages

DOCUMENT = yaml.safe_load(DESCRIPTION.read_bytes())


@pytest.fixture(scope="module")
def client() -> FlaskClient:
    """Make a client of the service with all of its routes; the bucket isn't there."""
    return client_for(NOBODY, RETRY_QUEUE=CLOUD, PUSH_AUTH="none")


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the method, path and description of every operation."""
    for path, item in DOCUMENT["paths"].items():
        for method in METHODS & set(item):
            yield method.upper(), path, item[method]


def test_the_description_is_valid_openapi() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    validate(DOCUMENT)


def test_every_route_is_described_and_all_that_is_described_is_there(client: FlaskClient) -> None:
    described = {(method, re.sub(r"{\w+}", "{}", path)) for method, path, _ in operations()}
    served = {
        (method, re.sub(r"<[^>]+>", "{}", rule.rule))
        for rule in client.application.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if not FOR_PEOPLE.fullmatch(rule.endpoint)
    }
    assert described == served


def test_the_description_is_served(client: FlaskClient) -> None:
    response = client.get("/openapi.yaml")
    assert (response.status_code, response.mimetype) == (200, "application/yaml")
    assert response.data == DESCRIPTION.read_bytes()


def test_every_part_says_what_it_is() -> None:
    components = DOCUMENT["components"]
    mute = [f"{method} {path}" for method, path, each in operations() if not each.get("summary")]
    for kind in ("parameters", "headers", "responses", "securitySchemes"):
        mute += [f"{kind}/{name}" for name, each in components[kind].items() if not said(each)]
    mute += [f"schemas/{name}" for name, each in components["schemas"].items() if not said(each)]
    assert mute == []


def said(part: dict[str, Any]) -> bool:
    return bool(part.get("description", "").strip())


def test_no_component_is_left_over() -> None:
    names = {
        f"#/components/{kind}/{name}"
        for kind, parts in DOCUMENT["components"].items()
        for name in parts
        if kind != "securitySchemes"
    }
    assert names - set(re.findall(r'"(#/components/[^"]+)"', DESCRIPTION.read_text())) == set()


def examples(part: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Yield the place, schema and value of every example that has a schema beside it."""
    if isinstance(part, dict):
        if "schema" in part:
            values = [each["value"] for each in part.get("examples", {}).values()]
            for value in [*values, *([part["example"]] if "example" in part else [])]:
                yield place, part["schema"], value
        else:
            for value in part.get("examples", []) if "type" in part else []:
                yield place, part, value
    below = part.items() if isinstance(part, dict) else enumerate(part)
    for name, each in below:
        if isinstance(each, dict | list) and name not in {"examples", "example"}:
            yield from examples(each, f"{place}/{name}")


def test_every_example_is_what_its_schema_says() -> None:
    resource = Resource.from_contents(DOCUMENT, DRAFT202012)
    registry: Registry[Any] = Registry().with_resource("urn:description", resource)
    found = list(examples(DOCUMENT))
    assert len(found) > 20
    wrong = [
        f"{place}: {error.message}"
        for place, schema, value in found
        for error in OAS31Validator(rooted(schema), registry=registry).iter_errors(value)
    ]
    assert wrong == []


def rooted(schema: Any) -> Any:
    """Let a schema's references be found from wherever it stands."""
    if isinstance(schema, dict):
        return {
            name: f"urn:description{each}" if name == "$ref" else rooted(each)
            for name, each in schema.items()
        }
    return [rooted(each) for each in schema] if isinstance(schema, list) else schema
