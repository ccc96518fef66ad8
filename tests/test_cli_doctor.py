"""jpegstow doctor: what it finds wrong is wrong, and what it calls well is well."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner, Result

from service.cli import main
from tests.peers import (
    BOUND,
    Respond,
    ScriptedServer,
    no_studies,
    refused_port,
    unauthorized,
    unavailable,
)
from tests.peers.openid import discovery
from tests.serving import SECRET, Serving

OFFLINE = ["settings", "templates", "libturbojpeg", "DATA_DIR", "UID_NAMESPACE", "retry queue"]
LAST = ["METADATA_RULES", "push"]


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with Serving(tmp_path_factory.mktemp("doctor") / "data") as service:
        yield service


def asked(folder: Path, *options: str, **environment: str) -> Result:
    given = {"DATA_DIR": str(folder), "UID_NAMESPACE": SECRET} | environment
    return CliRunner().invoke(main, ["doctor", *options], env=given)


def wrong(result: Result) -> dict[str, str]:
    """Return what is wrong, by check."""
    return {each["check"]: each["wrong"] for each in json.loads(result.stdout) if each["wrong"]}


def test_offline_each_check_is_a_line_and_all_is_well(tmp_path: Path) -> None:
    result = asked(tmp_path / "data", "--offline")
    assert result.stdout.splitlines() == [f"ok     {name}" for name in [*OFFLINE, *LAST]]
    assert result.exit_code == 0


def test_a_store_that_answers_is_well(tmp_path: Path) -> None:
    with ScriptedServer(no_studies()) as store:
        result = asked(tmp_path, DICOMWEB_URL=store.dicomweb_url)
    assert result.stdout.splitlines()[-2:] == ["ok     credentials (none)", "ok     store"]
    assert result.exit_code == 0


def test_a_store_that_nobody_answers_for_is_wrong_and_the_rest_is_well(tmp_path: Path) -> None:
    with refused_port() as port:
        result = asked(tmp_path, DICOMWEB_URL=f"http://127.0.0.1:{port}")
    *well, last = result.stdout.splitlines()
    assert all(line.startswith("ok ") for line in well)
    assert last.startswith("WRONG  store: ")
    assert "; look at DICOMWEB_URL" in last
    assert result.exit_code == 1


PAGE = Respond(200, {"Content-Type": "text/html"}, b"<p>Sign in</p>")


@pytest.mark.parametrize(
    "step", [unauthorized(), unavailable(), PAGE], ids=["401", "503", "a page"]
)
def test_a_store_that_lets_nobody_in_is_wrong(tmp_path: Path, step: Respond) -> None:
    with ScriptedServer(step) as store:
        result = asked(tmp_path, "--json", DICOMWEB_URL=store.dicomweb_url)
    assert list(wrong(result)) == ["store"]
    assert result.exit_code == 1


def test_bad_settings_are_listed_all_and_nothing_else_is_looked_at(tmp_path: Path) -> None:
    result = asked(tmp_path, PORT="x", DICOMWEB_AUTH="bearer")
    assert [line.split(":")[1].strip() for line in result.stdout.splitlines()] == [
        "PORT",
        "DICOMWEB_TOKEN",
    ]
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("environment", "check"),
    [
        ({"DEFAULT_TEMPLATE": "none-such"}, "templates"),
        ({"TEMPLATES_DIR": "none-such"}, "templates"),
        ({"METADATA_RULES": "{PatientID"}, "METADATA_RULES"),
        ({"BUCKET_ENDPOINT": "127.0.0.1:9"}, "settings"),
        ({"PUSH_KEYS_URL": "none"}, "settings"),
        ({"PUSH_AUDIENCE": "https://jpegstow.example"}, "push"),
        ({"PUSH_SERVICE_ACCOUNT": "push@p.iam.example"}, "push"),
    ],
)
def test_a_wrong_setting_is_found_by_its_check(
    tmp_path: Path, environment: dict[str, str], check: str
) -> None:
    result = asked(tmp_path, "--offline", "--json", **environment)
    assert check in wrong(result)
    assert result.exit_code == 1


def test_push_settings_that_belong_together_are_well(tmp_path: Path) -> None:
    both = {
        "PUSH_AUDIENCE": "https://jpegstow.example",
        "PUSH_SERVICE_ACCOUNT": "push@p.iam.example",
    }
    assert asked(tmp_path, "--offline", **both).exit_code == 0


def test_a_folder_that_cant_be_written_is_found_with_the_queue_in_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    result = asked(tmp_path / "file", "--offline", "--json")
    assert list(wrong(result)) == ["DATA_DIR", "retry queue"]


def test_google_without_credentials_is_told(tmp_path: Path) -> None:
    missing = {
        "DICOMWEB_AUTH": "google",
        "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "none-such.json"),
    }
    with ScriptedServer(no_studies()) as store:
        result = asked(tmp_path, "--json", DICOMWEB_URL=store.dicomweb_url, **missing)
    assert list(wrong(result)) == ["credentials", "store"]
    assert "application default credentials" in wrong(result)["credentials"]


def test_writing_stores_a_made_up_picture_and_leaves_nothing(
    serving: Serving, tmp_path: Path
) -> None:
    result = asked(tmp_path, "--write", ARCHIVE_PORT=str(serving.archive_port))
    assert result.stdout.splitlines()[-1] == "ok     store, writing"
    assert result.exit_code == 0
    left = requests.get(f"{serving.archive_url}/studies", timeout=BOUND)
    assert (left.status_code, left.json()) == (200, [])


def test_nothing_is_written_unless_asked_for(tmp_path: Path) -> None:
    with ScriptedServer(no_studies()) as store:
        asked(tmp_path, DICOMWEB_URL=store.dicomweb_url)
        assert {request.method for request in store.requests} == {"GET"}


def test_writing_and_offline_exclude_each_other(tmp_path: Path) -> None:
    assert asked(tmp_path, "--write", "--offline").exit_code == 2


def signing_in(issuer: str) -> dict[str, str]:
    """Return the settings with which people sign in at a provider."""
    named = {"OIDC_ISSUER": issuer, "OIDC_AUDIENCE": "the api", "OIDC_CLIENT_ID": "pages"}
    return {"AUTH": "oidc"} | named


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({}, ""),
        ({"token_endpoint": None}, "it names no token_endpoint"),
        ({"issuer": "https://another.example"}, "what it says there isn't the issuer's own"),
    ],
)
def test_a_provider_is_asked_for_what_is_needed_of_it(
    said: dict[str, str], found: str, tmp_path: Path
) -> None:
    with ScriptedServer(no_studies()) as store, ScriptedServer(discovery(**said)) as provider:
        given = signing_in(provider.url) | {"DICOMWEB_URL": store.dicomweb_url}
        result = asked(tmp_path, "--json", **given)
    assert wrong(result).get("provider", "") == found
    assert result.exit_code == bool(found)


def test_a_provider_that_is_away_is_wrong(tmp_path: Path) -> None:
    with ScriptedServer(no_studies()) as store, refused_port() as port:
        given = signing_in(f"http://127.0.0.1:{port}")
        result = asked(tmp_path, "--json", **given | {"DICOMWEB_URL": store.dicomweb_url})
    assert wrong(result) == {"provider": "URLError"}
