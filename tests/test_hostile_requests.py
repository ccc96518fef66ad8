"""Bad input to a real `jpegstow archive`, byte by byte: refused, and nothing stored or touched."""

import hashlib
import http.client
import json
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

import pytest

from service.dicom.multipart import Part
from tests.archive_instances import (
    INSTANCE,
    SERIES,
    STUDY,
    dicom_file,
    image_part,
    json_part,
    metadata,
)
from tests.archive_server import ArchiveServer, ask
from tests.peers import BOUND

AT = f"/dicomWeb/studies/{STUDY}/series/{SERIES}/instances/{INSTANCE}"
NEW: dict[str, Any] = {"SOPInstanceUID": "1.2.999"}
DICOM = {"Content-Type": "application/dicom"}
JSON_PARTS = 'multipart/related; type="application/dicom+json"; boundary=b'
FILE_PARTS = 'multipart/related; type="application/dicom"; boundary=b'
ENVELOPE = {"code", "message", "status"}


class Reply(NamedTuple):
    """An answer as it came; no status if the connection ended without one."""

    status: int | None
    media_type: str
    body: bytes


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArchiveServer]:
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "canary.dcm").write_bytes(b"outside of the archive")
    with ArchiveServer(folder / "data") as running:
        answer = ask("POST", f"{running.url}/dicomWeb/studies", DICOM, dicom_file())
        assert answer.status == 200
        yield running


@pytest.fixture
def untouched(server: ArchiveServer) -> Iterator[ArchiveServer]:
    """Give the server; afterwards it answers, and its disk is as it was."""
    before = content(server)
    yield server
    assert ask("GET", f"{server.url}/healthz").status == 200
    assert content(server) == before
    assert [path.name for path in server.data_dir.parent.iterdir() if "dcm" in path.name] == [
        "canary.dcm"
    ]


def content(server: ArchiveServer) -> dict[str, str]:
    """Digest every file beside and below the archive; the index by what it holds."""
    files = {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(server.data_dir.parent.rglob("*"))
        if path.is_file() and not path.name.startswith("index.sqlite") and path != server.log
    }
    index = sqlite3.connect(f"file:{server.folder / 'index.sqlite'}?mode=ro", uri=True)
    try:
        rows = "\n".join(index.iterdump())
    finally:
        index.close()
    return files | {"index": hashlib.sha256(rows.encode()).hexdigest()}


def send(server: ArchiveServer, data: bytes, *, close: bool = False) -> Reply:
    """Send bytes on a connection of their own, end sending if told, and read the answer."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=BOUND) as connection:
        with suppress(OSError):  # refused before it is all sent
            connection.sendall(data)
            if close:
                connection.shutdown(socket.SHUT_WR)
        return read(connection)


def read(connection: socket.socket) -> Reply:
    response = http.client.HTTPResponse(connection)
    try:
        response.begin()
        kind = response.headers.get_content_type()
        return Reply(response.status, kind, response.read())
    except (ConnectionError, http.client.BadStatusLine):
        return Reply(None, "", b"")
    finally:
        response.close()


def head(method: str, target: str, *lines: str) -> bytes:
    text = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *lines]
    return "\r\n".join([*text, "", ""]).encode("latin-1")


def posted(content_type: str, body: bytes, *lines: str) -> bytes:
    length = f"Content-Length: {len(body)}"
    start = head("POST", "/dicomWeb/studies", f"Content-Type: {content_type}", length, *lines)
    return start + body


def is_refused(reply: Reply, status: int) -> None:
    assert (reply.status, reply.media_type) == (status, "application/json"), reply
    error = json.loads(reply.body)["error"]
    assert set(error) == ENVELOPE
    assert error["code"] == status
    assert error["message"]


# --- paths --------------------------------------------------------------------------------------

NOBODY = "1.2.3.4.5.6.7.8.9"
EVERYWHERE = [
    "/studies/{0}",
    "/studies/{0}/metadata",
    "/studies/{0}/series",
    "/studies/{0}/instances",
    "/studies/{0}/series/{0}",
    "/studies/{0}/series/{0}/metadata",
    "/studies/{0}/series/{0}/instances",
    "/studies/{0}/series/{0}/instances/{0}",
    "/studies/{0}/series/{0}/instances/{0}/metadata",
    "/studies/{0}/series/{0}/instances/{0}/rendered",
    "/studies/{0}/series/{0}/instances/{0}/frames/1",
    "/studies/{0}/series/{0}/instances/{0}/frames/1/rendered",
    "/studies/{0}/series/{0}/instances/{0}/bulkdata/7FE00010",
    "/studies/{0}/series/{0}/instances/{0}/bulkdata/00880200/0/7FE00010",
]
DELETED = [
    "/studies/{0}",
    "/studies/{0}/series/{0}",
    "/studies/{0}/series/{0}/instances/{0}",
]
SEARCHES = ("/series", "/instances")
MALFORMED = ["..", ".", "%2e%2e", "..%5c..%5c", "1.2%00", "01.2", "1." * 40 + "1", "%ff", "1.2%20"]
SLASHED = ["..%2f..%2fcanary.dcm", "%2fetc%2fpasswd", "1.2%2f..", "..%252f.."]


@pytest.mark.parametrize("path", EVERYWHERE)
def test_an_unknown_uid_is_not_found_or_finds_nothing(untouched: ArchiveServer, path: str) -> None:
    reply = send(untouched, head("GET", "/dicomWeb" + path.format(NOBODY)))
    if path.endswith(SEARCHES):
        assert (reply.status, reply.body) == (200, b"[]")
    else:
        is_refused(reply, 404)


@pytest.mark.parametrize("path", EVERYWHERE)
@pytest.mark.parametrize("uid", MALFORMED)
def test_a_malformed_uid_is_refused_at_every_endpoint(
    untouched: ArchiveServer, path: str, uid: str
) -> None:
    is_refused(send(untouched, head("GET", "/dicomWeb" + path.format(uid))), 400)


@pytest.mark.parametrize(
    ("method", "path"),
    [*(("GET", path) for path in EVERYWHERE), *(("DELETE", path) for path in DELETED)],
)
@pytest.mark.parametrize("uid", SLASHED)
def test_an_encoded_slash_leads_nowhere(
    untouched: ArchiveServer, method: str, path: str, uid: str
) -> None:
    reply = send(untouched, head(method, "/dicomWeb" + path.format(uid)))
    is_refused(reply, 400 if reply.status == 400 else 404)


@pytest.mark.parametrize("path", DELETED)
@pytest.mark.parametrize("uid", [NOBODY, *MALFORMED])
def test_a_delete_of_what_is_not_there_deletes_nothing(
    untouched: ArchiveServer, path: str, uid: str
) -> None:
    reply = send(untouched, head("DELETE", "/dicomWeb" + path.format(uid)))
    is_refused(reply, 404 if uid == NOBODY else 400)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/bulkdata/00880200/-1/7FE00010", 404),
        ("/bulkdata/00880200/0/7FE00010", 404),
        ("/bulkdata/00880200/999999999999/7FE00010", 404),
        ("/bulkdata/7FE00010/0", 404),
        ("/bulkdata/7FE00010/0/7FE00010", 404),
        ("/bulkdata/7FE0001", 404),
        ("/bulkdata/7FE00010/", 404),
        ("/bulkdata/../metadata", 404),
        ("/bulkdata/%2e%2e/%2e%2e", 404),
        ("/bulkdata/00080016", 404),
        ("/bulkdata/-7FE0010", 404),
        ("/bulkdata/0x7FE00", 404),
        ("/bulkdata/" + "00880200/0/" * 300 + "7FE00010", 404),
        ("/frames/0", 400),
        ("/frames/-1", 400),
        ("/frames/1,1", 400),
        ("/frames/1,", 400),
        ("/frames/1%2c2", 404),
        ("/frames/2", 404),
        ("/frames/9999999999", 400),
        ("/frames/%D9%A1", 400),
        ("/frames/0/rendered", 400),
        ("/frames/2/rendered", 404),
        ("/rendered?viewport=-1,10", 400),
        ("/rendered?viewport=1e9,1e9", 400),
        ("/rendered?viewport=0,0", 400),
        ("/rendered?viewport=10001,10", 400),
        ("/thumbnail", 404),
        ("/..", 404),
    ],
)
def test_a_path_behind_an_instance_is_refused(
    untouched: ArchiveServer, path: str, status: int
) -> None:
    is_refused(send(untouched, head("GET", AT + path)), status)


@pytest.mark.parametrize(
    "name", ["..%2f..", "%2e%2e", "<script>", "%00", "%ff", "a%0d%0aX:y", "p" * 1000]
)
def test_odd_names_of_a_project_are_the_same_store_or_none(
    untouched: ArchiveServer, name: str
) -> None:
    path = f"/v1/projects/{name}/locations/l/datasets/d/dicomStores/s/dicomWeb/studies"
    reply = send(untouched, head("GET", path))
    assert (reply.status, reply.media_type) in {
        (200, "application/dicom+json"),
        (400, "application/json"),
        (404, "application/json"),
    }
    assert b"\r\nX:y" not in reply.body


@pytest.mark.parametrize("name", ["..", "%2e%2e", "1", "x" * 2000, "%00", "..%2f..%2findex"])
def test_an_operation_that_never_was_is_not_found(untouched: ArchiveServer, name: str) -> None:
    path = f"/v1/projects/p/locations/l/datasets/d/operations/{name}"
    is_refused(send(untouched, head("GET", path)), 404)


# --- queries and headers ------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["studies", "series", "instances"])
@pytest.mark.parametrize(
    "query",
    [
        "offset=-1",
        "limit=-1",
        "limit=1e9",
        "limit=1000000000",
        "limit=999999999999999999999999",
        "offset=1000001",
        "limit=%D9%A1",
        "limit=0x10",
        "limit=1%00",
        "PatientName=Do*",
        "PatientName=Do?",
        "StudyDate=20240101-20240102-20240103",
        "StudyDate=-",
        "StudyInstanceUID=..",
        "StudyInstanceUID=" + ",".join(["1.2"] * 501),
        "includefield=nonsense",
        "fuzzymatching=perhaps",
        "fuzzymatching=true&PatientName=" + "+".join(map(str, range(101))),
        "Nonsense=1",
        "00100010%27%20OR%201=1",
        "'; DROP TABLE study; --=1",
    ],
)
def test_a_query_out_of_range_is_refused(untouched: ArchiveServer, level: str, query: str) -> None:
    target = f"/dicomWeb/{level}?{query.replace(' ', '%20')}"
    is_refused(send(untouched, head("GET", target)), 400)


@pytest.mark.parametrize("value", ["' OR '1'='1", '"', "\\", "%", "_", "\u202e", "\0", "a\r\nb"])
def test_a_value_is_a_value_and_no_part_of_a_statement(
    untouched: ArchiveServer, value: str
) -> None:
    quoted = "".join(f"%{byte:02x}" for byte in value.encode())
    reply = send(untouched, head("GET", f"/dicomWeb/studies?PatientID={quoted}"))
    assert (reply.status, reply.body) == (200, b"[]")


def test_a_query_of_10_000_characters_is_too_long(untouched: ArchiveServer) -> None:
    request = head("GET", "/dicomWeb/studies?PatientID=" + "a" * 10_000)
    is_refused(send(untouched, request), 414)


def test_a_query_as_long_as_a_url_may_be_is_answered(untouched: ArchiveServer) -> None:
    uids = ",".join(["1.2"] * 500)
    reply = send(untouched, head("GET", f"/dicomWeb/studies?StudyInstanceUID={uids}"))
    assert (reply.status, reply.body) == (200, b"[]")


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["Accept: text/plain"], 406),
        (["Accept: application/dicom+json;q=0"], 406),
        (["Accept: */*;q=0"], 406),
        (["Accept: application/dicom+json;q=0", "Accept: text/html"], 406),
        (["Accept: application/dicom+json;q=0, */*;q=0"], 406),
        (["Accept: " + "a/b," * 750], 406),
        (["Accept: " + '"' * 2000], 406),
        (["Accept: ;;;,,,=="], 406),
    ],
)
@pytest.mark.parametrize("path", ["/dicomWeb/studies", f"{AT}/metadata"])
def test_an_accept_that_can_not_be_met_is_refused(
    untouched: ArchiveServer, path: str, lines: list[str], status: int
) -> None:
    is_refused(send(untouched, head("GET", path, *lines)), status)


@pytest.mark.parametrize(
    "path", [AT, f"{AT}/rendered", f"{AT}/frames/1", f"{AT}/bulkdata/7FE00010"]
)
def test_pixels_in_a_form_that_they_do_not_have_are_refused(
    untouched: ArchiveServer, path: str
) -> None:
    is_refused(send(untouched, head("GET", path, "Accept: video/mp4")), 406)


def test_of_conflicting_accepts_one_that_can_be_met_counts(untouched: ArchiveServer) -> None:
    lines = ["Accept: application/dicom+json;q=0", "Accept: multipart/related"]
    reply = send(untouched, head("GET", "/dicomWeb/studies", *lines))
    assert (reply.status, reply.media_type) == (200, "multipart/related")


@pytest.mark.parametrize("name", ["FOO", "standard", "NEARLINE,ARCHIVE", "\xff"])
def test_a_storage_class_that_there_is_not_is_refused_before_anything_is_stored(
    untouched: ArchiveServer, name: str
) -> None:
    request = posted("application/dicom", dicom_file(**NEW), f"Storage-Class: {name}")
    is_refused(send(untouched, request), 400)


# --- store bodies -------------------------------------------------------------------------------


def joined(*parts: bytes, end: bytes = b"\r\n--b--\r\n") -> bytes:
    return b"".join(b"\r\n--b\r\n" + part for part in parts) + end


def described(model: bytes) -> bytes:
    return b"Content-Type: application/dicom+json\r\n\r\n" + model


def as_part(part: Part) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in part.headers.items())
    return lines.encode() + b"\r\n" + bytes(part.body)


MODEL = as_part(json_part([metadata(**NEW)]))
PICTURE = as_part(image_part())
FILE = b"Content-Type: application/dicom\r\n\r\n" + dicom_file(**NEW)
BROKEN = {
    "no closing boundary": (FILE_PARTS, joined(FILE, end=b"")),
    "no closing boundary of JSON and JPEG": (JSON_PARTS, joined(MODEL, PICTURE, end=b"")),
    "a closing boundary that is cut": (FILE_PARTS, joined(FILE, end=b"\r\n--b-")),
    "a part without headers": (JSON_PARTS, joined(MODEL, b"\r\n" + b"picture")),
    "a part whose headers don't end": (FILE_PARTS, joined(b"Content-Type: application/dicom")),
    "no part": (FILE_PARTS, b"\r\n--b--\r\n"),
    "another boundary": (FILE_PARTS, joined(FILE).replace(b"--b", b"--c")),
    "no boundary parameter": ('multipart/related; type="application/dicom"', joined(FILE)),
    "an endless boundary": (FILE_PARTS + "b" * 200, joined(FILE)),
    "the same Content-Location twice": (JSON_PARTS, joined(MODEL, PICTURE, PICTURE)),
    "a picture that nothing refers to": (
        JSON_PARTS,
        joined(MODEL, PICTURE, as_part(image_part("image-2"))),
    ),
    "metadata that is no array": (JSON_PARTS, joined(described(b'{"00080018":{}}'), PICTURE)),
    "metadata of numbers": (JSON_PARTS, joined(described(b"[1,2]"), PICTURE)),
    "metadata that is no JSON": (JSON_PARTS, joined(described(b"[{"), PICTURE)),
    "metadata in Latin-1": (JSON_PARTS, joined(described('[{"é":1}]'.encode("latin-1")), PICTURE)),
    "metadata nested 100,000 deep": (
        JSON_PARTS,
        joined(described(b"[" * 100_000 + b"]" * 100_000), PICTURE),
    ),
    "the picture before the metadata": (JSON_PARTS, joined(PICTURE, MODEL)),
    "20,001 parts": (FILE_PARTS, joined(*[b"Content-Type: application/dicom\r\n\r\n"] * 20_001)),
    "a part of another type": (FILE_PARTS, joined(b"Content-Type: text/plain\r\n\r\nx")),
    "an empty body": (FILE_PARTS, b""),
    "an empty file": ("application/dicom", b""),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_body_that_can_not_be_understood_stores_nothing(
    untouched: ArchiveServer, name: str
) -> None:
    is_refused(send(untouched, posted(*BROKEN[name])), 400)


def latin_model() -> bytes:
    """Say ISO 8859-1 of what is, as all JSON, UTF-8."""
    return as_part(json_part([metadata(**NEW, SpecificCharacterSet="ISO_IR 100")]))


REFUSED = {
    "the wrong character set": (JSON_PARTS, joined(latin_model(), PICTURE)),
    "a picture that isn't there": (JSON_PARTS, joined(MODEL)),
    "a file that isn't DICOM": ("application/dicom", b"GIF89a" * 100),
    "half a file": ("application/dicom", dicom_file(**NEW)[:-100]),
    "a UID that leads away": (
        "application/dicom",
        dicom_file(**NEW).replace(b"1.2.999\0", b"../../x\0"),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_instance_that_can_not_be_stored_is_named_in_the_answer(
    untouched: ArchiveServer, name: str
) -> None:
    reply = send(untouched, posted(*REFUSED[name], "Accept: application/dicom+json"))
    assert (reply.status, reply.media_type) == (409, "application/dicom+json")
    answer = json.loads(reply.body)
    assert "00081199" not in answer
    (item,) = answer["00081198"]["Value"]
    assert item["00091097"]["Value"][0]


def test_a_study_of_the_url_that_is_not_the_file_s_is_refused(untouched: ArchiveServer) -> None:
    body = dicom_file(**NEW)
    lines = ["Content-Type: application/dicom", f"Content-Length: {len(body)}"]
    reply = send(untouched, head("POST", "/dicomWeb/studies/1.2.77", *lines) + body)
    assert reply.status == 409


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("text/plain", 415),
        ("image/jpeg", 415),
        ("application/dicom+json", 415),
        ("multipart/form-data; boundary=b", 415),
        ('multipart/related; type="text/plain"; boundary=b', 415),
        ("", 415),
        ("multipart/related", 415),
        ("\xff/\xff", 415),
    ],
)
def test_a_body_of_another_type_is_not_taken(
    untouched: ArchiveServer, content_type: str, status: int
) -> None:
    is_refused(send(untouched, posted(content_type, dicom_file(**NEW))), status)


# --- HTTP itself --------------------------------------------------------------------------------


def raw(method: str, *lines: str) -> bytes:
    return head(method, "/dicomWeb/studies", "Content-Type: application/dicom", *lines)


CHUNKED = "Transfer-Encoding: chunked"


def test_a_gigabyte_that_is_announced_and_not_sent_is_refused_at_once(
    untouched: ArchiveServer,
) -> None:
    is_refused(send(untouched, raw("POST", f"Content-Length: {1 << 30}")), 413)


@pytest.mark.parametrize(
    "data",
    [
        raw("POST", CHUNKED) + b"zz\r\n",
        raw("POST", CHUNKED) + b"-5\r\nhello\r\n0\r\n\r\n",
        raw("POST", CHUNKED) + b"5\r\nhelloXX\r\n0\r\n\r\n",
        raw("POST", CHUNKED) + b"ffffffffffffffffffffffff\r\n",
        raw("POST", CHUNKED) + b"\r\n\r\n",
        raw("POST", CHUNKED) + b"5;" + b"x" * 100_000 + b"\r\nhello\r\n0\r\n\r\n",
        raw("POST", "Content-Length: 1000") + b"short",
        raw("POST", CHUNKED) + b"400\r\n" + dicom_file(**NEW)[:0x400] + b"\r\n",
    ],
)
def test_a_body_that_is_framed_wrong_is_a_bad_request(
    untouched: ArchiveServer, data: bytes
) -> None:
    """Not a failure of the archive's, and not a connection that just ends."""
    is_refused(send(untouched, data, close=True), 400)


@pytest.mark.parametrize(
    "data",
    [
        raw("POST", "Content-Length: 5", "Content-Length: 6") + b"hello",
        raw("POST", "Content-Length: 5", CHUNKED) + b"hello",
        raw("POST", "Content-Length: -5") + b"hello",
        raw("POST", "Content-Length: five") + b"hello",
        raw("GET", "X-Long: " + "x" * 9_000),
        raw("GET", *[f"X-{number}: y" for number in range(200)]),
        raw("GET", "no colon"),
        raw("GET", "X\0: y"),
        raw("GET", "X: y\0z"),
        b"GET /dicomWeb/studies HTTP/9.9\r\n\r\n",
        b"GET /dicomWeb/studies\r\n\r\n",
        b"\0\1\2\3\r\n\r\n",
        b"G" * 100_000 + b"\r\n\r\n",
        b"GET http://evil.example/%2e%2e HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_is_no_request_of_http_is_refused_and_stores_nothing(
    untouched: ArchiveServer, data: bytes
) -> None:
    reply = send(untouched, data, close=True)
    if reply.status is not None:
        is_refused(reply, reply.status)
        assert 400 <= reply.status <= 501


@pytest.mark.parametrize("method", ["PUT", "PATCH", "TRACE", "CONNECT", "PROPFIND", "get"])
def test_a_method_that_there_is_not_is_not_allowed(untouched: ArchiveServer, method: str) -> None:
    reply = send(untouched, head(method, "/dicomWeb/studies"))
    is_refused(reply, 400 if reply.status == 400 else 405)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1:99999", "<b>", "a b", "", "[::1"])
def test_an_odd_host_is_answered_or_refused(untouched: ArchiveServer, host: str) -> None:
    text = f"GET /dicomWeb/studies HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    assert send(untouched, text.encode()).status in {200, 400, 403}


# --- time ---------------------------------------------------------------------------------------

HALF = raw("POST", "Content-Length: 100000") + b"x" * 100
HALF_CHUNKED = raw("POST", CHUNKED) + b"1000\r\nxx"
HALF_HEADERS = b"POST /dicomWeb/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "


def test_connections_that_send_half_a_request_do_not_stop_the_archive(
    untouched: ArchiveServer,
) -> None:
    """As many as it has threads, each of which could wait for the rest for ever."""
    with ExitStack() as stack:
        for data in 4 * [HALF, HALF_CHUNKED, HALF_HEADERS, b"G"]:
            connection = socket.create_connection(("127.0.0.1", untouched.port), timeout=BOUND)
            stack.enter_context(connection).sendall(data)
        is_answering(untouched)


def is_answering(server: ArchiveServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
    finally:
        connection.close()
