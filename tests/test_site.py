"""The documentation site: it builds without a warning, has every page, and fetches nothing from elsewhere."""

import functools
import http.server
import importlib.util
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from joyful.analysis.claims_file import KINDS
from joyful.analysis.measures import MEASURES
from joyful.analysis.verdict import VERDICTS
from joyful.schema.reference import reference
from tests.support.browser import needs_chromium, open_browser

ROOT = Path(__file__).resolve().parents[1]
BUILD = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir"]


class _Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, whose tag names a function."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: None)
CONFIG = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader=_Loader)


def pages_of(nav: object) -> list[str]:
    """Return the pages of the navigation, in order."""
    if isinstance(nav, str):
        return [nav]
    return [page for item in nav for page in pages_of(list(item.values()) if isinstance(item, dict) else item)]


PAGES = pages_of(CONFIG["nav"])


@pytest.fixture(scope="module")
def hooks():
    pytest.importorskip("mkdocs", reason="mkdocs is not installed (pip install '.[docs]')")
    specification = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs/_hooks/site.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory, hooks):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run([*BUILD, folder], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def outside(text: str) -> list[str]:
    """Return what a browser would fetch from elsewhere for an HTML page or a style sheet. Links to follow are no such thing."""
    tags = re.findall(r"<(?:script|img|link|iframe|source|video|audio|object|embed)\b[^>]*>", text)
    addresses = [address for tag in tags for address in re.findall(r"""\b(?:src|href|data)=["']?([^"'\s>]+)""", tag)]
    addresses += re.findall(r"""(?:@import\s+|url\()["']?([^"')]+)""", text)
    return [address for address in addresses if re.match(r"(?:https?:)?//", address)]


def test_addresses_that_a_browser_fetches_are_found():
    text = (
        '<link rel="stylesheet" href="https://fonts/a.css"><script src=//b/c.js></script><a href="https://d">d</a>'
        '<img src="e.png"><style>@import "http://f/g.css"; h { background: url(https://i/j.png) }</style>'
    )
    assert outside(text) == ["https://fonts/a.css", "//b/c.js", "http://f/g.css", "https://i/j.png"]


@pytest.mark.slow
@pytest.mark.soak("builds the site for 20 s; make lint builds it with --strict")
def test_the_site_has_every_page_of_the_navigation(site):
    assert len(PAGES) > 25
    for page in PAGES:
        text = (site / page).with_suffix(".html").read_text(encoding="utf-8")
        assert "<h1" in text, page
    assert {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")} <= set(PAGES)


@pytest.mark.slow
@pytest.mark.soak("builds the site for 20 s; make lint builds it with --strict")
def test_the_site_fetches_nothing_from_elsewhere(site):
    files = [path for path in site.rglob("*") if path.suffix in (".html", ".css")]
    assert len(files) > 25
    found = {path.name: outside(path.read_text(encoding="utf-8")) for path in files}
    assert {name: addresses for name, addresses in found.items() if addresses} == {}


@pytest.mark.slow
@pytest.mark.soak("builds the site for 20 s; make lint builds it with --strict")
def test_the_pages_from_outside_have_their_figures_and_links(site):
    results = (site / "study/results.html").read_text(encoding="utf-8")
    figures = re.findall(r'<img[^>]* src="([^"]+)"', results)
    assert len(figures) > 20
    assert all((site / "study" / name).is_file() for name in figures)
    assert 'href="../CONVERGENCE_ANALYSIS.html"' in results
    assert 'src="study/images/precision-curves.png"' in (site / "PERFORMANCE.html").read_text(encoding="utf-8")
    for page in site.rglob("*.html"):
        assert not re.search(r'(?:href|src)="[^":]*\.(?:md|py|yaml)["#]', page.read_text(encoding="utf-8")), page


@pytest.mark.slow
@pytest.mark.soak("builds the site for 20 s; make lint builds it with --strict")
def test_the_references_have_settings_and_functions(site):
    text = (site / "reference/settings.html").read_text(encoding="utf-8")
    for name in re.findall(r"^\| `([\w.]+)` \|", reference(), re.M):
        assert f"<code>{name}</code>" in text, name
    for page, name in (
        ("sweeper", "joyful.sweeper.current_trial.CurrentTrial.report"),
        ("losses", "joyful.loss_utils.create_reconstruction_loss"),
        ("results", "joyful.results.load"),
        ("analysis", "joyful.analysis.statistics.paired_t"),
    ):
        text = (site / f"reference/api/{page}.html").read_text(encoding="utf-8")
        assert f'id="{name}"' in text
        if page in ("losses", "analysis"):
            assert '<span class="gp">&gt;&gt;&gt; </span>' in text, "examples are shown as code"


@pytest.mark.slow
@needs_chromium
@pytest.mark.soak("builds the site for 20 s; make lint builds it with --strict")
def test_a_browser_opens_the_site_from_its_files(site):
    requests, complaints = [], []
    with open_browser() as browser:
        page = browser.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        for name in ("index", "reference/settings", "study/results", "reference/api/analysis", "notebooks/convergence"):
            page.goto((site / f"{name}.html").as_uri())
            assert page.locator("h1").count() == 1
            broken = "images => images.filter(image => image.complete && !image.naturalWidth).map(image => image.src)"
            assert page.locator("article img").evaluate_all(broken) == []
    assert requests
    assert [address for address in requests if not address.startswith(("file:", "data:"))] == []
    assert complaints == []


@pytest.mark.slow
@needs_chromium
@pytest.mark.soak("builds the site for 20 s; make lint builds it with --strict")
def test_a_served_site_finds_words(site):
    requests = []
    handler = functools.partial(QuietHandler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, open_browser() as browser:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        page = browser.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.goto(f"{address}/index.html")
        page.locator("input.md-search__input").fill("confidence sequence")
        page.locator(".md-search-result__item").first.wait_for(timeout=20_000)
        page.close()
        server.shutdown()
    assert [url for url in requests if not url.startswith((address, "data:", "blob:"))] == []


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("[a](GUIDE.md#data)", "[a](../GUIDE.md#data)"),
        ("[docs/GUIDE.md](../docs/GUIDE.md)", "[User guide](../GUIDE.md)"),
        ("[study/RESULTS.md](../study/RESULTS.md#x)", "[Results of the study](../study/results.md#x)"),
        ("![f](../study/images/f.png)", "![f](../study/images/f.png)"),
        ("[the file](../joyful/cli.py)", "the file"),
        ("[joyful/cli.py](../joyful/cli.py)", "`joyful/cli.py`"),
        ("[`cli`](../joyful/cli.py)", "`cli`"),
        ("[b](https://x.org/y.md)", "[b](https://x.org/y.md)"),
        ("[c](#here)", "[c](#here)"),
        ("[d](NOTHING.md)", "[d](NOTHING.md)"),
        ("[d](../joyful/nothing.py)", "[d](../joyful/nothing.py)"),
    ],
)
def test_links_that_leave_the_folder_of_the_site_are_mended(hooks, link, expected):
    known = {"GUIDE.md", "study/results.md", "study/images/f.png"}
    assert hooks.with_mended_links(link, "docs/PAGE.md", "how-to/page.md", known) == expected


def test_the_glossary_has_the_words_of_verdicts_claims_and_measures():
    text = (ROOT / "docs/glossary.md").read_text()
    for word in VERDICTS:
        assert f"- **{word}**" in text
    for name in (*KINDS, *MEASURES):
        assert f"`{name}`" in text or f"**{name}**" in text, name
