"""Settings to objects: the only module that knows every implementation."""

import os
import random
import secrets
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from service.access import (
    EVERYTHING,
    Access,
    KeyFile,
    Left,
    Login,
    Provider,
    Rate,
    Sessions,
    digest_of,
    openid,
    provider_keys,
    proxy,
)
from service.dicom import template, uid
from service.dicom.budget import Budget
from service.dicom.normalise import Policy
from service.dicom.template import Template
from service.durable import flush_new
from service.errors import BadSettings, BadTemplate
from service.ingest import Rules, Store
from service.retry import Breaker, Drain, GuardedStore, Limits, Pace, Queue, SqliteQueue
from service.settings import LOOPBACK, SCOPES, ApiKey, Grant, Settings
from service.store import DicomwebStore

if TYPE_CHECKING:
    from service.gcp.intake import Intake
    from service.gcp.metadata import Rule
    from service.gcp.oidc import PushTokens
    from service.gcp.queue import BucketQueue, Redelivery

_PACKAGE = Path(__file__).parent


class _Secret(NamedTuple):
    """A secret that is kept in DATA_DIR, unless a setting has it."""

    file: str
    what: str
    setting: str
    loss: str


_NAMESPACE = _Secret(
    "uid-namespace",
    "UID namespace",
    "UID_NAMESPACE",
    "put it back from a backup or set UID_NAMESPACE; delete it only if nothing is stored",
)
_SESSIONS = _Secret(
    "session-secret", "secret of sessions", "SESSION_SECRET", "delete it; that ends all sessions"
)
_KEYS_FILE = "keys.json"
_LEFT_FILE = "signed-out.json"
_LEAST_SECRET = 32  # characters; one that is made has 64


def rules(settings: Settings) -> Rules:
    """Return how uploads are described under these settings.

    Raises
    ------
    BadSettings
        If a template can't be used, or the UID namespace can't be kept.
    """
    templates = load_templates(settings)
    if settings.default_template not in templates:
        known = ", ".join(sorted(templates))
        raise BadSettings([f"DEFAULT_TEMPLATE: there is no such template; there are {known}"])
    secret = settings.uid_namespace or _kept_secret(settings.data_dir, _NAMESPACE)
    policy = Policy(
        upright=settings.upright,
        cmyk=settings.cmyk,
        verify=settings.verify_scan,
        budget=Budget(settings.transform_memory),
    )
    return Rules(templates, uid.namespace(secret), settings.max_pixels, policy)


def namespace_file(settings: Settings) -> Path | None:
    """Return where the secret of the UIDs is kept; None where a setting has it."""
    return None if settings.uid_namespace else settings.data_dir / _NAMESPACE.file


def store(settings: Settings) -> DicomwebStore:
    """Return the store that the settings name."""
    return DicomwebStore(settings)


def guarded(settings: Settings, store: DicomwebStore) -> GuardedStore:
    """Return a store as uploads see it: asked within a deadline, left alone while it fails."""
    return GuardedStore(store, Breaker(), settings.store_deadline)


def intake(settings: Settings, rules: Rules, store: Store, queue: Queue) -> "Intake":
    """Return what takes messages of Pub/Sub.

    Raises
    ------
    BadSettings
        If METADATA_RULES can't be read.
    """
    from service.gcp.intake import Intake, Source  # noqa: PLC0415 - only who has messages needs it
    from service.gcp.objects import Buckets  # noqa: PLC0415

    buckets, patterns = Buckets(settings.bucket_endpoint), metadata_rules(settings)
    source = Source(buckets, patterns, settings.default_template, settings.max_upload_bytes)
    return Intake(rules, store, queue, source)


def metadata_rules(settings: Settings) -> "Sequence[Rule]":
    """Return what the names of bucket objects say.

    Raises
    ------
    BadSettings
        If METADATA_RULES can't be read.
    """
    if not settings.metadata_rules:
        return ()
    from service.gcp import metadata  # noqa: PLC0415 - only who has rules needs it

    try:
        return metadata.rules(settings.metadata_rules)
    except ValueError as error:
        raise BadSettings([f"METADATA_RULES: {error}"]) from error


def takes_messages(settings: Settings) -> bool:
    """Tell whether anybody is let in with messages, or rules for them want to be read."""
    known = bool(settings.push_audience and settings.push_service_account)
    return settings.push_auth == "none" or known or bool(settings.metadata_rules)


def push_tokens(settings: Settings) -> "PushTokens | None":
    """Return what tells whose push requests are taken; None where anybody's are."""
    from service.gcp.oidc import PushTokens  # noqa: PLC0415

    if settings.push_auth == "none":
        return None
    return PushTokens(settings.push_keys_url, settings.push_audience, settings.push_service_account)


def key_file(settings: Settings) -> KeyFile:
    """Return the API keys of DATA_DIR."""
    return KeyFile(settings.data_dir / _KEYS_FILE)


def access(settings: Settings) -> Access:
    """Return how the service tells its callers.

    Raises
    ------
    BadSettings
        If the secret of sessions can't be kept.
    """
    if settings.auth == "none":
        return _access(settings)
    secret = settings.session_secret or _kept_secret(settings.data_dir, _SESSIONS)
    known = _access(settings)
    left = Left(settings.data_dir / _LEFT_FILE)
    login = _login(settings, known.provider, secret)
    return replace(known, sessions=Sessions(secret, left=left), login=login)


def archive_access(settings: Settings) -> Access:
    """Return how the embedded archive tells its callers, one of whom is the service."""
    if not settings.archive_key:
        return _access(settings)
    own = ApiKey("jpegstow", digest_of(settings.archive_key), EVERYTHING)
    return replace(_access(settings), own=own)


def _access(settings: Settings) -> Access:
    is_limited = settings.rate_limit and settings.auth != "none"
    return Access(
        settings.auth,
        key_file(settings),
        settings.keys,
        provider=_provider(settings),
        proxy=_proxy(settings),
        rate=Rate(settings.rate_limit) if is_limited else None,
        hosts=LOOPBACK
        if settings.auth == "none" and not settings.auth_none_anywhere
        else frozenset(),
    )


def _provider(settings: Settings) -> Provider | None:
    if not settings.oidc_issuer:
        return None
    own = tuple(Grant(scope, frozenset({scope})) for scope in SCOPES)
    given = settings.oidc_scopes or own
    keys = provider_keys(settings.oidc_issuer, settings.oidc_keys_url)
    return openid(settings.oidc_issuer, settings.oidc_audience, keys, settings.oidc_claim, given)


def _login(settings: Settings, provider: Provider | None, secret: str) -> Login | None:
    if provider is None or not settings.oidc_client_id:
        return None
    # What is made for the pages' client is no bearer token: it opens a session, and no request.
    signer = replace(provider.signer, audience=settings.oidc_client_id)
    return Login(
        issuer=settings.oidc_issuer,
        provider=replace(provider, signer=signer),
        client_id=settings.oidc_client_id,
        client_secret=settings.oidc_client_secret,
        scope=settings.oidc_login_scope,
        secret=secret,
    )


def _proxy(settings: Settings) -> Provider | None:
    if not settings.iap_audience:
        return None
    return proxy(settings.iap_audience, settings.iap_keys_url, settings.iap_scopes)


def retry_queue(settings: Settings) -> "SqliteQueue | BucketQueue":
    """Return the retry queue that the settings name.

    Raises
    ------
    QueueUnusable
        If it can't be opened; one in a bucket is not asked for before it is used.
    """
    limits = Limits(settings.queue_max_entries, settings.queue_max_bytes)
    place = settings.queue_place
    if isinstance(place, Path):
        return SqliteQueue(place, limits)
    from service.gcp.objects import Buckets  # noqa: PLC0415 - only who has a bucket needs it
    from service.gcp.queue import Alarm, BucketQueue, Records  # noqa: PLC0415

    records = Records(Buckets(settings.bucket_endpoint), place.bucket, place.prefix)
    return BucketQueue(records, Alarm(place.topic), limits)


def redelivery(settings: Settings, store: Store, queue: Queue) -> "Redelivery | None":
    """Return what sends an entry that Pub/Sub tells of; None for a queue that wakes by itself."""
    if isinstance(settings.queue_place, Path):
        return None
    from service.gcp.queue import BucketQueue, Redelivery  # noqa: PLC0415

    assert isinstance(queue, BucketQueue)  # noqa: S101 - as the settings say
    return Redelivery(queue, store, settings.retry_max_age)


def drain(settings: Settings, concurrency: int | None = None) -> Drain:
    """Return what drains the retry queue into the store."""
    pace = Pace(concurrency or settings.retry_concurrency, settings.retry_max_age)
    return Drain(retry_queue(settings), store(settings), pace, random.random)


def load_templates(settings: Settings) -> dict[str, Template]:
    """Return the built-in templates and those of TEMPLATES_DIR, by name."""
    folders = [_built_in(), *filter(None, [settings.templates_dir])]
    files = [path for folder in folders for path in _json_files(folder)]
    found: dict[str, Template] = {}
    problems: list[str] = []
    for path in files:
        try:
            found[path.stem] = _parsed(path.stem, path.read_bytes())
        except BadTemplate as error:
            problems.append(f"TEMPLATES_DIR: {error}")
    if problems:
        raise BadSettings(problems)
    return found


@lru_cache(32)
def _parsed(name: str, text: bytes) -> Template:
    """Read a template, and no text twice: what starts the service has been through them all."""
    return template.parse(name, text)


def _built_in() -> Path:
    """Return the folder of the wheel, or in a checkout that beside the package."""
    inside = _PACKAGE / "templates"
    return inside if inside.is_dir() else _PACKAGE.parent / "templates"


def _json_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise BadSettings([f"TEMPLATES_DIR: {folder} is no folder"])
    return sorted(folder.glob("*.json"))


def _kept_secret(data_dir: Path, kept: _Secret) -> str:
    """Return the secret of DATA_DIR, made at the first call; several processes get the same."""
    path = data_dir / kept.file
    try:
        if not path.exists():
            _make_secret(path)
        secret = path.read_text("ascii").strip()
    except (OSError, ValueError) as error:
        problem = f"DATA_DIR: the {kept.what} can't be kept in {path} ({type(error).__name__})"
        raise BadSettings(
            [problem + f"; set {kept.setting}, or make the folder writable"]
        ) from error
    if len(secret) < _LEAST_SECRET:
        problem = f"DATA_DIR: {path} holds {len(secret)} characters, and no {kept.what} has so few"
        raise BadSettings([f"{problem}; {kept.loss}"])
    return secret


def _make_secret(path: Path) -> None:
    """Write a new secret whole or not at all; the first of several processes wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    with draft.open("x", encoding="ascii") as file:
        draft.chmod(0o600)
        file.write(secrets.token_hex(32) + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    flush_new(path.parent)  # else a loss of power brings another secret, and other UIDs
