"""`jpegstow archive` as a process of the test's own, and requests that send what they are given."""

import http.client
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import Message
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from service import processes
from tests.peers import BOUND, free_port
from tests.processes import clean, end, kill_family, start, wait_for_answer, wait_until
from tests.serving import COMMAND

# Without it the command would start Python a second time.
_ALLOCATOR = {k: v for k, v in processes.environment().items() if k.startswith("MALLOC_")}


class ArchiveServer:
    """`jpegstow archive` with nothing set but its port, DATA_DIR and what is given."""

    def __init__(self, data_dir: Path, port: int | None = None, **environment: str) -> None:
        self.data_dir = data_dir
        self.port = port or free_port()
        self.log = data_dir.with_name(data_dir.name + ".log")
        self._environment = environment

    @property
    def folder(self) -> Path:
        """Where the archive keeps its files and its index."""
        return self.data_dir / "archive"

    @property
    def url(self) -> str:
        """The address of the server, without a final slash."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        """Start it, and wait until it answers."""
        own = {"DATA_DIR": str(self.data_dir), "ARCHIVE_PORT": str(self.port)}
        environment = clean(**_ALLOCATOR) | own | self._environment
        self.process = start([COMMAND, "archive"], self.log, environment)
        wait_for_answer(self.process, f"{self.url}/healthz", self.log)
        # Healthy is also one that still makes its index.
        wait_until(lambda: ask("GET", f"{self.url}/dicomWeb/studies").status == 200)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it and all that it has started."""
        end(self.process)

    def kill(self) -> None:
        """Kill it and all that it has started, as a loss of power would."""
        kill_family(self.process)


@dataclass(frozen=True)
class Answer:
    """An answer as it came; the names of its headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def media_type(self) -> str:
        """The media type, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip()

    def json(self) -> Any:
        """Decode the body."""
        return json.loads(self.body)

    def parts(self) -> list[tuple[str, bytes]]:
        """Split the body into content types and bytes, as the standard library reads it."""
        return split(self.headers["content-type"], self.body)


def split(content_type: str, body: bytes) -> list[tuple[str, bytes]]:
    """Split a multipart body into content types and bytes."""
    head = f"Content-Type: {content_type}\r\n\r\n".encode("latin-1")
    message = message_from_bytes(head + body, policy=policy.HTTP)
    leaves = [part for part in message.walk() if not part.is_multipart()]
    payloads = [(_sent_type(part), part.get_payload(decode=True)) for part in leaves]
    return [(kind, payload) for kind, payload in payloads if isinstance(payload, bytes)]


def _sent_type(part: Message) -> str:
    """Return a content type as it came; `email` would write it anew."""
    (kind,) = [value for name, value in part.raw_items() if name.lower() == "content-type"]
    return str(kind).strip()


def ask(
    method: str,
    url: str,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    *,
    chunked: bool = False,
) -> Answer:
    """Send exactly these headers, with Host and the framing of the body, and read the answer."""
    there = urlsplit(url)
    assert there.hostname
    connection = http.client.HTTPConnection(there.hostname, there.port, timeout=BOUND)
    target = there.path + (f"?{there.query}" if there.query else "")
    try:
        connection.putrequest(method, target, skip_accept_encoding=True)
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        if chunked:
            connection.putheader("Transfer-Encoding", "chunked")
        elif body is not None:
            connection.putheader("Content-Length", str(len(body)))
        pieces = _pieces(body or b"") if chunked else body
        connection.endheaders(pieces, encode_chunked=chunked)
        response = connection.getresponse()
        received = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, received, response.read())
    finally:
        connection.close()


def _pieces(body: bytes) -> Iterator[bytes]:
    for offset in range(0, len(body), 1000):
        yield body[offset : offset + 1000]
