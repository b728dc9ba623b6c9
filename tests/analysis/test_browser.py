"""The page in a real browser: nothing goes wrong, everything is seen, nothing scrolls sideways, light and dark and on paper."""

from collections.abc import Iterator

import pytest

from joyful.analysis.report import main
from tests.support.analysis import NOTE_ARMS, Truth, simulate_sweep
from tests.support.browser import listen, needs_chromium, open_browser

pytestmark = [
    needs_chromium,
    pytest.mark.xdist_group("browser"),  # one browser, and the pages once
]

SIZES = {"phone": (390, 844), "tablet": (820, 1180), "desk": (1280, 900)}
LONG = "weighted-mean-absolute-percentage-error-with-a-very-long-name-that-nobody-broke-anywhere " * 2


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, str]:
    """Name -> address: the note's two arms, and a grid of arms with a long name and a run left out with a long reason."""
    folder = tmp_path_factory.mktemp("pages")
    simulate_sweep(folder / "note", NOTE_ARMS, range(1, 7), epochs=8)
    weights = (0.05, 0.01, 0.1)
    arms = [Truth({"loss": "mse", "weights.encoder_loss_weight": weight, "modalities": "atv"}) for weight in weights]
    arms.append(Truth({"loss": "mse", "weights.encoder_loss_weight": 0.05, "modalities": LONG}))
    simulate_sweep(folder / "grid", arms, range(1, 7), epochs=6)
    (folder / "grid" / "4" / "history.parquet").write_bytes(b"damaged")
    for name in ("note", "grid"):
        assert main([str(folder / name)]) == 0
    return {name: (folder / name / "report" / "index.html").as_uri() for name in ("note", "grid")}


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with open_browser() as opened:
        yield opened


@pytest.fixture
def look(browser, pages):
    """look(page, size, scheme) opens a page and fails at the end if the browser complained or asked for anything."""
    complaints: list[str] = []
    contexts = []

    def opened(name: str, size: str = "desk", scheme: str = "light", media: str = "screen"):
        width, height = SIZES[size]
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        listen(page, pages[name], complaints)
        page.emulate_media(media=media, color_scheme=scheme)
        page.goto(pages[name])
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["note", "grid"])
def test_nothing_scrolls_sideways(look, name, size):
    page = look(name, size)
    page.evaluate("document.querySelectorAll('details').forEach(element => element.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == SIZES[size][0]
    outside = page.evaluate(
        """() => [...document.querySelectorAll('main *')].filter(element => {
            if (element.closest('.scrolls, .restacks, svg')) return false;
            const box = element.getBoundingClientRect();
            return box.width > 0 && (box.right > innerWidth + 1 || box.left < -1);
        }).map(element => element.tagName + ' ' + element.className)"""
    )
    assert outside == []


@pytest.mark.parametrize("size", ["phone", "desk"])
@pytest.mark.parametrize("name", ["note", "grid"])
def test_all_figures_are_visible_and_hold_ink(look, name, size):
    page = look(name, size)
    figures = page.locator("svg.plot")
    assert figures.count() >= 15
    for index in range(figures.count()):
        figure = figures.nth(index)
        assert figure.is_visible()
        box = figure.bounding_box()
        assert box["width"] >= min(300, SIZES[size][0] * 0.8)
        assert box["height"] >= 50
        drawn = figure.evaluate(
            """svg => [...svg.querySelectorAll('path, use')].filter(element => {
                const box = element.getBoundingClientRect(), around = svg.getBoundingClientRect();
                return box.width + box.height > 0 && box.left < around.right && box.right > around.left;
            }).length"""
        )
        assert drawn > 5
        size_of_text = figure.evaluate(
            """svg => Math.min(...[...svg.querySelectorAll('text')].map(text =>
                parseFloat(getComputedStyle(text).fontSize) * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width))"""
        )
        assert size_of_text > 8  # CSS pixels, on a phone too


def test_labels_of_figures_stay_inside(look):
    page = look("note")
    cut = page.evaluate(
        """() => [...document.querySelectorAll('svg.plot text')].filter(text => {
            const box = text.getBoundingClientRect(), around = text.closest('svg').getBoundingClientRect();
            return box.left < around.left - 4 || box.right > around.right + 4
                || box.top < around.top - 4 || box.bottom > around.bottom + 4;
        }).map(text => text.textContent)"""
    )
    assert cut == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_lines_stand_out(look, scheme):
    page = look("note", scheme=scheme)
    colours = page.evaluate(
        """() => {
            const channel = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
            const style = selector => getComputedStyle(document.querySelector(selector));
            return {page: channel(style('main > section').backgroundColor), text: channel(style('#summary p').color),
                    label: channel(style('svg.plot text').fill)};
        }"""
    )
    bright = {name: sum(value) / 3 for name, value in colours.items()}
    assert (bright["page"] > 200) == (scheme == "light")
    assert abs(bright["page"] - bright["text"]) > 150
    assert abs(bright["page"] - bright["label"]) > 150


def test_on_paper_everything_is_open_light_and_within_the_margins(look):
    page = look("note", "tablet", "dark", media="print")
    assert page.locator("nav").is_hidden()
    assert page.locator("#table-pairs").is_visible()  # inside a closed <details>
    dark = page.evaluate("getComputedStyle(document.querySelector('#summary p')).color.match(/\\d+/g).map(Number)")
    assert sum(dark) < 300
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES["tablet"][0]
    assert len(page.pdf(format="A4")) > 20_000


def test_a_keyboard_reaches_the_tables_and_their_headings_are_told(look):
    page = look("grid", "phone")
    for box in page.locator(".scrolls, .restacks").all():
        assert box.get_attribute("tabindex") == "0"
        assert box.get_attribute("aria-label")
    snapshot = page.locator("#verdicts").aria_snapshot()
    assert "Verdict on every claim" in snapshot
    assert page.locator("#figure-dev-f1 svg").aria_snapshot().startswith('- img "Dev weighted F1 (%) over training')
