"""The service over HTTP: uploads and health; the retry queue is in `queue_api`."""

import threading
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final

from flask import Flask, Response, current_app, g, request
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import ClientDisconnected, HTTPException, RequestEntityTooLarge

from service import __version__, counting, telemetry
from service.answers import Answer, json_answer, problem_answer, problem_from, problem_of
from service.dicom import jpegtran
from service.dicom.outcome import Outcome, Rejected, Stored, Unavailable, loggable
from service.errors import BadRequest, JpegstowError
from service.ingest import Described, Result, Rules, ingest
from service.queue_api import add_queue
from service.receive import UploadRequest, uploads
from service.retry import GuardedStore, Queue, UnaskedStore
from service.routing import Rule
from service.settings import Settings
from service.store import DicomwebStore

_MAX_FORM_PARTS: Final = 1000
_CLIENT_TIMEOUT: Final = 30.0  # seconds without a byte from the client
_FRESH: Final = 1.0  # seconds


def create_app(
    rules: Rules, store: DicomwebStore, guarded: GuardedStore, queue: Queue, settings: Settings
) -> Flask:
    """Return the service as a WSGI application.

    Uploads go to `guarded`, which is `store` as long as that doesn't fail.
    """
    app = Flask("jpegstow", static_folder=None)
    app.request_class = UploadRequest
    app.url_rule_class = Rule
    app.config["MAX_CONTENT_LENGTH"] = settings.max_upload_bytes
    app.config["MAX_FORM_PARTS"] = _MAX_FORM_PARTS
    app.config["CLIENT_TIMEOUT"] = _CLIENT_TIMEOUT
    app.json.sort_keys = False  # type: ignore[attr-defined] # answers read in their own order

    @app.post("/v1/instances")
    def upload() -> Response:
        started = time.monotonic()
        with counting.step("receive"):
            received = uploads(request, settings.default_template, settings.max_images)
        respond_async = _prefers_async()
        results = ingest(received, rules, UnaskedStore() if respond_async else guarded, queue)
        for result in results:
            _log(result, started)
        g.audited = _audited(results)
        response = _response(results)
        if respond_async:
            response.headers["Preference-Applied"] = "respond-async"
        return response

    @app.get("/healthz")
    def healthz() -> Response:
        return json_answer({"status": "ok", "version": __version__})

    unreachable = _once_a_second(store.unreachable)

    @app.get("/readyz")
    def readyz() -> Response:
        return _readiness(unreachable(), queue, needs_library=rules.policy.verify)

    @app.before_request
    def lose_patience() -> None:
        # A client that stalls within its body would hold the thread for good.
        connection = request.environ.get("gunicorn.socket")
        if connection is not None:
            connection.settimeout(app.config["CLIENT_TIMEOUT"])

    add_queue(app, queue, rules)
    app.register_error_handler(JpegstowError, _refused)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(ParseException, _broken_body)
    app.register_error_handler(ClientDisconnected, _broken_off)
    app.register_error_handler(Exception, _unforeseen)
    return app


def _once_a_second(ask: Callable[[], str]) -> Callable[[], str]:
    """Return what asks for those whom nobody knows: seldom, and one at a time.

    Whoever comes meanwhile is told what was answered last.
    """
    asking = threading.Lock()
    told = ("", float("-inf"))  # and when

    def asked() -> str:
        nonlocal told
        is_first = told[1] < 0
        if time.monotonic() - told[1] > _FRESH and asking.acquire(blocking=is_first):
            try:
                told = ask(), time.monotonic()
            finally:
                asking.release()
        return told[0]

    return asked


def _readiness(unreachable: str, queue: Queue, *, needs_library: bool) -> Response:
    """Answer whether uploads can be taken: as long as the queue can, with or without the store."""
    checks = {
        "store": unreachable,
        "retry queue": queue.unusable(),
        "libturbojpeg": _transforms_missing(),
    }
    needed = ["retry queue", *(["libturbojpeg"] if needs_library else [])]
    ready = not any(checks[name] for name in needed)
    status = "ok" if not any(checks.values()) else "degraded" if ready else "unavailable"
    told = {name: reason or "ok" for name, reason in checks.items()}
    return json_answer(
        {"status": status, "checks": told},
        HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE,
    )


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
        return json_answer({"instances": answers}, status)
    (answer,) = answers
    if "type" in answer:
        return problem_answer(answer, transient=_is_transient(results[0]))
    response = json_answer({"instances": answers}, answer["status"])
    response.headers["Location"] = answer.get("RetrieveURL") or answer["queue"]
    return response


def _answer(result: Result) -> Answer:
    """Tell what became of one image; a problem (RFC 9457) where it isn't stored."""
    facts = _facts(result.described) if result.described else {}
    match result.outcome:
        case Stored() as stored:
            status = HTTPStatus.OK if stored.duplicate else HTTPStatus.CREATED
            outcome = "already stored" if stored.duplicate else "stored"
            warning = {"WarningReason": stored.warning_reason} if stored.warning_reason else {}
            return {
                "status": status,
                "outcome": outcome,
                "RetrieveURL": stored.retrieve_url,
                **warning,
                **facts,
            }
        case Rejected() as rejected:
            kind = "rejected-by-store", "The store refused the instance", rejected.reason
            mend = "the retry queue keeps it: POST better attributes to its /retry, or DELETE it"
            return problem_of(HTTPStatus.BAD_GATEWAY, kind, mend) | _kept(facts) | facts
        case Unavailable() as unavailable:
            said = {"outcome": "queued", "reason": unavailable.reason}
            return {"status": HTTPStatus.ACCEPTED, **said, **_kept(facts), **facts}
        case JpegstowError() as error:
            return problem_from(error) | facts


def _kept(facts: Answer) -> Answer:
    """Tell where the retry queue shows an instance."""
    return {"queue": f"/v1/queue/{facts['SOPInstanceUID']}"}


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


def _audited(results: Sequence[Result]) -> Answer:
    """Return which instances there were, for the audit."""
    described = [result.described.instance for result in results if result.described]
    return {
        "StudyInstanceUID": sorted({each.study_instance_uid for each in described}),
        "SOPInstanceUID": [each.sop_instance_uid for each in described],
    }


def _is_transient(result: Result) -> bool:
    return isinstance(result.outcome, JpegstowError) and result.outcome.transient


def _prefers_async() -> bool:
    """Tell whether the client would rather not wait for the store (RFC 7240 4.1)."""
    preferences = ",".join(request.headers.getlist("Prefer")).lower().split(",")
    return any(each.partition(";")[0].strip() == "respond-async" for each in preferences)


def _refused(error: JpegstowError) -> Response:
    telemetry.log("WARNING", "request refused", reason=error.reason, status=error.http_status)
    return problem_answer(problem_from(error), transient=error.transient)


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
    response = problem_answer(problem_of(status, kind, mend))
    allow = dict(error.get_headers()).get("Allow")
    if allow:
        response.headers["Allow"] = allow
    telemetry.log("WARNING", "request refused", reason=kind[0], status=status)
    return response


def _broken_body(_: ParseException) -> Response:
    """Answer a body whose chunks aren't such; gunicorn finds out while it is read."""
    return _refused(BadRequest("the chunks of the request's body are malformed"))


def _broken_off(error: ClientDisconnected) -> Response:
    """Answer a body that comes no further; only who still listens sees it."""
    if not isinstance(error.__context__, TimeoutError):
        return _refused(BadRequest("the body is cut off", reason="cut-off", mend="send it again"))
    telemetry.log("WARNING", "request refused", reason="stalled", status=408)
    seconds = current_app.config["CLIENT_TIMEOUT"]
    kind = "stalled", "Request Timeout", f"no byte came for {seconds:g} s"
    return problem_answer(problem_of(HTTPStatus.REQUEST_TIMEOUT, kind, "send the request again"))


def _unforeseen(error: Exception) -> Response:
    telemetry.log_exception("unforeseen error", error)
    kind = "internal-error", "Internal error", "the service failed; nothing is known to be stored"
    mend = "send the same request again; it makes the same instance"
    return problem_answer(problem_of(HTTPStatus.INTERNAL_SERVER_ERROR, kind, mend))


def _log(result: Result, started: float) -> None:
    """Write the one line of an upload: UIDs, sizes, what was done, outcome, milliseconds."""
    outcome = result.outcome
    facts = _facts(result.described) if result.described else {}
    queued = result.kept and isinstance(outcome, Unavailable)
    telemetry.log(
        _severity(outcome),
        "upload",
        source=result.upload.source,
        template=result.upload.template if result.described else None,
        outcome="queued" if queued else type(outcome).__name__.lower(),
        reason=_logged_reason(outcome),
        bytes_in=len(result.upload.image),
        bytes_out=len(result.described.instance.codestream) if result.described else None,
        milliseconds=round((time.monotonic() - started) * 1000, 1),
        **facts,
    )


def _severity(outcome: Outcome | JpegstowError) -> telemetry.Severity:
    """Return how loud an outcome is: what only an operator can mend is an error."""
    if isinstance(outcome, Stored):
        return "WARNING" if outcome.warning else "INFO"
    operator = isinstance(outcome, Unavailable) and outcome.operator
    return "ERROR" if operator or isinstance(outcome, Rejected) else "WARNING"


def _logged_reason(outcome: Outcome | JpegstowError) -> str:
    return outcome.reason if isinstance(outcome, JpegstowError) else loggable(outcome)
