"""Messages that Pub/Sub and Eventarc push."""

from http import HTTPStatus
from typing import Final

from flask import Blueprint, Flask, Response, request

from service.errors import BadRequest
from service.gcp.intake import Intake
from service.gcp.oidc import PushTokens

_LONGEST: Final = 16_000_000  # bytes; a message's 10 MB in base64, and its attributes


def add_push(app: Flask, intake: Intake, tokens: PushTokens | None) -> None:
    """Take messages at ``/v1/pubsub``; without `tokens` from anybody.

    Pub/Sub takes 204 for an acknowledgement and sends again after anything else, so that only what
    is at its end is answered so: stored, queued, or kept as dead.
    """
    api = Blueprint("push", __name__)

    @api.post("/v1/pubsub")
    def pushed() -> Response:
        if tokens is not None:
            tokens.check(request.headers.get("Authorization", ""))
        # Whatever uploads are allowed: a message that is refused comes again and again.
        request.max_content_length = max(_LONGEST, request.max_content_length or 0)
        body = request.get_data(cache=False)
        if request.content_length not in (None, len(body)):
            raise BadRequest("the body is cut off", reason="cut-off", mend="send it again")
        intake.push(body, {name.lower(): value for name, value in request.headers.items()})
        return Response(status=HTTPStatus.NO_CONTENT)

    @api.after_request
    def challenge(response: Response) -> Response:
        if response.status_code == HTTPStatus.UNAUTHORIZED:
            response.headers["WWW-Authenticate"] = "Bearer"
        return response

    app.register_blueprint(api)
