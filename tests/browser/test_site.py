"""The documentation as a site in a browser: it is searched where it can be, and says so where it cannot."""

import functools
import os
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import expect

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, check=True, timeout=300)
    return folder


@pytest.fixture
def served(site):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_word_is_found_on_the_page_where_it_stands(browser, served):
    page = browser.new_page()
    page.goto(f"{served}/index.html")
    field = page.get_by_role("textbox", name="Search")
    field.click()
    field.press_sequentially("accept-cluster")
    found = page.locator(".md-search-result__link")
    expect(found.first).to_be_visible()
    found.first.click()
    expect(page.locator("article")).to_contain_text("accept-cluster")
    page.close()


def test_from_disk_it_says_how_to_search(browser, site):
    page = browser.new_page()
    page.goto(f"file://{site}/index.html")
    expect(page.get_by_role("heading").first).to_be_visible()
    expect(page.get_by_text("To search, serve this folder: python3 -m http.server")).to_be_visible()
    expect(page.get_by_role("textbox", name="Search")).to_have_count(0)
    page.close()
