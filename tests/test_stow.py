"""STOW-RS: the request as stores want it, and what each answer means for each instance."""

import json
from collections.abc import Mapping
from email import message_from_bytes, policy
from email.message import Message
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread

from service.dicom import part10
from service.dicom.attributes import parse
from service.dicom.dataset import Instance, describe, merge
from service.dicom.multipart import Payload
from service.dicom.outcome import Conflict, Rejected, Stored, Unavailable, Verdict
from service.dicom.stow import Wire, package, package_files
from service.dicom.stow_answer import MAX_REASON, read_response, retry_after
from service.dicom.template import parse as parse_template
from service.dicom.uid import Identity
from tests.describing import normalised
from tests.jpegs import make_jpeg
from tests.streams import of_process

FILE = Path(__file__).parents[1] / "templates" / "secondary-capture-image.json"


def instance(number: int, data: bytes) -> Instance:
    merged = merge(parse_template(FILE.stem, FILE.read_bytes()), {}, parse({"PatientID": "P-7"}))
    identity = Identity("2.25.1", "2.25.2", f"2.25.{number}", "2.25.9")
    return describe(normalised(data, VERIFY_SCAN="off"), merged, identity)


INSTANCES = [
    instance(3, make_jpeg(32, 16)),
    instance(4, make_jpeg(16, 16, "L")),
    instance(5, of_process(0xF7)),
    instance(6, of_process(0xC1, precision=12)),
]


def parts_of(payload: Payload) -> list[tuple[Message, bytes]]:
    head = f"Content-Type: {payload.content_type}\r\n\r\n".encode()
    message = message_from_bytes(head + b"".join(payload), policy=policy.HTTP)
    return [(part, body) for part in message.iter_parts() if (body := raw(part)) is not None]


def raw(part: Message) -> bytes | None:
    body = part.get_payload(decode=True)
    return body if isinstance(body, bytes) else None


def content_type(part: Message) -> str:
    """Return the header without the quotes that `email` puts around a parameter."""
    return str(part["Content-Type"]).replace('"', "")


def test_metadata_comes_first_as_an_array_of_all_instances() -> None:
    payload = package(INSTANCES, "json")
    assert payload.content_type.startswith('multipart/related; type="application/dicom+json"; ')
    (head, metadata), *_ = parts_of(payload)
    assert head["Content-Type"] == "application/dicom+json"
    model = json.loads(metadata)
    assert [each["00080018"]["Value"] for each in model] == [
        [made.sop_instance_uid] for made in INSTANCES
    ]
    for each, made in zip(model, INSTANCES, strict=True):
        assert list(each) == sorted(each)
        assert each["00020010"] == {"vr": "UI", "Value": [made.transfer_syntax]}
        assert each["00080005"] == {"vr": "CS", "Value": ["ISO_IR 192"]}
        assert each["7FE00010"] == {"vr": "OB", "BulkDataURI": made.sop_instance_uid}
        assert {"0020000D", "0020000E", "00080016", "00280004"} <= set(each)


def test_every_jpeg_follows_under_its_own_name_with_its_transfer_syntax() -> None:
    _, *bulk = parts_of(package(INSTANCES, "json"))
    assert [content_type(part) for part, _ in bulk] == [
        "image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.50",
        "image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.50",
        "image/jls; transfer-syntax=1.2.840.10008.1.2.4.80",
        "image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.51",
    ]
    assert [part["Content-Location"] for part, _ in bulk] == [
        made.sop_instance_uid for made in INSTANCES
    ]
    assert [body for _, body in bulk] == [bytes(made.codestream) for made in INSTANCES]


def test_dicom_files_are_parts_of_their_own() -> None:
    payload = package(INSTANCES, "part10")
    assert payload.content_type.startswith('multipart/related; type="application/dicom"; ')
    found = parts_of(payload)
    assert {content_type(part) for part, _ in found} == {"application/dicom"}
    for (_, file), made in zip(found, INSTANCES, strict=True):
        assert part10.holds(dcmread(BytesIO(file)), made.dataset, made.codestream)


def test_ready_files_are_sent_as_they_are() -> None:
    found = parts_of(package_files([b"one", b"\r\n--two"]))
    assert [body for _, body in found] == [b"one", b"\r\n--two"]
    assert {part["Content-Type"] for part, _ in found} == {"application/dicom"}


@pytest.mark.parametrize("wire", ["json", "part10"])
def test_the_same_instances_give_the_same_request(wire: Wire) -> None:
    one, other = package(INSTANCES, wire), package(INSTANCES, wire)
    assert one.content_type == other.content_type
    assert b"".join(one) == b"".join(one) == b"".join(other)
    assert package(INSTANCES[:1], wire).content_type != one.content_type


UID = "2.25.3"


def ui(value: str) -> dict[str, Any]:
    return {"vr": "UI", "Value": [value]}


def answer(
    stored: Mapping[str, dict[str, Any]] | None = None,
    failed: Mapping[str, dict[str, Any]] | None = None,
) -> bytes:
    model: dict[str, Any] = {"00081190": {"vr": "UR", "Value": ["https://store/studies/1"]}}
    for tag, items in (("00081199", stored), ("00081198", failed)):
        if items is not None:
            value = [{"00081155": ui(uid), **more} for uid, more in items.items()]
            model[tag] = {"vr": "SQ", "Value": value}
    return json.dumps(model).encode()


def in_xml(body: bytes, *, namespace: str = "") -> bytes:
    """Write an answer of DICOM JSON as a Native DICOM Model (PS3.19 A.1)."""
    inner = attributes(json.loads(body))
    return f'<?xml version="1.0"?><NativeDicomModel{namespace}>{inner}</NativeDicomModel>'.encode()


def attributes(model: dict[str, Any]) -> str:
    return "".join(
        f'<DicomAttribute tag="{tag}" vr="{element["vr"]}">'
        + "".join(
            f'<Item number="{n}">{attributes(value)}</Item>'
            if isinstance(value, dict)
            else f'<Value number="{n}">{value}</Value>'
            for n, value in enumerate(element["Value"], 1)
        )
        + "</DicomAttribute>"
        for tag, element in model.items()
    )


def reason(number: int, **detail: str) -> dict[str, Any]:
    found: dict[str, Any] = {"00081197": {"vr": "US", "Value": [number]}}
    return found | {
        tag.removeprefix("t"): {"vr": "LT", "Value": [text]} for tag, text in detail.items()
    }


URL = {"00081190": {"vr": "UR", "Value": ["https://store/instances/3"]}}
STORED = Stored("https://store/instances/3")
REFUSED = "the store refused the instance: "

NAMED: dict[str, tuple[int, bytes, Verdict]] = {
    "stored": (200, answer({UID: URL}), STORED),
    "stored, 201": (201, answer({UID: URL}), STORED),
    "stored beside a failure": (202, answer({UID: URL}, {"2.25.4": reason(0x0110)}), STORED),
    "stored, in Google's partial 409": (409, answer({UID: URL}, {"2.25.4": {}}), STORED),
    "stored without a URL": (200, answer({UID: {}}), Stored()),
    "stored with a warning": (
        202,
        answer({UID: {"00081196": {"vr": "US", "Value": [45056]}}}),
        Stored(warning_reason=45056),
    ),
    "already stored": (
        200,
        answer({UID: {"00091001": {"vr": "LO", "Value": ["already stored"]}}}),
        Stored(duplicate=True),
    ),
    "stored and failed": (
        202,
        answer({UID: URL}, {UID: reason(0x0110)}),
        Rejected(f"{REFUSED}processing failure (failure reason 0110H)", 0x0110, 202),
    ),
    "0110, already exists, FailureDetailJSON": (
        409,
        answer(failed={UID: reason(272, t00091097="Already exists")}),
        Conflict(f"{REFUSED}Already exists (failure reason 0110H)", 272, 409),
    ),
    "0110, already exists, FailureDetail": (
        409,
        answer(failed={UID: reason(272, t00090097="already exists")}),
        Conflict(f"{REFUSED}already exists (failure reason 0110H)", 272, 409),
    ),
    "0110 with another detail": (
        409,
        answer(failed={UID: reason(272, t00091097="bad  Rows\n")}),
        Rejected(f"{REFUSED}bad Rows (failure reason 0110H)", 272, 409),
    ),
    "0111": (
        409,
        answer(failed={UID: reason(0x0111)}),
        Conflict(f"{REFUSED}duplicate SOP instance (failure reason 0111H)", 0x0111, 409),
    ),
    "45070, dcm4chee's and Orthanc's duplicate": (
        409,
        answer(failed={UID: reason(45070)}),
        Conflict(f"{REFUSED}no reason given (failure reason B00EH)", 45070, 409),
    ),
    "0124": (
        409,
        answer(failed={UID: reason(0x0124)}),
        Unavailable(f"{REFUSED}not authorized (failure reason 0124H)", None, 409, operator=True),
    ),
    "0213": (
        409,
        answer(failed={UID: reason(0x0213)}),
        Unavailable(f"{REFUSED}resource limitation (failure reason 0213H)", None, 409),
    ),
    "45071": (
        409,
        answer(failed={UID: reason(45071)}),
        Unavailable(
            f"{REFUSED}the instance is being stored by another request (failure reason B00FH)",
            None,
            409,
        ),
    ),
    "A700": (
        202,
        answer(failed={UID: reason(0xA700)}),
        Unavailable(f"{REFUSED}no reason given (failure reason A700H)", None, 202),
    ),
    "A7FF": (
        202,
        answer(failed={UID: reason(0xA7FF, t00091097="full")}),
        Unavailable(f"{REFUSED}full (failure reason A7FFH)", None, 202),
    ),
    "A800": (
        409,
        answer(failed={UID: reason(0xA800)}),
        Rejected(f"{REFUSED}no reason given (failure reason A800H)", 0xA800, 409),
    ),
    "A900": (
        409,
        answer(failed={UID: reason(43264)}),
        Rejected(f"{REFUSED}validation failed (failure reason A900H)", 43264, 409),
    ),
    "A901": (
        409,
        answer(failed={UID: reason(43265)}),
        Rejected(
            f"{REFUSED}the instance's study is not that of the request (failure reason A901H)",
            43265,
            409,
        ),
    ),
    "C000": (
        409,
        answer(failed={UID: reason(0xC000)}),
        Rejected(f"{REFUSED}no reason given (failure reason C000H)", 0xC000, 409),
    ),
    "C122": (
        409,
        answer(failed={UID: reason(0xC122)}),
        Rejected(f"{REFUSED}transfer syntax not supported (failure reason C122H)", 0xC122, 409),
    ),
    "0122": (
        409,
        answer(failed={UID: reason(0x0122)}),
        Rejected(f"{REFUSED}SOP class not supported (failure reason 0122H)", 0x0122, 409),
    ),
    "0117": (
        409,
        answer(failed={UID: reason(0x0117)}),
        Rejected(f"{REFUSED}invalid object instance (failure reason 0117H)", 0x0117, 409),
    ),
    "failed without a reason": (
        409,
        answer(failed={UID: {}}),
        Rejected(f"{REFUSED}no reason given (failure reason 0000H)", 0, 409),
    ),
    "failed in a 200": (
        200,
        answer(failed={UID: reason(43264)}),
        Rejected(f"{REFUSED}validation failed (failure reason A900H)", 43264, 200),
    ),
}
NAMESPACE = ' xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM"'


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("form", ["json", "array", "xml", "xml with namespace"])
def test_an_answer_that_names_an_instance_is_believed(name: str, form: str) -> None:
    status, body, verdict = NAMED[name]
    written = {
        "json": body,
        "array": b"\xef\xbb\xbf [" + body + b"]",
        "xml": in_xml(body),
        "xml with namespace": b"\n" + in_xml(body, namespace=NAMESPACE).split(b"?>")[1],
    }[form]
    assert read_response(status, {}, written, {UID: ""}) == {UID: verdict}


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x "2.25.3">]><NativeDicomModel>'
    '<DicomAttribute tag="00081199" vr="SQ"><Item number="1">'
    '<DicomAttribute tag="00081155" vr="UI"><Value number="1">&x;</Value></DicomAttribute>'
    "</Item></DicomAttribute></NativeDicomModel>"
)
LAUGHS = (
    "<?xml version='1.0'?><!DOCTYPE l [<!ENTITY a0 'ha'>"
    + "".join(f"<!ENTITY a{n} '{f'&a{n - 1};' * 10}'>" for n in range(1, 10))
    + "]><l>&a9;</l>"
)
USELESS: dict[str, bytes] = {
    "nothing": b"",
    "text": b"OK",
    "zeros": bytes(100),
    "empty JSON object": b"{}",
    "empty JSON array": b"[]",
    "JSON array of arrays": b"[[]]",
    "JSON text": b'"stored"',
    "cut JSON": answer({UID: URL})[:-5],
    "deep JSON": b"[" * 100_000,
    "deep JSON objects": b'{"a":' * 100_000,
    "a number of many digits": b'{"00081199":' + b"9" * 10_000 + b"}",
    "an empty sequence": answer({}),
    "sequence of null": b'{"00081199": {"vr": "SQ", "Value": null}}',
    "sequence of text": b'{"00081199": {"vr": "SQ", "Value": ["2.25.3"]}}',
    "sequence as text": b'{"00081199": "2.25.3"}',
    "another instance": answer({"2.25.4": URL}),
    "the beginning of its name": answer({"2.25.33": URL}),
    "empty XML": b"<NativeDicomModel/>",
    "cut XML": in_xml(answer({UID: URL}))[:-5],
    "HTML": b"<!DOCTYPE html><html><body>Welcome to nginx!</body></html>",
    "deep XML": b"<a>" * 50_000 + b"</a>" * 50_000,
    "deep items": b"<a>"
    + b'<DicomAttribute tag="00081199"><Item>' * 20_000
    + b"</Item></DicomAttribute>" * 20_000
    + b"</a>",
    "entity": BOMB.encode(),
    "entity in UTF-16": BOMB.encode("utf-16"),
    "entity in UTF-16 without a mark": BOMB.encode("utf-16-le"),
    "a billion laughs": LAUGHS.encode(),
    "not UTF-8": b'{"00081199": "\xff\xfe"}',
}


# The others come of a login page, a proxy, another service: an operator's business.
ANSWERS_OF_A_STORE = {
    "an empty sequence",
    "sequence of null",
    "sequence of text",
    "sequence as text",
    "another instance",
    "the beginning of its name",
}


@pytest.mark.parametrize("name", USELESS)
@pytest.mark.parametrize("status", [200, 201, 202])
def test_success_that_names_nothing_is_no_success(name: str, status: int) -> None:
    (verdict,) = read_response(status, {}, USELESS[name], {UID: ""}).values()
    assert verdict == Unavailable(
        f"the store answered {status} without naming the instance as stored",
        status=status,
        operator=name not in ANSWERS_OF_A_STORE,
    )


CLASS = "1.2.840.10008.5.1.4.1.1.7"
REFERENCE = '{"00081150": {"Value": ["%s"]}, "00081155": {"Value": ["2.25.3"]}}'
OURS = REFERENCE % CLASS
SAID_STORED = f'"00081199": {{"Value": [{OURS}]}}'
SAID_FAILED = f'"00081198": {{"Value": [{OURS}]}}'
CONTRADICTIONS = {
    "failures twice": f'{{{SAID_STORED}, {SAID_FAILED}, "00081198": {{}}}}',
    "failures twice in one element": (
        f'{{{SAID_STORED}, "00081198": {{"Value": [{OURS}], "Value": []}}}}'
    ),
    "a failure in another object": f"[{{{SAID_STORED}}}, {{{SAID_FAILED}}}]",
    "a success and a failure in other objects": f"[{{}}, {{{SAID_FAILED}}}, {{{SAID_STORED}}}]",
    "an array of an answer and something else": f"[{{{SAID_STORED}}}, [{{{SAID_FAILED}}}]]",
    "another class": f'{{"00081199": {{"Value": [{REFERENCE % "1.2.3"}]}}}}',
    "another class and the right one": (
        f'{{"00081199": {{"Value": [{REFERENCE % "1.2.3"}, {OURS}]}}}}'
    ),
    "a failure that names none": (
        f'{{{SAID_STORED}, "00081198": {{"Value": [{{"00081197": {{"Value": [272]}}}}]}}}}'
    ),
    "failures twice in XML": in_xml(answer({UID: URL}, {UID: {}}))
    .decode()
    .replace("</NativeDicomModel>", '<DicomAttribute tag="00081198"/></NativeDicomModel>'),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
@pytest.mark.parametrize("status", [200, 202, 409])
def test_an_answer_that_contradicts_itself_is_no_success(name: str, status: int) -> None:
    (verdict,) = read_response(status, {}, CONTRADICTIONS[name].encode(), {UID: CLASS}).values()
    assert not isinstance(verdict, Stored)


@pytest.mark.parametrize("sop_class", [CLASS, ""])
def test_a_reference_of_the_right_class_is_a_success(sop_class: str) -> None:
    body = f"[{{}}, {{{SAID_STORED}}}]".encode()
    assert read_response(200, {}, body, {UID: sop_class}) == {UID: Stored()}


def test_a_failure_that_names_none_is_of_the_instance_that_isnt_named() -> None:
    nameless = '"00081198": {"Value": [{"00081197": {"Value": [43264]}}]}'
    body = f"{{{SAID_STORED}, {nameless}}}".encode()
    found = read_response(202, {}, body, {UID: CLASS, "2.25.4": CLASS})
    assert found[UID] == Stored()
    assert isinstance(found["2.25.4"], Rejected)


@pytest.mark.parametrize(
    "url",
    [
        "http://[::1",
        "http://a:999999/",
        "http://a:b/",
        "http://x:y:z@[v1]/",
        "http://alice@host/",
        f"http://{'a' * 70}.com/",
        "http://a..b/",
        "http://a:65536/",
        "http://[:::]/",
        "http:///x",
        "javascript:alert(1)",
    ],
)
def test_a_retrieve_url_that_cant_be_parsed_is_not_passed_on(url: str) -> None:
    body = answer({UID: {"00081190": {"vr": "UR", "Value": [url]}}})
    assert read_response(200, {}, body, {UID: ""}) == {UID: Stored()}


@pytest.mark.parametrize(
    "url", ["http://[::1]:8042/x@y", "https://host", "http://a.b_c-d.:65535?x"]
)
def test_a_retrieve_url_that_can_be_parsed_is_passed_on(url: str) -> None:
    body = answer({UID: {"00081190": {"vr": "UR", "Value": [url]}}})
    assert read_response(200, {}, body, {UID: ""}) == {UID: Stored(url)}


@pytest.mark.parametrize("name", USELESS)
def test_a_409_that_names_nothing_is_a_refusal(name: str) -> None:
    (verdict,) = read_response(409, {}, USELESS[name], {UID: ""}).values()
    assert isinstance(verdict, Rejected)
    assert verdict.reason.startswith("the store answered 409: ")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"instance Already exists", Conflict),
        (b'{"error": {"message": "already exists"}}', Conflict),
        (b'{"Message": "Already exists"}', Conflict),
        (b'{"error": {"message": "invalid Rows"}}', Rejected),
        (b"<html>already exists</html>", Rejected),
    ],
)
def test_a_409_may_say_already_exists_in_its_own_words(
    body: bytes, kind: type[Conflict | Rejected]
) -> None:
    (found,) = read_response(409, {}, body, {UID: ""}).values()
    assert isinstance(found, kind)
    assert found.reason.startswith("the store answered 409: ")


OPERATOR = [401, 403, 404, 405, 407]
TRANSIENT = [408, 425, 429, 500, 501, 502, 503, 504, 507, 599]
FINAL = [400, 402, 406, 410, 411, 412, 413, 414, 415, 416, 422, 431, 451]
STRANGE = [100, 101, 199, 203, 204, 206, 226, 300, 301, 302, 304, 307, 308, 0, 42]


@pytest.mark.parametrize("status", [*OPERATOR, *TRANSIENT, *FINAL, *STRANGE])
@pytest.mark.parametrize("body", [b"", answer({UID: URL}), b"because"])
def test_a_status_speaks_for_all_instances(status: int, body: bytes) -> None:
    """Even a body that names an instance doesn't make a success of another status."""
    found = read_response(status, {"retry-after": "7"}, body, {UID: "", "2.25.4": ""})
    assert found[UID] == found["2.25.4"]
    verdict = found[UID]
    assert isinstance(verdict, Rejected if status in FINAL else Unavailable)
    assert verdict.status == status
    assert str(status) in verdict.reason
    assert ("because" in verdict.reason) == (body == b"because")
    if isinstance(verdict, Unavailable):
        assert verdict.operator is (status in {*OPERATOR, *STRANGE})
        assert verdict.retry_after == (None if status in STRANGE else 7)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": {"code": 429, "message": "Quota  exceeded"}}', ": Quota exceeded"),
        (b'[{"error": {"message": "Quota exceeded"}}]', ": Quota exceeded"),
        (b'{"error": {"message": 5}, "title": "Busy"}', ": Busy"),
        (b'{"Details": "Orthanc says", "Message": "no"}', ": no"),
        (b'{"detail": "RFC 9457", "title": "Busy"}', ": RFC 9457"),
        (b'{"detail": 5}', ""),
        (b'{"error": "x"}', ""),
        (b"down\r\n\x1b[31mfor \xff maintenance", ": down [31mfor \ufffd maintenance"),
        (b'{"message": "\\ud800\\u0000x"}', ": x"),
        (b"<html>down</html>", ""),
        (b"x" * 100_000, ": " + "x" * MAX_REASON),
        (b'{"message": "' + b"x" * 100_000 + b'"}', ": " + "x" * MAX_REASON),
    ],
)
def test_the_stores_own_words_are_passed_on_in_one_printable_line(body: bytes, said: str) -> None:
    (verdict,) = read_response(503, {}, body, {UID: ""}).values()
    assert not isinstance(verdict, Stored)
    assert verdict.reason == f"the store answered 503{said}"


@pytest.mark.parametrize(
    ("text", "date", "seconds"),
    [
        ("7", "", 7),
        (" 0 ", "", 0),
        ("999999999", "", 999_999_999),
        ("1.5", "", None),
        ("-1", "", None),
        ("soon", "", None),
        ("", "", None),
        ("9" * 400, "", None),
        ("Sat, 01 Jan 2028 00:01:00 GMT", "Sat, 01 Jan 2028 00:00:00 GMT", 60),
        ("Sat, 01 Jan 2028 00:00:00 GMT", "Sat, 01 Jan 2028 00:01:00 GMT", 0),
        ("Sat, 01 Jan 2028 00:01:00 GMT", "", None),
        ("Sat, 01 Jan 2028 00:01:00 GMT", "yesterday", None),
        ("Sat, 01 Jan 2028 00:01:00", "Sat, 01 Jan 2028 00:00:00 GMT", None),
        ("Sat, 01 Jan 2028 00:01:00 +" + "9" * 20, "Sat, 01 Jan 2028 00:00:00 GMT", None),
        ("Sat, 99 Jan 2028 00:01:00 GMT", "Sat, 01 Jan 2028 00:00:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_by_the_stores_own_clock(
    text: str, date: str, seconds: float | None
) -> None:
    assert retry_after({"retry-after": text, "date": date}) == seconds


def test_without_retry_after_there_is_none() -> None:
    assert retry_after({}) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.just(UID) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["Value", "00081199", "00081198", "00081155", "00081197", "error"]),
            inner,
        )
    ),
)


@settings(deadline=None)
@given(st.sampled_from([200, 202, 409, 401, 500, 400]), JSON.map(json.dumps) | st.text())
def test_any_answer_gives_every_instance_a_verdict(status: int, text: str) -> None:
    body = text.encode("utf-8", "surrogatepass")
    found = read_response(status, {}, body, {UID: "", "2.25.4": ""})
    assert set(found) == {UID, "2.25.4"}
    assert all(
        isinstance(each, Stored | Rejected | Unavailable | Conflict) for each in found.values()
    )
    for verdict in found.values():
        if not isinstance(verdict, Stored):
            assert len(verdict.reason) < MAX_REASON + 200
            assert verdict.reason.isprintable()


@settings(deadline=None)
@given(st.binary())
def test_any_bytes_for_an_answer_store_nothing(body: bytes) -> None:
    for status in (200, 409, 503):
        (verdict,) = read_response(status, {}, body, {UID: ""}).values()
        assert not isinstance(verdict, Stored)
