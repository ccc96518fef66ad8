"""Delete (Cloud Healthcare API, dicomWeb ... delete), and the operations that it returns."""

from collections.abc import Mapping
from typing import Any

from flask import Response, g, jsonify
from werkzeug.exceptions import NotFound

from service.archive import Operation
from service.dicomweb.context import archive

_INTERNAL = 13  # google.rpc.Code


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
    """Delete a study or a series, and return the long-running operation that does it.

    From the answer on nothing of it is found, and nothing can be stored into it until the operation
    is done.

    Raises
    ------
    NotFound
        If nothing of it is stored.
    """
    version = g.names.get("version", "v1")
    method = "DeleteSeries" if series else "DeleteStudy"
    record = {"parent": _parent(g.names), "version": version, "method": method}
    identifier = archive().begin_delete(study, series, record)
    if identifier is None:
        raise NotFound("the study or series isn't stored")
    archive().finish_delete_soon(identifier)
    return jsonify(name=_name(identifier, g.names))


def operation(operation: str, **names: str) -> Response:
    """Return the state of an operation (google.longrunning.Operation).

    Raises
    ------
    NotFound
        If there was no such operation under these names.
    """
    found = archive().operation(operation)
    if found is None or found.names.get("parent") != _parent(names):
        raise NotFound("there is no such operation")
    return jsonify({"name": _name(operation, names), "metadata": _metadata(found)} | _end(found))


def _metadata(operation: Operation) -> dict[str, Any]:
    package = f"google.cloud.healthcare.{operation.names['version']}"
    kind = "failure" if operation.error else "success" if operation.finished else "pending"
    end = {"endTime": operation.finished} if operation.finished else {}
    return {
        "@type": f"type.googleapis.com/{package}.OperationMetadata",
        "apiMethodName": f"{package}.dicom.DicomService.{operation.names['method']}",
        "createTime": operation.created,
        "counter": {kind: str(operation.instances)},
    } | end


def _end(operation: Operation) -> dict[str, Any]:
    if not operation.finished:
        return {}
    if operation.error:
        return {"done": True, "error": {"code": _INTERNAL, "message": operation.error}}
    return {"done": True, "response": {"@type": "type.googleapis.com/google.protobuf.Empty"}}


def _name(identifier: str, names: Mapping[str, str]) -> str:
    return f"{_parent(names)}/operations/{identifier}"


def _parent(names: Mapping[str, str]) -> str:
    """Return the resource name of the dataset; one without names has "local" for all of them."""
    kinds = ("project", "location", "dataset")
    return "/".join(f"{kind}s/{names.get(kind, 'local')}" for kind in kinds)
