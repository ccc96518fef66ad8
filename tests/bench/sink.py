"""A DICOMweb store that keeps nothing: it reads a STOW request cheaply and names its instances.

Run as a program; the first line that it prints is its port. GET /count tells what has come.
"""

import asyncio
import json
import re

KEPT = 65_536  # bytes of a body that are searched for UIDs: the dicom+json part stands first
_CLASS = re.compile(rb'"00080016":\{"vr":"UI","Value":\["([0-9.]+)"\]\}')
_INSTANCE = re.compile(rb'"00080018":\{"vr":"UI","Value":\["([0-9.]+)"\]\}')
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)

counted = {"requests": 0, "bytes": 0}


class Connection(asyncio.BufferedProtocol):
    """One connection: request after request is read into one buffer and forgotten."""

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(1 << 20))
        self.kept = b""
        self.missing = 0
        self.transport = asyncio.WriteTransport()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self.transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the protocol's signature
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self.missing:
            self.missing -= nbytes
            room = KEPT - len(self.kept)
            if room > 0:
                self.kept += self.buffer[: min(nbytes, room)]
        else:
            self.kept += self.buffer[:nbytes]
            head, end, body = self.kept.partition(b"\r\n\r\n")
            if not end:
                return
            length = _LENGTH.search(head)
            self.missing = (int(length[1]) if length else 0) - len(body)
        if self.missing <= 0:
            self.transport.write(answer(self.kept))
            self.kept, self.missing = b"", 0


def answer(request: bytes) -> bytes:
    """Answer what has come whole, of which no more than its beginning is known."""
    if request.startswith(b"GET /count "):
        return response(json.dumps(counted).encode())
    if request.startswith(b"GET "):
        return response(b"[]")
    length = _LENGTH.search(request)
    counted["requests"] += 1
    counted["bytes"] += int(length[1]) if length else 0
    classes, instances = (found.findall(request) for found in (_CLASS, _INSTANCE))
    items = [
        b'{"00081150":{"vr":"UI","Value":["%b"]},"00081155":{"vr":"UI","Value":["%b"]}}' % pair
        for pair in zip(classes, instances, strict=True)
    ]
    return response(b'{"00081199":{"vr":"SQ","Value":[%b]}}' % b",".join(items))


def response(body: bytes) -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/dicom+json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
