"""The service under test: as a Flask test client, and as the real processes of `jpegstow serve`."""

import shutil
import subprocess
import sys
import weakref
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType
from typing import Any, Self

import requests
from flask.testing import FlaskClient
from werkzeug.datastructures import MultiDict
from werkzeug.test import TestResponse

from service import assemble, settings
from service.retry import Queue
from service.settings import Settings
from service.wsgi import application
from tests.peers import BOUND, free_port
from tests.processes import clean, end, start, tree, wait_for_answer

COMMAND = str(Path(sys.executable).with_name("jpegstow"))
SECRET = "the namespace of the tests"
UPLOAD = "/v1/instances"


def settings_for(store_url: str, **environment: str) -> Settings:
    """Return settings with short timeouts, as the environment would give them."""
    given = {
        "DICOMWEB_URL": store_url,
        "UID_NAMESPACE": SECRET,
        "STORE_CONNECT_TIMEOUT": "2",
        "STORE_READ_TIMEOUT": "10",
        "READ_BACK": "never",
    }
    return settings.load(given | environment)


def client_for(store_url: str, **environment: str) -> FlaskClient:
    """Return a client of the real application, in front of a store at a URL."""
    folder = mkdtemp()
    current = settings_for(store_url, **{"DATA_DIR": folder} | environment)
    queue = assemble.retry_queue(current)
    app = application(current, queue)
    weakref.finalize(app, _tidy, queue, folder)
    return app.test_client()


def _tidy(queue: Queue, folder: str) -> None:
    queue.close()
    shutil.rmtree(folder)


def form(*images: bytes, filename: str = "photo.jpg", **fields: Any) -> dict[str, Any]:
    """Return what a test client posts as multipart/form-data; a list is a repeated field."""
    data: MultiDict[str, Any] = MultiDict()
    for image in images:
        data.add("image", (BytesIO(image), filename))
    for name, value in fields.items():
        for one in value if isinstance(value, list) else [value]:
            data.add(name, one)
    return {"data": data, "content_type": "multipart/form-data"}


def upload(client: FlaskClient, **request: Any) -> TestResponse:
    """Post a request as the test client puts it together."""
    response = client.post(UPLOAD, **request)
    response.request.environ["wsgi.input"].close()  # the test client's own temporary file
    return response


def post(client: FlaskClient, *images: bytes, **fields: Any) -> TestResponse:
    """Upload images with fields."""
    return upload(client, **form(*images, **fields))


def only(response: TestResponse) -> dict[str, Any]:
    """Return the one instance of an answer."""
    (instance,) = response.get_json()["instances"]
    assert isinstance(instance, dict)
    return instance


class Serving:
    """`jpegstow serve` on ports of its own, with nothing set but these, DATA_DIR and the given."""

    def __init__(self, data_dir: Path, **environment: str) -> None:
        self.data_dir = data_dir
        self.log = data_dir.with_name(data_dir.name + ".log")
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The service's address, without a final slash."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def archive_url(self) -> str:
        """The embedded archive's DICOMweb address, without a final slash."""
        return f"http://127.0.0.1:{self.archive_port}/dicomWeb"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The supervisor."""
        assert self._process, "it isn't started"
        return self._process

    def __enter__(self) -> Self:
        """Start it, and wait until it answers."""
        self.port, self.archive_port = free_port(), free_port()
        ports = {"PORT": str(self.port), "ARCHIVE_PORT": str(self.archive_port)}
        environment = clean(**ports, DATA_DIR=str(self.data_dir)) | self._environment
        self._process = start([COMMAND, "serve"], self.log, environment)
        wait_for_answer(self.process, f"{self.url}/healthz", self.log)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it and all that it has started."""
        end(self.process)

    def processes(self) -> list[int]:
        """Return the ids of the supervisor and of all that descend from it."""
        return tree(self.process.pid)

    def running(self, words: bytes) -> list[int]:
        """Return the ids of those whose command line holds these words."""
        found = []
        for pid in self.processes():
            with suppress(FileNotFoundError, ProcessLookupError):  # it may end while it is read
                if words in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
        return found

    def post(self, *images: bytes, **fields: str) -> requests.Response:
        """Upload images with fields."""
        files = [("image", ("photo.jpg", image)) for image in images]
        return requests.post(f"{self.url}{UPLOAD}", data=fields, files=files, timeout=BOUND)
