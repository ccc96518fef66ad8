"""Clients that post one picture again and again, in a process of their own.

usage: python -m tests.bench.load URL PICTURE form|bare|json STATUS CLIENTS SECONDS

Each request differs from all others: an accession number, and a comment in the JPEG. Bodies are
cut into pieces beforehand, so that sending costs next to nothing. Prints one JSON object: how
many requests were answered, within how many seconds, and each one's milliseconds. Any answer but
STATUS ends the program with an error.
"""

import json
import os
import struct
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

Body = Callable[[str], Sequence[bytes]]
"""From a serial number to the pieces of a request body."""

_FORM = """--b\r
Content-Disposition: form-data; name="PatientID"\r
\r
BENCH\r
--b\r
Content-Disposition: form-data; name="AccessionNumber"\r
\r
{serial}\r
--b\r
Content-Disposition: form-data; name="image"; filename="image.jpg"\r
Content-Type: image/jpeg\r
\r
"""
_CREATE = """{{"Tags":{{"PatientID":"BENCH","AccessionNumber":"{serial}"}},
"Content":"data:image/jpeg;base64,"""


def form(picture: bytes) -> Body:
    """Return multipart/form-data bodies; the serial number is a COM segment behind SOI too."""
    rest = picture[2:]

    def body(serial: str) -> list[bytes]:
        comment = b"\xff\xd8\xff\xfe" + struct.pack(">H", 2 + len(serial)) + serial.encode()
        return [_FORM.format(serial=serial).encode() + comment, rest, b"\r\n--b--\r\n"]

    return body


def bare(picture: bytes) -> Body:
    """Return the picture alone, told apart by its COM segment; attributes are in the query."""
    rest = picture[2:]

    def body(serial: str) -> list[bytes]:
        return [b"\xff\xd8\xff\xfe" + struct.pack(">H", 2 + len(serial)) + serial.encode(), rest]

    return body


def data_uri(picture: bytes) -> Body:
    """Return JSON bodies as Orthanc's ``/tools/create-dicom`` takes them."""
    encoded = b64encode(picture)
    return lambda serial: [_CREATE.format(serial=serial).encode(), encoded, b'"}']


SHAPES = {
    "form": (form, "multipart/form-data; boundary=b"),
    "bare": (bare, "image/jpeg"),
    "json": (data_uri, "application/json"),
}


class Client:
    """One thread with one connection, which posts until the time is over."""

    def __init__(self, url: str, shape: str, picture: bytes, status: int) -> None:
        self.url = urlsplit(url)
        make, self.content_type = SHAPES[shape]
        self.query = "?PatientID=BENCH&AccessionNumber=" if shape == "bare" else ""
        self.body = make(picture)
        self.status = status
        self.milliseconds: list[float] = []
        self.failure = ""

    def run(self, name: str, end: float) -> None:
        connection = HTTPConnection(self.url.netloc, timeout=60)
        while time.monotonic() < end and not self.failure:
            serial = f"{name}{len(self.milliseconds):07}"
            started = time.monotonic()
            self.failure = self._post(connection, serial)
            self.milliseconds.append((time.monotonic() - started) * 1000)
        connection.close()

    def _post(self, connection: HTTPConnection, serial: str) -> str:
        pieces = self.body(serial)
        length = sum(map(len, pieces))
        headers = {"Content-Type": self.content_type, "Content-Length": str(length)}
        path = self.url.path + (self.query and self.query + serial)
        connection.request("POST", path, pieces, headers)
        answer = connection.getresponse()
        text = answer.read()
        return "" if answer.status == self.status else f"{answer.status} {text[:500]!r}"


def main(url: str, picture: str, shape: str, *numbers: str) -> None:
    status, count, seconds = map(int, numbers)
    content = Path(picture).read_bytes()
    clients = [Client(url, shape, content, status) for _ in range(count)]
    started = time.monotonic()
    threads = [
        threading.Thread(target=client.run, args=(f"{os.getpid():07}{n}", started + seconds))
        for n, client in enumerate(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    failures = [client.failure for client in clients if client.failure]
    if failures:
        sys.exit(f"{url}: {failures[0]}")
    times = [each for client in clients for each in client.milliseconds]
    print(json.dumps({"seconds": time.monotonic() - started, "milliseconds": times}))


if __name__ == "__main__":
    main(*sys.argv[1:])
