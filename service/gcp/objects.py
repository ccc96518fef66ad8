"""Objects in buckets, gs:// and s3://, through obstore.

What obstore raises quotes the object's name, which may hold a patient's; so nothing of it, neither
its text nor the exception itself, leaves this module.
"""

import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from service.errors import BadRequest, JpegstowError, ObjectGone, ObjectUnavailable, TooLarge
from service.gcp.envelope import Reference
from service.gcp.metadata import sidecar_name

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult, ObjectMeta, PutMode
    from obstore.store import GCSCredential, GCSCredentialProvider, GCSStore, S3Store

ABSENT: Final = "0"  # as a generation: there is no such object

_SCOPE: Final = "https://www.googleapis.com/auth/devstorage.read_write"
# A server that says nothing is given up after 10 s, one that dawdles after some 20 s.
_TIMEOUTS: Final = {
    "connect_timeout": timedelta(seconds=3),
    "read_timeout": timedelta(seconds=5),
    "timeout": timedelta(seconds=12),
}
_RETRIES: Final = 3
_RETRY_WITHIN: Final = timedelta(seconds=8)
_TOKEN_TIMEOUT: Final = 10  # seconds
_PAGE: Final = 1000  # names
_OPEN: Final = 64  # buckets
_KEPT: Final = re.compile(r"retention ?policy|under active [\w-]+ hold", re.IGNORECASE)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Found:
    """An object as it was read.

    Attributes
    ----------
    metadata
        Its custom metadata; names in small letters.
    generation
        What `Reference.generation` and `Buckets.put` take: the generation on gs://, the ETag on
        s3://.
    updated
        When it was written, RFC 3339.
    """

    data: bytes
    metadata: Mapping[str, str]
    generation: str
    updated: str


class Listed(NamedTuple):
    """An object as a bucket lists it.

    The generation is empty on gs://; `size` counts bytes; another `etag` means another content;
    `updated` is when it was written, in seconds since 1970 by the bucket's clock.
    """

    name: str
    generation: str
    size: int
    etag: str = ""
    updated: float = 0.0


class Buckets:
    """Reads and writes objects.

    gs:// is used with Google's application default credentials, and without any where an
    endpoint of one's own is given. s3:// takes obstore's own settings: AWS_ACCESS_KEY_ID,
    AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_SKIP_SIGNATURE, or the role of the machine.

    Names that have empty, ``.`` or ``..`` parts or control characters can't be asked for: obstore
    has no such paths.

    All methods raise ObjectUnavailable where the bucket is missing, forbidden, failing, or
    doesn't answer within some 20 seconds, and BadRequest for a name that can't be asked for.
    Threads can share it. A bucket is opened when it is first used, so that it survives a fork
    before that.

    Parameters
    ----------
    endpoint
        The URL of a bucket service of one's own, or of an emulator.
    credentials
        What makes tokens for gs://; by default `google_credentials`, or none at an endpoint.
    """

    def __init__(
        self, endpoint: str = "", credentials: "GCSCredentialProvider | None" = None
    ) -> None:
        self._endpoint = endpoint
        self._credentials = credentials
        self._store = lru_cache(_OPEN)(self._open)

    def read(self, reference: Reference, limit: int) -> Found:
        """Read an object of at most `limit` bytes, in exactly the generation that is asked for.

        Raises
        ------
        ObjectGone
            If it isn't there, or not in that generation.
        TooLarge
            Before anything is read, if it has more bytes.
        """
        bucket, wanted = reference.bucket, reference.generation
        result = _asked(bucket, lambda: self._get(reference))
        size, generation = result.meta["size"], _generation(bucket, result.meta)
        if wanted not in ("", generation):
            raise _gone(bucket)
        if size > limit:
            raise _too_large(size, limit)
        data = _asked(bucket, lambda: bytes(result.bytes()))
        said = {name: value for name, value in result.attributes.items() if name == name.lower()}
        if result.attributes.get("Content-Encoding", "") == "gzip":
            data = _inflated(data, limit)
        return Found(data, said, generation, result.meta["last_modified"].isoformat())

    def sidecar(self, reference: Reference, limit: int) -> bytes | None:
        """Read the sidecar of an object as it is now; None if there is none."""
        beside = Reference(reference.bucket, sidecar_name(reference.name))
        try:
            return self.read(beside, limit).data
        except ObjectGone:
            return None

    def list(self, bucket: str, prefix: str = "", after: str = "") -> Iterator[Listed]:
        """List the objects whose names begin with `prefix`, in the order of their names.

        The placeholder of an empty folder, ``a/``, is listed as ``a``, which isn't there.

        Parameters
        ----------
        after
            The name to go on behind; all names before it are left out.
        """
        if prefix > after and not prefix.endswith("/"):
            yield from self._one(bucket, prefix)  # the offset leaves out what is named so itself
        folder = prefix.rpartition("/")[0] or None
        offset = max(prefix, after) or None
        pages = _asked(
            bucket, lambda: self._store(bucket).list(folder, offset=offset, chunk_size=_PAGE)
        )
        while page := _asked(bucket, lambda: next(pages, ())):
            for meta in page:
                if not meta["path"].startswith(prefix):
                    return
                yield _listed(bucket, meta)

    def put(
        self, bucket: str, name: str, pieces: Iterable[bytes], if_generation: str | None = None
    ) -> str | None:
        """Write an object in one request, and return its generation.

        Parameters
        ----------
        if_generation
            Write only if this is the current generation; `ABSENT`: only if there is none. None
            writes in any case.

        Returns
        -------
        None if the condition didn't hold, since somebody else has written first; also this very
        call, if its first answer was lost.
        """
        data = b"".join(pieces)
        mode = _mode(bucket, if_generation)
        try:
            written = _asked(
                bucket,
                lambda: self._store(bucket).put(_path(name), data, mode=mode, use_multipart=False),
            )
        except ObjectGone:
            return None
        return _generation(bucket, written)

    def delete(self, bucket: str, name: str) -> None:
        """Delete an object, whatever its generation, if it is there."""
        try:
            _asked(bucket, lambda: self._store(bucket).delete(_path(name)))
        except ObjectGone:
            return

    def _get(self, reference: Reference) -> "GetResult":
        options: GetOptions = {}
        if reference.generation:
            key = "version" if _is_google(reference.bucket) else "if_match"
            options = {key: reference.generation}  # type: ignore[misc] # one of the two
        return self._store(reference.bucket).get(_path(reference.name), options=options)

    def _one(self, bucket: str, name: str) -> Iterator[Listed]:
        try:
            meta = _asked(bucket, lambda: self._store(bucket).head(_path(name)))
        except ObjectGone:
            return
        yield _listed(bucket, meta)

    def _open(self, bucket: str) -> "GCSStore | S3Store":
        from obstore.store import GCSStore, S3Store  # noqa: PLC0415 - only who has buckets needs it

        name = bucket.partition("://")[2]
        options: Any = {
            "client_options": {
                **_TIMEOUTS,
                "allow_http": self._endpoint.startswith("http://"),
                # Else Cloud Storage inflates what was uploaded as gzip, and tells no length.
                "default_headers": {"accept-encoding": "gzip"},
                "user_agent": "jpegstow",
            },
            "retry_config": {"max_retries": _RETRIES, "retry_timeout": _RETRY_WITHIN},
        }
        if self._endpoint:
            options["base_url" if _is_google(bucket) else "endpoint"] = self._endpoint
        if not _is_google(bucket):
            return S3Store(name, **options)
        default = _nobody if self._endpoint else google_credentials()
        return GCSStore(name, credential_provider=self._credentials or default, **options)


def _nobody() -> "GCSCredential":
    """Return a token that is none; obstore writes nothing without one."""
    return {"token": "none", "expires_at": None}


def google_credentials() -> "GCSCredentialProvider":
    """Return Google's application default credentials, for reading and writing objects.

    obstore's own default asks for no scope, without which a service account's key gets no token.

    Raises
    ------
    ObjectUnavailable
        If there are none.
    """
    import google.auth  # noqa: PLC0415 - slow to import
    from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415
    from google.auth.transport.requests import Request  # noqa: PLC0415
    from obstore.auth.google import GoogleCredentialProvider  # noqa: PLC0415

    try:
        credentials, _ = google.auth.default(scopes=[_SCOPE])
    except GoogleAuthError as error:
        raise _no_credentials(type(error).__name__) from error
    return GoogleCredentialProvider(credentials, request=partial(Request(), timeout=_TOKEN_TIMEOUT))


def _no_credentials(cause: str) -> ObjectUnavailable:
    return ObjectUnavailable(
        f"there are no Google credentials for buckets ({cause})",
        reason="bucket-unauthenticated",
        mend="run as a service account, or set GOOGLE_APPLICATION_CREDENTIALS",
    )


def _is_google(bucket: str) -> bool:
    return bucket.startswith("gs://")


def _path(name: str) -> str:
    """Refuse what obstore has no path for; slashes at the ends it would drop: another object."""
    if {"", ".", ".."} & set(name.split("/")) or _CONTROL.search(name):
        raise ValueError
    return name


def _generation(bucket: str, meta: "ObjectMeta | Mapping[str, Any]") -> str:
    return (meta["version"] if _is_google(bucket) else meta["e_tag"]) or ""


def _listed(bucket: str, meta: "ObjectMeta") -> Listed:
    etag = meta["e_tag"] or ""
    updated = meta["last_modified"].timestamp()
    return Listed(meta["path"], _generation(bucket, meta), meta["size"], etag, updated)


def _mode(bucket: str, if_generation: str | None) -> "PutMode":
    if if_generation is None:
        return "overwrite"
    if if_generation == ABSENT:
        return "create"
    return {"version": if_generation} if _is_google(bucket) else {"e_tag": if_generation}


def _inflated(data: bytes, limit: int) -> bytes:
    """Inflate what was stored as gzip, up to `limit` bytes."""
    inflater = zlib.decompressobj(wbits=31)
    try:
        inflated = inflater.decompress(data, limit + 1)
    except zlib.error:
        return data  # not what its header says; whoever reads it finds out what it is
    if len(inflated) > limit:
        raise _too_large(len(inflated), limit)
    return inflated if inflater.eof else data


def _asked(bucket: str, call: Callable[[], T]) -> T:
    """Return what a call to obstore returns, or raise ours in the place of its exceptions.

    Ours is raised outside the handler, so that no traceback leads to the other.
    """
    from obstore.exceptions import BaseError  # noqa: PLC0415 - only who has buckets needs it

    try:
        return call()
    except (BaseError, OSError, ValueError) as error:
        failure = _failure(bucket, type(error).__name__, str(error))
    raise failure


def _failure(bucket: str, kind: str, text: str) -> JpegstowError:
    """Make an error of an exception's class and text; the text itself holds the object's name."""
    if "NoSuchBucket" in text:
        return _unavailable(bucket, "doesn't exist", "create it, or mend its name")
    if "contained non UTF-8" in text:
        return BadRequest(
            f"an object in {bucket} has custom metadata that aren't ASCII",
            reason="metadata",
            where="custom metadata",
            mend="write them as encoded words (RFC 2047) or percent-encoded, or into a sidecar",
        )
    if kind in {"FileNotFoundError", "PreconditionError", "AlreadyExistsError"}:
        return _gone(bucket)
    if kind in {"ValueError", "InvalidPathError"}:
        return BadRequest(
            f"an object in {bucket} has a name that can't be asked for",
            reason="object-name",
            where="object",
            mend="let it have no empty, . or .. parts and no control characters",
        )
    return _refused(bucket, kind, text)


def _refused(bucket: str, kind: str, text: str) -> ObjectUnavailable:
    if token := re.search(r"credential provider: (\w+)", text):
        return _no_credentials(token[1])
    status = re.search(r"status code: (\d{3})", text)
    is_refusal = status and status[1] in {"401", "403"}  # of a list, obstore has no class
    if is_refusal and _KEPT.search(text):
        mend = "remove its retention policy and holds, or take another bucket"
        return _unavailable(bucket, "lets nothing be changed or deleted", mend, "bucket-retention")
    if is_refusal or kind in {"PermissionDeniedError", "UnauthenticatedError"}:
        mend = "grant the service account storage.objects.get and .list on it"
        return _unavailable(bucket, "is forbidden to us", mend, "bucket-forbidden")
    cause = re.search(r"kind: (Timeout|Connect|Interrupted|Decode|Request)", text)
    if status:
        return _unavailable(bucket, f"answers {status[1]}")
    return _unavailable(bucket, f"can't be reached ({cause[1] if cause else kind})")


def _unavailable(bucket: str, what: str, mend: str = "", reason: str = "") -> ObjectUnavailable:
    return ObjectUnavailable(f"the bucket {bucket} {what}", reason=reason, where=bucket, mend=mend)


def _gone(bucket: str) -> ObjectGone:
    detail = f"an object isn't in {bucket}, or not in the generation that was asked for"
    return ObjectGone(detail, where=bucket)


def _too_large(size: int, limit: int) -> TooLarge:
    detail = f"the object has {size} bytes or more, {limit} are allowed"
    return TooLarge(detail, reason="object-too-large", mend="raise MAX_UPLOAD_BYTES")
