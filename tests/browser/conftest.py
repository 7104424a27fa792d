"""A real Chromium (Debian's), and a service whose minute is a second."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from keystore_harness import Testbed
from playwright.sync_api import Browser, BrowserContext, BrowserType, Error, Page, expect, sync_playwright

from pulumi_keystore.client import Client
from tests import debian
from tests.conftest import PASSWORD, SETTINGS

# A busy machine takes its time.
PATIENCE_MS = 60_000
expect.set_options(timeout=PATIENCE_MS)
CLOSING_S = 60
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium: the one that is there, or on a Debian machine as root one that is installed."""
    found = shutil.which("chromium-browser")
    if found is None:
        debian.require("chromium", "chromium")
    return found or str(shutil.which("chromium"))


class Chromium:
    """A browser that is started when it is needed, and again after it had to be killed."""

    def __init__(self, types: BrowserType, path: str) -> None:
        self._types, self._path = types, path
        self._browser: Browser | None = None

    @property
    def browser(self) -> Browser:
        if self._browser is None or not self._browser.is_connected():
            # Root has no sandbox.
            self._browser = self._types.launch(executable_path=self._path, args=["--no-sandbox"])
        return self._browser

    def close(self, context: BrowserContext) -> None:
        """Close a context: on a busy machine Chromium sometimes never comes to the end of it, and is killed then."""
        overdue = threading.Timer(CLOSING_S, self._kill)
        overdue.start()
        try:
            with suppress(Error):
                for page in context.pages:
                    page.goto("about:blank")  # it asks the service no more
                context.close()
        finally:
            overdue.cancel()

    def end(self) -> None:
        if self._browser is not None:
            self._browser.close()

    @staticmethod
    def _kill() -> None:
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if "chrom" in child.name():
                    child.kill()


@pytest.fixture(scope="package")
def chromium_of_all(chromium: str) -> Iterator[Chromium]:
    with sync_playwright() as playwright:
        started = Chromium(playwright.chromium, chromium)
        yield started
        started.end()


@pytest.fixture
def browser(chromium_of_all: Chromium) -> Browser:
    return chromium_of_all.browser


@pytest.fixture(scope="package")
def testbed() -> Iterator[Testbed]:
    with Testbed("ab", {**SETTINGS, "health_check_interval_s": "2", "health_check_s": "2"}) as testbed:
        yield testbed


@pytest.fixture(scope="package")
def admin_token(testbed: Testbed) -> str:
    return testbed.service.make_token("ops", "provider-admin")


@pytest.fixture(scope="package")
def admin(testbed: Testbed, admin_token: str) -> Iterator[Client]:
    with Client(testbed.service.url, admin_token) as client:
        yield client


@pytest.fixture(scope="package")
def escrow_client(testbed: Testbed) -> Iterator[Client]:
    with Client(testbed.service.url, testbed.service.make_token("authority", "authority")) as client:
        yield client


@dataclass
class Desk:
    """Somebody at a browser."""

    page: Page
    url: str
    token: str

    def open(self, path: str) -> None:
        self.page.goto(self.url + path)

    def sign_in(self, token: str | None = None) -> None:
        self.open("/console/sign-in")
        self.page.get_by_label("API token").fill(token or self.token)
        self.page.get_by_role("button", name="Sign in").click()

    def open_keystore(self, organization: str) -> None:
        self.open(f"/console/organizations/{organization}")

    def action(self, name: str) -> None:
        self.page.get_by_text("Actions", exact=True).click()
        self.page.get_by_role("link", name=name).click()


@pytest.fixture
def desk(chromium_of_all: Chromium, testbed: Testbed, admin_token: str) -> Iterator[Callable[..., Desk]]:
    """Return a maker of signed-in desks; a script error or a dialog on any page fails the test."""
    contexts: list[BrowserContext] = []
    problems: list[str] = []

    def make(token: str | None = None, *, sign_in: bool = True, **options: Any) -> Desk:
        context = chromium_of_all.browser.new_context(**{"viewport": WIDE, "bypass_csp": False, **options})
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: problems.append(f"dialog {dialog.message}"))
        page.on("console", lambda m: problems.append(m.text) if "Content Security Policy" in m.text else None)
        made = Desk(page, testbed.service.url, token or admin_token)
        if sign_in:
            made.sign_in()
        return made

    yield make
    for context in contexts:
        chromium_of_all.close(context)
    assert problems == []


@pytest.fixture
def pfx(testbed: Testbed) -> Callable[..., dict[str, Any]]:
    """Return a maker of PKCS#12 uploads."""

    def make(organization: str, password: str = PASSWORD) -> dict[str, Any]:
        content = testbed.ca.issue(organization).pkcs12(password)
        return {"name": "acme.p12", "mimeType": "application/x-pkcs12", "buffer": content}

    return make


@contextmanager
def upload(folder: Path, name: str, content: bytes) -> Iterator[Path]:
    file = folder / name
    file.write_bytes(content)
    yield file
    file.unlink()
