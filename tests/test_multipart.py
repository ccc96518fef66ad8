"""multipart/related, written as others read it and read whatever others write."""

import time
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import Message

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.dicom import multipart
from service.dicom.codestream import Codestream
from service.dicom.multipart import MAX_PART_HEADER, MAX_PARTS, Part, decode, encode
from service.errors import BadRequest
from tests.quickness import quick

HEADERS = {"Content-Type": "image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.50"}
LIKE_DELIMITERS = st.sampled_from(
    [
        b"--",
        b"\r\n",
        b"\r\n--",
        b"--jpegstow-",
        b"\r\n--jpegstow-0\r\n",
        b"\r\n\r\n",
        b"\0",
        b"\n--",
    ]
)
BODIES = st.lists(st.binary(max_size=40) | LIKE_DELIMITERS, max_size=6)
PARTS = st.lists(
    st.builds(
        Part,
        st.dictionaries(
            st.from_regex(r"[a-z][a-z-]{0,9}", fullmatch=True),
            st.from_regex(r"([!-~]([ -~]{0,20}[!-~])?)?", fullmatch=True),
            max_size=3,
        ),
        BODIES.map(lambda pieces: Codestream(tuple(pieces))),
    ),
    max_size=4,
)


def part(*pieces: bytes | memoryview) -> Part:
    return Part(HEADERS, Codestream(pieces))


def boundary_of(payload: multipart.Payload) -> bytes:
    return multipart.parse_media_type(payload.content_type)[1]["boundary"].encode()


@settings(deadline=None)
@given(PARTS)
def test_parts_come_back_as_they_were(parts: list[Part]) -> None:
    payload = encode(parts, "application/dicom")
    found = decode(b"".join(payload), payload.content_type)
    assert [(each.headers, bytes(each.body)) for each in found] == [
        (each.headers, bytes(each.body)) for each in parts
    ]


@settings(deadline=None)
@given(PARTS.filter(bool))
def test_the_standard_library_reads_the_same_parts(parts: list[Part]) -> None:
    payload = encode(
        [Part({"content-type": "image/jpeg"}, each.body) for each in parts], "image/jpeg"
    )
    head = f"Content-Type: {payload.content_type}\r\n\r\n".encode()
    message = message_from_bytes(head + b"".join(payload), policy=policy.HTTP)
    assert message.get_content_type() == "multipart/related"
    assert message.get_param("type") == "image/jpeg"
    assert [raw(found) for found in message.iter_parts()] == [bytes(each.body) for each in parts]


def raw(found: Message) -> bytes:
    body = found.get_payload(decode=True)
    assert isinstance(body, bytes)
    return body


@settings(deadline=None)
@given(PARTS)
def test_a_payload_is_iterated_again_to_the_same_bytes(parts: list[Part]) -> None:
    payload = encode(parts, "application/dicom")
    first, second = b"".join(payload), b"".join(payload)
    assert first == second
    assert len(payload) == len(first)
    again = encode(parts, "application/dicom")
    assert (b"".join(again), again.content_type) == (first, payload.content_type)


@settings(deadline=None)
@given(PARTS)
def test_the_boundary_occurs_in_no_part(parts: list[Part]) -> None:
    payload = encode(parts, "application/dicom")
    boundary = boundary_of(payload)
    assert 1 <= len(boundary) <= 70
    assert b"".join(payload).count(b"--" + boundary) == len(parts) + 1
    assert not any(boundary in bytes(each.body) for each in parts)


LONG = bytes(300_000)


@pytest.mark.parametrize("place", [0, 1, 150_000, 299_951])
@pytest.mark.parametrize("cut", [0, 1, 25, 48, 49])
def test_a_body_that_holds_the_boundary_gets_another_one(place: int, cut: int) -> None:
    """A long piece takes part in the boundary by its length alone, so that it can be planted."""
    boundary = boundary_of(encode([part(LONG)], "image/jpeg"))
    assert len(boundary) == 49
    planted = LONG[:place] + boundary + LONG[place + len(boundary) :]
    head, tail = planted[: place + cut], planted[place + cut :]
    for pieces in (
        (planted,),
        (memoryview(b"x" + planted)[1:],),
        (memoryview(bytearray(planted)),),
        (head, tail),
        (head, memoryview(tail)),
        (memoryview(head), b"", memoryview(b"x" + tail)[1:]),
    ):
        payload = encode([part(*pieces)], "image/jpeg")
        assert boundary_of(payload) not in planted
        assert bytes(decode(b"".join(payload), payload.content_type)[0].body) == planted


def test_large_pieces_are_not_copied_and_small_ones_are_joined() -> None:
    view = memoryview(LONG)
    payload = encode([part(b"a", b"b", view, b"c"), part(b"d")], "image/jpeg")
    assert [len(piece) > 1000 for piece in payload] == [False, True, False]
    assert payload.pieces[1] is view


def test_headers_are_written_in_ascii() -> None:
    with pytest.raises(UnicodeEncodeError):
        encode([Part({"Content-Location": "é"}, Codestream((b"",)))], "image/jpeg")


CONTENT_TYPE = 'multipart/related; type="application/dicom"; boundary="a b"'

READ = [
    (b"--a b\r\n\r\nx\r\n--a b--", [({}, b"x")]),
    (b"--a b\r\n\r\nx\r\n--a b--\r\nepilogue\r\n--a b\r\n", [({}, b"x")]),
    (b"preamble\r\n--a b\r\n\r\nx\r\n--a b--\r\n", [({}, b"x")]),
    (b"\r\n--a b\r\n\r\nx\r\n--a b--\r\n", [({}, b"x")]),
    (b"--a b \t\r\n\r\nx\r\n--a b--", [({}, b"x")]),
    (b"--a b\r\n\r\n\r\n--a b--", [({}, b"")]),
    (b"--a b\r\n\r\n--a b--", [({}, b"")]),
    (b"--a b\r\nA: b\r\n\r\n--a b--", [({"a": "b"}, b"")]),
    (b"--a b--", []),
    (b"x--a b\r\n\r\ny\r\n--a b--", []),
    (b"--a b\r\nA: 1\r\nA: 2\r\nB:\r\n\r\nx\r\n--a b--", [({"a": "1", "b": ""}, b"x")]),
    (b"--a b\r\nA: 1;\r\n  b=2\r\n\r\nx\r\n--a b--", [({"a": "1; b=2"}, b"x")]),
    (b"--a b\r\nA: \xe9\r\n\r\nx\r\n--a b--", [({"a": "é"}, b"x")]),
    (b"--a b\r\n\r\nx\n--a b--\r\n\r\n--a b--", [({}, b"x\n--a b--\r\n")]),
    (b"--a b\r\n\r\nx\r\n--a b\r\n\r\ny\r\n--a b--", [({}, b"x"), ({}, b"y")]),
]


@pytest.mark.parametrize(("body", "parts"), READ)
def test_what_others_write_is_read(body: bytes, parts: list[tuple[dict[str, str], bytes]]) -> None:
    for buffer in (body, memoryview(body), memoryview(bytearray(body))):
        found = decode(buffer, CONTENT_TYPE)
        assert [(each.headers, bytes(each.body)) for each in found] == parts


MALFORMED = [
    (b"", "byte 0", "doesn't occur"),
    (b"x", "byte 0", "doesn't occur"),
    (b"--a b\r\n\r\nx", "byte 10", "without the closing delimiter"),
    (b"--a b\r\n\r\nx\r\n--a", "byte 15", "without the closing delimiter"),
    (b"--a b\r\n\r\nx\r\n--a b", "byte 17", "more than the delimiter"),
    (b"--a b\r\n\r\nx\r\n--a b-", "byte 17", "more than the delimiter"),
    (b"--a bc\r\n\r\nx\r\n--a b--", "byte 5", "more than the delimiter"),
    (b"--a b" + b" " * 300 + b"\r\n\r\nx", "byte 5", "more than the delimiter"),
    (b"--a b\r\nA: b", "byte 7", "have no end"),
    (b"--a b\r\nA: b\r\nx\r\n--a b--", "byte 7", "have no end"),
    (b"--a b\r\nA\r\n\r\nx\r\n--a b--", "byte 7", "without a name"),
    (b"--a b\r\n: b\r\n\r\nx\r\n--a b--", "byte 7", "without a name"),
    (b"--a b\r\nA b: c\r\n\r\nx\r\n--a b--", "byte 7", "without a name"),
    (b"--a b\r\n\xe9: c\r\n\r\nx\r\n--a b--", "byte 7", "without a name"),
    (b"--a b\r\nA: " + b"x" * MAX_PART_HEADER + b"\r\n\r\nx\r\n--a b--", "byte 7", "have no end"),
]


@pytest.mark.parametrize(("body", "where", "says"), MALFORMED)
def test_a_malformed_body_is_refused_with_its_place(body: bytes, where: str, says: str) -> None:
    with pytest.raises(BadRequest, match=says) as caught:
        decode(body, CONTENT_TYPE)
    assert caught.value.reason == "multipart"
    assert caught.value.where in {where, f"byte {len(body)}"}


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "multipart/related",
        "multipart/related; boundary=",
        'multipart/related; boundary=""',
        "multipart/related; boundary=" + "b" * 71,
    ],
)
def test_without_a_boundary_nothing_is_read(content_type: str) -> None:
    with pytest.raises(BadRequest, match="no usable boundary"):
        decode(b"--b\r\n\r\nx\r\n--b--", content_type)


def test_parts_are_counted_up_to_a_limit() -> None:
    body = b"--b\r\n\r\nx\r\n"
    assert len(decode(body * MAX_PARTS + b"--b--", "multipart/related; boundary=b")) == MAX_PARTS
    with pytest.raises(BadRequest, match="more than 20000 parts"):
        decode(body * (MAX_PARTS + 1) + b"--b--", "multipart/related; boundary=b")


def test_bodies_are_views_of_the_request() -> None:
    body = b"--b\r\n\r\nx\r\n--b--"
    (piece,) = decode(body, "multipart/related; boundary=b")[0].body
    assert isinstance(piece, memoryview)
    assert piece.obj is body


@settings(deadline=None)
@given(st.lists(st.sampled_from([b"--b", b"--", b"\r\n", b"\n", b":", b" ", b"A: b", b"\xff"])))
@quick(1)
def test_any_body_is_read_or_refused(tokens: list[bytes]) -> None:
    body = b"".join(tokens)
    try:
        parts = decode(body, "multipart/related; boundary=b")
    except BadRequest as error:
        said = error.where
    else:
        said = f"byte {sum(len(each.body) for each in parts)}"
    assert 0 <= int(said.removeprefix("byte ")) <= len(body)


@pytest.mark.parametrize(
    ("value", "media_type", "parameters"),
    [
        ("", "", {}),
        ("Image/JPEG", "image/jpeg", {}),
        ("image/jpeg; Transfer-Syntax=1.2", "image/jpeg", {"transfer-syntax": "1.2"}),
        (
            'multipart/related;type="application/dicom";boundary=b',
            "multipart/related",
            {"type": "application/dicom", "boundary": "b"},
        ),
        (r'a/b; c="d\"e;f=g"; h=i', "a/b", {"c": 'd"e;f=g', "h": "i"}),
        ("a/b; c = d ; c=e", "a/b", {"c": "d"}),
        ("a/b; junk; c=d", "a/b", {"c": "d"}),
        ('a/b; c="', "a/b", {}),
        ("a/b;", "a/b", {}),
    ],
)
def test_a_media_type_is_taken_apart(
    value: str, media_type: str, parameters: dict[str, str]
) -> None:
    assert multipart.parse_media_type(value) == (media_type, parameters)


@pytest.mark.parametrize(
    "value",
    [
        "a/b" + ";" * 30_000,
        "a/b;" + " " * 30_000,
        'a/b; c="' + "\\" * 30_000,
        'a/b; c="' * 4_000,
        "a/b; " + "c" * 30_000,
        "a/b; c=" + "d; e=" * 6_000,
    ],
)
def test_no_media_type_takes_long(value: str) -> None:
    began = time.process_time()
    multipart.parse_media_type(value)
    assert time.process_time() - began < 1


@settings(deadline=None)
@given(BODIES, st.integers(1, 50), st.binary(max_size=20))
def test_one_part_is_read_as_it_comes_however_it_is_cut(
    pieces: list[bytes], size: int, preamble: bytes
) -> None:
    payload = encode([part(*pieces)], "application/dicom")
    message = (preamble + b"\r\n" if preamble else b"") + b"".join(payload.pieces) + b"epilogue"
    blocks = [message[start : start + size] for start in range(0, len(message), size)]
    body = b"".join(multipart.only_part(blocks, payload.content_type))
    assert body == b"".join(pieces)


@pytest.mark.parametrize("cut", [1, 10, 60, 100, -3, -30, -60])
def test_a_part_that_breaks_off_is_never_whole(cut: int) -> None:
    payload = encode([part(b"x" * 500)], "application/dicom")
    message = b"".join(payload.pieces)[:cut]
    with pytest.raises(BadRequest, match="malformed"):
        list(multipart.only_part([message], payload.content_type))


def test_a_second_part_is_not_left_out_silently() -> None:
    payload = encode([part(b"one"), part(b"two")], "application/dicom")
    with pytest.raises(BadRequest, match="more than one part"):
        list(multipart.only_part([b"".join(payload.pieces)], payload.content_type))


@pytest.mark.parametrize("content_type", ["multipart/related", "multipart/related; boundary=b"])
def test_a_part_needs_its_boundary(content_type: str) -> None:
    with pytest.raises(BadRequest):
        list(multipart.only_part([b"--a\r\n\r\nx\r\n--a--"], content_type))


def test_endless_headers_of_a_part_are_not_kept() -> None:
    def endless() -> Iterator[bytes]:
        yield b"--b\r\n"
        while True:
            yield b"X: " + b"y" * 5000 + b"\r\n"

    with pytest.raises(BadRequest, match="no end"):
        list(multipart.only_part(endless(), "multipart/related; boundary=b"))
