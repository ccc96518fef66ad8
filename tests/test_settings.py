"""The configuration: everything wrong at once, nothing secret ever."""

from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import BadSettings
from service.settings import CloudQueue, Settings, load, store_url_of, table

MARKER = "Zebedee"
SECRETS = ["DICOMWEB_TOKEN", "DICOMWEB_PASSWORD", "UID_NAMESPACE", "SESSION_SECRET", "ARCHIVE_KEY"]


def test_without_an_environment_everything_has_its_default() -> None:
    assert load({}) == Settings()
    assert load({"PATH": "/bin", "UNRELATED": "x"}) == Settings()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("DICOMWEB_URL", " https://host:8443/dicomWeb/ ", "https://host:8443/dicomWeb"),
        ("DICOMWEB_URL", "", ""),
        ("DICOMWEB_WIRE", "part10", "part10"),
        ("STORAGE_CLASS", "ARCHIVE", "ARCHIVE"),
        ("STORAGE_CLASS", "", ""),
        ("STORE_READ_TIMEOUT", "0.5", 0.5),
        ("DATA_DIR", "elsewhere", Path("elsewhere")),
        ("TEMPLATES_DIR", "mine", Path("mine")),
        ("TEMPLATES_DIR", "", None),
        ("MAX_PIXELS", "1", 1),
        ("TRANSFORM_MEMORY", "1048576", 1_048_576),
        ("UPRIGHT", "lossless-or-keep", "lossless-or-keep"),
        ("UPRIGHT", "refuse", "refuse"),
        ("CMYK", "convert", "convert"),
        ("VERIFY_SCAN", "on", True),
        ("VERIFY_SCAN", "off", False),
        ("PORT", "0", 0),
        ("RETRY_QUEUE", "/mnt/queue", Path("/mnt/queue")),
        ("RETRY_QUEUE", "", None),
        (
            "RETRY_QUEUE",
            "pubsub://my-project/retry?bucket=gs://my.bucket/a/queue/&subscription=pulled",
            CloudQueue(
                "projects/my-project/topics/retry",
                "gs://my.bucket",
                "a/queue",
                "projects/my-project/subscriptions/pulled",
            ),
        ),
        (
            "RETRY_QUEUE",
            "pubsub://example.com:legacy/top?bucket=gs://bucket",
            CloudQueue("projects/example.com:legacy/topics/top", "gs://bucket", "", ""),
        ),
        ("UID_NAMESPACE", "é 🦷", "é 🦷"),
        ("DICOMWEB_PASSWORD", "é ~", "é ~"),
    ],
)
def test_a_setting_is_read_from_its_variable(name: str, text: str, value: Any) -> None:
    assert getattr(load({name: text}), name.lower()) == value


BAD = [
    ("RETRY_QUEUE", "gs://bucket/queue"),
    ("RETRY_QUEUE", "pubsub://my-project/topic"),
    ("RETRY_QUEUE", "pubsub://my-project/topic?bucket=s3://bucket"),
    ("RETRY_QUEUE", "pubsub://my-project/topic?bucket=gs://bucket/a/../b"),
    ("RETRY_QUEUE", "pubsub://my-project/topic?bucket=gs://bucket/a//b"),
    ("RETRY_QUEUE", "pubsub://my-project/topic?bucket=gs://bucket&subscription=a/b"),
    ("RETRY_QUEUE", "pubsub://my-project/topic?bucket=gs://bucket&other=1"),
    ("DICOMWEB_URL", "host/dicomWeb"),
    ("DICOMWEB_URL", "ftp://host/"),
    ("DICOMWEB_URL", "http://"),
    ("DICOMWEB_URL", "http://host:port/"),
    ("DICOMWEB_URL", "http://host:99999/"),
    ("DICOMWEB_URL", "http://[::1"),
    ("DICOMWEB_URL", "http://host/?a=b"),
    ("DICOMWEB_URL", "http://host/?"),
    ("DICOMWEB_URL", "http://host/#a"),
    ("DICOMWEB_URL", "http://alice@host/"),
    ("DICOMWEB_WIRE", "xml"),
    ("DICOMWEB_AUTH", "kerberos"),
    ("DICOMWEB_TOKEN", "a\nb"),
    ("DICOMWEB_TOKEN", "a\u20ac"),
    ("DICOMWEB_USER", "\u0142ukasz"),
    ("DICOMWEB_PASSWORD", "a\x7fb"),
    ("DICOMWEB_PASSWORD", "\ud800"),
    ("STORAGE_CLASS", "cold"),
    ("STORE_CONNECT_TIMEOUT", "0"),
    ("STORE_CONNECT_TIMEOUT", "-1"),
    ("STORE_READ_TIMEOUT", "1e3"),
    ("STORE_READ_TIMEOUT", "inf"),
    ("STORE_READ_TIMEOUT", ""),
    ("MAX_UPLOAD_BYTES", "1023"),
    ("MAX_UPLOAD_BYTES", "30MB"),
    ("MAX_PIXELS", "0"),
    ("TRANSFORM_MEMORY", "1048575"),
    ("TRANSFORM_MEMORY", "512MB"),
    ("UPRIGHT", "crop"),
    ("CMYK", "on"),
    ("VERIFY_SCAN", "yes"),
    ("VERIFY_SCAN", "ON"),
    ("VERIFY_SCAN", ""),
    ("MAX_IMAGES", "901"),
    ("PORT", "65536"),
    ("PORT", "-1"),
    ("PORT", "8_080"),
    ("PORT", "\u0663"),
    ("PORT", "9" * 5000),
    ("WORKERS", "0"),
    ("THREADS", "257"),
]


@pytest.mark.parametrize(("name", "text"), BAD)
def test_a_bad_setting_is_named(name: str, text: str) -> None:
    with pytest.raises(BadSettings) as caught:
        load({name: text})
    (problem,) = caught.value.problems
    assert problem.startswith(f"{name}: it ")


def test_every_problem_is_listed_at_once() -> None:
    environment = dict(BAD)
    with pytest.raises(BadSettings) as caught:
        load(environment | {"K_SERVICE": "jpegstow"})
    named = [problem.partition(":")[0] for problem in caught.value.problems]
    assert sorted(named) == sorted({*environment, "UID_NAMESPACE"})  # each once
    assert all(name in str(caught.value) for name in named)


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({"DICOMWEB_AUTH": "bearer"}, "DICOMWEB_TOKEN: it is empty"),
        ({"DICOMWEB_AUTH": "basic", "DICOMWEB_PASSWORD": "x"}, "DICOMWEB_USER: it is empty"),
        ({"K_SERVICE": "jpegstow"}, "UID_NAMESPACE: it is empty on Cloud Run"),
        ({"K_SERVICE": "jpegstow"}, "RETRY_QUEUE: it is empty on Cloud Run"),
    ],
)
def test_settings_may_not_contradict_each_other(environment: dict[str, str], problem: str) -> None:
    with pytest.raises(BadSettings, match=problem):
        load(environment)


GOOGLE = "https://healthcare.googleapis.com/v1/projects/p/dicomWeb"


@pytest.mark.parametrize(
    ("environment", "auth"),
    [
        ({}, "none"),
        ({"DICOMWEB_URL": "http://host"}, "none"),
        ({"DICOMWEB_URL": GOOGLE}, "google"),
        ({"DICOMWEB_URL": GOOGLE, "DICOMWEB_TOKEN": "t"}, "google"),
        ({"DICOMWEB_URL": GOOGLE, "DICOMWEB_AUTH": "none"}, "none"),
        ({"DICOMWEB_URL": "https://healthcare.googleapis.com.example.org/"}, "none"),
        ({"DICOMWEB_TOKEN": "t", "DICOMWEB_USER": "u"}, "bearer"),
        ({"DICOMWEB_USER": "u"}, "basic"),
        ({"DICOMWEB_AUTH": "google"}, "google"),
    ],
)
def test_auto_chooses_credentials(environment: dict[str, str], auth: str) -> None:
    assert load(environment).store_auth == auth


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://h", "http://h"),
        ("http://h/", "http://h"),
        ("http://h/dicom-web/studies", "http://h/dicom-web"),
        ("http://h/dicom-web/studies/", "http://h/dicom-web"),
        ("http://[::1]:8042/x//", "http://[::1]:8042/x"),
        ("HTTPS://h/x", "HTTPS://h/x"),
    ],
)
def test_a_store_url_loses_what_people_append(text: str, url: str) -> None:
    assert store_url_of(text) == url


def test_without_a_store_the_embedded_archive_is_one() -> None:
    assert load({"ARCHIVE_PORT": "9000"}).store_url == "http://127.0.0.1:9000/dicomWeb"
    assert load({}).embedded
    elsewhere = load({"DICOMWEB_URL": "http://host/dicomWeb"})
    assert (elsewhere.embedded, elsewhere.store_url) == (False, "http://host/dicomWeb")


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        load({}).port = 1  # type: ignore[misc]


@pytest.mark.parametrize("name", SECRETS)
def test_no_secret_is_shown(name: str) -> None:
    settings = load({name: MARKER})
    assert getattr(settings, name.lower()) == MARKER
    assert MARKER not in repr(settings)
    assert MARKER not in str(settings)


@pytest.mark.parametrize(
    "environment",
    [
        {"DICOMWEB_TOKEN": MARKER + "\n" + MARKER},
        {"DICOMWEB_PASSWORD": MARKER + "\0"},
        {"DICOMWEB_TOKEN": MARKER + "\u20ac"},
        {"DICOMWEB_PASSWORD": MARKER + "\u0142"},
        {"UID_NAMESPACE": MARKER + "\x1f" + MARKER},
        {"DICOMWEB_TOKEN": MARKER, "PORT": "x"},
        {"DICOMWEB_AUTH": "basic", "DICOMWEB_PASSWORD": MARKER},
        {"DICOMWEB_URL": f"http://alice:{MARKER}@host/"},
        {"DICOMWEB_URL": f"http://:{MARKER}@host/"},
        {"DICOMWEB_URL": f"http://alice:{MARKER}/x@host/"},
        {"DICOMWEB_URL": f"http://alice:{MARKER}\u2100@host/"},
        {"DICOMWEB_URL": f"http://host:{MARKER}/"},
        {"DICOMWEB_URL": f"http://[{MARKER}"},
        {"DICOMWEB_URL": f"https://host/?key={MARKER}"},
    ],
)
def test_no_error_tells_a_secret(environment: dict[str, str]) -> None:
    with pytest.raises(BadSettings) as caught:
        load(environment)
    assert MARKER not in str(caught.value) + repr(caught.value)


NAMES = st.sampled_from([setting.name.upper() for setting in fields(Settings)])


@settings(deadline=None)
@given(st.dictionaries(NAMES, st.text(max_size=20) | st.sampled_from(["1", "http://h:1/", "auto"])))
def test_any_environment_is_settings_or_refused(environment: dict[str, str]) -> None:
    try:
        settings = load(environment)
    except BadSettings as error:
        problems = error.problems
    else:
        problems = ()
        assert settings.store_url.startswith(("http", "HTTP"))
    assert all(
        problem.partition(":")[0] in environment.keys() | {"DICOMWEB_TOKEN"} for problem in problems
    )


def test_the_table_has_a_row_for_every_setting() -> None:
    head, rule, *rows = table().splitlines()
    assert (head, rule) == ("| variable | default | meaning |", "|---|---|---|")
    assert [row.split(" | ")[0] for row in rows] == [
        f"| `{setting.name.upper()}`" for setting in fields(Settings)
    ]
    assert all(row.count(" | ") == 2 and row.endswith(". |") for row in rows)
    assert "| `PORT` | `8080` | The port of the service. |" in rows
    defaults = {row.split(" | ")[0].strip("| `"): row.split(" | ")[1] for row in rows}
    assert (defaults["UPRIGHT"], defaults["CMYK"]) == ("`reencode`", "`refuse`")
    assert (defaults["VERIFY_SCAN"], defaults["TRANSFORM_MEMORY"]) == ("`on`", "`536870912`")
    assert not any(row.split(" | ")[2] == "" for row in rows)
