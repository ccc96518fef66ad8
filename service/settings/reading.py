"""The only reader of the environment: it names every problem at once."""

import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from service.errors import BadSettings
from service.settings.fields import LOOPBACK, Settings


def load(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings.

    Parameters
    ----------
    environment
        From name to text; the process's own by default. Names that aren't settings are ignored.

    Raises
    ------
    BadSettings
        Naming every problem at once, never a secret.
    """
    environment = os.environ if environment is None else environment
    given: dict[str, Any] = {}
    problems: list[str] = []
    for setting in fields(Settings):
        name = setting.name.upper()
        if name in environment:
            try:
                given[setting.name] = setting.metadata["convert"](environment[name].strip())
            except ValueError as error:
                problems.append(f"{name}: {error}")
    settings = Settings(**given)
    wrong = tuple(problem.partition(" ")[0] for problem in problems)  # their values are unknown
    contradictions = _contradictions(settings, environment)
    problems += [problem for problem in contradictions if not problem.startswith(wrong)]
    if problems:
        raise BadSettings(problems)
    return settings


def _contradictions(settings: Settings, environment: Mapping[str, str]) -> list[str]:
    problems = []
    if settings.store_auth == "bearer" and not settings.store_token:
        problems.append("DICOMWEB_TOKEN: it is empty, and DICOMWEB_AUTH is bearer")
    if settings.store_auth == "basic" and not settings.dicomweb_user:
        problems.append("DICOMWEB_USER: it is empty, and DICOMWEB_AUTH is basic")
    if settings.push_auth == "none" and settings.host not in LOOPBACK:
        problems.append("PUSH_AUTH: it is none, and HOST isn't this machine alone")
    if settings.auth == "none" and not settings.auth_none_anywhere:
        problems += _open_to_all(settings)
    problems += _no_provider(settings)
    if not settings.uid_namespace and "K_SERVICE" in environment:
        problems.append(
            "UID_NAMESPACE: it is empty on Cloud Run, where every instance of the service would "
            "make other UIDs for the same picture; set it to a secret text once and for all"
        )
    if settings.retry_queue is None and "K_SERVICE" in environment:
        problems.append(
            "RETRY_QUEUE: it is empty on Cloud Run, whose disk is memory: what is queued would be "
            "lost with the instance; name a bucket and a topic, or a folder of a mounted volume"
        )
    return problems


def _open_to_all(settings: Settings) -> list[str]:
    if settings.host in LOOPBACK:
        return []
    problem = "HOST: it isn't this machine alone, and AUTH is none"
    mend = "set AUTH to apikey, or AUTH_NONE_ANYWHERE to on if something in front asks who it is"
    return [f"{problem}; {mend}"]


def _no_provider(settings: Settings) -> list[str]:
    if settings.auth == "oidc":
        if settings.oidc_issuer and not settings.oidc_audience:
            return ["OIDC_AUDIENCE: it is empty; set it to what the provider makes tokens for"]
        if not settings.oidc_issuer and not settings.iap_audience:
            return ["AUTH: it is oidc, and neither OIDC_ISSUER nor IAP_AUDIENCE is set"]
        if settings.oidc_client_id and not settings.oidc_issuer:
            return ["OIDC_CLIENT_ID: it is set, and OIDC_ISSUER isn't"]
        if "openid" not in settings.oidc_login_scope.split():
            return ["OIDC_LOGIN_SCOPE: it lacks openid, without which there is no ID token"]
    elif settings.iap_audience or settings.oidc_issuer:
        named = "IAP_AUDIENCE" if settings.iap_audience else "OIDC_ISSUER"
        return [f"{named}: it is set, and AUTH isn't oidc"]
    return []
