"""What a process loads before it answers, and what becomes of it."""

import gc
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from service import __version__, assemble, settings
from service.loading import collect_again, uncollected
from tests.peers import BOUND
from tests.serving import SECRET

SERVICE = """
import sys
from service.loading import lean_pydicom
lean_pydicom()
from service.wsgi import service
service()
print(*sys.modules)
from PIL import Image
from pydicom import config
print(Image.new("L", (1, 1)).size)
"""
COMMAND = """
import sys
from service.__main__ import main
try:
    main()
finally:
    print(*sys.modules)
"""
OTHERS = {
    "PIL",
    "tqdm",
    "charset_normalizer",
    "pydicom.examples",
    "prometheus_client",
    "google",
    "obstore",
    "jwt",
    "service.cli",
}
OTHERS |= {"opentelemetry", "service.spans", "service.metrics"}


def ran(folder: Path, *arguments: str, **given: str) -> subprocess.CompletedProcess[str]:
    own = {"DATA_DIR": str(folder), "UID_NAMESPACE": SECRET, "DICOMWEB_URL": "http://127.0.0.1:9"}
    return subprocess.run(
        [sys.executable, "-P", *arguments],
        env={"PATH": os.environ["PATH"]} | own | given,
        capture_output=True,
        text=True,
        check=False,
        timeout=BOUND,
    )


def test_the_service_starts_without_what_only_some_requests_need(tmp_path: Path) -> None:
    ended = ran(tmp_path, "-c", SERVICE)
    assert ended.returncode == 0, ended.stderr
    modules, drawn = ended.stdout.splitlines()
    loaded = set(modules.split())
    assert loaded >= {"pydicom", "requests", "service.ingest", "service.push_api"}
    assert loaded & {*OTHERS, "service.gcp.intake"} == set()
    assert drawn == "(1, 1)"  # hidden from pydicom alone


def test_what_takes_messages_is_loaded_at_the_start_where_messages_are_let_in(
    tmp_path: Path,
) -> None:
    ended = ran(tmp_path, "-c", SERVICE, PUSH_AUDIENCE="a", PUSH_SERVICE_ACCOUNT="b@c")
    assert "service.gcp.intake" in ended.stdout.split(), ended.stderr


def test_rules_that_cant_be_read_keep_the_service_from_starting(tmp_path: Path) -> None:
    ended = ran(tmp_path, "-c", SERVICE, METADATA_RULES="{")
    assert ended.returncode != 0
    assert "METADATA_RULES" in ended.stderr


def test_rules_that_cant_be_read_are_told_in_a_line_before_anything_starts(tmp_path: Path) -> None:
    ended = ran(tmp_path, "-m", "service", "serve", METADATA_RULES="{")
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert re.fullmatch(r"jpegstow: METADATA_RULES: .*\n", ended.stderr)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({}, False),
        ({"PUSH_AUDIENCE": "a"}, False),
        ({"PUSH_AUDIENCE": "a", "PUSH_SERVICE_ACCOUNT": "b@c"}, True),
        ({"PUSH_AUTH": "none"}, True),
        ({"METADATA_RULES": "{PatientID}/{any}.jpg"}, True),
    ],
)
def test_messages_are_taken_where_somebody_may_send_them(
    given: dict[str, str], *, taken: bool
) -> None:
    assert assemble.takes_messages(settings.load(given)) == taken


def test_a_command_is_loaded_without_the_others(tmp_path: Path) -> None:
    ended = ran(tmp_path, "-c", COMMAND, "serve", WORKERS="many")
    assert ended.returncode == 2
    assert "WORKERS" in ended.stderr
    loaded = {name for name in ended.stdout.split() if name.startswith("service.cli.")}
    assert loaded == {"service.cli.running", "service.cli.options"}


def test_the_package_itself_is_the_command(tmp_path: Path) -> None:
    assert (
        ran(tmp_path, "-m", "service", "--version").stdout == f"jpegstow, version {__version__}\n"
    )


def test_what_is_loaded_is_never_looked_at_by_the_garbage_collector() -> None:
    try:
        with uncollected():
            assert not gc.isenabled()
            kept: list[object] = [[]]
        assert gc.isenabled()
        assert not any(each is kept for each in gc.get_objects())
        later: list[object] = [[]]
        assert any(each is later for each in gc.get_objects())
    finally:
        gc.unfreeze()


def test_garbage_is_collected_again_where_loading_fails() -> None:
    def fail() -> None:
        with uncollected():
            raise ImportError

    try:
        with pytest.raises(ImportError):
            fail()
        assert gc.isenabled()
    finally:
        gc.unfreeze()


def test_garbage_that_is_collected_already_is_not_kept() -> None:
    before = gc.get_freeze_count()
    collect_again()
    assert gc.get_freeze_count() == before
