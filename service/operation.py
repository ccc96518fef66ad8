"""What an operator sees of a request: its trace in the log lines, its answer in the counts."""

from flask import Flask, Response, g, request

from service import counting, tracing
from service.ingest import Rules
from service.observing import observe
from service.settings import Settings

_WITHOUT_SPANS = frozenset({"/healthz", "/readyz", "/metrics"})  # asked all the time
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


def add_operation(app: Flask, rules: Rules, settings: Settings) -> None:
    """Follow each request of an application."""
    observe(settings)
    counting.know(rules.templates)

    @app.before_request
    def begin() -> None:
        headers = request.headers
        cloud = headers.get("X-Cloud-Trace-Context", "")
        tracing.enter(tracing.read(headers.get("traceparent", ""), cloud))
        if request.path not in _WITHOUT_SPANS:
            g.span = tracing.span(f"{_method()} {_route()}".strip(), "server")
            g.marked = g.span.__enter__()

    @app.after_request
    def end(response: Response) -> Response:
        counting.answered(_route(), response.status_code)
        if marked := g.get("marked"):
            marked.tell(method=_method(), route=_route(), status=response.status_code)
            if response.status_code >= 500:
                marked.fail()
        return response

    @app.teardown_request
    def leave(_: BaseException | None) -> None:
        if span := g.pop("span", None):
            span.__exit__(None, None, None)


def _route() -> str:
    """Return the rule that a request has matched; empty for a path that there isn't."""
    return request.url_rule.rule if request.url_rule else ""


def _method() -> str:
    """Return the method; OpenTelemetry's word for any that nobody knows."""
    return request.method if request.method in _METHODS else "_OTHER"
