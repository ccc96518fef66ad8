"""Delete (Cloud Healthcare API, dicomWeb ... delete), and the operations that it returns."""

import uuid
from datetime import UTC, datetime
from typing import Any

from flask import Response, g, jsonify
from werkzeug.exceptions import NotFound

from service.dicomweb.context import archive


def delete_instance(study: str, series: str, instance: str) -> Response:
    """Delete an instance; the answer comes when it is gone.

    Raises
    ------
    NotFound
        If it isn't stored.
    """
    if not archive().delete(study, series, instance):
        raise NotFound("the instance isn't stored")
    return jsonify({})


def delete_many(study: str, series: str | None = None) -> Response:
    """Delete a study or a series, and return a long-running operation that is done already.

    Raises
    ------
    NotFound
        If nothing of it is stored.
    """
    count = archive().delete(study, series)
    if not count:
        raise NotFound("the study or series isn't stored")
    identifier = uuid.uuid4().hex
    archive().record_operation(identifier, datetime.now(UTC).isoformat(), count)
    return jsonify(name=_name(identifier, g.names))


def operation(operation: str, **names: str) -> Response:
    """Return the state of an operation: done, for it was done before its name was known.

    Raises
    ------
    NotFound
        If there was no such operation.
    """
    found = archive().operation(operation)
    if found is None:
        raise NotFound("there is no such operation")
    finished_at, count = found
    answer: dict[str, Any] = {
        "name": _name(operation, names),
        "metadata": {
            "@type": "type.googleapis.com/google.cloud.healthcare.v1.OperationMetadata",
            "createTime": finished_at,
            "endTime": finished_at,
            "counter": {"success": str(count)},
        },
        "done": True,
        "response": {"@type": "type.googleapis.com/google.protobuf.Empty"},
    }
    return jsonify(answer)


def _name(identifier: str, names: dict[str, str]) -> str:
    """Return the resource name; a store without names has "local" for all of them."""
    kinds = ("project", "location", "dataset")
    path = "/".join(f"{kind}s/{names.get(kind, 'local')}" for kind in kinds)
    return f"{path}/operations/{identifier}"
