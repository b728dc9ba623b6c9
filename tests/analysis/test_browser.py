"""The page in a browser: no errors, visible figures, no horizontal scrolling, light and dark schemes, and print."""

from collections.abc import Iterator

import pytest

from joyful.analysis.report import main
from tests.support.analysis import NOTE_ARMS, Truth, simulate_sweep
from tests.support.browser import collect_problems, needs_chromium, open_browser

pytestmark = [
    needs_chromium,
]

SIZES = {"phone": (390, 844), "tablet": (820, 1180), "desk": (1280, 900)}
LONG = "weighted-mean-absolute-percentage-error-with-a-very-long-name-that-nobody-broke-anywhere " * 2


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, str]:
    """Name -> URL of two pages: two arms ("note"), and a grid with a long arm name and a damaged run ("grid")."""
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
def open_page(browser, pages):
    """A function that opens a page. The test fails if the browser reports an error or requests a resource."""
    complaints: list[str] = []
    contexts = []

    def open_named(name: str, size: str = "desk", scheme: str = "light", media: str = "screen"):
        width, height = SIZES[size]
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        collect_problems(page, pages[name], complaints)
        page.emulate_media(media=media, color_scheme=scheme)
        page.goto(pages[name])
        return page

    yield open_named
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["note", "grid"])
def test_nothing_scrolls_sideways(open_page, name, size):
    page = open_page(name, size)
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
def test_all_figures_are_visible_and_not_empty(open_page, name, size):
    page = open_page(name, size)
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


def test_labels_of_figures_stay_inside(open_page):
    page = open_page("note")
    cut = page.evaluate(
        """() => [...document.querySelectorAll('svg.plot text')].filter(text => {
            const box = text.getBoundingClientRect(), around = text.closest('svg').getBoundingClientRect();
            return box.left < around.left - 4 || box.right > around.right + 4
                || box.top < around.top - 4 || box.bottom > around.bottom + 4;
        }).map(text => text.textContent)"""
    )
    assert cut == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_contrasts_with_the_background(open_page, scheme):
    page = open_page("note", scheme=scheme)
    colours = page.evaluate(
        """() => {
            const channel = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
            const style = selector => getComputedStyle(document.querySelector(selector));
            return {page: channel(style('main > section').backgroundColor), text: channel(style('#summary p').color),
                    label: channel(style('svg.plot text').fill)};
        }"""
    )
    brightness = {name: sum(value) / 3 for name, value in colours.items()}
    assert (brightness["page"] > 200) == (scheme == "light")
    assert abs(brightness["page"] - brightness["text"]) > 150
    assert abs(brightness["page"] - brightness["label"]) > 150


def test_in_print_everything_is_expanded_light_and_within_the_margins(open_page):
    page = open_page("note", "tablet", "dark", media="print")
    assert page.locator("nav").is_hidden()
    assert page.locator("#table-pairs").is_visible()  # inside a closed <details>
    colour = page.evaluate("getComputedStyle(document.querySelector('#summary p')).color.match(/\\d+/g).map(Number)")
    assert sum(colour) < 300
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES["tablet"][0]
    assert len(page.pdf(format="A4")) > 20_000


def test_tables_are_reachable_by_keyboard_and_have_labels(open_page):
    page = open_page("grid", "phone")
    for box in page.locator(".scrolls, .restacks").all():
        assert box.get_attribute("tabindex") == "0"
        assert box.get_attribute("aria-label")
    snapshot = page.locator("#verdicts").aria_snapshot()
    assert "Verdict on every claim" in snapshot
    assert page.locator("#figure-dev-f1 svg").aria_snapshot().startswith('- img "Dev weighted F1 (%) over training')
