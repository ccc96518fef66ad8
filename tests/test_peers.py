"""The peers of the other tests do what they say."""

import socket
from pathlib import Path

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from service import telemetry
from tests.judges import require_tool
from tests.peers import (
    BOUND,
    CutAnswer,
    Flood,
    Garbage,
    Hang,
    LoseAnswer,
    Orthanc,
    Received,
    ResetMidBody,
    Respond,
    ScriptedServer,
    SlowBody,
    Step,
    already_exists_409,
    free_port,
    instances_in,
    no_studies,
    partial_202,
    parts_of,
    refused_port,
    stored,
    stored_xml,
    throttled,
)

TYPE = 'multipart/related; type="application/dicom+json"; boundary=b'
JSON = (
    b'[{"00080016":{"vr":"UI","Value":["1.2"]},"00080018":{"vr":"UI","Value":["2.25.7"]}},'
    b'{"00080016":{"vr":"UI","Value":["1.2"]},"00080018":{"vr":"UI","Value":["2.25.8"]}}]'
)


def multipart(image: bytes) -> bytes:
    return (
        b"--b\r\nContent-Type: application/dicom+json\r\n\r\n" + JSON + b"\r\n--b\r\n"
        b"Content-Type: image/jpeg\r\nContent-Location: x\r\n\r\n" + image + b"\r\n--b--\r\n"
    )


def post(server: ScriptedServer, body: bytes = multipart(b"\xff\xd8")) -> requests.Response:
    return requests.post(server.url, body, headers={"Content-Type": TYPE}, timeout=BOUND)


def test_steps_are_played_in_order_and_the_last_one_repeats() -> None:
    with ScriptedServer(throttled(7), stored()) as server:
        answers = [post(server) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 200, 200]
    assert answers[0].headers["Retry-After"] == "7"


def test_a_method_of_its_own_leaves_the_script_where_it_is() -> None:
    with ScriptedServer(throttled(), stored(), also={"GET": no_studies()}) as server:
        assert requests.get(server.url, timeout=BOUND).json() == []
        assert post(server).status_code == 429


def test_requests_are_recorded_and_one_connection_serves_many() -> None:
    with ScriptedServer(stored()) as server, requests.Session() as session:
        for path in ("/one", "/two"):
            session.post(server.url + path, b"abc", headers={"Content-Type": "image/jpeg"})
    assert [(r.method, r.path, r.length) for r in server.requests] == [
        ("POST", "/one", 3),
        ("POST", "/two", 3),
    ]
    assert server.requests[0].sha256.startswith("ba7816bf")
    assert server.requests[0].headers["connection"] == "keep-alive"


def test_a_chunked_body_is_put_together() -> None:
    with ScriptedServer(Respond()) as server:
        requests.post(server.url, iter([b"ab", b"c"]), timeout=BOUND)
    assert server.requests[0].body == b"abc"


def test_answers_name_what_was_sent() -> None:
    with ScriptedServer(
        stored(), stored_xml(), partial_202(0xA700), already_exists_409()
    ) as server:
        good, xml, partial, conflict = (post(server) for _ in range(4))
    uids = [item["00081155"]["Value"][0] for item in good.json()["00081199"]["Value"]]
    assert uids == ["2.25.7", "2.25.8"]
    assert b'<Value number="1">2.25.8</Value>' in xml.content
    assert partial.json()["00081198"]["Value"][0]["00081155"]["Value"] == ["2.25.8"]
    assert conflict.status_code == 409
    assert conflict.json()["00081198"]["Value"][1]["00081197"]["Value"] == [272]


@given(st.binary())
def test_a_part_may_hold_any_bytes(image: bytes) -> None:
    request = Received("POST", "/", {"content-type": TYPE}, multipart(image))
    assert parts_of(request)[1] == ("image/jpeg", image)
    assert instances_in(request) == [("1.2", "2.25.7"), ("1.2", "2.25.8")]


@pytest.mark.parametrize(
    "step",
    [ResetMidBody(), LoseAnswer(), CutAnswer(), Garbage()],
    ids=lambda step: type(step).__name__,
)
def test_a_connection_breaks_in_each_way(step: Step) -> None:
    with ScriptedServer(step) as server, pytest.raises(requests.RequestException):
        post(server, bytes(20_000_000)).content  # noqa: B018 - the body has to be read
    assert len(server.requests) == 1


def test_a_body_cut_short_is_counted_as_far_as_it_was_read() -> None:
    with (
        ScriptedServer(ResetMidBody(after=1000)) as server,
        pytest.raises(requests.ConnectionError),
    ):
        post(server, bytes(20_000_000))
    assert server.requests[0].length == 1000


def test_a_hanging_server_ends_at_once() -> None:
    with ScriptedServer(Hang()) as server, pytest.raises(requests.Timeout):
        requests.get(server.url, timeout=0.05)


def test_a_step_that_fails_is_told_at_the_end() -> None:
    server = ScriptedServer(stored())
    with pytest.raises(AssertionError, match="a step failed") as caught, server:  # noqa: PT012
        with pytest.raises(requests.ConnectionError):
            requests.get(server.url, timeout=BOUND)
        telemetry.silence_pydicom()
    assert type(caught.value.__cause__) is KeyError  # a GET names no media type


def test_free_ports_are_each_another_and_none_that_linux_gives_unasked() -> None:
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50
    assert max(ports) < 32_768
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports[0]))


def test_a_released_server_goes_on() -> None:
    with ScriptedServer(Hang(then=no_studies())) as server:
        server.released.set()
        assert requests.get(server.url, timeout=BOUND).json() == []


def test_bodies_come_slowly_or_without_end() -> None:
    with ScriptedServer(SlowBody(b"slow", pause=0.001), Flood(100_000)) as server:
        assert requests.get(server.url, timeout=BOUND).content == b"slow"
        assert len(requests.get(server.url, timeout=BOUND).content) == 100_000


def test_nobody_listens_on_a_refused_port() -> None:
    with refused_port() as port, pytest.raises(requests.ConnectionError):
        requests.get(f"http://127.0.0.1:{port}", timeout=BOUND)


def test_orthanc_answers_dicomweb(orthanc: Orthanc) -> None:
    orthanc.empty()
    answer = orthanc.session.get(f"{orthanc.dicomweb_url}/studies", timeout=BOUND)
    assert answer.json() == []
    assert orthanc.get("/system")["DicomAet"] == "ORTHANC"


def test_orthanc_asks_for_credentials_where_told_to(tmp_path: Path) -> None:
    with Orthanc(tmp_path, "alice", "secret") as server:
        assert requests.get(f"{server.dicomweb_url}/studies", timeout=BOUND).status_code == 401
        assert server.get("/patients") == []


def test_a_missing_judge_skips_a_test_here_and_fails_it_in_ci(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-judge isn't installed"):
        require_tool("no-such-judge")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt-get install no-such-judge"):
        require_tool("no-such-judge")
