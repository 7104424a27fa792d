"""The documentation as a site: it builds without a warning, and loads nothing from elsewhere."""

import os
import re
import subprocess
import sys

from tests.conftest import ROOT


def test_the_site_builds_and_is_whole(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        text = page.read_text()
        loaded = re.findall(r'<(?:script|img|iframe)[^>]+src="(https?:[^"]+)"', text)
        loaded += re.findall(r'<link[^>]+rel="(?:stylesheet|preconnect)"[^>]+href="(https?:[^"]+)"', text)
        assert loaded == [], page.name
    # What is kept elsewhere in the repository, or is made of something else.
    for name, says in (
        ("index", "Tutorial"),
        ("api", "/v1/organizations/{organization}/keystores/{name}/incidents"),
        ("glossary", "active keystore"),
        ("changelog", "0.1.0"),
        ("security", "master key"),
        ("stacks", "certificate-rotation"),
        ("stacks/automation", "Automation API"),
        ("metrics", "keystore_online"),
    ):
        assert says in (tmp_path / f"{name}.html").read_text(), name
    script = (tmp_path / "assets/site.js").read_text()
    assert "http.server" in script
