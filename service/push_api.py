"""Messages that Pub/Sub and Eventarc push: pictures, and the alarms of the retry queue."""

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from flask import Blueprint, Flask, Response, request

from service.errors import BadRequest, Forbidden
from service.gcp.oidc import PushTokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.gcp.intake import Intake
    from service.gcp.queue import Redelivery

_LONGEST: Final = 16_000_000  # bytes; a message's 10 MB in base64, and its attributes


def add_push(
    app: Flask,
    intake: "Callable[[], Intake]",
    redelivery: "Redelivery | None",
    tokens: PushTokens | None,
) -> None:
    """Take messages at ``/v1/pubsub``, and alarms at ``/v1/retry``; without `tokens` from anybody.

    Pub/Sub takes 204 for an acknowledgement and sends again after anything else, so that only what
    is at its end is answered so: stored, queued, or kept as dead. An alarm is at its end once its
    entry is stored or dead. `intake` is asked for once there is a message.
    """
    api = Blueprint("push", __name__)

    @api.post("/v1/pubsub")
    def pushed() -> Response:
        body = _checked_body(tokens)
        intake().push(body, {name.lower(): value for name, value in request.headers.items()})
        return Response(status=HTTPStatus.NO_CONTENT)

    if redelivery is not None:

        @api.post("/v1/retry")
        def rung() -> Response:
            body = _checked_body(tokens)
            headers = {name.lower(): value for name, value in request.headers.items()}
            at_end = redelivery.push(body, headers)
            return Response(
                status=HTTPStatus.NO_CONTENT if at_end else HTTPStatus.SERVICE_UNAVAILABLE
            )

    @api.after_request
    def challenge(response: Response) -> Response:
        if response.status_code == HTTPStatus.UNAUTHORIZED:
            response.headers["WWW-Authenticate"] = "Bearer"
        return response

    app.register_blueprint(api)


def _checked_body(tokens: PushTokens | None) -> bytes:
    """Return a push request's body, once it is known to be ours to take and to be whole."""
    if tokens is None:
        _check_no_page()
    else:
        tokens.check(request.headers.get("Authorization", ""))
    # Whatever uploads are allowed: a message that is refused comes again and again.
    request.max_content_length = max(_LONGEST, request.max_content_length or 0)
    body = request.get_data(cache=False)
    if request.content_length not in (None, len(body)):
        raise BadRequest("the body is cut off", reason="cut-off", mend="send it again")
    return body


def _check_no_page() -> None:
    """Refuse what a page makes a browser send, of this machine's name or another: none pushes."""
    if "Origin" in request.headers or "Sec-Fetch-Site" in request.headers:
        raise Forbidden(
            "the request comes from a page in a browser",
            reason="cross-site",
            where="Origin",
            mend="push without a browser, or upload to /v1/instances",
        )
