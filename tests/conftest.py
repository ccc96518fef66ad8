"""Fixtures for resources, and the last word on which judges were missing."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, settings

from service.archive import Archive
from tests.archive_instances import client_of
from tests.judges import missing_tools
from tests.peers import Orthanc

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# How long an example takes says something of the machine; what has to be quick says so itself.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """Run one Orthanc, without credentials, for all tests that ask for it."""
    with Orthanc(tmp_path_factory.mktemp("orthanc")) as server:
        yield server


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    """Open an archive without instances."""
    opened = Archive(tmp_path / "archive")
    yield opened
    opened.close()


@pytest.fixture
def client(archive: Archive) -> FlaskClient:
    """Return a client of the archive as a server."""
    return client_of(archive)


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """Run a real browser."""
    from tests.browsing import chromium  # noqa: PLC0415 - few tests have to load it

    with chromium() as running:
        yield running


@pytest.fixture(scope="session")
def corpus() -> list[Path]:
    """List the real JPEGs in the folder that JPEGSTOW_CORPUS names."""
    folder = os.environ.get("JPEGSTOW_CORPUS")
    if not folder:
        pytest.skip("JPEGSTOW_CORPUS names no folder of real JPEGs")
    files = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in _SUFFIXES)
    assert files, f"{folder} holds no JPEG"
    return files


_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".mpo"}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the judges that are missing."""
    for tool in missing_tools():
        terminalreporter.write_line(f"missing: {tool}", yellow=True)
