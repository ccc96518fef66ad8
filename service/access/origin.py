"""Requests that another site makes a browser send (CSRF): known by what browsers say of them."""

import hmac
from typing import Final
from urllib.parse import urlsplit

from flask import request

from service.errors import Forbidden

_HEADER: Final = "X-CSRF-Token"
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN: Final = frozenset({"same-origin", "none"})  # "none": the user, not a page
_FORM: Final = "application/x-www-form-urlencoded"


def check_origin(*, browser: bool) -> None:
    """Refuse a request that changes something and comes from another site's page.

    Parameters
    ----------
    browser
        Whether only a browser can have sent it: then it has to say where it comes from.

    Raises
    ------
    Forbidden
        If it comes from elsewhere, or doesn't say.
    """
    if request.method in _SAFE:
        return
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        own = site in _OWN
    elif origin is not None:
        # The scheme is left out: a proxy in front may have taken TLS off.
        own = origin in {f"http://{request.host}", f"https://{request.host}"}
    else:
        own = not browser
    if not own:
        raise Forbidden(
            "the request comes from another site's page",
            reason="cross-site",
            where="Origin",
            mend="send it from a page of this service, or with an API key",
        )


def check_host(hosts: frozenset[str]) -> None:
    """Refuse a request for a host of another name.

    A name of another site's that leads to this machine (DNS rebinding) makes its pages the same
    origin as the service, whose answers they then may read.

    Raises
    ------
    Forbidden
        If it is none of `hosts`, where these aren't empty.
    """
    if hosts and urlsplit(f"//{request.host}").hostname not in hosts:
        raise Forbidden(
            "the request is for a host of another name",
            reason="wrong-host",
            where="Host",
            mend="use http://127.0.0.1; set AUTH_NONE_ANYWHERE if a proxy in front asks who it is",
        )


def check_token(wanted: str) -> None:
    """Refuse a request that changes something and lacks its session's token.

    A form that no script sends has it as its field `csrf_token`.

    Raises
    ------
    Forbidden
        If it isn't there.
    """
    if request.method in _SAFE:
        return
    shown = request.headers.get(_HEADER, "")
    if not shown and request.mimetype == _FORM:
        shown = request.form.get("csrf_token", "")
    if not hmac.compare_digest(shown.encode(), wanted.encode()):
        raise Forbidden(
            "the request lacks its session's token",
            reason="no-csrf-token",
            where=_HEADER,
            mend="load the page again",
        )
