"""Real JPEGs of cameras, telephones and programs: each is stored rightly or refused clearly."""

import json
import re
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from types import FrameType
from typing import NoReturn

import numpy as np
import pytest
from PIL import Image, ImageOps
from pydicom import Dataset
from pydicom.pixels.utils import pixel_array
from werkzeug.test import TestResponse

from tests.peers import ScriptedServer, stored
from tests.serving import client_for, form, only, upload
from tests.test_store import as_dataset

BOUND = 10  # seconds for one file
REASON = re.compile(r"urn:jpegstow:[a-z0-9-]+")


@pytest.fixture
def store() -> Iterator[ScriptedServer]:
    with ScriptedServer(stored()) as server:
        yield server


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in what takes longer."""

    def stop(_number: int, _frame: FrameType | None) -> NoReturn:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_every_file_is_stored_rightly_or_refused_clearly(
    corpus: list[Path], store: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    client = client_for(store.dicomweb_url)
    census: Counter[str] = Counter()
    wrong: list[str] = []
    for path in corpus:
        with within(BOUND):
            response = upload(client, **form(path.read_bytes(), filename=path.name))
        outcome, complaints = judge(path.read_bytes(), response, store)
        store.requests.clear()
        census[outcome] += 1
        wrong += [f"{path.name}: {complaint}" for complaint in complaints]
    logged = "".join(capsys.readouterr())
    with capsys.disabled():
        # Standard error is what a test that runs beside others can reach.
        print(census_of(census), file=sys.stderr)
    assert wrong == []
    assert census["stored"] > 0
    assert [path.name for path in corpus if path.name in logged] == []


def census_of(census: Counter[str]) -> str:
    lines = [f"{count:5} {outcome}" for outcome, count in census.most_common()]
    return "\n".join([f"\n{census.total()} real JPEGs:", *lines])


def judge(jpeg: bytes, response: TestResponse, store: ScriptedServer) -> tuple[str, list[str]]:
    """Return what became of a file, and what is wrong with that."""
    if response.status_code == 201:
        return "stored", stored_wrongly(jpeg, only(response)["TransferSyntaxUID"], store)
    problem = response.get_json()
    return f"{response.status_code} {problem['type']}", refused_badly(response, store)


def refused_badly(response: TestResponse, store: ScriptedServer) -> list[str]:
    problem = response.get_json()
    clear = REASON.fullmatch(problem["type"]) and len(problem["detail"]) > 15
    wrong = [] if 400 <= response.status_code < 500 else [f"status {response.status_code}"]
    wrong += [] if clear else [f"no clear reason: {json.dumps(problem)}"]
    return wrong + (["sent, although refused"] if store.requests else [])


def stored_wrongly(jpeg: bytes, transfer_syntax: str, store: ScriptedServer) -> list[str]:
    """Hold the instance that was sent to Pillow's reading of the upload."""
    (request,) = store.requests
    dataset = as_dataset(request)
    with (
        warnings.catch_warnings(action="ignore"),  # Pillow's, on odd EXIF and large pictures
        Image.open(BytesIO(jpeg), formats=("JPEG", "MPO")) as image,
    ):
        return mislabelled(image, dataset, transfer_syntax) or other_pixels(image, dataset)


def mislabelled(image: Image.Image, dataset: Dataset, transfer_syntax: str) -> list[str]:
    """Return what the data set says otherwise than the markers that Pillow has read."""
    components = image.layer  # type: ignore[attr-defined] # (identifier, across, down, table)
    if image.info.get("progressive"):
        return ["progressive, but stored as it is"]
    turned = image.getexif().get(0x0112, 1) in {5, 6, 7, 8}
    columns, rows = reversed(image.size) if turned else image.size
    expected = {
        "TransferSyntaxUID": "1.2.840.10008.1.2.4.50",
        "Rows": rows,
        "Columns": columns,
        "SamplesPerPixel": len(components),
        "PhotometricInterpretation": colour(image, bytes(part[0] for part in components)),
        "BitsStored": 8,
        "LossyImageCompression": "01",
    }
    said = {name: dataset.get(name) for name in expected} | {"TransferSyntaxUID": transfer_syntax}
    return [
        f"{name} is {said[name]}, not {value}"
        for name, value in expected.items()
        if said[name] != value
    ]


def colour(image: Image.Image, identifiers: bytes) -> str:
    """Return the Photometric Interpretation by libjpeg's rule."""
    if len(identifiers) == 1:
        return "MONOCHROME2"
    adobe = image.info.get("adobe_transform")
    rgb = adobe == 0 if adobe is not None else identifiers == b"RGB"
    return "RGB" if rgb and "jfif" not in image.info else "YBR_FULL_422"


def other_pixels(image: Image.Image, dataset: Dataset) -> list[str]:
    """Compare the pixels that are stored with those of the upright upload."""
    uploaded = np.asarray(ImageOps.exif_transpose(image), np.int16)
    kept = pixel_array(dataset, decoding_plugin="pillow").astype(np.int16)
    if uploaded.shape != kept.shape:
        return [f"shape {kept.shape}, not {uploaded.shape}"]
    worst = int(np.abs(uploaded - kept).max())
    return [f"pixels differ by {worst}"] if worst > 1 else []
