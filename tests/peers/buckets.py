"""A bucket of Cloud Storage on loopback, as far as obstore asks for it: the XML API.

with BucketServer(bucket := Bucket()) as server:
    old = bucket.add("a/photo.jpg", b"...", PatientID="P-7")
    Buckets(server.url).read(Reference("gs://pictures", "a/photo.jpg", old), limit)

It honours what decides here and what emulators leave out: `generation` of a GET, with and without
object versioning, `x-goog-if-generation-match` of a PUT (0 for none), custom metadata as headers,
objects that are stored as gzip, and the names and order of a listing in pages. Its errors quote the
object's name, as Google's do.

It was written after Google's reference of the XML API ("Request preconditions", "HTTP headers and
query string parameters", "Object metadata", "Transcoding of gzip-compressed files"), and answers
the requests that obstore 0.12.1 was seen to make. It has not been compared with Google's own
servers.
"""

import gzip
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from hashlib import md5
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import requests

from tests.peers.scripted import Received, ScriptedServer, Step, Wire

WRITTEN = datetime(2026, 3, 14, 15, 9, 26, tzinfo=UTC)


@dataclass(frozen=True)
class Version:
    """One generation of an object."""

    generation: str
    data: bytes
    metadata: Mapping[str, str] = field(default_factory=dict)
    gzipped: bool = False

    @property
    def headers(self) -> dict[str, str]:
        """What a GET tells of it besides its length."""
        encoding = {"Content-Encoding": "gzip"} if self.gzipped else {}
        said = {f"x-goog-meta-{name}": value for name, value in self.metadata.items()}
        return (
            said
            | encoding
            | {
                "ETag": f'"{md5(self.data).hexdigest()}"',
                "Last-Modified": format_datetime(WRITTEN, usegmt=True),
                "Content-Type": "application/octet-stream",
                "x-goog-generation": self.generation,
                "x-goog-metageneration": "1",
            }
        )


class Bucket:
    """A bucket, as a step that plays for ever."""

    def __init__(
        self, name: str = "pictures", *, versioned: bool = False, page: int = 1000
    ) -> None:
        self.name = name
        self.versioned = versioned
        self.page = page
        self.objects: dict[str, Version] = {}
        self.superseded: dict[tuple[str, str], Version] = {}
        self._generation = 1_700_000_000_000_000
        self._lock = threading.Lock()

    def add(self, name: str, data: bytes, *, gzipped: bool = False, **metadata: str) -> str:
        """Write an object and return its generation."""
        with self._lock:
            return self._write(name, data, metadata, gzipped=gzipped)

    def play(self, wire: Wire) -> None:
        """Answer one request."""
        request = wire.receive()
        url = urlsplit(request.path)
        bucket, _, name = unquote(url.path).removeprefix("/").partition("/")
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if bucket != self.name:
            _refuse(wire, 404, "NoSuchBucket", bucket)
        elif not name:
            _answer(wire, 200, {"Content-Type": "application/xml"}, self._listing(query))
        elif request.method == "PUT":
            self._put(wire, name, request)
        elif request.method == "DELETE":
            self._delete(wire, name)
        else:
            self._get(wire, name, query.get("generation", ""), request)

    def _get(self, wire: Wire, name: str, generation: str, request: Received) -> None:
        current = self.objects.get(name)
        found = current if current and generation in ("", current.generation) else None
        found = found or self.superseded.get((name, generation))
        if not found:
            _refuse(wire, 404, "NoSuchKey", name)
        elif found.gzipped and "gzip" not in request.headers.get("accept-encoding", ""):
            _transcode(wire, found)
        else:
            _answer(wire, 200, found.headers, found.data)

    def _put(self, wire: Wire, name: str, request: Received) -> None:
        wanted = request.headers.get("x-goog-if-generation-match")
        prefix = "x-goog-meta-"
        said = {
            key.removeprefix(prefix): value
            for key, value in request.headers.items()
            if key.startswith(prefix)
        }
        with self._lock:
            current = self.objects[name].generation if name in self.objects else "0"
            if wanted in (None, current):
                self._write(name, request.body, said)
                _answer(wire, 200, self.objects[name].headers, b"")
                return
        _refuse(wire, 412, "PreconditionFailed", name)

    def _delete(self, wire: Wire, name: str) -> None:
        with self._lock:
            there = name in self.objects
            if there:
                self._supersede(name)
        if there:
            _answer(wire, 204, {}, b"")
        else:
            _refuse(wire, 404, "NoSuchKey", name)

    def _write(
        self, name: str, data: bytes, metadata: Mapping[str, str], *, gzipped: bool = False
    ) -> str:
        if name in self.objects:
            self._supersede(name)
        self._generation += 1
        stored = gzip.compress(data, mtime=0) if gzipped else data
        self.objects[name] = Version(str(self._generation), stored, metadata, gzipped)
        return str(self._generation)

    def _supersede(self, name: str) -> None:
        old = self.objects.pop(name)
        if self.versioned:
            self.superseded[name, old.generation] = old

    def _listing(self, query: Mapping[str, str]) -> bytes:
        prefix, token = query.get("prefix", ""), query.get("continuation-token", "")
        behind = max(token, query.get("start-after", ""))
        there = tuple(self.objects)  # others may write meanwhile
        names = sorted(name for name in there if name.startswith(prefix) and name > behind)
        page, rest = names[: self.page], names[self.page :]
        after = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if rest else ""
        objects = dict(self.objects)
        contents = "".join(_listed(name, objects[name]) for name in page if name in objects)
        return (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<ListBucketResult xmlns="http://doc.s3.amazonaws.com/2006-03-01">'
            f"<Name>{self.name}</Name><Prefix>{escape(prefix)}</Prefix>"
            f"<IsTruncated>{str(bool(rest)).lower()}</IsTruncated>{after}{contents}"
            "</ListBucketResult>"
        ).encode()


class _BucketWire(Wire):
    do_HEAD = Wire.do_GET  # noqa: N815 - http.server calls it by name


class BucketServer(ScriptedServer):
    """A loopback server that plays the steps, if any, and then the bucket."""

    def __init__(self, *steps: Step, lasting: bool = False) -> None:
        super().__init__(*steps, lasting=lasting)
        self._listener.RequestHandlerClass = _BucketWire


def _listed(name: str, version: Version) -> str:
    return (
        f"<Contents><Key>{escape(name)}</Key><Generation>{version.generation}</Generation>"
        "<MetaGeneration>1</MetaGeneration>"
        f"<LastModified>{WRITTEN:%Y-%m-%dT%H:%M:%S}.000Z</LastModified>"
        f"<ETag>{version.headers['ETag']}</ETag><Size>{len(version.data)}</Size></Contents>"
    )


def _answer(wire: Wire, status: int, headers: Mapping[str, str], body: bytes) -> None:
    wire.head(status, headers, len(body))
    if wire.command != "HEAD":
        wire.wfile.write(body)


def _transcode(wire: Wire, version: Version) -> None:
    """Inflate on the way out: chunked, since the length isn't known."""
    wire.send_response(200)
    for name, value in version.headers.items():
        if name != "Content-Encoding":
            wire.send_header(name, value)
    wire.send_header("Transfer-Encoding", "chunked")
    wire.end_headers()
    body = gzip.decompress(version.data)
    wire.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))


def _refuse(wire: Wire, status: int, code: str, name: str) -> None:
    body = f"<Error><Code>{code}</Code><Details>No: {escape(name)}</Details></Error>".encode()
    _answer(wire, status, {"Content-Type": "application/xml"}, body)


@contextmanager
def moto_bucket(name: str) -> Iterator[str]:
    """Run moto's S3 with one bucket, and give its URL."""
    from moto.server import ThreadedMotoServer  # noqa: PLC0415 - a second of import

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        requests.put(f"{url}/{name}", timeout=30).raise_for_status()
        yield url
    finally:
        server.stop()
