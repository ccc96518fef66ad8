"""API keys: made at random, kept as digests, compared in constant time.

A key has 256 random bits. So a plain SHA-256 keeps it: no list of likely keys can be tried, which
is what slow and salted hashes are against, and each request would pay for those.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from service.access.watched import Watched
from service.errors import BadRequest, JpegstowError
from service.settings import KEY_NAME, ApiKey, ordered, scopes_of

PREFIX: Final = "jpegstow_"
_BYTES: Final = 32
_NOBODY: Final = ApiKey("", "", frozenset())
_BROKEN: Final = (OSError, ValueError, KeyError, TypeError)  # what a file does that isn't sound


class KeysUnusable(JpegstowError):
    """The file of API keys can't be read or written; nobody gets in by it."""

    http_status = 503
    transient = True
    title = "API keys not usable"
    reason = "keys-unusable"


def make(name: str, scopes: Iterable[str]) -> tuple[str, ApiKey]:
    """Return a new key, and what is kept of it.

    Raises
    ------
    BadRequest
        If it can't have that name.
    """
    if not KEY_NAME.fullmatch(name):
        raise BadRequest(
            "a key can't have that name", where="NAME", mend="use up to 64 of A-Z a-z 0-9 _ . @ -"
        )
    key = PREFIX + secrets.token_urlsafe(_BYTES)
    return key, ApiKey(name, digest_of(key), frozenset(scopes))


def digest_of(key: str) -> str:
    """Return what is kept of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def find(digest: str, keys: Iterable[ApiKey]) -> ApiKey | None:
    """Return the key of a digest.

    Each is compared to its end and none is left out, so that the time it takes tells nothing of
    how far a guess was right.
    """
    found = _NOBODY
    for key in keys:
        same = hmac.compare_digest(key.digest, digest)
        found = key if same and not key.revoked else found
    return found if found.digest else None


class KeyFile:
    """The keys of DATA_DIR: one file, which each process reads again once it has changed."""

    def __init__(self, path: Path) -> None:
        self._file: Watched[tuple[ApiKey, ...]] = Watched(path, _parsed, ())

    def read(self) -> Sequence[ApiKey]:
        """Return all keys, also the revoked ones; none without a file.

        Raises
        ------
        KeysUnusable
            If the file can't be understood.
        """
        try:
            return self._file.value()
        except _BROKEN as error:
            raise self._unusable(error) from None

    def add(self, key: ApiKey) -> None:
        """Keep a key.

        Raises
        ------
        BadRequest
            If one that isn't revoked has its name.
        """

        def added(keys: Sequence[ApiKey]) -> Sequence[ApiKey]:
            if any(each.name == key.name and not each.revoked for each in keys):
                detail, mend = "there is a key of that name", "revoke it first, or take another"
                raise BadRequest(detail, where="NAME", mend=mend)
            return [*keys, key]

        self._change(added)

    def revoke(self, name: str, moment: str) -> None:
        """Let a key be good for nothing from now on; a process that reads the file next knows it.

        Raises
        ------
        BadRequest
            If no key that isn't revoked has that name.
        """

        def revoked(keys: Sequence[ApiKey]) -> Sequence[ApiKey]:
            chosen = [key for key in keys if key.name == name and not key.revoked]
            if not chosen:
                detail, mend = "there is no key of that name", "look at: jpegstow keys list"
                raise BadRequest(detail, where="NAME", mend=mend)
            return [replace(key, revoked=moment) if key in chosen else key for key in keys]

        self._change(revoked)

    def _change(self, change: Callable[[Sequence[ApiKey]], Sequence[ApiKey]]) -> None:
        def changed(keys: Sequence[ApiKey]) -> Iterable[bytes]:
            text = json.dumps({"keys": [_as_json(key) for key in change(keys)]}, indent=1)
            return [text.encode() + b"\n"]

        try:
            self._file.change(changed)
        except _BROKEN as error:
            raise self._unusable(error) from None

    def _unusable(self, error: Exception) -> KeysUnusable:
        return KeysUnusable(
            f"the file of API keys can't be used ({type(error).__name__})",
            where=f"DATA_DIR/{self._file.path.name}",
            mend="let the service's user read and write it, or put it back from a backup",
        )


def _parsed(text: bytes) -> tuple[ApiKey, ...]:
    return tuple(map(_from_json, json.loads(text)["keys"]))


def _as_json(key: ApiKey) -> dict[str, Any]:
    return asdict(key) | {"scopes": ordered(key.scopes)}


def _from_json(said: dict[str, Any]) -> ApiKey:
    scopes = scopes_of("+".join(said["scopes"]))
    key = ApiKey(said["name"], said["digest"], scopes, said["made"], said["revoked"])
    with suppress(ValueError, TypeError):
        if len(bytes.fromhex(key.digest)) == _BYTES:
            return key
    raise ValueError("no digest")
