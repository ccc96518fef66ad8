"""All settings: each field documents itself, and the table in the README is made from them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from service.settings.texts import (
    ApiKey,
    CloudQueue,
    Grant,
    api_keys,
    credential,
    grants,
    integer,
    on_or_off,
    one_of,
    queue,
    seconds,
    store_url_of,
    text,
    url_or_none,
)

STORAGE_CLASSES: Final = ("STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE")
GOOGLE_HOST: Final = "healthcare.googleapis.com"
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


def _setting(
    default: Any, convert: Callable[[str], Any], text: str, *, secret: bool = False
) -> Any:
    metadata = {"convert": convert, "text": " ".join(text.split()), "secret": secret}
    return field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings; the name of each is its environment variable in lower case."""

    dicomweb_url: str = _setting(
        "",
        store_url_of,
        """Where instances are stored: the base URL of a DICOMweb server, without `/studies`. Empty:
        the embedded archive, which `jpegstow serve` then starts.""",
    )
    dicomweb_wire: str = _setting(
        "auto",
        one_of("auto", "json", "part10"),
        """The form of a store request: `json` (metadata and JPEG apart; Google Cloud Healthcare,
        dcm4chee), `part10` (DICOM files; every server), or `auto` (`json`, and after an answer of
        415 `part10`).""",
    )
    dicomweb_auth: str = _setting(
        "auto",
        one_of("auto", "google", "bearer", "basic", "none"),
        """Credentials for the store: `google` (application default credentials), `bearer`, `basic`,
        `none`, or `auto` (`google` for healthcare.googleapis.com, else whichever is set, else
        `none`).""",
    )
    dicomweb_token: str = _setting("", credential, "The token for `bearer`.", secret=True)
    dicomweb_user: str = _setting("", credential, "The user for `basic`.")
    dicomweb_password: str = _setting("", credential, "The password for `basic`.", secret=True)
    storage_class: str = _setting(
        "",
        one_of("", *STORAGE_CLASSES),
        """Google's storage class for new instances: `STANDARD`, `NEARLINE`, `COLDLINE` or
        `ARCHIVE`. Empty: the store's default.""",
    )
    store_connect_timeout: float = _setting(
        5.0, seconds, "Seconds to wait for a connection to the store."
    )
    store_read_timeout: float = _setting(
        30.0, seconds, "Seconds to wait for the store's whole answer once the request is sent."
    )
    store_deadline: float = _setting(
        20.0,
        seconds,
        """Seconds that an upload may wait for the store before its instance goes to the retry
        queue.""",
    )
    read_back: Literal["auto", "always", "never"] = _setting(
        "auto",
        one_of("auto", "always", "never"),
        """Whether to read from the store what it says it has stored, since some stores say so of an
        instance that they had before with other content: `auto` (where it was there before; not
        asked of Google's store and the embedded archive, which tell), `always`, or `never` (as for
        a store whose credentials can't read, or that changes what it is sent).""",
    )
    data_dir: Path = _setting(
        Path("data"),
        Path,
        "The folder of the embedded archive, of the retry queue and of the UID namespace.",
    )
    retry_queue: Path | CloudQueue | None = _setting(
        None,
        queue,
        """The folder of the retry queue, on a disk that stays; all processes that share it drain
        it together. Empty: `DATA_DIR/queue`. Or a bucket and the topic that wakes it,
        `pubsub://PROJECT/TOPIC?bucket=gs://BUCKET/PREFIX`, with `&subscription=NAME` where
        `jpegstow retry` is to pull instead of a push to `/v1/retry`.""",
    )
    retry_workers: int = _setting(
        1,
        integer(0, 64),
        """How many `jpegstow retry` processes `jpegstow serve` runs; none where Pub/Sub pushes to
        `/v1/retry`.""",
    )
    retry_concurrency: int = _setting(
        4, integer(1, 64), "Instances that each of them sends at once, at most."
    )
    retry_max_age: float = _setting(
        604_800.0,
        seconds,
        """Seconds after which an instance that the store doesn't take is given up and kept as
        `dead`, for an operator; a week.""",
    )
    queue_max_bytes: int = _setting(
        10_737_418_240,
        integer(1_048_576, 1 << 49),
        "The most bytes that the retry queue may hold; beyond that uploads are answered 503.",
    )
    queue_max_entries: int = _setting(
        1_000_000, integer(1, 100_000_000), "The most instances that the retry queue may hold."
    )
    templates_dir: Path | None = _setting(
        None,
        lambda value: Path(value) if value else None,
        "A folder of templates beside the built-in ones; a file of the same name replaces one.",
    )
    default_template: str = _setting(
        "vl-photographic-image", text, "The template of an upload that names none."
    )
    uid_namespace: str = _setting(
        "",
        text,
        """A secret text under which UIDs are made; the same on every machine that feeds one store,
        and never changed. Empty: made once and kept in `DATA_DIR/uid-namespace`.""",
        secret=True,
    )
    max_upload_bytes: int = _setting(
        31_457_280,
        integer(1024, 4_294_967_296),
        "The largest request; Cloud Run itself takes 32 MiB.",
    )
    max_pixels: int = _setting(
        200_000_000, integer(1, 4_294_836_225), "The largest picture, rows times columns."
    )
    transform_memory: int = _setting(
        536_870_912,
        integer(1_048_576, 1 << 40),
        """The most memory, in bytes, that turning and recoding pictures may take at once in each
        worker process; a picture that needs more by itself is refused, others wait.""",
    )
    upright: Literal["reencode", "lossless-or-keep", "refuse"] = _setting(
        "reencode",
        one_of("reencode", "lossless-or-keep", "refuse"),
        """What to do with a picture that EXIF says lies on its side and whose size doesn't allow
        turning it without loss: `reencode` it at high quality and say so, keep it as it lies
        (`lossless-or-keep`), or `refuse` it.""",
    )
    cmyk: Literal["refuse", "convert"] = _setting(
        "refuse",
        one_of("refuse", "convert"),
        "What to do with four components (CMYK): `refuse` them, or `convert` them to sRGB.",
    )
    verify_scan: bool = _setting(
        on_or_off("on"),
        on_or_off,
        "Whether the scan of each picture is read strictly, so that no damaged one is stored.",
    )
    max_images: int = _setting(100, integer(1, 900), "The most images in one request.")
    push_auth: Literal["google", "none"] = _setting(
        "google",
        one_of("google", "none"),
        """Who may push to `/v1/pubsub` and `/v1/retry`: who has a token of Google's for
        `PUSH_SERVICE_ACCOUNT` (`google`), or anybody (`none`, only where `HOST` is this machine
        alone).""",
    )
    push_audience: str = _setting(
        "",
        text,
        """The audience of push tokens: what the subscription says, by default the URL that it
        pushes to.""",
    )
    push_service_account: str = _setting(
        "", text, "The email of the service account whose tokens push requests carry."
    )
    push_keys_url: str = _setting(
        "https://www.googleapis.com/oauth2/v3/certs",
        url_or_none,
        "Where the keys of push tokens are.",
    )
    metadata_rules: str = _setting(
        "",
        str.strip,
        """Patterns of bucket objects' names, separated by blanks, whose named parts are attributes:
        `{PatientID}/{AccessionNumber}/{any}.jpg`. The first that matches counts; `{template}`
        names the template, other small names stand for anything, `**` for any folders.""",
    )
    bucket_endpoint: str = _setting(
        "", url_or_none, "The URL of a bucket service of one's own, or of an emulator."
    )
    host: str = _setting(
        "127.0.0.1", text, "The address to listen on; `0.0.0.0` for all, as a container needs."
    )
    port: int = _setting(8080, integer(0, 65_535), "The port of the service.")
    archive_port: int = _setting(8042, integer(0, 65_535), "The port of the embedded archive.")
    workers: int = _setting(2, integer(1, 64), "Worker processes of the service.")
    threads: int = _setting(8, integer(1, 256), "Threads, and so uploads at once, of each worker.")
    metrics_dir: Path | None = _setting(
        None,
        lambda value: Path(value) if value else None,
        """The folder in which the processes of one machine count for `/metrics`, such as one in
        `/dev/shm`. Empty: `DATA_DIR/metrics`.""",
    )
    google_cloud_project: str = _setting(
        "",
        text,
        """The project whose traces log lines name, in Cloud Logging's form. Empty: they name the
        trace alone.""",
    )
    auth: Literal["none", "apikey", "oidc"] = _setting(
        "none",
        one_of("none", "apikey", "oidc"),
        """Who may upload, read and operate: anybody (`none`, only where `HOST` is this machine
        alone), who has an API key (`apikey`, made by `jpegstow keys`), or who has a token of an
        OpenID Connect provider or comes through Identity-Aware Proxy (`oidc`; API keys are taken
        too, for machines).""",
    )
    auth_none_anywhere: bool = _setting(
        on_or_off("off"),
        on_or_off,
        """Whether `AUTH` may be `none` where `HOST` isn't this machine alone, since something in
        front asks everybody who they are: Cloud Run's IAM, a reverse proxy. Without it nobody is
        answered then who asks for another host's name than this machine's.""",
    )
    keys: tuple[ApiKey, ...] = _setting(
        (),
        api_keys,
        """API keys beside those of `DATA_DIR`, separated by blanks, as `jpegstow keys make
        --setting` prints them: `NAME:SCOPE+SCOPE:SHA256`.""",
    )
    session_secret: str = _setting(
        "",
        text,
        """A secret text by which sessions of the pages are signed; the same in all processes that
        serve them. Empty: made once and kept in `DATA_DIR/session-secret`. Another one ends all
        sessions.""",
        secret=True,
    )
    oidc_issuer: str = _setting(
        "",
        url_or_none,
        "The provider, as its tokens have it in `iss`: `https://accounts.example.org`.",
    )
    oidc_audience: str = _setting(
        "", text, "What tokens have to be made for: this service, as the provider knows it (`aud`)."
    )
    oidc_keys_url: str = _setting(
        "", url_or_none, "Where the provider's keys are. Empty: where its discovery document says."
    )
    oidc_claim: str = _setting(
        "roles",
        text,
        """The claim that says what a caller may, a list or words: `roles`, `groups`,
        `realm_access.roles`.""",
    )
    oidc_scopes: tuple[Grant, ...] = _setting(
        (),
        grants,
        """What its values allow, `value=scope+scope`, separated by blanks; `*` is everybody with a
        good token. Empty: its values are the scopes' own names.""",
    )
    oidc_client_id: str = _setting(
        "",
        text,
        """What the pages are registered as at the provider, so that people sign in there:
        authorization code flow with PKCE, redirect URL `https://HOST/sign-in/return`. Empty: they
        don't.""",
    )
    oidc_client_secret: str = _setting(
        "", text, "Its secret. Empty: it has none (a public client).", secret=True
    )
    oidc_login_scope: str = _setting(
        "openid email",
        text,
        """What is asked for there: `openid`, and whatever brings the claim `OIDC_CLAIM` into the ID
        token.""",
    )
    iap_audience: str = _setting(
        "",
        text,
        """What Identity-Aware Proxy signs its header `x-goog-iap-jwt-assertion` for:
        `/projects/NUMBER/global/backendServices/ID`. Empty: the header means nothing.""",
    )
    iap_scopes: tuple[Grant, ...] = _setting(
        (),
        grants,
        """Who may what behind it, `email=scope+scope`, separated by blanks; `*` is everybody whom
        the proxy lets through.""",
    )
    iap_keys_url: str = _setting(
        "https://www.gstatic.com/iap/verify/public_key-jwk",
        url_or_none,
        "Where the keys of Identity-Aware Proxy are.",
    )
    rate_limit: int = _setting(
        6000,
        integer(0, 1_000_000),
        """Requests that each caller may make in a minute, in each worker process; more are answered
        429. 0 is no limit; nor is there one where `AUTH` is `none`.""",
    )
    archive_key: str = _setting(
        "",
        credential,
        """The key that the service's own processes show the embedded archive. `jpegstow serve`
        makes one at each start, where `AUTH` isn't `none`.""",
        secret=True,
    )

    otel_exporter_otlp_endpoint: str = _setting(
        "",
        text,
        """Where spans of each request and step go, such as `http://127.0.0.1:4318`; it takes the
        extra `trace`, which reads OpenTelemetry's other variables itself. Empty: nowhere.""",
    )

    @property
    def embedded(self) -> bool:
        """Whether instances go to the embedded archive."""
        return not self.dicomweb_url

    @property
    def store_url(self) -> str:
        """Base URL of the store, without a slash at its end."""
        return self.dicomweb_url or f"http://127.0.0.1:{self.archive_port}/dicomWeb"

    @property
    def queue_place(self) -> Path | CloudQueue:
        """Where the retry queue is."""
        return self.retry_queue or (self.data_dir / "queue").absolute()

    @property
    def metrics_place(self) -> Path:
        """Where what is counted is kept."""
        return (self.metrics_dir or self.data_dir / "metrics").absolute()

    @property
    def store_token(self) -> str:
        """The token for `bearer`; no other store than the embedded archive sees its key."""
        return (self.embedded and self.archive_key) or self.dicomweb_token

    @property
    def store_auth(self) -> str:
        """The kind of credentials that `auto` comes to: google, bearer, basic or none."""
        if self.embedded and self.archive_key:
            return "bearer"
        if self.dicomweb_auth != "auto":
            return self.dicomweb_auth
        if urlsplit(self.dicomweb_url).hostname == GOOGLE_HOST:
            return "google"
        return "bearer" if self.dicomweb_token else "basic" if self.dicomweb_user else "none"
