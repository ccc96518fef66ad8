"""The routes of the archive, and the one form of its errors."""

import logging
import sqlite3
import traceback
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from flask import Blueprint, Flask, Response, current_app, g, jsonify, request, url_for
from werkzeug.exceptions import HTTPException, NotFound, ServiceUnavailable
from werkzeug.wrappers import Response as WsgiResponse

from service.archive import Archive
from service.dicom.uid import is_uid
from service.dicomweb import delete, qido, storage_info, stow, wado
from service.dicomweb.body import SILENCE, Readers
from service.dicomweb.context import archive
from service.dicomweb.envelope import envelope
from service.errors import BadRequest, JpegstowError

MAX_REQUEST_BYTES = 256 * 2**20
_READERS = 14

_STUDY = "/studies/<study>"
_SERIES = f"{_STUDY}/series/<series>"
_INSTANCE = f"{_SERIES}/instances/<instance>"

# PS3.18 Table 10.1.1-1, as far as it goes.
_ROUTES: tuple[tuple[str, str, Callable[..., Any]], ...] = (
    ("POST", "/studies", stow.store),
    ("POST", _STUDY, stow.store),
    ("GET", "/studies", qido.search_studies),
    ("GET", "/series", qido.search_series),
    ("GET", "/instances", qido.search_instances),
    ("GET", f"{_STUDY}/series", qido.search_series),
    ("GET", f"{_STUDY}/instances", qido.search_instances),
    ("GET", f"{_SERIES}/instances", qido.search_instances),
    ("GET", _STUDY, wado.retrieve),
    ("GET", _SERIES, wado.retrieve),
    ("GET", f"{_INSTANCE}:getStorageInfo", storage_info.storage_info),
    ("GET", _INSTANCE, wado.retrieve),
    ("GET", f"{_STUDY}/metadata", wado.metadata),
    ("GET", f"{_SERIES}/metadata", wado.metadata),
    ("GET", f"{_INSTANCE}/metadata", wado.metadata),
    ("GET", f"{_INSTANCE}/rendered", wado.rendered),
    ("GET", f"{_INSTANCE}/frames/<frames>", wado.frames),
    ("GET", f"{_INSTANCE}/frames/<frames>/rendered", wado.rendered),
    ("GET", f"{_INSTANCE}/bulkdata/<path:where>", wado.bulk_data),
    ("DELETE", _STUDY, delete.delete_many),
    ("DELETE", _SERIES, delete.delete_many),
    ("DELETE", _INSTANCE, delete.delete_instance),
)

_DATASET = "/<any(v1, v1beta1):version>/projects/<project>/locations/<location>/datasets/<dataset>"
_PREFIXES = {
    "plain": "/dicomWeb",
    "google": f"{_DATASET}/dicomStores/<store>/dicomWeb",
}
_NAMES = ("version", "project", "location", "dataset", "store")

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})

_log = logging.getLogger(__name__)


def create_app(
    archive: Archive | None = None,
    *,
    max_request_bytes: int = MAX_REQUEST_BYTES,
    readers: Readers | None = None,
) -> Flask:
    """Serve an archive over DICOMweb.

    Everything is found under ``/dicomWeb`` and under the path of any Cloud Healthcare DICOM store,
    whatever its names; it is always the same store.

    Parameters
    ----------
    archive
        Until ``app.extensions["archive"]`` is one, everything is answered 503.
    max_request_bytes
        A longer request is answered with 413. A request is held in memory while it is stored.
    readers
        How many bodies are read at once; by default so many as the default settings allow.
    """
    app = Flask("service.dicomweb", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = max_request_bytes
    app.extensions["archive"] = archive
    app.extensions["readers"] = readers or Readers(_READERS, SILENCE)
    resources = _resources()
    for name, prefix in _PREFIXES.items():
        app.register_blueprint(resources, url_prefix=prefix, name=name)
    app.add_url_rule(f"{_DATASET}/operations/<operation>", "operation", delete.operation)
    app.add_url_rule("/healthz", "healthz", _healthz)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(JpegstowError, _refusal)
    app.register_error_handler(FileNotFoundError, _gone)
    app.register_error_handler(OSError, _unavailable)
    app.register_error_handler(sqlite3.OperationalError, _unavailable)
    app.register_error_handler(Exception, _unexpected)
    return app


def _resources() -> Blueprint:
    blueprint = Blueprint("resources", __name__)
    for method, path, view in _ROUTES:
        endpoint = f"{method} {path}".replace(".", "")
        blueprint.add_url_rule(path, endpoint, view, methods=[method])
    blueprint.url_value_preprocessor(_prepare)
    return blueprint


def _prepare(_: str | None, values: dict[str, Any] | None) -> None:
    """Take the names of the store out of the way, and check every UID of the path.

    Raises
    ------
    BadRequest
        If one isn't a UID.
    """
    archive()  # ends the request here while there is none
    values = values if values is not None else {}
    g.names = {name: values.pop(name) for name in _NAMES if name in values}
    g.base = _with_port(url_for(".GET /studies", _external=True, **g.names)).removesuffix(
        "/studies"
    )
    for level in ("study", "series", "instance"):
        if level in values and not is_uid(values[level]):
            raise BadRequest(
                "the URL has something else where a UID belongs", where=f"{level} of the path"
            )


def _with_port(url: str) -> str:
    """Add the port to the URL of a client on this machine whose Host header leaves it out.

    dicomweb-client does so, and then couldn't follow the URLs in its answers.
    """
    host, port = request.host, request.environ.get("SERVER_PORT", "")
    default = {"http": "80", "https": "443"}.get(request.scheme)
    if host not in _LOOPBACK or port in ("", default):
        return url
    return url.replace(f"//{host}/", f"//{host}:{port}/", 1)


def _healthz() -> Response:
    """Tell that the process is well, which it is while it makes its index, too."""
    if current_app.extensions["archive"] is None:
        return jsonify(status="the index is being made anew")
    archive().instances("")  # looks into the index
    return jsonify(status="ok")


def _envelope(code: int, message: str) -> Response:
    """Return the error form of Google's APIs."""
    response = jsonify(envelope(code, message))
    response.status_code = code
    return response


def _http_error(error: HTTPException) -> Response | WsgiResponse:
    if error.code is None or error.code < 400:  # a redirect answers for itself
        return error.get_response(request.environ)
    answer = _envelope(error.code, error.description or HTTPStatus(error.code).phrase)
    if isinstance(error, ServiceUnavailable):
        answer.headers["Retry-After"] = str(error.retry_after)
    return answer


def _refusal(error: JpegstowError) -> Response:
    return _envelope(error.http_status, str(error))


def _gone(_: FileNotFoundError) -> Response:
    return _envelope(404, NotFound.description)


def _unavailable(error: Exception) -> Response:
    _log.error("storage failed: %s at %s", type(error).__name__, _place(error))
    return _envelope(503, "the archive's storage doesn't answer; send again later")


def _unexpected(error: Exception) -> Response:
    _log.error("unexpected %s at %s", type(error).__name__, _place(error))
    return _envelope(500, "the archive failed in a way that it doesn't expect")


def _place(error: Exception) -> str:
    """Say where an exception comes from; its text may hold a patient's value, so it stays out."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "an unknown place"
