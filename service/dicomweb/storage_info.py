"""What an instance takes up, and in which storage class (Cloud Healthcare API, getStorageInfo)."""

from datetime import UTC, datetime

from flask import Response, g, jsonify
from werkzeug.exceptions import NotFound

from service.dicomweb.context import archive


def storage_info(study: str, series: str, instance: str) -> Response:
    """Answer with size and storage class of an instance.

    Raises
    ------
    NotFound
        If it isn't stored.
    """
    found = archive().instances(study, series, instance)
    if not found:
        raise NotFound("the instance isn't stored")
    written = archive().path(found[0].uids).stat().st_mtime
    size = str(found[0].size)
    path = f"studies/{study}/series/{series}/instances/{instance}"
    blob = {
        "sizeBytes": size,
        "storageClass": found[0].storage_class,
        "storageClassUpdateTime": datetime.fromtimestamp(written, UTC)
        .isoformat()
        .replace("+00:00", "Z"),
    }
    return jsonify(
        referencedResource=f"{_store()}/dicomWeb/{path}",
        blobStorageInfo=blob,
        structuredStorageInfo={"sizeBytes": size},
    )


def _store() -> str:
    """Return the resource name of the store; one without names has "local" for all of them."""
    kinds = ("project", "location", "dataset")
    parts = [f"{kind}s/{g.names.get(kind, 'local')}" for kind in kinds]
    return "/".join([*parts, f"dicomStores/{g.names.get('store', 'local')}"])
