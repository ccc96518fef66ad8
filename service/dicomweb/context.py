"""What every view needs of its request."""

from collections.abc import Sequence
from contextlib import suppress
from typing import cast

from flask import current_app, g, request
from werkzeug.exceptions import NotAcceptable, ServiceUnavailable

from service.archive import Archive
from service.dicom.json_model import JsonObject
from service.dicomweb.accept import Offer, choose


def archive() -> Archive:
    """Return the archive that this application serves.

    Raises
    ------
    ServiceUnavailable
        While it is being opened.
    """
    opened = current_app.extensions["archive"]
    if opened is None:
        raise ServiceUnavailable(
            "the archive's index is being made anew from its files", retry_after=30
        )
    return cast("Archive", opened)


def negotiated(offers: Sequence[Offer]) -> Offer:
    """Return the offer that the request wants (PS3.18 8.7.8.1).

    The query parameter ``accept`` comes first, which a link can have; the header if that can't
    be met.

    Raises
    ------
    NotAcceptable
        If the header can't be met either.
    """
    if asked := request.args.get("accept"):
        with suppress(NotAcceptable):
            return choose(asked, offers)
    return choose(request.headers.get("Accept"), offers)


def url(study: str, series: str = "", instance: str = "") -> str:
    """Return the absolute URL of a study, series or instance, on the base that was asked."""
    return url_of(g.base, study, series, instance)


def url_of(base: str, study: str, series: str = "", instance: str = "") -> str:
    """Return the URL of a study, series or instance on a base."""
    path = f"{base}/studies/{study}"
    path += f"/series/{series}" if series else ""
    return path + (f"/instances/{instance}" if instance else "")


def absolute(model: JsonObject, instance: str) -> JsonObject:
    """Put the URL of the instance before every BulkDataURI of a data set."""
    for element in model.values():
        if "BulkDataURI" in element:
            element["BulkDataURI"] = f"{instance}/bulkdata/{element['BulkDataURI']}"
        elif element["vr"] == "SQ":
            for item in element.get("Value", []):
                absolute(item, instance)
    return model
