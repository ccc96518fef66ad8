"""What Pub/Sub, Eventarc and Cloud Storage send, and what it means."""

import base64
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.errors import BadRequest
from service.gcp.envelope import (
    Ignored,
    Message,
    Picture,
    Pointer,
    Reference,
    meaning,
    read,
)

JPEG = b"\xff\xd8\xff\xe0 what claims to be a picture \xff\xd9"
AS_JSON = {"content-type": "application/json"}
SENT = "2026-03-14T15:09:26.535Z"
BUCKET, NAME, GENERATION = "gs://pictures", "P-7/photo 1.jpg", "1700000000000001"
OBJECT = Reference(BUCKET, NAME, GENERATION)
NOTIFIED = {
    "notificationConfig": "projects/_/buckets/pictures/notificationConfigs/1",
    "eventType": "OBJECT_FINALIZE",
    "payloadFormat": "JSON_API_V1",
    "bucketId": "pictures",
    "objectId": NAME,
    "objectGeneration": GENERATION,
    "eventTime": SENT,
}
EVENT = {
    "content-type": "application/json",
    "ce-id": "42",
    "ce-source": "//storage.googleapis.com/projects/_/buckets/pictures",
    "ce-specversion": "1.0",
    "ce-type": "google.cloud.storage.object.v1.finalized",
    "ce-subject": f"objects/{NAME}",
    "ce-time": SENT,
}
RESOURCE = {"kind": "storage#object", "bucket": "pictures", "name": NAME, "generation": GENERATION}


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def body_of(model: Any) -> bytes:
    return json.dumps(model).encode()


def wrapped(message: Any, headers: Mapping[str, str] = AS_JSON) -> Message:
    """Read a message that Pub/Sub has put into its envelope."""
    subscription = "projects/p/subscriptions/s"
    return read(body_of({"message": message, "subscription": subscription}), headers)


def said(data: bytes = b"", **attributes: str) -> Message:
    return Message(data, attributes)


def refusal_of(message: Message) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        meaning(message)
    return caught.value


# Envelopes


@pytest.mark.parametrize(
    "names",
    [{"messageId": "7", "publishTime": SENT}, {"message_id": "7", "publish_time": SENT}],
    ids=["camel case", "snake case"],
)
def test_a_wrapped_message_is_read_in_both_spellings(names: dict[str, str]) -> None:
    message = wrapped({"data": base64_of(JPEG), "attributes": {"PatientID": "P-7"}} | names)
    assert message == Message(JPEG, {"PatientID": "P-7"}, "7", SENT)


@pytest.mark.parametrize("absent", [{}, {"data": None}, {"data": ""}])
def test_a_message_without_data_has_none(absent: dict[str, Any]) -> None:
    message = wrapped({"attributes": {"PatientID": "P-7"}, "messageId": "7"} | absent)
    assert message == Message(b"", {"PatientID": "P-7"}, "7")


@pytest.mark.parametrize("absent", [{}, {"attributes": None}, {"attributes": {}}])
def test_a_message_without_attributes_has_none(absent: dict[str, Any]) -> None:
    assert wrapped({"data": base64_of(JPEG)} | absent) == Message(JPEG, {})


@pytest.mark.parametrize("data", ["%%%", "/9j/4", "/9j_-w==", "Ü", "/9j/\n4A=="])
def test_data_that_is_not_base64_is_refused(data: str) -> None:
    with pytest.raises(BadRequest) as caught:
        wrapped({"data": data})
    assert (caught.value.reason, caught.value.where) == ("not-base64", "message.data")


@pytest.mark.parametrize(
    "message",
    [
        {"data": 7},
        {"data": ["a"]},
        {"attributes": "PatientID"},
        {"attributes": {"PatientID": None}},  # "None" would be a patient
        {"attributes": {"PatientID": ["P-7"]}},
        {"attributes": {"SeriesNumber": 7}},
    ],
)
def test_an_envelope_that_breaks_its_own_rules_is_refused(message: Any) -> None:
    with pytest.raises(BadRequest) as caught:
        wrapped(message)
    assert caught.value.reason == "envelope"


@pytest.mark.parametrize("model", [[], [1, 2], "text", 7, None, {}, {"message": "text"}])
def test_json_that_is_no_envelope_is_the_message_itself(model: Any) -> None:
    body = body_of(model)
    assert read(body, AS_JSON) == Message(body, {})


def test_a_thousand_attributes_are_read() -> None:
    attributes = {f"name{number}": str(number) for number in range(1000)}
    assert wrapped({"attributes": attributes}).attributes == attributes


def test_an_unwrapped_message_has_its_attributes_as_headers() -> None:
    headers = {
        "host": "127.0.0.1:8080",
        "user-agent": "CloudPubSub-Google",
        "content-type": "application/x-www-form-urlencoded",
        "x-goog-pubsub-subscription-name": "projects/p/subscriptions/s",
        "x-goog-pubsub-message-id": "7",
        "x-goog-pubsub-publish-time": SENT,
        "patientid": "P-7",
        "accessionnumber": "A-1",
        "template": "secondary-capture-image",
        "not-a-keyword": "anything",
    }
    known = {"PatientID": "P-7", "AccessionNumber": "A-1", "template": "secondary-capture-image"}
    assert read(JPEG, headers) == Message(JPEG, known, "7", SENT)


def test_an_unwrapped_notification_is_read_from_its_headers() -> None:
    message = read(b"{}", {name.lower(): value for name, value in NOTIFIED.items()})
    assert meaning(message) == Pointer(OBJECT, {})


def test_an_attribute_in_a_header_is_utf_8() -> None:
    as_wsgi = "Müller^日本".encode().decode("latin-1")
    assert read(JPEG, {"patientname": as_wsgi}).attributes == {"PatientName": "Müller^日本"}


@pytest.mark.parametrize("value", ["M\xfcller", "日本"])
def test_a_header_that_is_not_utf_8_is_taken_as_it_is(value: str) -> None:
    assert read(JPEG, {"patientname": value}).attributes == {"PatientName": value}


@pytest.mark.parametrize("name", ["date", "location", "priority", "signature", "status"])
def test_a_field_of_http_is_no_attribute(name: str) -> None:
    assert read(JPEG, {name: "u=1"}).attributes == {}


@pytest.mark.parametrize("generation", [GENERATION, int(GENERATION)])
def test_an_event_of_a_new_object_points_to_it(generation: str | int) -> None:
    message = read(body_of(RESOURCE | {"generation": generation}), EVENT)
    assert (message.id, message.published) == ("42", SENT)
    assert meaning(message) == Pointer(OBJECT, {})


@pytest.mark.parametrize("what", ["deleted", "archived", "metadataUpdated"])
def test_another_event_of_an_object_is_ignored(what: str) -> None:
    headers = EVENT | {"ce-type": f"google.cloud.storage.object.v1.{what}"}
    assert isinstance(meaning(read(body_of(RESOURCE), headers)), Ignored)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", body_of({"bucket": "pictures"})])
def test_an_event_that_names_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        read(body, EVENT)
    assert caught.value.reason == "envelope"


def test_an_event_of_a_topic_holds_a_wrapped_message() -> None:
    headers = EVENT | {"ce-type": "google.cloud.pubsub.topic.v1.messagePublished"}
    message = wrapped({"data": base64_of(JPEG), "attributes": {"PatientID": "P-7"}}, headers)
    assert meaning(message) == Picture(JPEG, {"PatientID": "P-7"})


# Meanings


def test_a_picture_comes_with_what_its_attributes_say() -> None:
    message = said(JPEG, PatientID="P-7", template="x")
    assert meaning(message) == Picture(JPEG, {"PatientID": "P-7", "template": "x"})


@pytest.mark.parametrize(
    "name", ["googclient_deliveryattempt", "CloudPubSubDeadLetterSourceDeliveryCount"]
)
def test_an_attribute_that_google_added_says_nothing_of_a_picture(name: str) -> None:
    message = Message(JPEG, {"PatientID": "P-7", name: "5"})
    assert meaning(message) == Picture(JPEG, {"PatientID": "P-7"})


def test_a_new_object_is_pointed_to_in_its_generation() -> None:
    assert meaning(Message(body_of(RESOURCE), NOTIFIED)) == Pointer(OBJECT, {})


@pytest.mark.parametrize(
    "what", ["OBJECT_DELETE", "OBJECT_METADATA_UPDATE", "OBJECT_ARCHIVE", "", "object_finalize"]
)
def test_another_notification_is_ignored(what: str) -> None:
    assert isinstance(meaning(Message(b"", NOTIFIED | {"eventType": what})), Ignored)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bucketId", ""),
        ("bucketId", "Pictures"),
        ("bucketId", "a/b"),
        ("bucketId", "http://a"),
        ("objectId", ""),
        ("objectId", "a\0b"),
        ("objectId", "\ud800"),
        ("objectId", "x" * 1025),
        ("objectGeneration", "-1"),
        ("objectGeneration", "one"),
        ("objectGeneration", "٣"),
        ("objectGeneration", "1" * 21),
    ],
)
def test_a_notification_of_what_no_bucket_has_is_refused(name: str, value: str) -> None:
    error = refusal_of(Message(b"", NOTIFIED | {name: value}))
    assert error.reason == "bad-reference"
    assert not value or value not in str(error)


@pytest.mark.parametrize(
    "name",
    ["a", "/", "a/../b", "a b#c?d%2F.jpg", "日本/Müller.jpg", "gs://b/c", "a\nb", "x" * 1024],
)
def test_odd_names_are_names(name: str) -> None:
    expected = Pointer(Reference(BUCKET, name, GENERATION), {})
    assert meaning(Message(b"", NOTIFIED | {"objectId": name})) == expected
    model = {"object": f"{BUCKET}/{name}", "generation": GENERATION}
    assert meaning(said(body_of(model))) == expected


def test_a_json_object_holds_a_picture_and_what_is_said_of_it() -> None:
    model = {
        "image": base64_of(JPEG),
        "metadata": {"PatientID": "P-8", "00080050": {"vr": "SH", "Value": ["A-1"]}},
        "template": "secondary-capture-image",
    }
    message = said(b" \n" + body_of(model), PatientID="P-7", StudyID="S-1")
    assert meaning(message) == Picture(
        JPEG,
        {
            "PatientID": "P-8",
            "StudyID": "S-1",
            "00080050": {"vr": "SH", "Value": ["A-1"]},
            "template": "secondary-capture-image",
        },
    )


@pytest.mark.parametrize("generation", [GENERATION, int(GENERATION)])
def test_a_json_object_names_an_object_and_its_generation(generation: str | int) -> None:
    model = {"object": f"{BUCKET}/{NAME}", "generation": generation, "metadata": {"StudyID": "S"}}
    assert meaning(said(body_of(model), PatientID="P-7")) == Pointer(
        OBJECT, {"PatientID": "P-7", "StudyID": "S"}
    )


@pytest.mark.parametrize("more", [{}, {"generation": None}, {"generation": ""}])
def test_an_object_without_a_generation_is_the_current_one(more: dict[str, Any]) -> None:
    model = {"object": f"{BUCKET}/{NAME}"} | more
    assert meaning(said(body_of(model))) == Pointer(Reference(BUCKET, NAME), {})


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_a_text_names_an_object(scheme: str) -> None:
    message = said(f" {scheme}://pictures/日本.jpg\n".encode(), PatientID="P-7")
    expected = Reference(f"{scheme}://pictures", "日本.jpg")
    assert meaning(message) == Pointer(expected, {"PatientID": "P-7"})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no-image"),
        (b"{", "not-json"),
        (b'{"image": "", "image": ""}', "not-json"),
        (b'{"image": "/9j/"} and more', "not-json"),
        (b'{"a":' * 100_000, "not-json"),
        (b"{}", "no-image"),
        (b'{"image": 7}', "no-image"),
        (b'{"image": "%%%"}', "not-base64"),
        (b'{"image": "/9j/", "metadata": []}', "metadata"),
        (b'{"object": "https://pictures/a"}', "bad-reference"),
        (b'{"object": "gs://pictures/\\ud800"}', "bad-reference"),
        (b'{"object": "gs://pictures/a", "generation": "x"}', "bad-reference"),
        (b'{"object": "gs://pictures/a", "generation": 1.5}', "bad-reference"),
        (b"gs://pictures", "bad-reference"),
        (b"gs://", "bad-reference"),
    ],
)
def test_what_is_no_picture_is_refused_with_its_reason(data: bytes, reason: str) -> None:
    error = refusal_of(said(data))
    assert (error.reason, error.transient) == (reason, False)


@pytest.mark.parametrize("data", [b"[1, 2]", b'"text"', b"7", b"null", b"GIF89a", b"\0"])
def test_anything_else_claims_to_be_a_picture_and_is_inspected(data: bytes) -> None:
    assert meaning(said(data)) == Picture(data, {})


# Whatever comes

NAMES = ["message", "data", "attributes", "messageId", "image", "object", "generation"]
NAMES += ["metadata", "template", "bucket", "name", "eventType", "objectId", "bucketId"]
VALUES = [BUCKET, f"{BUCKET}/{NAME}", base64_of(JPEG), "e30="]
TEXT = st.text(st.characters(), max_size=12)  # halves of surrogate pairs too
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(TEXT, inner, max_size=3)
        | st.fixed_dictionaries(
            {},
            optional=dict.fromkeys(NAMES, inner | st.sampled_from(VALUES)),
        )
    ),
    max_leaves=8,
)
HEADERS = st.dictionaries(TEXT, TEXT, max_size=3) | st.fixed_dictionaries(
    {},
    optional={
        "content-type": st.sampled_from(["application/json", "image/jpeg"]),
        "ce-type": st.sampled_from([EVENT["ce-type"], "google.cloud.storage.", "other"]),
        "patientid": TEXT,
        "eventtype": st.just("OBJECT_FINALIZE") | TEXT,
        "objectid": TEXT,
    },
)
ATTRIBUTES = st.dictionaries(st.sampled_from(sorted(NOTIFIED)) | TEXT, TEXT, max_size=5)
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
BODIES = st.binary(max_size=60) | JSON.map(body_of)


@UNHURRIED
@given(BODIES, HEADERS)
def test_any_request_is_a_message_or_refused(body: bytes, headers: dict[str, str]) -> None:
    with suppress(BadRequest):
        assert isinstance(read(body, headers), Message)


@UNHURRIED
@given(BODIES | TEXT.map(lambda text: f"gs://{text}".encode(errors="replace")), ATTRIBUTES)
def test_any_message_has_a_meaning_or_is_refused(data: bytes, attributes: dict[str, str]) -> None:
    with suppress(BadRequest):
        assert isinstance(meaning(Message(data, attributes)), Picture | Pointer | Ignored)
