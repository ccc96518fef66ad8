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
from tests.streams import EOI
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
    """Hold the instance that was sent to Pillow's reading of the upload, with EOI if need be."""
    (request,) = store.requests
    dataset = as_dataset(request)
    with (
        warnings.catch_warnings(action="ignore"),  # Pillow's, on odd EXIF and large pictures
        Image.open(BytesIO(jpeg + EOI), formats=("JPEG", "MPO")) as image,
    ):
        return mislabelled(image, dataset, transfer_syntax) or other_pixels(image, dataset)


def mislabelled(image: Image.Image, dataset: Dataset, transfer_syntax: str) -> list[str]:
    """Return what the data set says otherwise than the markers that Pillow has read."""
    layers = image.layer  # type: ignore[attr-defined] # (identifier, across, down, table)
    orientation = image.getexif().get(0x0112, 1)
    columns, rows = reversed(image.size) if orientation in {5, 6, 7, 8} else image.size
    again = "DerivationDescription" in dataset
    rgb_or_not = "MONOCHROME2" if len(layers) == 1 else "YBR_FULL_422"
    expected = {
        "TransferSyntaxUID": "1.2.840.10008.1.2.4.50",
        "Rows": rows,
        "Columns": columns,
        "SamplesPerPixel": len(layers),
        "PhotometricInterpretation": rgb_or_not if again else colour(image, layers),
        "BitsStored": 8,
        "LossyImageCompression": "01",
        "LossyImageCompressionMethod": ["ISO_10918_1"] * 2 if again else "ISO_10918_1",
        "ImageType": ["DERIVED" if again else "ORIGINAL", "PRIMARY"],
    }
    said = {name: dataset.get(name) for name in expected} | {"TransferSyntaxUID": transfer_syntax}
    if again and movable(image, orientation):
        return ["encoded again, although it could be turned without loss"]
    return [
        f"{name} is {said[name]}, not {value}"
        for name, value in expected.items()
        if said[name] != value
    ]


def movable(image: Image.Image, orientation: int) -> bool:
    """Tell whether baseline has such tables, and whole blocks at the edges that would move."""
    if image.mode != "L" and max(map(max, image.quantization.values())) > 255:  # type: ignore[attr-defined]
        return False
    width, height = image.size
    across, down = (8 * factor for factor in sampling(image))
    return not (width % across and orientation in MOVES_COLUMNS) and not (
        height % down and orientation in MOVES_ROWS
    )


# The orientations whose turn makes another edge of the right one, and of the lower one.
MOVES_COLUMNS, MOVES_ROWS = {2, 3, 7, 8}, {3, 4, 6, 7}


def sampling(image: Image.Image) -> tuple[int, int]:
    """Return how many samples across and down the finest component has for the coarsest."""
    layers = image.layer  # type: ignore[attr-defined]
    if len(layers) == 1:
        return 1, 1
    return max(layer[1] for layer in layers), max(layer[2] for layer in layers)


def colour(image: Image.Image, layers: list[tuple[int, ...]]) -> str:
    """Return the Photometric Interpretation by libjpeg's rule."""
    identifiers = bytes(layer[0] for layer in layers)
    if len(identifiers) == 1:
        return "MONOCHROME2"
    adobe = image.info.get("adobe_transform")
    rgb = adobe == 0 if adobe is not None else identifiers == b"RGB"
    return "RGB" if rgb and "jfif" not in image.info else "YBR_FULL_422"


def other_pixels(image: Image.Image, dataset: Dataset) -> list[str]:
    """Compare the pixels that are stored with those of the upright upload.

    pydicom's conversion from YCbCr rounds otherwise than libjpeg's. A turned picture's chroma is
    interpolated in another order, and one that is encoded again has a loss of its own.
    """
    lying, subsampled = image.getexif().get(0x0112, 1) in range(2, 9), sampling(image) != (1, 1)
    uploaded = np.asarray(ImageOps.exif_transpose(image), np.int16)
    kept = pixel_array(dataset, decoding_plugin="pillow").astype(np.int16)
    if uploaded.shape != kept.shape:
        return [f"shape {kept.shape}, not {uploaded.shape}"]
    difference = np.abs(uploaded - kept)
    if "DerivationDescription" in dataset:
        noise = float((difference.astype(np.float64) ** 2).mean())
        return [f"a noise of {noise:.2f}"] if noise > 255**2 / 10**4.5 else []
    worst = int(difference.max())
    most = 4 if lying and subsampled else 1
    return [f"pixels differ by {worst}"] if worst > most else []
