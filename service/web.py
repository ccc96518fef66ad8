"""The service over HTTP: uploads, health."""

import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from flask import Flask, Response, json, request
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from service import __version__, telemetry
from service.dicom import jpegtran
from service.dicom.outcome import Rejected, Stored, Unavailable
from service.errors import BadRequest, JpegstowError
from service.ingest import Described, Result, Rules, ingest
from service.receive import UploadRequest, uploads
from service.settings import Settings
from service.store import DicomwebStore

PROBLEM: Final = "application/problem+json"

_RETRY_AFTER: Final = 30  # seconds, where the store named none
_MAX_FORM_PARTS: Final = 1000
_CLIENT_TIMEOUT: Final = 30.0  # seconds without a byte from the client
_PATIENCE: Final = 10.0  # seconds that a refused request may go on

Answer = dict[str, Any]


def create_app(rules: Rules, store: DicomwebStore, settings: Settings) -> Flask:
    """Return the service as a WSGI application."""
    app = Flask("jpegstow", static_folder=None)
    app.request_class = UploadRequest
    app.config["MAX_CONTENT_LENGTH"] = settings.max_upload_bytes
    app.config["MAX_FORM_PARTS"] = _MAX_FORM_PARTS
    app.json.sort_keys = False  # type: ignore[attr-defined] # answers read in their own order

    @app.post("/v1/instances")
    def upload() -> Response:
        started = time.monotonic()
        received = uploads(request, settings.default_template, settings.max_images)
        results = ingest(received, rules, store)
        for result in results:
            _log(result, started)
        return _response(results)

    @app.get("/healthz")
    def healthz() -> Response:
        return _json({"status": "ok", "version": __version__})

    @app.get("/readyz")
    def readyz() -> Response:
        checks = {"store": store.unreachable(), "libturbojpeg": _transforms_missing()}
        needed = ["store", *(["libturbojpeg"] if rules.policy.verify else [])]
        ready = not any(checks[name] for name in needed)
        status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        told = {name: reason or "ok" for name, reason in checks.items()}
        return _json({"status": "ok" if ready else "unavailable", "checks": told}, status)

    @app.before_request
    def lose_patience() -> None:
        # A client that stalls within its body would hold the thread for good.
        connection = request.environ.get("gunicorn.socket")
        if connection is not None:
            connection.settimeout(_CLIENT_TIMEOUT)

    @app.after_request
    def read_on(response: Response) -> Response:
        response.call_on_close(partial(_discard_body, request.environ))
        return response

    app.register_error_handler(JpegstowError, _refused)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(ParseException, _broken_body)
    app.register_error_handler(TimeoutError, _stalled)
    app.register_error_handler(Exception, _unforeseen)
    return app


def _transforms_missing() -> str:
    """Return why pictures can't be verified and turned; "" if they can."""
    try:
        jpegtran.load()
    except jpegtran.NoLibrary as error:
        return str(error)
    return ""


def _response(results: Sequence[Result]) -> Response:
    """Answer a request: as its only image, or 201 if all are stored, else 207."""
    answers = [_answer(result) for result in results]
    if len(answers) > 1:
        statuses = {answer["status"] for answer in answers}
        all_stored = statuses <= {HTTPStatus.OK, HTTPStatus.CREATED}
        status = max(statuses) if all_stored else HTTPStatus.MULTI_STATUS
        return _json({"instances": answers}, status)
    (answer,) = answers
    if "type" in answer:
        return _problem(answer, _retry_after(results[0]))
    response = _json({"instances": answers}, answer["status"])
    response.headers["Location"] = answer["RetrieveURL"]
    return response


def _answer(result: Result) -> Answer:
    """Tell what became of one image; a problem (RFC 9457) where it isn't stored."""
    facts = _facts(result.described) if result.described else {}
    match result.outcome:
        case Stored() as stored:
            status = HTTPStatus.OK if stored.duplicate else HTTPStatus.CREATED
            outcome = "already stored" if stored.duplicate else "stored"
            return {
                "status": status,
                "outcome": outcome,
                "RetrieveURL": stored.retrieve_url,
                **facts,
            }
        case Rejected() as rejected:
            kind = "rejected-by-store", "The store refused the instance", rejected.reason
            return _problem_of(HTTPStatus.BAD_GATEWAY, kind, "") | facts
        case Unavailable() as unavailable:
            kind = "store-unavailable", "The instance can't be stored now", unavailable.reason
            mend = "send the same request again; it makes the same instance"
            return _problem_of(HTTPStatus.SERVICE_UNAVAILABLE, kind, mend) | facts
        case JpegstowError() as error:
            return _problem_from(error)


def _facts(described: Described) -> Answer:
    instance = described.instance
    return {
        "SOPClassUID": instance.sop_class_uid,
        "StudyInstanceUID": instance.study_instance_uid,
        "SeriesInstanceUID": instance.series_instance_uid,
        "SOPInstanceUID": instance.sop_instance_uid,
        "TransferSyntaxUID": instance.transfer_syntax,
        "Rows": instance.dataset.Rows,
        "Columns": instance.dataset.Columns,
        "normalised": list(described.changes),
    }


def _problem_of(status: int, kind: tuple[str, str, str], mend: str) -> Answer:
    slug, title, detail = kind
    problem = {"type": f"urn:jpegstow:{slug}", "title": title, "status": int(status)}
    return problem | {"detail": detail} | ({"mend": mend} if mend else {})


def _problem_from(error: JpegstowError) -> Answer:
    kind = error.reason, error.title, error.detail
    problem = _problem_of(error.http_status, kind, error.mend)
    return problem | ({"where": error.where} if error.where else {})


def _retry_after(result: Result) -> float | None:
    if not isinstance(result.outcome, Unavailable):
        return None
    return _RETRY_AFTER if result.outcome.retry_after is None else result.outcome.retry_after


def _json(body: Answer, status: int = HTTPStatus.OK) -> Response:
    return Response(json.dumps(body) + "\n", status, mimetype="application/json")


def _problem(problem: Answer, retry_after: float | None = None) -> Response:
    response = Response(json.dumps(problem) + "\n", problem["status"], mimetype=PROBLEM)
    if retry_after is not None:
        response.headers["Retry-After"] = str(max(1, round(retry_after)))
    return response


def _refused(error: JpegstowError) -> Response:
    telemetry.log("WARNING", "request refused", reason=error.reason, status=error.http_status)
    return _problem(_problem_from(error))


def _http_error(error: HTTPException) -> Response:
    """Answer what Flask and Werkzeug refuse: unknown paths, methods, sizes, broken forms."""
    status = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
    phrase = HTTPStatus(status).phrase
    detail, mend = phrase, ""
    if isinstance(error, RequestEntityTooLarge):
        limit = request.max_content_length
        detail = f"the request is larger than {limit} bytes, or has too many or too large fields"
        mend = "send fewer or smaller images, or raise MAX_UPLOAD_BYTES"
    kind = phrase.lower().replace(" ", "-"), phrase, detail
    response = _problem(_problem_of(status, kind, mend))
    allow = dict(error.get_headers()).get("Allow")
    if allow:
        response.headers["Allow"] = allow
    telemetry.log("WARNING", "request refused", reason=kind[0], status=status)
    return response


def _broken_body(_: ParseException) -> Response:
    """Answer a body whose chunks aren't such; gunicorn finds out while it is read."""
    return _refused(BadRequest("the chunks of the request's body are malformed"))


def _stalled(_: TimeoutError) -> Response:
    telemetry.log("WARNING", "request refused", reason="stalled", status=408)
    kind = "stalled", "Request Timeout", f"no byte came for {_CLIENT_TIMEOUT:g} s"
    return _problem(_problem_of(HTTPStatus.REQUEST_TIMEOUT, kind, "send the request again"))


def _discard_body(environ: dict[str, Any]) -> None:
    """Read what is left of a request's body once it is answered, within bounds.

    A server that closes while its client still sends makes the kernel reset the connection, and
    the client may then never see the answer that told it to stop.
    """
    if "gunicorn.socket" in environ:
        environ["gunicorn.socket"].settimeout(_PATIENCE)
    body = environ["wsgi.input"]
    end = time.monotonic() + _PATIENCE
    # What is broken or gone has nothing to be read.
    with suppress(OSError, ValueError, ParseException):
        while body.read(65_536) and time.monotonic() < end:
            pass


def _unforeseen(error: Exception) -> Response:
    telemetry.log_exception("unforeseen error", error)
    kind = "internal-error", "Internal error", "the service failed; nothing is known to be stored"
    mend = "send the same request again; it makes the same instance"
    return _problem(_problem_of(HTTPStatus.INTERNAL_SERVER_ERROR, kind, mend))


def _log(result: Result, started: float) -> None:
    """Write the one line of an upload: UIDs, sizes, what was done, outcome, milliseconds."""
    outcome = result.outcome
    facts = _facts(result.described) if result.described else {}
    telemetry.log(
        "INFO" if isinstance(outcome, Stored) else "WARNING",
        "upload",
        source=result.upload.source,
        template=result.upload.template if result.described else None,
        outcome=type(outcome).__name__.lower(),
        reason=_logged_reason(outcome),
        bytes_in=len(result.upload.image),
        bytes_out=len(result.described.instance.codestream) if result.described else None,
        milliseconds=round((time.monotonic() - started) * 1000, 1),
        **facts,
    )


def _logged_reason(outcome: Stored | Rejected | Unavailable | JpegstowError) -> str:
    """Return what may be logged of a reason; a store's own text may quote a patient's value."""
    match outcome:
        case JpegstowError():
            return outcome.reason
        case Rejected():
            return f"status {outcome.status}, failure reason {outcome.failure_reason:04X}H"
        case Unavailable():
            return f"status {outcome.status}" if outcome.status else outcome.reason
        case Stored():
            return "already stored" if outcome.duplicate else ""
