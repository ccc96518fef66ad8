"""Stores that fail, lie, dawdle and babble: none of them makes the service answer 201 wrongly."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID
from werkzeug.test import TestResponse

from service.dicom.outcome import Stored, Unavailable
from service.store import DicomwebStore
from tests.jpegs import make_jpeg
from tests.peers import (
    CutAnswer,
    Flood,
    Garbage,
    Hang,
    LoseAnswer,
    Received,
    ResetMidBody,
    Respond,
    ScriptedServer,
    SlowBody,
    Step,
    Wire,
    already_exists_409,
    empty_200,
    failed,
    names_another_uid,
    no_studies,
    partial_202,
    parts_of,
    refused_port,
    stored,
    stored_xml,
    throttled,
    unauthorized,
    unavailable,
    unsupported_media_type,
)
from tests.serving import client_for, only, post, settings_for
from tests.test_read_back import made

JPEG = make_jpeg()
TEN_MEGABYTES = 10_000_000
PROBLEM = "application/problem+json"
HASTE = {"STORE_CONNECT_TIMEOUT": "0.3", "STORE_READ_TIMEOUT": "0.3"}


@dataclass(frozen=True)
class StoreSlowly:
    """Take the request at 5 MB a second, as over a thin line, and store everything."""

    def play(self, wire: Wire) -> None:
        body = bytearray()
        while left := int(wire.headers["Content-Length"]) - len(body):
            body += wire.rfile.read(min(left, 1 << 18))
            wire.script.released.wait(0.05)
        headers = {name.lower(): value for name, value in wire.headers.items()}
        request = Received(wire.command, wire.path, headers, bytes(body))
        wire.script.record(request)
        make = stored().body
        assert callable(make)
        answer = make(request)
        wire.head(200, {"Content-Type": "application/dicom+json"}, len(answer))
        wire.wfile.write(answer)


def endless(request: Received) -> bytes:
    """Write a true answer, and megabytes behind it."""
    make = stored().body
    assert callable(make)
    return make(request) + b" " * TEN_MEGABYTES


@dataclass(frozen=True)
class Drip:
    """Answer with a beginning, and then with the same few bytes again and again."""

    start: bytes
    again: bytes

    def play(self, wire: Wire) -> None:
        wire.receive()
        wire.wfile.write(self.start)
        while not wire.script.released.wait(0.02):
            wire.wfile.write(self.again)


@dataclass(frozen=True)
class StoreAndDripTrailers:
    """Store everything, say so in one chunk, and let no end follow."""

    def play(self, wire: Wire) -> None:
        request = wire.receive()
        make = stored().body
        assert callable(make)
        answer = make(request)
        wire.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        wire.wfile.write(b"%x\r\n%s\r\n0\r\n" % (len(answer), answer))
        while not wire.script.released.wait(0.02):
            wire.wfile.write(b"X: y\r\n")


@dataclass(frozen=True)
class FloodingRedirect:
    """Redirect with a body of 256 MB, and count what of it could be sent."""

    sent: list[int]

    def play(self, wire: Wire) -> None:
        wire.receive()
        wire.head(302, {"Location": "/elsewhere"}, 1 << 28)
        for _ in range(256):
            wire.wfile.write(bytes(1 << 20))
            self.sent.append(1 << 20)


def redirect_to(location: bytes) -> Step:
    return Drip(
        b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n", b""
    )


FAILURES = {
    "resets the connection in the middle of the request": ResetMidBody(),
    "closes without an answer": LoseAnswer(),
    "breaks off in the middle of its answer": CutAnswer(),
    "hangs": Hang(),
    "drips its answer's body": SlowBody(bytes(1000)),
    "drips a header": Drip(b"HTTP/1.1 200 OK\r\nX: ", b"a"),
    "says 100 Continue without end": Drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "drips trailers behind a true answer": StoreAndDripTrailers(),
    "redirects to no address": redirect_to(b"http://[::1"),
    "redirects to what is no text": redirect_to(b"\xff\xfe"),
    "is down for maintenance": unavailable(),
    "has too many requests": throttled(7),
    "doesn't accept the credentials": unauthorized(),
    "answers 200 and nothing": empty_200(),
    "answers 200 and names another instance": names_another_uid(),
    "answers 200 and fails the instance": failed(0xA700, status=200),
    "answers 202 and fails the instance": failed(0xA700, status=202),
    "answers 200 and an endless body": Flood(1 << 28),
    "answers 200 and garbage": Respond(200, {}, Random(0).randbytes(TEN_MEGABYTES)),
    "answers 200 and more than any answer is": Respond(200, {}, endless),
    "answers 200 and a web page": Respond(200, {"Content-Type": "text/html"}, b"<html>Welcome"),
    "answers 200 and an array of nulls": Respond(200, {}, b"[null]"),
    "answers 200 and JSON nested without end": Respond(200, {}, b"[" * 100_000),
    "answers 204": Respond(204),
    "doesn't speak HTTP": Garbage(),
    "redirects": Respond(302, {"Location": "/elsewhere"}),
    "redirects and keeps the method": Respond(307, {"Location": "/elsewhere"}),
}


@pytest.mark.parametrize("step", FAILURES.values(), ids=FAILURES)
def test_what_a_store_doesnt_say_that_it_stored_is_queued(step: Step) -> None:
    started = time.monotonic()
    with ScriptedServer(step) as store:
        response = post(client_for(store.dicomweb_url, **HASTE), make_jpeg(800, 600))
        assert time.monotonic() - started < 8
    assert reason_of(response)
    assert {request.path for request in store.requests} <= {"/dicomWeb/studies"}
    assert len(store.requests) <= 2


def reason_of(response: TestResponse) -> str:
    """Return why the one instance of an answer is in the retry queue."""
    assert response.status_code == 202
    instance = only(response)
    assert instance["outcome"] == "queued"
    assert instance["queue"] == f"/v1/queue/{instance['SOPInstanceUID']}"
    return str(instance["reason"])


def test_the_body_of_a_redirect_is_not_read() -> None:
    sent: list[int] = []
    with ScriptedServer(FloodingRedirect(sent)) as store:
        response = post(client_for(store.dicomweb_url), JPEG)
    assert "302" in reason_of(response)
    assert sum(sent) < 1 << 26


def test_a_stores_cookies_are_not_sent_back() -> None:
    answer = stored()
    assert isinstance(answer, Respond)
    cookies = {**answer.headers, "Set-Cookie": "session=1; Path=/"}
    with ScriptedServer(Respond(200, cookies, answer.body)) as store:
        client = client_for(store.dicomweb_url)
        assert post(client, JPEG).status_code == 201
        assert post(client, JPEG).status_code == 201
    assert ["cookie" in request.headers for request in store.requests] == [False, False]


def test_readiness_tells_nothing_in_the_stores_own_words() -> None:
    with ScriptedServer(Respond(503, {}, b"Doe^Jane is on disk 7")) as store:
        response = client_for(store.dicomweb_url).get("/readyz")
    assert response.get_json()["checks"]["store"] == "the store answered 503"


def test_who_asks_for_readiness_all_the_time_does_not_have_the_store_asked_as_often() -> None:
    with ScriptedServer(no_studies()) as store:
        client = client_for(store.dicomweb_url)
        answers = {client.get("/readyz").get_json()["checks"]["store"] for _ in range(30)}
        assert answers == {"ok"}
        assert 0 < len(store.requests) < 10


def test_a_refused_connection_is_named() -> None:
    with refused_port() as port:
        response = post(client_for(f"http://127.0.0.1:{port}", **HASTE), JPEG)
    assert "ConnectionRefusedError" in reason_of(response)


REFUSALS = {
    "as invalid": (failed(0x0117), "invalid object instance"),
    "in its own words": (failed(0x0110, "BitsStored is odd"), "BitsStored is odd"),
    "without words": (Respond(409), "no reason given"),
    "as a bad request": (
        Respond(400, {}, b'{"error":{"code":400,"message":"bad multipart"}}'),
        "bad multipart",
    ),
    "as too large": (Respond(413, {}, b"too much"), "too much"),
    "as not acceptable": (Respond(406), "406"),
    "with a success beside the failure": (failed(0xA900, status=200), "A900"),
}


@pytest.mark.parametrize(("step", "said"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_is_passed_on_with_the_stores_reason(step: Step, said: str) -> None:
    with ScriptedServer(step) as store:
        response = post(client_for(store.dicomweb_url), JPEG)
    assert (response.status_code, response.mimetype) == (502, PROBLEM)
    assert response.get_json()["type"] == "urn:jpegstow:rejected-by-store"
    assert said in response.get_json()["detail"]


@pytest.mark.parametrize("step", [stored(), stored_xml()], ids=["in JSON", "in XML"])
def test_success_is_believed_where_the_answer_names_the_instance(step: Step) -> None:
    with ScriptedServer(step) as store:
        response = post(client_for(store.dicomweb_url), JPEG)
    assert response.status_code == 201
    instance = only(response)
    assert instance["outcome"] == "stored"
    assert response.headers["Location"] == instance["RetrieveURL"]
    assert instance["RetrieveURL"] == (
        f"{store.dicomweb_url}/studies/{instance['StudyInstanceUID']}"
        f"/series/{instance['SeriesInstanceUID']}/instances/{instance['SOPInstanceUID']}"
    )


@pytest.mark.parametrize(
    "step",
    [ResetMidBody(), LoseAnswer(), unavailable(), throttled(2), empty_200(), CutAnswer()],
    ids=lambda step: type(step).__name__,
)
def test_sending_again_after_a_failure_sends_the_same_bytes(step: Step) -> None:
    with ScriptedServer(step, step, stored()) as server:
        store = DicomwebStore(settings_for(server.dicomweb_url))
        for _ in range(3):
            (outcome,) = store.store([made(1)]).values()
    assert isinstance(outcome, Stored)
    whole = [request for request in server.requests if request.length > 1000]
    assert len({(request.sha256, request.headers["content-type"]) for request in whole}) == 1
    assert {int(request.headers["content-length"]) for request in server.requests} == {
        whole[0].length
    }


def test_a_kept_connection_that_the_store_has_closed_costs_no_upload() -> None:
    with ScriptedServer(stored(), LoseAnswer(), stored()) as store:
        client = client_for(store.dicomweb_url)
        assert post(client, JPEG).status_code == 201
        assert post(client, make_jpeg(seed=1)).status_code == 201
    assert store.requests[1].sha256 == store.requests[2].sha256


def test_retry_after_is_passed_on() -> None:
    with ScriptedServer(throttled(7)) as server:
        store = DicomwebStore(settings_for(server.dicomweb_url))
        (outcome,) = store.store([made(1)]).values()
    assert outcome == Unavailable("the store answered 429", 7.0, 429)


def test_a_picture_may_take_longer_to_send_than_a_connection_to_make() -> None:
    picture = noise()
    assert len(picture) > 8_000_000
    started = time.monotonic()
    with ScriptedServer(StoreSlowly()) as store:
        response = post(client_for(store.dicomweb_url, STORE_CONNECT_TIMEOUT="1"), picture)
    assert time.monotonic() - started > 1
    assert response.status_code == 201
    assert len(store.requests) == 1


def noise() -> bytes:
    """Return a JPEG larger than the buffers of a connection."""
    file = BytesIO()
    image = Image.frombytes("RGB", (2000, 2000), Random(0).randbytes(12_000_000))
    image.save(file, "JPEG", quality=95, subsampling="4:4:4")
    return file.getvalue()


def test_a_store_that_stops_reading_is_given_up() -> None:
    started = time.monotonic()
    with ScriptedServer(Hang()) as store:
        response = post(client_for(store.dicomweb_url, **HASTE), noise())
        assert time.monotonic() - started < 8
    assert "TimeoutError" in reason_of(response)


def test_one_failed_instance_of_a_202_is_not_stored() -> None:
    with ScriptedServer(partial_202(0x0110)) as store:
        response = post(client_for(store.dicomweb_url), JPEG, make_jpeg(seed=1))
    assert response.status_code == 207
    good, bad = response.get_json()["instances"]
    assert (good["status"], bad["status"]) == (201, 502)
    assert bad["type"] == "urn:jpegstow:rejected-by-store"
    assert "RetrieveURL" not in bad


def test_all_images_of_a_request_travel_in_one() -> None:
    with ScriptedServer(stored()) as store:
        response = post(client_for(store.dicomweb_url), *(make_jpeg(seed=n) for n in range(5)))
    assert response.status_code == 201
    assert len(response.get_json()["instances"]) == 5
    (request,) = store.requests
    assert [kind for kind, _ in parts_of(request)] == ["application/dicom+json"] + [
        "image/jpeg"
    ] * 5


def test_another_wire_format_is_taken_after_415_and_kept() -> None:
    with ScriptedServer(unsupported_media_type(), stored()) as store:
        client = client_for(store.dicomweb_url)
        assert post(client, JPEG).status_code == 201
        assert post(client, make_jpeg(seed=1)).status_code == 201
    kinds = [parts_of(request)[0][0] for request in store.requests]
    assert kinds == ["application/dicom+json", "application/dicom", "application/dicom"]


def test_the_wire_format_in_use_is_told() -> None:
    with ScriptedServer(unsupported_media_type(), stored()) as server:
        store = DicomwebStore(settings_for(server.dicomweb_url))
        before = store.wire
        store.store([made(1)])
        assert (before, store.wire) == ("json", "part10")


@pytest.mark.parametrize("wire", ["json", "part10"])
def test_a_wire_format_that_is_set_is_told(wire: str) -> None:
    assert DicomwebStore(settings_for("http://127.0.0.1:1", DICOMWEB_WIRE=wire)).wire == wire


def test_a_store_that_takes_neither_wire_format_refuses() -> None:
    with ScriptedServer(unsupported_media_type()) as store:
        response = post(client_for(store.dicomweb_url), JPEG)
    assert response.status_code == 502
    assert len(store.requests) == 2


@pytest.mark.parametrize("wire", ["json", "part10"])
def test_a_wire_format_that_is_set_stays(wire: str) -> None:
    with ScriptedServer(unsupported_media_type()) as store:
        client = client_for(store.dicomweb_url, DICOMWEB_WIRE=wire)
        assert post(client, JPEG).status_code == 502
    assert len(store.requests) == 1


def as_dataset(request: Received) -> Dataset:
    """Make the instance that a store makes of a request, with pydicom alone."""
    parts = parts_of(request)
    if parts[0][0] == "application/dicom":
        return dcmread(BytesIO(parts[0][1]))
    model = json.loads(parts[0][1])[0]
    transfer_syntax = model.pop("00020010")["Value"][0]
    del model["7FE00010"]
    dataset = Dataset.from_json(model)
    dataset.PixelData = encapsulate([parts[1][1]])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(transfer_syntax)
    return dataset


def as_file(dataset: Dataset) -> bytes:
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def changed(change: Callable[[Dataset], Any]) -> Callable[[bytes], bytes]:
    def write(data: bytes) -> bytes:
        dataset = dcmread(BytesIO(data))
        change(dataset)
        return as_file(dataset)

    return write


def conflict(
    read_back: Callable[[bytes], bytes], wire: str = "json", status: int = 200
) -> tuple[int, dict[str, Any], Sequence[Received]]:
    """Upload to a store that says "already exists", and return how that was answered."""
    kind = {"Content-Type": 'application/dicom; transfer-syntax="1.2.840.10008.1.2.4.50"'}
    with ScriptedServer(already_exists_409()) as store:
        answer = Respond(status, kind, lambda _: read_back(as_file(as_dataset(store.requests[0]))))
        store._also = {"GET": answer}
        client = client_for(store.dicomweb_url, DICOMWEB_WIRE=wire)
        response = post(client, JPEG, PatientID="P-7", AccessionNumber="A-1")
    return response.status_code, response.get_json(), store.requests


@pytest.mark.parametrize("wire", ["json", "part10"])
def test_an_instance_that_is_there_with_the_same_content_is_a_success(wire: str) -> None:
    status, answer, requests = conflict(lambda data: data, wire)
    assert status == 200
    (instance,) = answer["instances"]
    assert instance["outcome"] == "already stored"
    assert [request.method for request in requests] == ["POST", "GET"]
    assert requests[1].path == instance["RetrieveURL"][instance["RetrieveURL"].index("/dicomWeb") :]


def test_a_store_may_have_added_attributes_to_the_same_content() -> None:
    status, _, _ = conflict(changed(lambda ds: setattr(ds, "InstitutionName", "Clinic")))
    assert status == 200


OTHERS = {
    "another patient": changed(lambda ds: setattr(ds, "PatientID", "P-8")),
    "an attribute less": changed(lambda ds: ds.pop("AccessionNumber")),
    "other pixels": changed(
        lambda ds: setattr(ds, "PixelData", encapsulate([make_jpeg(seed=9)])),
    ),
    "no pixels": changed(lambda ds: ds.pop("PixelData")),
    "no DICOM file": lambda _: b"something else",
    "half a file": lambda data: data[: len(data) // 2],
    "nothing": lambda _: b"",
}


@pytest.mark.parametrize("read_back", OTHERS.values(), ids=OTHERS)
def test_an_instance_that_is_there_with_other_content_is_refused(
    read_back: Callable[[bytes], bytes],
) -> None:
    status, answer, _ = conflict(read_back)
    assert status == 502
    assert "other content" in answer["detail"]


@pytest.mark.parametrize("status", [401, 404, 500])
def test_an_instance_that_cant_be_read_back_is_not_known_to_be_stored(status: int) -> None:
    answered, answer, _ = conflict(lambda data: data, status=status)
    assert answered == 202
    assert f"answered {status}" in answer["instances"][0]["reason"]


def test_credentials_are_refreshed_after_401_and_the_same_body_sent_whole_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = iter(["stale", "fresh"])
    grant = Respond(
        200,
        {"Content-Type": "application/json"},
        lambda _: json.dumps({"access_token": next(tokens), "expires_in": 3600}).encode(),
    )
    with ScriptedServer(grant) as issuer, ScriptedServer(unauthorized(), stored()) as store:
        account = tmp_path / "account.json"
        account.write_text(json.dumps(service_account(issuer.url)))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(account))
        client = client_for(store.dicomweb_url, DICOMWEB_AUTH="google")
        picture = make_jpeg(1600, 1200, quality=95)
        response = post(client, picture)
    assert response.status_code == 201
    first, second = store.requests
    assert [r.headers["authorization"] for r in (first, second)] == ["Bearer stale", "Bearer fresh"]
    assert first.length == second.length == int(second.headers["content-length"]) > len(picture) / 2
    assert first.sha256 == second.sha256 == hashlib.sha256(second.body).hexdigest()


def test_credentials_that_cant_be_had_are_the_operators_to_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with refused_port() as port, ScriptedServer(stored()) as store:
        account = tmp_path / "account.json"
        account.write_text(json.dumps(service_account(f"http://127.0.0.1:{port}")))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(account))
        response = post(client_for(store.dicomweb_url, DICOMWEB_AUTH="google"), JPEG)
    assert "no Google credentials" in reason_of(response)
    assert store.requests == []


def service_account(issuer: str) -> dict[str, str]:
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return {
        "type": "service_account",
        "project_id": "p",
        "private_key_id": "1",
        "private_key": pem.decode(),
        "client_email": "jpegstow@p.iam.gserviceaccount.com",
        "token_uri": f"{issuer}/token",
    }


AUTHORIZATIONS = {
    "none": ({}, None),
    "bearer": ({"DICOMWEB_TOKEN": "abc"}, "Bearer abc"),
    "basic": ({"DICOMWEB_USER": "u", "DICOMWEB_PASSWORD": "p"}, "Basic dTpw"),
}


@pytest.mark.parametrize(("environment", "sent"), AUTHORIZATIONS.values(), ids=AUTHORIZATIONS)
def test_only_the_credentials_that_are_set_are_sent(
    environment: dict[str, str],
    sent: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login stranger password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with ScriptedServer(stored()) as store:
        assert post(client_for(store.dicomweb_url, **environment), JPEG).status_code == 201
    assert store.requests[0].headers.get("authorization") == sent


def test_the_storage_class_is_asked_for() -> None:
    with ScriptedServer(stored()) as store:
        post(client_for(store.dicomweb_url, STORAGE_CLASS="NEARLINE"), JPEG)
        post(client_for(store.dicomweb_url), JPEG)
    assert [r.headers.get("storage-class") for r in store.requests] == ["NEARLINE", None]


def test_the_request_is_one_that_cloud_healthcare_takes() -> None:
    with ScriptedServer(stored()) as store:
        instance = only(post(client_for(store.dicomweb_url), JPEG))
    (request,) = store.requests
    assert request.headers["accept"] == "application/dicom+json"
    assert request.headers["content-type"].startswith(
        'multipart/related; type="application/dicom+json"; boundary='
    )
    (_, metadata), (_, bulk) = parts_of(request)
    (model,) = json.loads(metadata)
    required = ["00020010", "00080005", "00080016", "00080018", "0020000D", "0020000E"]
    values = [model[tag]["Value"][0] for tag in required]
    assert values[:3] == ["1.2.840.10008.1.2.4.50", "ISO_IR 192", instance["SOPClassUID"]]
    location = model["7FE00010"]["BulkDataURI"]
    assert f"\r\nContent-Location: {location}\r\n".encode() in request.body
    assert b"\r\nContent-Type: image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.50\r\n" in (
        request.body
    )
    assert bulk[:2] == b"\xff\xd8"
    assert bulk[-2:] == b"\xff\xd9"


READINESS = {
    "an empty list": (no_studies(), ""),
    "nothing found": (Respond(204), ""),
    "an error": (unavailable(), "503"),
    "no access": (Respond(403), "403"),
    "a hang": (Hang(), "no answer"),
    "a page": (Respond(200, {"Content-Type": "text/html"}, b"<p>"), "no DICOMweb server"),
}


@pytest.mark.parametrize(("step", "reason"), READINESS.values(), ids=READINESS)
def test_readiness_tells_of_the_store(step: Step, reason: str) -> None:
    with ScriptedServer(step) as store:
        client = client_for(store.dicomweb_url)
        response = client.get("/readyz")
        assert client.get("/healthz").status_code == 200
    assert response.get_json()["status"] == ("degraded" if reason else "ok")
    assert (reason or "ok") in response.get_json()["checks"]["store"]
