"""What the text of a setting may be: functions from text to value, which raise ValueError.

Each error's text goes on from the setting's name: ``it isn't a whole number from 1 to 64``.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit


def text(value: str) -> str:
    """Take a text without control characters."""
    if any(ord(character) < 32 for character in value):
        raise ValueError("it holds a control character")
    return value


def credential(value: str) -> str:
    """Take what can stand in an HTTP header (RFC 9110 5.5)."""
    if not value.isprintable() or max(value, default="") > "\xff":
        raise ValueError("it holds a character that is not a printable one of ISO 8859-1")
    return value


def one_of(*choices: str) -> Callable[[str], str]:
    """Take one of some words."""

    def convert(value: str) -> str:
        if value not in choices:
            raise ValueError(f"it is none of {', '.join(filter(None, choices))}")
        return value

    return convert


def integer(least: int, most: int) -> Callable[[str], int]:
    """Take a whole number."""

    def convert(value: str) -> int:
        if not re.fullmatch(r"\d{1,15}", value, re.ASCII) or not least <= int(value) <= most:
            raise ValueError(f"it isn't a whole number from {least} to {most}")
        return int(value)

    return convert


def on_or_off(value: str) -> bool:
    """Take a switch."""
    if value not in {"on", "off"}:
        raise ValueError("it is neither on nor off")
    return value == "on"


def seconds(value: str) -> float:
    """Take a time above 0."""
    if not re.fullmatch(r"\d{1,8}(\.\d{1,3})?", value, re.ASCII) or float(value) <= 0:
        raise ValueError("it isn't a number of seconds above 0")
    return float(value)


class CloudQueue(NamedTuple):
    """A retry queue in a bucket, with a topic as its alarm clock.

    Attributes
    ----------
    topic
        ``projects/P/topics/T``.
    bucket
        ``gs://BUCKET``.
    prefix
        What all names in the bucket begin with, without slashes at its ends; may be empty.
    subscription
        ``projects/P/subscriptions/S``, which `jpegstow retry` pulls; empty if it has none to pull.
    """

    topic: str
    bucket: str
    prefix: str
    subscription: str

    def __str__(self) -> str:
        """Return where its entries are."""
        return f"{self.bucket}/{self.prefix}"


SCOPES: Final = ("upload", "read", "operate")
KEY_NAME: Final = re.compile(r"[A-Za-z0-9][\w.@-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key as it is kept: not the key.

    Attributes
    ----------
    digest
        The SHA-256 of the key, as 64 hexadecimal digits.
    scopes
        Some of `SCOPES`; without any its holder is known, and may do nothing.
    made, revoked
        Moments as ISO 8601 has them; empty if not known, and if not revoked.
    """

    name: str
    digest: str
    scopes: frozenset[str]
    made: str = ""
    revoked: str = ""

    def __str__(self) -> str:
        """Return it as the setting KEYS has it."""
        return f"{self.name}:{'+'.join(ordered(self.scopes))}:{self.digest}"


def ordered(scopes: Iterable[str]) -> list[str]:
    """Return scopes in the order of `SCOPES`."""
    return sorted(scopes, key=SCOPES.index)


def scopes_of(text: str) -> frozenset[str]:
    """Take scopes that are joined by +; ValueError for one that isn't."""
    found = frozenset(filter(None, text.split("+")))
    if not found <= set(SCOPES):
        raise ValueError(f"it has a scope that is none of {', '.join(SCOPES)}")
    return found


def api_keys(value: str) -> tuple[ApiKey, ...]:
    """Take API keys; no error quotes what may be a key."""
    keys = tuple(_api_key(word) for word in value.split())
    if len({key.name for key in keys}) < len(keys):
        raise ValueError("it has one name twice")
    return keys


def _api_key(word: str) -> ApiKey:
    name, scopes, digest = ([*word.split(":"), "", ""])[:3]
    sound = KEY_NAME.fullmatch(name) and re.fullmatch(r"[0-9a-f]{64}", digest)
    if not sound or word.count(":") != 2:
        raise ValueError("it isn't NAME:SCOPE+SCOPE:SHA256 again and again, separated by blanks")
    return ApiKey(name, digest, scopes_of(scopes))


class Grant(NamedTuple):
    """The scopes of who has a value in the claim of a token; `*` is everybody's."""

    value: str
    scopes: frozenset[str]


def grants(value: str) -> tuple[Grant, ...]:
    """Take what claims' values grant."""
    return tuple(map(_grant, value.split()))


def _grant(word: str) -> Grant:
    value, _, scopes = word.rpartition("=")
    if not value or not scopes:
        raise ValueError("it isn't VALUE=SCOPE+SCOPE again and again, separated by blanks")
    return Grant(value, scopes_of(scopes))


_NAME: Final = r"[A-Za-z][\w.~+%-]{2,254}"
_PART: Final = r"[\w-][\w.-]*"
_CLOUD_QUEUE: Final = re.compile(
    rf"pubsub://(?P<project>[a-z][a-z0-9.:-]{{4,62}})/(?P<topic>{_NAME})"
    rf"\?bucket=(?P<bucket>gs://[a-z0-9][a-z0-9._-]{{1,221}})/?(?P<prefix>{_PART}(/{_PART})*)?/?"
    rf"(&subscription=(?P<subscription>{_NAME}))?",
    re.ASCII,
)


def queue(value: str) -> Path | CloudQueue | None:
    """Take where the retry queue is: a folder, or a bucket and a topic; None for neither."""
    if "://" not in value:
        return Path(value) if value else None
    found = _CLOUD_QUEUE.fullmatch(value)
    if not found:
        shape = "pubsub://PROJECT/TOPIC?bucket=gs://BUCKET/PREFIX&subscription=NAME"
        raise ValueError(f"it is neither a folder nor {shape}, whose last two parts may be absent")
    project, subscription = found["project"], found["subscription"]
    return CloudQueue(
        topic=f"projects/{project}/topics/{found['topic']}",
        bucket=found["bucket"],
        prefix=found["prefix"] or "",
        subscription=f"projects/{project}/subscriptions/{subscription}" if subscription else "",
    )


def url_or_none(value: str) -> str:
    """Take an http or https URL without credentials, or nothing."""
    if value:
        try:
            url = urlsplit(value)
            sound = (
                url.scheme in {"http", "https"}
                and url.hostname
                and url.port != 0
                and "@" not in value
            )
        except ValueError:
            sound = False
        if not sound:
            raise ValueError("it isn't an http or https URL")
    return value


def store_url_of(value: str) -> str:
    """Return a DICOMweb base URL without what people append to it; ValueError for none."""
    if not value:
        return ""
    if re.search(r"[@?#]", value):
        raise ValueError("it holds credentials, a query or a fragment")
    try:
        url = urlsplit(value)
        sound = url.scheme in {"http", "https"} and url.hostname and url.port != 0
    except ValueError:  # its text would quote the URL
        sound = False
    if not sound:
        raise ValueError("it isn't an http or https URL")
    return value.rstrip("/").removesuffix("/studies")
