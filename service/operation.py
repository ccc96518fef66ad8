"""What an operator sees of a request: its trace in the log lines, its answer in the counts."""

from flask import Flask, Response, request

from service import counting, tracing
from service.ingest import Rules
from service.settings import Settings


def add_operation(app: Flask, rules: Rules, settings: Settings) -> None:
    """Follow each request of an application."""
    counting.keep_in(settings.metrics_place)
    counting.know(rules.templates)
    tracing.configure(settings.google_cloud_project)

    @app.before_request
    def begin() -> None:
        headers = request.headers
        cloud = headers.get("X-Cloud-Trace-Context", "")
        tracing.enter(tracing.read(headers.get("traceparent", ""), cloud))

    @app.after_request
    def end(response: Response) -> Response:
        rule = request.url_rule
        counting.answered(rule.rule if rule else "", response.status_code)
        return response
