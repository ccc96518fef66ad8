"""A real browser before the pages: Debian's chromium, on the viewports of a phone and a desk."""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import (
    Browser,
    FilePayload,
    Locator,
    Page,
    Request,
    expect,
    sync_playwright,
)

from tests.judges import require_tool
from tests.peers import BOUND

# It calls nobody: no updates, no fonts, no predictions, no look for a way to the internet.
FLAGS = [
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-domain-reliability",
    "--disable-sync",
    "--disable-features=OptimizationHints,MediaRouter,Translate,AutofillServerCommunication",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-pings",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
VIEWPORTS: dict[str, dict[str, Any]] = {
    "phone": {
        "viewport": {"width": 390, "height": 844},
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
    },
    "desk": {"viewport": {"width": 1280, "height": 900}},
}


@dataclass
class Tab:
    """A page of the browser, and what it said and asked for.

    `refused` are the console's words for answers of 400 and more, which Chromium writes there.
    """

    page: Page
    errors: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)

    def hear(self) -> None:
        """Listen to the page from now on."""
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", self._request)

    def _console(self, message: Any) -> None:
        if message.type in {"error", "warning"}:
            failed = message.text.startswith("Failed to load resource")
            (self.refused if failed else self.errors).append(message.text)

    def _request(self, request: Request) -> None:
        self.urls.append(request.url)

    @property
    def hosts(self) -> set[str]:
        """The hosts that were asked for anything."""
        return {urlsplit(url).netloc for url in self.urls if url.startswith("http")}


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run the browser."""
    expect.set_options(timeout=BOUND * 1000)
    with sync_playwright() as playwright:
        program = require_tool("chromium")
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def tab(
    browser: Browser, url: str, viewport: str, hosts: Collection[str] = (), **options: Any
) -> Iterator[Tab]:
    """Open a tab with a profile of its own; nothing in it may go wrong unless it is expected.

    `hosts` are those that may be asked beside the URL's own.
    """
    given = {"locale": "en-GB", "base_url": url} | VIEWPORTS[viewport] | options
    context = browser.new_context(**given)
    try:
        opened = Tab(context.new_page())
        opened.page.set_default_timeout(BOUND * 1000)
        opened.hear()
        yield opened
        assert opened.errors == []
        assert opened.hosts <= {urlsplit(url).netloc, *hosts}
    finally:
        context.close()


def files(*images: bytes) -> list[FilePayload]:
    """Return pictures as somebody chooses them."""
    return [
        {"name": f"IMG_{number}.jpg", "mimeType": "image/jpeg", "buffer": image}
        for number, image in enumerate(images, 1)
    ]


def size_of(image: Locator) -> list[int]:
    """Return the width and height of a picture in pixels, once it is loaded."""
    size = (
        "async image => { await image.decode(); return [image.naturalWidth, image.naturalHeight]; }"
    )
    return list(image.evaluate(size))


def serious(page: Page) -> list[str]:
    """Return what axe-core finds on a page that is serious or worse."""
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {node['html']}"
        for one in found
        if one["impact"] in {"serious", "critical"}
        for node in one["nodes"]
    ]


def shoot(page: Page, name: str) -> None:
    """Keep what the viewport shows, where JPEGSTOW_SCREENSHOTS names a folder.

    In docs/screenshots only those are kept that the README shows.
    """
    folder = os.environ.get("JPEGSTOW_SCREENSHOTS", "")
    if folder and (Path(folder).name != "screenshots" or (Path(folder) / f"{name}.png").exists()):
        page.screenshot(path=Path(folder) / f"{name}.png", scale="css", animations="disabled")
