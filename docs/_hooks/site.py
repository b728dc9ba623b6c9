"""Hooks of mkdocs: pages from outside docs/, links that leave docs/, and the reference of settings.

Pages and links are written for readers of the repository. Here a link to a file that the site has leads to its page, and has
the title of the page where its text is the name of the file. A link to any other file becomes its text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from joyful.schema.reference import reference

ROOT = Path(__file__).resolve().parents[2]

#: File of the repository outside docs/ -> its page of the site.
PAGES = {
    "study/RESULTS.md": "study/results.md",
    "study/PLAN.md": "study/plan.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
}

#: The same for files without a page of their own.
OTHERS = {"README.md": "index.md"}

#: Replaced by the reference of all settings.
SETTINGS = "<!-- the reference of settings -->"


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add the pages from outside docs/ and their figures."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    for path in sorted((ROOT / "study/images").glob("*.png")):
        files.append(File.generated(config, f"study/images/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Mend the links of a page, and fill in the reference of settings."""
    name = page.file.src_uri
    source = next((source for source, site in PAGES.items() if site == name), f"docs/{name}")
    known = {file.src_uri for file in files}
    return with_mended_links(markdown, source, name, known).replace(
        SETTINGS, reference() if SETTINGS in markdown else ""
    )


def title_of(path: Path) -> str:
    """Return the first heading of a page."""
    found = re.search(r"^# (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else path.stem


def with_mended_links(text: str, source: str, page: str, known: set[str]) -> str:
    """Return the text of a page with links that work in the site.

    Args:
        text: Markdown.
        source: Path of the file in the repository.
        page: Path of the page in the site.
        known: Paths of all files of the site.
    """

    def mend(match: re.Match[str]) -> str:
        label, target = match[1], match[2]
        name, mark, anchor = target.partition("#")
        if not name or re.match(r"\w+:", name):
            return match[0]
        file = posixpath.normpath(posixpath.join(posixpath.dirname(source), name))
        site = PAGES.get(file) or OTHERS.get(file) or file.removeprefix("docs/")
        if site not in known:
            if file.startswith("docs/") or not (ROOT / file).exists():
                return match[0]  # a wrong link, which mkdocs reports
            return label if "`" in label else f"`{label}`" if re.search(r"[/.]", label) else label
        if re.fullmatch(r"[\w/.-]+\.md", label):
            label = title_of(ROOT / file)
        return f"[{label}]({posixpath.relpath(site, posixpath.dirname(page) or '.')}{mark}{anchor})"

    return re.sub(r"\[([^\]]*)\]\(([^)\s]+)\)", mend, text)
