"""The configuration: what the environment says, as one frozen value."""

from service.settings.fields import GOOGLE_HOST, LOOPBACK, STORAGE_CLASSES, Settings
from service.settings.markdown import table
from service.settings.reading import load
from service.settings.texts import (
    KEY_NAME,
    SCOPES,
    ApiKey,
    CloudQueue,
    Grant,
    ordered,
    scopes_of,
    store_url_of,
)

__all__ = [
    "GOOGLE_HOST",
    "KEY_NAME",
    "LOOPBACK",
    "SCOPES",
    "STORAGE_CLASSES",
    "ApiKey",
    "CloudQueue",
    "Grant",
    "Settings",
    "load",
    "ordered",
    "scopes_of",
    "store_url_of",
    "table",
]
