"""What the service refuses by itself: each says what, where, and how to mend it."""

import struct
from collections.abc import Iterator
from io import BytesIO
from typing import Any
from urllib.parse import urlencode

import pytest
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from tests.jpegs import make_jpeg, picture
from tests.peers import (
    ScriptedServer,
    stored,
)
from tests.quickness import quick
from tests.serving import UPLOAD, client_for, form, post, upload
from tests.streams import of_process

JPEG = make_jpeg()
PROBLEM = "application/problem+json"
LIMIT = 1_000_000  # bytes of a request


@pytest.fixture(scope="module")
def module_store() -> Iterator[ScriptedServer]:
    with ScriptedServer(stored()) as server:
        yield server


@pytest.fixture
def store(module_store: ScriptedServer) -> ScriptedServer:
    module_store.requests.clear()
    return module_store


@pytest.fixture(scope="module")
def client(module_store: ScriptedServer) -> FlaskClient:
    url = module_store.dicomweb_url
    return client_for(url, MAX_UPLOAD_BYTES=str(LIMIT), MAX_IMAGES="5", MAX_PIXELS="10000000")


def test_images_that_all_are_refused_are_told_so_one_by_one(
    client: FlaskClient, store: ScriptedServer
) -> None:
    response = post(client, png(), JPEG[:300])
    assert response.status_code == 207
    assert [one["status"] for one in response.get_json()["instances"]] == [415, 422]
    assert store.requests == []


def png() -> bytes:
    return saved("PNG")


def saved(kind: str) -> bytes:
    file = BytesIO()
    picture(8, 8).save(file, kind)
    return file.getvalue()


def bomb() -> bytes:
    """Return 14 kB that say of themselves that they are 65500 x 65500 pixels."""
    data = bytearray(make_jpeg(8, 8))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 65_500, 65_500)
    return bytes(data[:-2]) + bytes(14_000) + b"\xff\xd9"


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)

BAD_IMAGES = {
    "a PNG named .jpg": (png(), 415, "PNG"),
    "a GIF named .jpg": (saved("GIF"), 415, "GIF"),
    "a WebP named .jpg": (saved("WEBP"), 415, "WebP"),
    "a HEIC named .jpg": (HEIC, 415, "HEIC"),
    "text": (b"this is no picture", 415, "JPEG"),
    "a truncated JPEG": (make_jpeg(400, 300)[:-1000], 422, "damaged-scan"),
    "a truncated JPEG with EOI": (make_jpeg(400, 300)[:-1000] + JPEG[-2:], 422, "damaged-scan"),
    "a truncated progressive JPEG": (
        make_jpeg(400, 300, progressive=True)[:-9000],
        422,
        "truncated",
    ),
    "the first bytes of a JPEG": (JPEG[:100], 422, "truncated"),
    "a bomb": (bomb(), 413, "65500 x 65500"),
    "a CMYK JPEG": (make_jpeg(mode="CMYK"), 415, "CMYK"),
    "a hierarchical JPEG": (of_process(0xC5), 415, "hierarchical"),
}


@pytest.mark.parametrize("raw", [False, True], ids=["in a form", "bare"])
@pytest.mark.parametrize(("image", "status", "said"), BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_what_is_no_acceptable_jpeg_is_refused(
    *,
    image: bytes,
    status: int,
    said: str,
    raw: bool,
    client: FlaskClient,
    store: ScriptedServer,
) -> None:
    response = upload(client, data=image, content_type="image/jpeg") if raw else post(client, image)
    problem = problem_of(response)
    assert problem["status"] == status
    assert said in str(problem)
    assert store.requests == []


def problem_of(response: TestResponse) -> dict[str, Any]:
    """Hold an answer to RFC 9457 3.1, and to our own rule: what, and how to mend it."""
    assert response.mimetype == PROBLEM
    assert 400 <= response.status_code < 500
    problem = response.get_json()
    assert problem["status"] == response.status_code
    assert set(problem) <= {"type", "title", "status", "detail", "where", "mend"}
    assert problem["type"].startswith("urn:jpegstow:")
    assert problem["title"]
    assert problem["detail"]
    return dict(problem)


# Values that no answer and no log line may repeat.
PLANTED = ["Quixote", "Dulcinea", "Rocinante"]

BAD_FIELDS = {
    "an unknown keyword": ({"PatientNam": "Quixote"}, "PatientNam"),
    "a keyword that is a value": ({"Quixote^Alonso": "x"}, ""),
    "a date that isn't in the calendar": ({"StudyDate": "20240231"}, "StudyDate"),
    "a date in another form": ({"PatientBirthDate": "1605-01-16 Quixote"}, "PatientBirthDate"),
    "a value that is too long": ({"PatientID": "Quixote" * 10}, "PatientID"),
    "a UID with a leading zero": ({"StudyInstanceUID": "1.2.03"}, "StudyInstanceUID"),
    "a UID of 65 characters": ({"StudyInstanceUID": "1." + "2" * 63}, "StudyInstanceUID"),
    "a UID that ends with a dot": ({"StudyInstanceUID": "1.2."}, "StudyInstanceUID"),
    "Rows from the caller": ({"Rows": "7"}, "Rows"),
    "Pixel Data from the caller": ({"PixelData": "Quixote"}, "7FE00010"),
    "a SOP Instance UID from the caller": ({"SOPInstanceUID": "1.2.3"}, "SOPInstanceUID"),
    "a character set from the caller": (
        {"SpecificCharacterSet": "ISO_IR 100"},
        "SpecificCharacterSet",
    ),
    "a control character": ({"PatientName": "Quixote\x1b[31m"}, "PatientName"),
    "a NUL": ({"PatientName": "Quixote\0"}, "PatientName"),
    "a line break in a name": ({"PatientName": "Quixote\nAlonso"}, "PatientName"),
    "a backslash": ({"PatientID": "Quixote\\Dulcinea"}, "PatientID"),
    "a code in small letters": ({"Modality": "quixote".capitalize()}, "Modality"),
    "two values where one belongs": ({"PatientID": ["Quixote", "Dulcinea"]}, "PatientID"),
    "a sex that isn't one": ({"PatientSex": "Quixote"}, "PatientSex"),
    "a tag of group 0002": ({"00020010": "1.2"}, "00020010"),
    "a private tag": ({"00091001": "Quixote"}, "00091001"),
    "an unknown template": ({"template": "Quixote"}, "template"),
    "two templates": ({"template": ["Quixote", "Dulcinea"]}, "template"),
    "metadata that isn't JSON": ({"metadata": '{"PatientName": Quixote}'}, "metadata"),
    "metadata cut short": ({"metadata": '{"PatientName": "Quixote"'}, "metadata"),
    "metadata that is a text": ({"metadata": '"Quixote"'}, "metadata"),
    "metadata twice": ({"metadata": ['{"PatientID": "Quixote"}', "{}"]}, "metadata"),
    "metadata with a name twice": (
        {"metadata": '{"PatientID": "Quixote", "PatientID": "Dulcinea"}'},
        "metadata",
    ),
    "metadata with NaN": ({"metadata": '{"PatientWeight": NaN}'}, "metadata"),
    "metadata nested without end": ({"metadata": '{"a":' * 100_000}, "metadata"),
    "a number of a million digits": (
        {"metadata": '{"SeriesNumber": ' + "9" * 400_000 + "}"},
        "metadata",
    ),
    "two objects for one image": ({"metadata": "[{}, {}]"}, "metadata"),
    "an array of texts": ({"metadata": '["Quixote"]'}, "metadata"),
    "a field that contradicts metadata": (
        {"metadata": '{"PatientID": "Quixote"}', "PatientID": "Dulcinea"},
        "PatientID",
    ),
    "an element that isn't one": ({"metadata": '{"00100010": "Quixote"}'}, "PatientName"),
    "an element of another VR": (
        {"metadata": '{"00100010": {"vr": "LO", "Value": ["Quixote"]}}'},
        "PatientName",
    ),
    "a sequence of texts": (
        {"metadata": '{"AnatomicRegionSequence": ["Quixote"]}'},
        "AnatomicRegionSequence",
    ),
    "a bad value in a sequence": (
        {"metadata": '{"AnatomicRegionSequence": [{"CodeMeaning": "Quixote\\u0007"}]}'},
        "AnatomicRegionSequence[1].CodeMeaning",
    ),
    "half of a surrogate pair": (
        {"metadata": '{"PatientName": "Quixote\\ud800"}'},
        "PatientName",
    ),
}


@pytest.mark.parametrize(("fields", "where"), BAD_FIELDS.values(), ids=BAD_FIELDS)
def test_what_cant_be_said_of_a_picture_is_refused(
    fields: dict[str, Any],
    where: str,
    client: FlaskClient,
    store: ScriptedServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    response = post(client, JPEG, **fields)
    problem = problem_of(response)
    assert problem["status"] == 400
    assert where in problem.get("where", "")
    assert store.requests == []
    logged = "".join(capsys.readouterr())
    assert '"reason"' in logged
    assert [value for value in PLANTED if value in response.text + logged] == []


BAD_REQUESTS: dict[str, tuple[dict[str, Any], int, str]] = {
    "no image": (form(PatientID="P-7"), 400, "no image"),
    "a web form without files": ({"data": {"PatientID": "P-7"}}, 415, "multipart/form-data"),
    "no body": ({}, 400, "no image"),
    "an empty body": ({"data": b"", "content_type": "image/jpeg"}, 400, "no image"),
    "an empty form": ({"data": {}, "content_type": "multipart/form-data"}, 400, "no image"),
    "an image that is text": (
        {"data": {"image": "Quixote"}, "content_type": "multipart/form-data"},
        400,
        "not a file",
    ),
    "an image of no bytes": (form(b""), 415, "empty"),
    "an image in another field": (
        {"data": {"photo": (BytesIO(JPEG), "Quixote.jpg")}},
        400,
        "another field",
    ),
    "a body of JSON": ({"json": {"PatientName": "Quixote"}}, 415, "application/json"),
    "a type that isn't one": (
        {"data": JPEG, "content_type": "Quixote <Dulcinea>"},
        415,
        "can't hold a JPEG",
    ),
    "a form without a boundary": (
        {"data": b"Quixote", "headers": {"Content-Type": "multipart/form-data"}},
        400,
        "no image",
    ),
    "a form cut short": (
        {
            "data": b'--b\r\nContent-Disposition: form-data; name="PatientID"\r\n\r\nQuixote',
            "headers": {"Content-Type": "multipart/form-data; boundary=b"},
        },
        400,
        "no image",
    ),
    "an Idempotency-Key with spaces": (
        {**form(JPEG), "headers": {"Idempotency-Key": "Quixote Dulcinea"}},
        400,
        "Idempotency-Key",
    ),
    "10,000 form fields": (
        form(JPEG, **{f"Field{number}": "Quixote" for number in range(10_000)}),
        413,
        "too many",
    ),
    "a field of 600 kB": (form(JPEG, PatientComments="Quixote" * 90_000), 413, "too large"),
    "six images where five are allowed": (form(*[JPEG] * 6), 413, "6 images"),
    "a body above the limit": (
        {"data": JPEG + bytes(LIMIT), "content_type": "image/jpeg"},
        413,
        f"{LIMIT} bytes",
    ),
}


@pytest.mark.parametrize(("request_", "status", "said"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_what_is_no_upload_is_refused(
    request_: dict[str, Any],
    status: int,
    said: str,
    client: FlaskClient,
    store: ScriptedServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    response = upload(client, **request_)
    problem = problem_of(response)
    assert problem["status"] == status
    assert said in str(problem)
    assert store.requests == []
    logged = "".join(capsys.readouterr())
    assert [value for value in PLANTED if value in response.text + logged] == []


def test_unknown_paths_and_methods_are_problems_too(client: FlaskClient) -> None:
    nowhere, get = client.get("/Quixote"), client.get(UPLOAD)
    assert [problem_of(response)["status"] for response in (nowhere, get)] == [404, 405]
    assert "POST" in get.headers["Allow"]
    assert "Quixote" not in nowhere.text


@settings(max_examples=150, deadline=None)
@given(
    start=st.integers(0, len(JPEG)),
    length=st.integers(0, 40),
    filling=st.binary(max_size=40),
)
@quick(2)
def test_a_damaged_upload_is_stored_or_refused_but_never_a_500(
    client: FlaskClient, start: int, length: int, filling: bytes
) -> None:
    damaged = JPEG[:start] + filling + JPEG[start + length :]
    response = upload(client, data=damaged, content_type="image/jpeg")
    assert response.status_code in {201, 400, 413, 415, 422}
    if response.status_code != 201:
        problem_of(response)


@settings(max_examples=150, deadline=None)
@given(
    fields=st.dictionaries(
        st.sampled_from(["PatientName", "PatientID", "StudyDate", "metadata", "Rows", "x"]),
        st.text() | st.from_regex(r"[\[{\"0-9:,}\]]*"),
    )
)
@quick(2)
def test_any_text_in_a_field_is_taken_or_refused(
    client: FlaskClient, fields: dict[str, str]
) -> None:
    body = urlencode(fields, errors="replace")
    response = upload(client, query_string=body, data=JPEG, content_type="image/jpeg")
    assert response.status_code in {201, 400}
