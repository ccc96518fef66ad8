r"""multipart/related (RFC 2387) as STOW-RS uses it (PS3.18 8.6.1), written and read.

The bytes between two delimiters:

    --BOUNDARY CRLF
    Content-Type: image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.50 CRLF
    Content-Location: jpeg-image CRLF
    CRLF
    ...body, any bytes...
    CRLF --BOUNDARY CRLF          the CRLF belongs to the delimiter, not to the body
    ...
    CRLF --BOUNDARY-- CRLF
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from service.dicom.codestream import Buffer, Codestream
from service.errors import BadRequest

MAX_PARTS = 20_000
MAX_PART_HEADER = 16_384  # bytes

_MAX_HEAD = 2 * MAX_PART_HEADER  # with the preamble
_HASHED = 65_536  # bytes of each body that take part in the boundary
_PARAMETER = re.compile(r';\s*([!#$%&\'*+.^_`|~\w-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;"\s]+)\s*')


class Part(NamedTuple):
    """One body part: its headers by lower-case name, and its bytes."""

    headers: dict[str, str]
    body: Codestream


@dataclass(frozen=True, slots=True)
class Payload:
    """A request body with a known length that can be iterated again and again.

    A retry, and the refresh of credentials after a 401, send the same object twice; a generator
    would send nothing the second time.
    """

    content_type: str
    pieces: tuple[Buffer, ...]

    def __len__(self) -> int:
        """Return the length in bytes, for Content-Length."""
        return sum(map(len, self.pieces))

    def __iter__(self) -> Iterator[Buffer]:
        """Yield the pieces from the start, each time anew."""
        return iter(self.pieces)


def encode(parts: Sequence[Part], media_type: str) -> Payload:
    """Join parts into one ``multipart/related; type="media_type"`` payload.

    The boundary is derived from the parts, so that the same parts give the same bytes, and is
    checked to occur in none of them.
    """
    heads = [_head(part) for part in parts]
    boundary = _boundary(heads, parts)
    delimiter = b"--" + boundary.encode()
    pieces: list[Buffer] = []
    lead = b""
    for head, part in zip(heads, parts, strict=True):
        pieces.append(lead + delimiter + b"\r\n" + head + b"\r\n")
        pieces += part.body
        lead = b"\r\n"
    pieces.append(lead + delimiter + b"--\r\n")
    content_type = f'multipart/related; type="{media_type}"; boundary={boundary}'
    return Payload(content_type, tuple(_coalesced(pieces)))


def _head(part: Part) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in part.headers.items()).encode("ascii")


def _coalesced(pieces: Sequence[Buffer]) -> Iterator[Buffer]:
    """Join runs of small pieces: each piece costs a system call and perhaps a packet."""
    small: list[Buffer] = []
    for piece in pieces:
        if len(piece) <= _HASHED:
            small.append(piece)
            continue
        if small:
            yield b"".join(small)
            small = []
        yield piece
    if small:
        yield b"".join(small)


def _boundary(heads: Sequence[bytes], parts: Sequence[Part]) -> str:
    digest = hashlib.sha256()
    for head, part in zip(heads, parts, strict=True):
        digest.update(b"%d %d\n" % (len(head), len(part.body)))
        digest.update(head)
        left = _HASHED  # wherever the pieces are cut
        for piece in part.body:
            digest.update(piece[:left])
            left -= min(left, len(piece))
    while True:
        boundary = f"jpegstow-{digest.hexdigest()[:40]}"
        if not any(_occurs(boundary.encode(), part.body) for part in parts):
            return boundary
        digest.update(b"again")


def _occurs(boundary: bytes, body: Codestream) -> bool:
    """Tell whether the boundary may occur in a body, also across two of its pieces.

    A view is searched through the whole buffer behind it, because ``bytes.find`` is many times
    faster than a search of the view; a hit outside of the view costs only another boundary.
    """
    tail = b""
    for piece in body:
        source = piece.obj if isinstance(piece, memoryview) else piece
        if not isinstance(source, bytes):
            source = bytes(piece)
        if source.find(boundary) >= 0:
            return True
        if boundary in tail + bytes(piece[: len(boundary)]):
            return True
        tail = (tail + bytes(piece[-len(boundary) :]))[-len(boundary) :]
    return False


def parse_media_type(value: str) -> tuple[str, dict[str, str]]:
    """Split ``type/subtype; name=value; ...`` into the lower-case type and its parameters.

    Quoted values lose their quotes; what can't be understood is left out.
    """
    media_type, _, _ = value.partition(";")
    parameters: dict[str, str] = {}
    for name, text in _PARAMETER.findall(value[len(media_type) :]):
        unquoted = re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text
        parameters.setdefault(name.lower(), unquoted)
    return media_type.strip().lower(), parameters


def decode(body: Buffer, content_type: str) -> list[Part]:
    """Split a multipart/related body into its parts; their bodies are views, not copies.

    Raises
    ------
    BadRequest
        With the byte offset, for a missing boundary parameter, a missing delimiter, a body that
        doesn't end with the closing delimiter, or part headers that aren't headers.
    """
    _, parameters = parse_media_type(content_type)
    boundary = parameters.get("boundary", "")
    if not 1 <= len(boundary) <= 70:
        raise BadRequest("the Content-Type has no usable boundary parameter", reason="multipart")
    data = body if isinstance(body, bytes) else bytes(body)
    view = memoryview(data)
    delimiter = b"--" + boundary.encode("latin-1", "replace")
    position = _first_delimiter(data, delimiter)
    parts: list[Part] = []
    while not data.startswith(b"--", position):
        start = _line_end(data, position)
        headers, body_start = _part_headers(data, start)
        end = data.find(b"\r\n" + delimiter, body_start - 2)
        if end < 0:
            raise _malformed("the body ends without the closing delimiter", len(data))
        parts.append(Part(headers, Codestream((view[body_start : max(end, body_start)],))))
        if len(parts) > MAX_PARTS:
            raise _malformed(f"there are more than {MAX_PARTS} parts", position)
        position = end + 2 + len(delimiter)
    return parts


def only_part(blocks: Iterable[bytes], content_type: str) -> Iterator[bytes]:
    """Yield the body of a message's one part in pieces, as its bytes come.

    Raises
    ------
    BadRequest
        As `decode`, perhaps after many pieces: until the end they aren't known to be all. Also for
        a second part.
    """
    _, parameters = parse_media_type(content_type)
    boundary = parameters.get("boundary", "")
    if not 1 <= len(boundary) <= 70:
        raise BadRequest("the Content-Type has no usable boundary parameter", reason="multipart")
    delimiter = b"--" + boundary.encode("latin-1", "replace")
    coming = iter(blocks)
    data = _head_of(coming, delimiter)
    _, start = _part_headers(data, _line_end(data, _first_delimiter(data, delimiter)))
    data = data[start - 2 :]  # with the line's end, which the delimiter of an empty body shares
    delimiter = b"\r\n" + delimiter
    position = 2
    while (end := data.find(delimiter)) < 0:
        sure = max(position, len(data) - len(delimiter) + 1)
        yield data[position:sure]
        block = next(coming, b"")
        if not block:
            raise _malformed("the body ends without the closing delimiter")
        data, position = data[sure:] + block, 0
    yield data[position:end]
    tail = data[end + len(delimiter) :]
    while len(tail) < 2 and (block := next(coming, b"")):
        tail += block
    if not tail.startswith(b"--"):
        raise _malformed("there is more than one part")


def _head_of(coming: Iterator[bytes], delimiter: bytes) -> bytes:
    """Return so many of the first bytes that the part's headers are among them, if they end."""
    data = b""
    for block in coming:
        data += block
        found = data.find(delimiter)
        if found >= 0 and data.find(b"\r\n\r\n", found) >= 0:
            break
        if len(data) > _MAX_HEAD:
            break
    return data


def _first_delimiter(data: bytes, delimiter: bytes) -> int:
    """Return the offset behind the first delimiter; what stands before it is a preamble."""
    if data.startswith(delimiter):
        return len(delimiter)
    found = data.find(b"\r\n" + delimiter)
    if found < 0:
        raise _malformed("the boundary of the Content-Type doesn't occur in the body", 0)
    return found + 2 + len(delimiter)


def _line_end(data: bytes, position: int) -> int:
    """Return the offset behind the delimiter's own line; only padding may stand on it."""
    end = data.find(b"\r\n", position, position + 256)
    if end < 0 or data[position:end].strip(b" \t"):
        raise _malformed("a delimiter line holds more than the delimiter", position)
    return end + 2


def _part_headers(data: bytes, start: int) -> tuple[dict[str, str], int]:
    """Return the headers of a part and the offset of its body."""
    if data.startswith(b"\r\n", start):
        return {}, start + 2
    end = data.find(b"\r\n\r\n", start, start + MAX_PART_HEADER)
    if end < 0:
        raise _malformed("the headers of a part have no end", start)
    headers: dict[str, str] = {}
    for line in re.sub(rb"\r\n[ \t]+", b" ", data[start:end]).split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if not colon or not re.fullmatch(rb"[!-9;-~]+", name):
            raise _malformed("a part has a header line without a name", start)
        headers.setdefault(name.decode("ascii").lower(), value.strip().decode("latin-1"))
    return headers, end + 4


def _malformed(detail: str, offset: int | None = None) -> BadRequest:
    where = "" if offset is None else f"byte {offset}"
    return BadRequest(f"the multipart body is malformed: {detail}", reason="multipart", where=where)
