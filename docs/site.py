"""Pages of the site that are kept outside docs/: the changelog, the security policy, and the programs of stacks/.

A hook of MkDocs (mkdocs.yml, `hooks`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from mkdocs.structure.files import File, Files

ROOT: Final = Path(__file__).resolve().parent.parent
_PAGES: Final = {"CHANGELOG.md": "changelog.md", "SECURITY.md": "security.md", "stacks/README.md": "stacks.md"}
_STACKS: Final = sorted(path.parent.name for path in ROOT.glob("stacks/*/README.md"))


def on_files(files: Files, config: Any) -> Files:
    """Add the pages."""
    stacks = {f"stacks/{name}/README.md": f"stacks/{name}.md" for name in _STACKS}
    for path, uri in {**_PAGES, **stacks}.items():
        files.append(File.generated(config, uri, content=page_of(ROOT / path, uri)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Lead links of docs/ to pages that are kept outside it."""
    for path, uri in _PAGES.items():
        markdown = markdown.replace(f"](../{path})", f"]({uri})")
    return markdown


def page_of(path: Path, uri: str) -> str:
    """Return a page of the repository with its links as they are on the site; those to code lead to no page."""
    here, up = path.parent, "../" * uri.count("/")

    def link(found: re.Match[str]) -> str:
        text, target, anchor = found[1], found[2], found[3] or ""
        if ":" in target:
            return found[0]
        aim = (here / target).resolve().relative_to(ROOT) if target else Path()
        if aim.parts[:1] == ("docs",):
            return f"[{text}]({up}{aim.relative_to('docs').as_posix()}{anchor})"
        if len(aim.parts) > 1 and aim.parts[0] == "stacks" and aim.parts[1] in _STACKS and len(aim.parts) <= 3:  # noqa: PLR2004
            return f"[{text}]({up}stacks/{aim.parts[1]}.md)" if aim.name in ("README.md", aim.parts[1]) else f"`{text}`"
        return {"CHANGELOG.md": f"[{text}]({up}changelog.md)", "SECURITY.md": f"[{text}]({up}security.md)"}.get(
            aim.as_posix(), text
        )

    return re.sub(r"\[([^\]]+)\]\(([^)#]*)(#[^)]*)?\)", link, path.read_text())
