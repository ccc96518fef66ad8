"""The command that searches: what it asks, what it shows, and what it says when it can't."""

import json
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import archive, at_terminal, jpegstow, put_study
from tests.peers import (
    LoseAnswer,
    Orthanc,
    Respond,
    ScriptedServer,
    no_studies,
    refused_port,
    throttled,
    unauthorized,
    unavailable,
)
from tests.test_store import service_account

JSON = {"Content-Type": "application/dicom+json"}
NAME = "Quixote^Alonso"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with archive(tmp_path_factory.mktemp("search")) as address:
        put_study(address, 1, PatientName="Zhang^Sally", PatientID="P-1", StudyDate="20240101")
        put_study(address, 2, PatientName=NAME, PatientID="P-2", StudyDate="20240202")
        put_study(address, 3, PatientName=NAME, PatientID="P-3", StudyDate="20240303")
        yield address


def found(url: str, *arguments: str) -> list[dict[str, dict[str, list[object]]]]:
    ended = jpegstow("search", *arguments, "--json", url=url)
    assert (ended.exit_code, isinstance(ended.exception, SystemExit | None)) == (0, True)
    matches = json.loads(ended.stdout)
    assert isinstance(matches, list)
    return matches


def uids_of(matches: list[dict[str, dict[str, list[object]]]], tag: str) -> list[object]:
    return [match[tag]["Value"][0] for match in matches]


SEARCHES = {
    "everything": ([], "0020000D", ["1.2.1", "1.2.2", "1.2.3"]),
    "by name": (["studies", f"PatientName={NAME}"], "0020000D", ["1.2.2", "1.2.3"]),
    "without a level": ([f"PatientName={NAME}"], "0020000D", ["1.2.2", "1.2.3"]),
    "by two": ([f"PatientName={NAME}", "StudyDate=20240301-"], "0020000D", ["1.2.3"]),
    "as dcmweb does": (
        ["studies", "PatientName=Quixote%5EAlonso&PatientID=P-2"],
        "0020000D",
        ["1.2.2"],
    ),
    "by tag": (["studies", "00100020=P-1"], "0020000D", ["1.2.1"]),
    "fuzzy": (["studies", "PatientName=sal", "--fuzzy"], "0020000D", ["1.2.1"]),
    "series": (["series", "PatientID=P-1"], "0020000E", ["1.2.1.1", "1.2.1.2"]),
    "series of a study": (["studies/1.2.2/series"], "0020000E", ["1.2.2.1", "1.2.2.2"]),
    "instances of a series": (
        ["studies/1.2.2/series/1.2.2.1/instances"],
        "00080018",
        ["1.2.2.1.1", "1.2.2.1.2"],
    ),
    "some": (["studies", "--limit", "1", "--offset", "1"], "0020000D", ["1.2.2"]),
    "all, by pages of one": (
        ["studies", "--limit", "1", "--all"],
        "0020000D",
        ["1.2.1", "1.2.2", "1.2.3"],
    ),
    "nobody": (["studies", "PatientID=P-9"], "0020000D", []),
}


@pytest.mark.parametrize(("arguments", "tag", "uids"), SEARCHES.values(), ids=SEARCHES)
def test_what_is_searched_for_is_found(
    url: str, arguments: list[str], tag: str, uids: list[str]
) -> None:
    assert sorted(map(str, uids_of(found(url, *arguments), tag))) == uids


def test_an_attribute_that_is_wanted_is_there(url: str) -> None:
    (plain,) = found(url, "studies/1.2.1/series/1.2.1.2/instances")
    (more,) = found(
        url, "studies/1.2.1/series/1.2.1.2/instances", "--include", "HighBit,PatientName"
    )
    assert set(more) - set(plain) == {"00280102", "00100010"}


def test_people_get_a_table_with_whom_and_where(url: str) -> None:
    ended = jpegstow("search", "studies", f"PatientName={NAME}", "--include", "StudyTime", url=url)
    assert (ended.exit_code, ended.stderr) == (0, "")
    head, *rows = ended.stdout.splitlines()
    assert head.split()[0] == "PatientName"
    assert head.split()[-1] == "StudyInstanceUID"
    assert "StudyTime" in head
    assert sorted(row.split()[-1] for row in rows) == ["1.2.2", "1.2.3"]
    assert all(row.startswith(NAME) and " P-" in row for row in rows)


def test_a_row_is_no_longer_than_the_terminal(url: str, tmp_path: Path) -> None:
    shown = at_terminal(tmp_path, "search", "studies", url=url, columns=40)
    rows = shown.split("\r\n")[:4]
    assert {len(row) for row in rows} == {40}
    assert all(row.endswith("\N{HORIZONTAL ELLIPSIS}") for row in rows)


def test_finding_nothing_is_no_failure(url: str) -> None:
    ended = jpegstow("search", "PatientID=P-9", url=url)
    assert (ended.exit_code, ended.stdout, ended.stderr) == (0, "", "nothing found\n")


def test_it_tells_that_there_may_be_more(url: str) -> None:
    ended = jpegstow("search", "--limit", "2", url=url)
    assert (ended.exit_code, ended.stderr) == (0, "2 found; there may be more: --all\n")


def test_what_a_store_doesn_t_understand_is_told_without_the_values(url: str) -> None:
    ended = jpegstow("search", "PatientName=Dulci*", "StudyID=Tobosa 7", url=url)
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert "400" in ended.stderr
    assert "Dulci" not in ended.stderr
    assert "Tobosa" not in ended.stderr


def test_a_store_s_own_words_lose_the_values_that_they_quote() -> None:
    error = b'{"error": {"message": "bad value \'Dulcinea del Toboso\': TOBOSO is no date"}}'
    with ScriptedServer(Respond(400, JSON, error)) as server:
        ended = jpegstow("search", "StudyDate=Dulcinea del Toboso", url=server.dicomweb_url)
    assert ended.exit_code == 1
    assert "is no date" in ended.stderr
    assert "oboso" not in ended.stderr.lower()
    assert "Dulcinea" not in ended.stderr


MISUSES = {
    "no level": ["patients"],
    "a level within itself": ["studies/1.2/studies"],
    "no UID": ["studies/../series"],
    "no condition": ["studies", "Dulcinea"],
    "no attribute": ["studies", "Dulcinea=x"],
    "an attribute with more behind it": ["studies", "PatientID&x=Dulcinea"],
    "an attribute twice": ["studies", "PatientID=Dulcinea", "PatientID=x"],
    "a limit that is none": ["studies", "limit=Dulcinea"],
    "no limit": ["studies", "--limit", "0"],
    "a field that is none": ["studies", "--include", "Dulcineas"],
}


@pytest.mark.parametrize("arguments", MISUSES.values(), ids=MISUSES)
def test_a_misuse_asks_nothing_and_quotes_no_value(arguments: list[str]) -> None:
    with ScriptedServer(no_studies()) as server:
        ended = jpegstow("search", *arguments, url=server.dicomweb_url)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr
    assert "Dulcinea" not in ended.stderr
    assert server.requests == []


def test_a_value_goes_into_the_request_as_one() -> None:
    with ScriptedServer(no_studies()) as server:
        jpegstow("search", "PatientID=a%26b+c&limit=1", url=server.dicomweb_url)
        jpegstow("search", "AccessionNumber=a+b c%", url=server.dicomweb_url)
    assert [request.path.partition("?")[2] for request in server.requests] == [
        "PatientID=a%26b+c&limit=1",
        "AccessionNumber=a%2Bb+c%25",
    ]
    host = server.url.removeprefix("http://")
    assert {request.headers["host"] for request in server.requests} == {host}


def test_a_store_that_is_busy_for_a_moment_is_asked_again() -> None:
    match = b'[{"0020000D": {"vr": "UI", "Value": ["1.2"]}}]'
    steps = unavailable(), throttled(0), LoseAnswer(), Respond(200, JSON, match)
    with ScriptedServer(*steps) as server:
        ended = jpegstow("search", url=server.dicomweb_url)
    assert (ended.exit_code, ended.stderr) == (0, "")
    assert "1.2" in ended.stdout
    assert len(server.requests) == 4


def endless() -> Respond:
    """Answer with little that becomes more than anybody has memory for."""
    packer = zlib.compressobj(wbits=31)
    blanks = bytes(1 << 20)
    packed = b"".join(packer.compress(blanks) for _ in range(300)) + packer.flush()
    return Respond(200, JSON | {"Content-Encoding": "gzip"}, packed)


FAILURES = {
    "nesting": (Respond(200, JSON, b"[" * 100_000), 1, "isn't JSON"),
    "no end": (endless(), 1, "longer than 256 MiB"),
    "credentials": (unauthorized(), 1, "credentials (401)"),
    "rights": (Respond(403), 1, "denies access"),
    "another address": (Respond(404), 1, "404"),
    "a login page": (Respond(200, {"Content-Type": "text/html"}, b"<html>"), 1, "isn't JSON"),
    "a redirect": (Respond(302, {"Location": "/login"}), 1, "answered 302"),
    "nothing": (Respond(200), 1, "without a word"),
    "another form": (Respond(200, JSON, b"[1]"), 1, "array of matches"),
}


@pytest.mark.parametrize(("step", "requests", "said"), FAILURES.values(), ids=FAILURES)
def test_what_waiting_doesn_t_mend_is_asked_once(step: Respond, requests: int, said: str) -> None:
    with ScriptedServer(step) as server:
        ended = jpegstow("search", f"PatientName={NAME}", url=server.dicomweb_url)
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert said in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert NAME not in ended.stderr
    assert len(server.requests) == requests


def test_google_s_credentials_are_sent_and_had_anew_after_a_401(tmp_path: Path) -> None:
    tokens = Respond(200, JSON, b'{"access_token": "t-1", "expires_in": 3600}')
    found = Respond(200, JSON, b"[]")
    with ScriptedServer(tokens) as issuer, ScriptedServer(unauthorized(), found) as server:
        file = tmp_path / "account.json"
        file.write_text(json.dumps(service_account(issuer.url)))
        given = {"DICOMWEB_AUTH": "google", "GOOGLE_APPLICATION_CREDENTIALS": str(file)}
        ended = jpegstow("search", url=server.dicomweb_url, **given)
    assert (ended.exit_code, ended.stderr) == (0, "nothing found\n")
    sent = [request.headers["authorization"] for request in server.requests]
    assert sent == ["Bearer t-1", "Bearer t-1"]
    assert len(issuer.requests) == 2


def test_a_store_that_is_away_is_told_without_the_values() -> None:
    with refused_port() as port:
        ended = jpegstow("search", f"PatientName={NAME}", url=f"http://127.0.0.1:{port}")
    assert ended.exit_code == 1
    assert "ConnectionRefusedError" in ended.stderr
    assert NAME not in ended.stderr


def pages(*sizes: int) -> list[Respond]:
    """Return answers with so many studies each, none of them twice."""
    answers, first = [], 1
    for size in sizes:
        uids = [f"1.2.{number}" for number in range(first, first + size)]
        models = [{"0020000D": {"vr": "UI", "Value": [uid]}} for uid in uids]
        answers.append(Respond(200, JSON, json.dumps(models).encode()))
        first += size
    return answers


def test_a_short_page_is_not_the_last() -> None:
    with ScriptedServer(*pages(2, 1, 2), no_studies()) as server:
        assert len(found(server.dicomweb_url, "--all")) == 5
    asked = [request.path.partition("?")[2] for request in server.requests]
    assert asked == ["limit=5000", *(f"limit=5000&offset={offset}" for offset in (2, 3, 5))]


def test_a_store_without_offsets_is_read_once() -> None:
    with ScriptedServer(*pages(3)) as server:
        assert len(found(server.dicomweb_url, "--all")) == 3
    assert len(server.requests) == 2


def test_a_store_that_gives_the_same_full_page_again_is_not_believed() -> None:
    with ScriptedServer(*pages(2)) as server:
        ended = jpegstow("search", "--all", "--limit", "2", url=server.dicomweb_url)
    assert ended.exit_code == 1
    assert "same page" in ended.stderr


def test_a_page_that_fails_is_told_and_what_came_is_shown() -> None:
    with ScriptedServer(*pages(2), Respond(403)) as server:
        ended = jpegstow("search", "--all", "--json", url=server.dicomweb_url)
    assert ended.exit_code == 1
    assert len(json.loads(ended.stdout)) == 2


def test_what_a_store_writes_does_nothing_to_the_terminal() -> None:
    hostile = json.dumps([{"00100010": {"vr": "PN", "Value": [{"Alphabetic": "\x1b[2J\nx"}]}}])
    with ScriptedServer(Respond(200, JSON, hostile.encode())) as server:
        shown = jpegstow("search", url=server.dicomweb_url).stdout
        as_json = jpegstow("search", "--json", url=server.dicomweb_url).stdout
    assert "\x1b" not in shown + as_json
    assert len(shown.splitlines()) == 2


def test_odd_values_of_matches_are_shown_as_nothing() -> None:
    odd = [{"00100010": {"Value": [None, {"Alphabetic": 7}, {}]}, "00100020": 7, "00080020": {}}]
    with ScriptedServer(Respond(200, JSON, json.dumps(odd).encode())) as server:
        ended = jpegstow("search", url=server.dicomweb_url)
    assert ended.exit_code == 0
    assert len(ended.stdout.splitlines()) == 2


def test_without_google_s_credentials_one_line_says_so(tmp_path: Path) -> None:
    google = "https://healthcare.googleapis.com/v1/projects/p/locations/l/datasets/d/dicomStores/s"
    nowhere = {"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "absent"), "HOME": str(tmp_path)}
    ended = jpegstow("search", "--url", f"{google}/dicomWeb", url="", **nowhere)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr == (
        "jpegstow: DICOMWEB_AUTH: google, but there are no application default credentials\n"
    )


def test_without_the_package_it_is_told_how_to_get_it() -> None:
    hidden = "import sys; sys.modules['dicomweb_client'] = None; "
    run = "from service.__main__ import main; sys.argv[1:] = ['search']; main()"
    ended = subprocess.run(
        [sys.executable, "-c", hidden + run], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "pip install 'jpegstow[client]'" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_it_searches_an_orthanc(orthanc: Orthanc) -> None:
    orthanc.empty()
    put_study(orthanc.dicomweb_url, 1, PatientID="P-77")
    shown = jpegstow("search", "PatientID=P-77", url=orthanc.dicomweb_url)
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert shown.stdout.splitlines()[1].split()[-1] == "1.2.1"
    assert len(found(orthanc.dicomweb_url, "instances", "--all", "--limit", "2")) == 3
