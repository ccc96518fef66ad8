"""Objects in buckets: what is read is what was meant, and what fails says so without a name."""

import gzip
import json
import logging
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from hashlib import md5
from pathlib import Path
from urllib.parse import parse_qs

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from service.errors import BadRequest, JpegstowError, ObjectGone, ObjectUnavailable, TooLarge
from service.gcp.envelope import Reference
from service.gcp.objects import ABSENT, Buckets, Found, Listed, google_credentials
from tests.loopback import BOUND
from tests.peers import CutAnswer, Flood, Garbage, Hang, Received, Respond, SlowBody, refused_port
from tests.peers.buckets import WRITTEN, Bucket, BucketServer, Version, moto_bucket
from tests.peers.scripted import ScriptedServer, Step, Wire

GS = "gs://pictures"
NAME = "Zebedee^Jan/photo 1.jpg"
LIMIT = 1_000_000
VALIDATORS = {"ETag": '"x"', "Last-Modified": "Sat, 14 Mar 2026 15:09:26 GMT"}
ODD_NAMES = [
    "a b/photo 1.jpg",
    "Müller/日本.jpg",
    "a#1.jpg",
    "100%2F50%.jpg",
    "a?generation=1&b=c.jpg",
    "a+b=c;d,e:f@g!$'()*~.jpg",
    "<&>\"'.jpg",
    "back\\slash|^`{}[].jpg",
    "..hidden/a..b/.jpg",
]


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
def server(bucket: Bucket) -> Iterator[BucketServer]:
    with BucketServer(bucket) as server:
        yield server


@pytest.fixture
def buckets(server: BucketServer) -> Buckets:
    return Buckets(server.url)


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    with moto_bucket("pictures") as url:
        yield url


@pytest.fixture
def s3(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Buckets:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "anything")
    return Buckets(s3_url)


def ref(name: str = NAME, generation: str = "", bucket: str = GS) -> Reference:
    return Reference(bucket, name, generation)


def refused(kind: type[JpegstowError], call: Callable[[], object]) -> JpegstowError:
    """Return the error of a call, once it is sure that it tells no object's name."""
    with pytest.raises(kind) as caught:
        call()
    told = "".join(traceback.format_exception(caught.value, chain=True)) + repr(caught.value)
    assert "Zebedee" not in told
    assert caught.value.__context__ is None
    return caught.value


def test_an_object_is_read_with_its_metadata_generation_and_time(
    bucket: Bucket, buckets: Buckets
) -> None:
    generation = bucket.add(NAME, b"picture", PatientID="P-7", template="wound")
    assert buckets.read(ref(), LIMIT) == Found(
        b"picture",
        {"patientid": "P-7", "template": "wound"},
        generation,
        "2026-03-14T15:09:26+00:00",
    )


def test_an_empty_object_is_read(bucket: Bucket, buckets: Buckets) -> None:
    bucket.add(NAME, b"")
    assert buckets.read(ref(), LIMIT).data == b""


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_name_that_obstore_has_a_path_for_is_read_written_listed_and_deleted(
    bucket: Bucket, buckets: Buckets, name: str
) -> None:
    generation = buckets.put(GS, name, [b"pic", b"ture"])
    assert list(bucket.objects) == [name]
    assert buckets.read(ref(name, generation or ""), LIMIT).data == b"picture"
    assert [listed.name for listed in buckets.list(GS)] == [name]
    buckets.delete(GS, name)
    assert bucket.objects == {}


@pytest.mark.parametrize(
    "name", ["a//Zebedee.jpg", "/Zebedee.jpg", "Zebedee/", "./Zebedee", "a/../Zebedee", "Zebedee\n"]
)
def test_a_name_that_cannot_be_asked_for_is_refused_for_good(
    server: BucketServer, buckets: Buckets, name: str
) -> None:
    error = refused(BadRequest, lambda: buckets.read(ref(name), LIMIT))
    assert (error.reason, error.transient) == ("object-name", False)
    refused(BadRequest, lambda: buckets.put(GS, name, [b""]))
    refused(BadRequest, lambda: buckets.delete(GS, name))
    assert server.requests == []


def test_what_was_overwritten_is_read_where_its_generation_is_kept() -> None:
    bucket = Bucket(versioned=True)
    old = bucket.add(NAME, b"old", PatientID="old")
    new = bucket.add(NAME, b"new")
    with BucketServer(bucket) as server:
        buckets = Buckets(server.url)
        assert buckets.read(ref(generation=old), LIMIT).data == b"old"
        assert buckets.read(ref(generation=old), LIMIT).metadata == {"patientid": "old"}
        assert buckets.read(ref(generation=new), LIMIT).data == b"new"
        assert buckets.read(ref(), LIMIT).generation == new


def test_what_was_overwritten_is_gone_where_its_generation_is_not_kept(
    bucket: Bucket, buckets: Buckets
) -> None:
    old = bucket.add(NAME, b"old")
    bucket.add(NAME, b"new")
    error = refused(ObjectGone, lambda: buckets.read(ref(generation=old), LIMIT))
    assert not error.transient


def test_a_server_that_ignores_generations_is_not_believed() -> None:
    bucket = Bucket()
    bucket.add(NAME, b"new")
    with BucketServer(WithoutQuery(bucket)) as server:
        refused(ObjectGone, lambda: Buckets(server.url).read(ref(generation="1"), LIMIT))
        assert Buckets(server.url).read(ref(), LIMIT).data == b"new"


def test_a_missing_object_is_gone(buckets: Buckets) -> None:
    error = refused(ObjectGone, lambda: buckets.read(ref(), LIMIT))
    assert (error.http_status, error.where) == (404, GS)


def test_a_missing_bucket_is_no_missing_object(buckets: Buckets) -> None:
    other = "gs://elsewhere"
    for call in (
        lambda: buckets.read(ref(bucket=other), LIMIT),
        lambda: buckets.sidecar(ref(bucket=other), LIMIT),
        lambda: buckets.put(other, NAME, [b""], ABSENT),
        lambda: buckets.delete(other, NAME),
        lambda: list(buckets.list(other, NAME)),
    ):
        error = refused(ObjectUnavailable, call)
        assert "gs://elsewhere doesn't exist" in str(error)


def test_what_is_too_large_is_told_before_it_is_read() -> None:
    flood = Announced(Flood(1 << 28), VALIDATORS)
    with BucketServer(flood) as server:
        started = time.monotonic()
        error = refused(TooLarge, lambda: Buckets(server.url).read(ref(), LIMIT))
        assert time.monotonic() - started < 5
    assert "268435456 bytes" in str(error)
    assert "1000000 are allowed" in str(error)


def test_the_limit_itself_is_not_too_large(bucket: Bucket, buckets: Buckets) -> None:
    bucket.add(NAME, b"x" * 1000)
    assert len(buckets.read(ref(), 1000).data) == 1000
    refused(TooLarge, lambda: buckets.read(ref(), 999))


def test_a_large_object_comes_whole(bucket: Bucket, buckets: Buckets) -> None:
    data = bytes(range(256)) * 100_000
    bucket.add(NAME, data)
    assert buckets.read(ref(), len(data)).data == data


def test_what_was_uploaded_as_gzip_is_inflated(bucket: Bucket, buckets: Buckets) -> None:
    bucket.add("photo.json", b'{"PatientID": "P-7"}', gzipped=True)
    assert buckets.sidecar(ref("photo.jpg"), LIMIT) == b'{"PatientID": "P-7"}'


def test_what_inflates_beyond_the_limit_is_too_large(bucket: Bucket, buckets: Buckets) -> None:
    bucket.add(NAME, bytes(50 * LIMIT), gzipped=True)
    error = refused(TooLarge, lambda: buckets.read(ref(), LIMIT))
    assert "1000001 bytes" in str(error)  # no more than tells it
    bucket.add(NAME, bytes(LIMIT), gzipped=True)
    assert buckets.read(ref(), LIMIT).data == bytes(LIMIT)


@pytest.mark.parametrize(
    "data",
    [b"no gzip at all", gzip.compress(b"picture", mtime=0)[:-9]],
    ids=["no gzip at all", "cut"],
)
def test_what_only_says_that_it_is_gzip_stays_as_it_is(
    bucket: Bucket, buckets: Buckets, data: bytes
) -> None:
    bucket.objects[NAME] = Version("1", data, gzipped=True)
    assert buckets.read(ref(), LIMIT).data == data


@pytest.mark.parametrize("raw", ["Z\xfcbedee", "Zübedee".encode().decode("latin-1")])
def test_custom_metadata_beyond_ascii_are_refused_with_a_way_out(
    bucket: Bucket, buckets: Buckets, raw: str
) -> None:
    bucket.add(NAME, b"picture", PatientName=raw)
    error = refused(BadRequest, lambda: buckets.read(ref(), LIMIT))
    assert (error.reason, error.transient) == ("metadata", False)
    assert "sidecar" in error.mend


def test_the_sidecar_stands_beside_its_picture(bucket: Bucket, buckets: Buckets) -> None:
    old = bucket.add("a/photo.JPG", b"picture")
    assert buckets.sidecar(ref("a/photo.JPG", old), LIMIT) is None
    bucket.add("a/photo.json", b"{}")
    assert buckets.sidecar(ref("a/photo.JPG", old), LIMIT) == b"{}"
    refused(TooLarge, lambda: buckets.sidecar(ref("a/photo.JPG"), 1))


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (401, "is forbidden to us"),
        (403, "is forbidden to us"),
        (429, "answers 429"),
        (500, "answers 500"),
        (503, "answers 503"),
    ],
)
def test_a_bucket_that_refuses_is_unavailable(status: int, told: str) -> None:
    with BucketServer(Respond(status, body=echo)) as server:
        buckets = Buckets(server.url)
        for call in (
            lambda: buckets.read(ref(), LIMIT),
            lambda: buckets.put(GS, NAME, [b"x"]),
            lambda: buckets.delete(GS, NAME),
            lambda: list(buckets.list(GS, NAME)),
        ):
            error = refused(ObjectUnavailable, call)
            assert f"the bucket gs://pictures {told}" in str(error)
            assert error.transient


@pytest.mark.parametrize("step", [Garbage(), CutAnswer(b"x", 100)])
def test_an_answer_that_cannot_be_read_is_unavailable(step: Step) -> None:
    with BucketServer(step) as server:
        refused(ObjectUnavailable, lambda: Buckets(server.url).read(ref(), LIMIT))


def test_a_failure_that_passes_is_not_seen(bucket: Bucket) -> None:
    bucket.add(NAME, b"picture")
    with BucketServer(Respond(503), Respond(503), bucket) as server:
        assert Buckets(server.url).read(ref(), LIMIT).data == b"picture"
        assert len(server.requests) == 3


def test_a_refused_connection_is_unavailable() -> None:
    with refused_port() as port:
        buckets = Buckets(f"http://127.0.0.1:{port}")
        error = refused(ObjectUnavailable, lambda: buckets.read(ref(), LIMIT))
    assert "can't be reached" in str(error)


@pytest.mark.parametrize("silent", [True, False])
def test_a_server_that_hangs_or_dawdles_is_given_up_within_twenty_seconds(*, silent: bool) -> None:
    step = Hang() if silent else Announced(SlowBody(bytes(1000), pause=1), VALIDATORS)
    with BucketServer(step) as server:
        started = time.monotonic()
        error = refused(ObjectUnavailable, lambda: Buckets(server.url).read(ref(), LIMIT))
        assert 4 < time.monotonic() - started < 20
    assert "can't be reached (Timeout)" in str(error)


def test_nobody_who_has_no_buckets_imports_the_libraries() -> None:
    slow = {"obstore", "google.auth", "grpc", "jwt"}
    code = f"import sys, service.gcp.objects as o; o.Buckets(); print({slow!r} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"


def test_nothing_is_logged_by_the_library(
    bucket: Bucket,
    buckets: Buckets,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    bucket.add(NAME, b"picture")
    buckets.read(ref(), LIMIT)
    refused(ObjectGone, lambda: buckets.read(ref(generation="1"), LIMIT))
    out, err = capfd.readouterr()
    assert "Zebedee" not in caplog.text + out + err


def test_a_conditional_write_creates_once(bucket: Bucket, buckets: Buckets) -> None:
    first = buckets.put(GS, NAME, [b"fir", b"st"], ABSENT)
    assert first == bucket.objects[NAME].generation
    assert buckets.put(GS, NAME, [b"second"], ABSENT) is None
    assert bucket.objects[NAME].data == b"first"


def test_a_conditional_write_replaces_what_was_read(bucket: Bucket, buckets: Buckets) -> None:
    first = bucket.add(NAME, b"first")
    second = buckets.put(GS, NAME, [b"second"], first)
    assert second == bucket.objects[NAME].generation
    assert buckets.put(GS, NAME, [b"third"], first) is None
    assert buckets.read(ref(), LIMIT).data == b"second"


def test_of_many_conditional_writes_at_once_one_wins(bucket: Bucket, buckets: Buckets) -> None:
    first = bucket.add(NAME, b"first")
    won: list[str | None] = []
    writes = [
        threading.Thread(target=lambda: won.append(buckets.put(GS, NAME, [b"next"], first)))
        for _ in range(16)
    ]
    for write in writes:
        write.start()
    for write in writes:
        write.join()
    assert [one for one in won if one] == [bucket.objects[NAME].generation]
    assert len(won) == 16


def test_a_conditional_write_of_what_is_gone_is_lost(bucket: Bucket, buckets: Buckets) -> None:
    assert buckets.put(GS, NAME, [b"x"], "5") is None
    assert bucket.objects == {}


def test_an_unconditional_write_replaces_anything(bucket: Bucket, buckets: Buckets) -> None:
    bucket.add(NAME, b"first")
    assert buckets.put(GS, NAME, [b"second"]) == bucket.objects[NAME].generation
    assert bucket.objects[NAME].data == b"second"


def test_a_large_write_is_one_request(server: BucketServer, buckets: Buckets) -> None:
    pieces = [bytes(1_000_000)] * 12
    buckets.put(GS, NAME, pieces, ABSENT)
    (request,) = server.requests
    assert request.length == 12_000_000


def test_deleting_twice_is_as_deleting_once(bucket: Bucket, buckets: Buckets) -> None:
    bucket.add(NAME, b"x")
    buckets.delete(GS, NAME)
    buckets.delete(GS, NAME)
    assert bucket.objects == {}


def test_thousands_are_listed_in_order_over_pages_and_resumed_in_the_middle(
    bucket: Bucket, server: BucketServer, buckets: Buckets
) -> None:
    names = [f"in/{number:05}.jpg" for number in range(2500)]
    for name in (*reversed(names), "before.jpg", "in.jpg", "inner/x.jpg", "zz/x.jpg"):
        bucket.add(name, b"abc")
    listed = list(buckets.list(GS, "in/"))
    etag = f'"{md5(b"abc").hexdigest()}"'
    assert listed == [Listed(name, "", 3, etag, WRITTEN.timestamp()) for name in names]
    assert len(server.requests) == 3
    for place in (0, 999, 1000, 1700, 2498):
        behind = [one.name for one in buckets.list(GS, "in/", names[place])]
        assert behind == names[place + 1 :]
    assert list(buckets.list(GS, "in/", names[-1])) == []


def test_a_listing_asks_for_no_page_before_it_is_needed(
    bucket: Bucket, server: BucketServer, buckets: Buckets
) -> None:
    for number in range(3000):
        bucket.add(f"{number:05}.jpg", b"")
    listing = buckets.list(GS)
    assert [next(listing).name for _ in range(500)][-1] == "00499.jpg"
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("prefix", "names"),
    [
        ("", ["2024", "2024-a.jpg", "2024.jpg", "2024/1.jpg", "2024/10.jpg", "2024/2/x.jpg", "3"]),
        ("2024", ["2024", "2024-a.jpg", "2024.jpg", "2024/1.jpg", "2024/10.jpg", "2024/2/x.jpg"]),
        ("2024/", ["2024/1.jpg", "2024/10.jpg", "2024/2/x.jpg"]),
        ("2024/1", ["2024/1.jpg", "2024/10.jpg"]),
        ("2024/1.jpg", ["2024/1.jpg"]),
        ("2024/1.jpg/", []),
        ("2024/2/", ["2024/2/x.jpg"]),
        ("2025", []),
    ],
)
def test_a_prefix_is_the_beginning_of_a_name_not_a_folder(
    bucket: Bucket, buckets: Buckets, prefix: str, names: list[str]
) -> None:
    for name in (
        "2024/10.jpg",
        "2024/1.jpg",
        "2024/2/x.jpg",
        "2024",
        "2024-a.jpg",
        "2024.jpg",
        "3",
    ):
        bucket.add(name, b"")
    assert [listed.name for listed in buckets.list(GS, prefix)] == names
    for place, name in enumerate(names):
        resumed = [listed.name for listed in buckets.list(GS, prefix, name)]
        assert resumed == names[place + 1 :]


def test_a_name_that_cannot_be_listed_ends_the_listing_with_an_error(
    bucket: Bucket, buckets: Buckets
) -> None:
    bucket.add("a//Zebedee.jpg", b"")
    error = refused(BadRequest, lambda: list(buckets.list(GS)))
    assert error.reason == "object-name"


def test_an_emulator_gets_no_credentials_of_ours(
    bucket: Bucket, server: BucketServer, buckets: Buckets
) -> None:
    bucket.add(NAME, b"x")
    buckets.read(ref(), LIMIT)
    assert server.requests[0].headers["authorization"] == "Bearer none"


def test_google_gets_a_token_of_the_application_default_credentials(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.add(NAME, b"picture")
    token = Respond(body=b'{"access_token": "ours", "expires_in": 3600, "token_type": "Bearer"}')
    with BucketServer(bucket) as server, ScriptedServer(token) as tokens:
        as_service_account(tmp_path / "key.json", tokens.url, monkeypatch)
        buckets = Buckets(server.url, google_credentials())
        for _ in range(3):
            buckets.read(ref(), LIMIT)
        assert [one.headers["authorization"] for one in server.requests] == ["Bearer ours"] * 3
        (asked,) = tokens.requests
    (assertion,) = parse_qs(asked.body.decode())["assertion"]
    claims = jwt.decode(assertion, options={"verify_signature": False})
    assert claims["scope"] == "https://www.googleapis.com/auth/devstorage.read_write"


def test_without_credentials_a_bucket_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))
    with pytest.raises(ObjectUnavailable) as caught:
        Buckets().read(ref(), LIMIT)
    assert caught.value.reason == "bucket-unauthenticated"


def test_a_token_that_is_refused_makes_the_bucket_unavailable(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BucketServer(bucket) as server, ScriptedServer(Respond(400, body=b"{}")) as tokens:
        as_service_account(tmp_path / "key.json", tokens.url, monkeypatch)
        buckets = Buckets(server.url, google_credentials())
        error = refused(ObjectUnavailable, lambda: buckets.read(ref(), LIMIT))
        assert server.requests == []
    assert (error.reason, error.detail) == (
        "bucket-unauthenticated",
        "there are no Google credentials for buckets (RefreshError)",
    )


S3 = "s3://pictures"


@pytest.mark.parametrize("name", ODD_NAMES)
def test_s3_reads_writes_lists_and_deletes_the_same_names(s3: Buckets, name: str) -> None:
    written = s3.put(S3, name, [b"pic", b"ture"], ABSENT)
    assert written
    found = s3.read(ref(name, written, S3), LIMIT)
    assert (found.data, found.generation) == (b"picture", written)
    (listed,) = s3.list(S3)
    assert listed == Listed(name, written, 7, written, listed.updated)
    assert abs(listed.updated - time.time()) < BOUND
    assert list(s3.list(S3, name)) == [listed]
    s3.delete(S3, name)
    s3.delete(S3, name)
    assert list(s3.list(S3)) == []


def test_s3_reads_only_what_was_meant(s3: Buckets) -> None:
    old = s3.put(S3, NAME, [b"old"]) or ""
    assert s3.put(S3, NAME, [b"other"], ABSENT) is None
    new = s3.put(S3, NAME, [b"new"], old) or ""
    assert s3.put(S3, NAME, [b"other"], old) is None
    assert s3.read(ref(NAME, new, S3), LIMIT).data == b"new"
    refused(ObjectGone, lambda: s3.read(ref(NAME, old, S3), LIMIT))
    s3.delete(S3, NAME)
    refused(ObjectGone, lambda: s3.read(ref(NAME, "", S3), LIMIT))
    assert s3.put(S3, NAME, [b"other"], new) is None
    error = refused(ObjectUnavailable, lambda: s3.read(ref(NAME, "", "s3://elsewhere"), LIMIT))
    assert "doesn't exist" in str(error)


class WithoutQuery:
    """A bucket whose server pays no attention to the query, as gcp-storage-emulator doesn't."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def play(self, wire: Wire) -> None:
        wire.path = wire.path.partition("?")[0]
        self._bucket.play(wire)


class Announced:
    """A step whose answer has more headers."""

    def __init__(self, step: Step, headers: dict[str, str]) -> None:
        self._step = step
        self._headers = headers

    def play(self, wire: Wire) -> None:
        head = wire.head
        wire.head = lambda status, headers, length: head(  # type: ignore[method-assign]
            status, {**headers, **self._headers}, length
        )
        self._step.play(wire)


def echo(request: Received) -> bytes:
    """Quote the object's name in an error, as buckets do."""
    return f"<Error><Code>X</Code><Details>{NAME} {request.path}</Details></Error>".encode()


def as_service_account(key: Path, tokens: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the application default credentials be a service account's, with tokens from a URL."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    account = {
        "type": "service_account",
        "project_id": "p",
        "client_email": "jpegstow@p.iam.gserviceaccount.com",
        "private_key": private.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        ).decode(),
        "token_uri": tokens,
    }
    key.write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
