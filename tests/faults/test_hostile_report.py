"""A browser shows names that contain HTML in a report as plain text."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from joyful.analysis.report import main
from tests.support.analysis import Truth, simulate_sweep
from tests.support.browser import collect_problems, needs_chromium, open_browser
from tests.support.faults import Tally

pytestmark = [
    pytest.mark.soak("takes 12 s; tests/analysis/test_report.py reads the pages of such names"),
    needs_chromium,
]

#: Interpreted as HTML, each sets window.ran or adds an element. In names of runs the slash is replaced.
PAYLOADS = (
    "<script>window.ran=1</script>",
    "<img src=x onerror=window.ran=1>",
    '"><svg onload=window.ran=1>',
    "'><iframe srcdoc='<script>parent.ran=1</script>'>",
    "</title></style></script><script>window.ran=1</script>",
    "<a href=javascript:window.ran=1>x</a>",
    "{{ 7*7 }}{% raw %}<b class=injected>",
    "&lt;script&gt;window.ran=1&lt;/script&gt;",
    "<![CDATA[<script>window.ran=1</script>]]>",
    "[x](javascript:window.ran=1) ![x](http://127.0.0.1:9/x) `<b class=injected>`",
)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep folder with HTML in its name, arms, choices, runs, reasons and settings."""
    folder = tmp_path_factory.mktemp("hostile") / "<b class=injected>sweep<script>window.ran=1<script>"
    arms = [Truth({"loss": "mse", "modalities": "atv", "note": "x"})]
    arms += [Truth({"loss": "mse", "modalities": text, "note": text}) for text in PAYLOADS]
    simulate_sweep(folder, arms, range(1, 7), epochs=4, evaluations_per_epoch=1)
    for number, text in enumerate(PAYLOADS):
        name = text.replace("/", "\N{FRACTION SLASH}")[:200]
        damaged, failed = folder / f"damaged {name}", folder / f"failed {name}"
        shutil.copytree(folder / "4", damaged)
        (damaged / "history.parquet").write_bytes(text.encode())
        shutil.copytree(folder / "5", failed)
        info = json.loads((failed / "run.json").read_text())
        info |= {"status": "failed", "reason": text, "seed": 500 + number, "host": text, "device": text}
        (failed / "run.json").write_text(json.dumps(info))
    assert main([str(folder), "--baseline", "modalities=atv note=x"]) == 0
    return folder


def test_html_in_names_is_shown_as_text(sweep: Path, tally: Tally) -> None:
    address = (sweep / "report" / "index.html").as_uri()
    complaints: list[str] = []
    with open_browser() as browser:
        page = browser.new_page()
        collect_problems(page, address, complaints)
        page.goto(address)
        page.evaluate("document.querySelectorAll('details').forEach(element => element.open = true)")
        ran = page.evaluate("window.ran")
        injected = page.evaluate(
            """() => [...document.querySelectorAll(
                'script:not(.values):not(#page-script), ' +
                'iframe, img, object, embed, form, base, .injected, [onerror], [onload], a[href^="javascript"]'
            )].map(element => element.outerHTML.slice(0, 200))"""
        )
        text = page.evaluate("document.body.textContent")
    assert complaints == []
    assert ran is None
    assert injected == []
    shown = [payload for payload in PAYLOADS if payload in text]
    assert shown == list(PAYLOADS)
    tally("HTML in names of runs, arms and settings", 5 * len(PAYLOADS))


def test_the_markdown_has_no_html_from_names(sweep: Path) -> None:
    """Markdown viewers interpret HTML, so names must be escaped in Markdown, too."""
    text = (sweep / "report" / "report.md").read_text()
    assert "script" in text
    for start in ("<script", "<img", "<svg", "<iframe", "<a ", "<b ", "</title"):
        assert start not in text
    links = re.findall(r"(?<!\\)\]\((.{,40})", text)
    assert links
    assert all(link.startswith("index.html") for link in links), links
