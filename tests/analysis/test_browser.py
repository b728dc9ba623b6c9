"""The page in a browser: no errors, the answer on the first screen, switches, values, light and dark schemes, and print."""

from collections.abc import Iterator

import optuna
import pytest

from joyful.analysis.report import main
from tests.support.analysis import NOTE_ARMS, Truth, simulate_sweep
from tests.support.browser import collect_problems, needs_chromium, open_browser

pytestmark = [
    needs_chromium,
]

SIZES = {"phone": (390, 844), "tablet": (820, 1180), "desk": (1440, 900), "print": (690, 980)}
SIZE = pytest.mark.soak("another size")
NAMES = ("note", "grid", "search", "front")
LONG = "weighted-mean-absolute-percentage-error-with-a-very-long-name-that-nobody-broke-anywhere " * 2


def search(trial: optuna.Trial) -> float:
    weight, loss = trial.suggest_float("weight", 0.001, 1.0, log=True), trial.suggest_categorical("loss", ["mse", "l1"])
    for step in range(4):
        trial.report(step * weight, step)
        if trial.number % 4 == 3 and step == 1:
            raise optuna.TrialPruned
    return weight + (loss == "l1")


def two_objectives(trial: optuna.Trial) -> tuple[float, float]:
    weight = trial.suggest_float("weight", 0.0, 1.0)
    return weight, weight**2 + trial.number % 3


OBJECTIVES = {"search": search, "front": two_objectives}


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, str]:
    """Name -> URL of pages: two arms, a grid with a long arm name and a damaged run, and searches with one and two objectives."""
    folder = tmp_path_factory.mktemp("pages")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for name, directions in (("search", ["maximize"]), ("front", ["maximize", "minimize"])):
        (folder / name).mkdir()
        storage = f"sqlite:///{folder / name / 'study.db'}"
        optuna.create_study(storage=storage, directions=directions).optimize(OBJECTIVES[name], n_trials=12)
    simulate_sweep(folder / "note", NOTE_ARMS, range(1, 7), epochs=8)
    weights = (0.05, 0.01, 0.1)
    arms = [Truth({"loss": "mse", "weights.encoder_loss_weight": weight, "modalities": "atv"}) for weight in weights]
    arms.append(Truth({"loss": "mse", "weights.encoder_loss_weight": 0.05, "modalities": LONG}))
    simulate_sweep(folder / "grid", arms, range(1, 7), epochs=6)
    (folder / "grid" / "4" / "history.parquet").write_bytes(b"damaged")
    for name in NAMES:
        assert main([str(folder / name)]) == 0
    return {name: (folder / name / "report" / "index.html").as_uri() for name in NAMES}


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


@pytest.mark.parametrize("size", ["phone", "desk", *(pytest.param(size, marks=SIZE) for size in ("tablet", "print"))])
@pytest.mark.parametrize("name", NAMES)
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


@pytest.mark.parametrize("size", ["phone", pytest.param("desk", marks=SIZE)])
@pytest.mark.parametrize("name", ["note", "grid"])
def test_all_figures_are_visible_and_not_empty(open_page, name, size):
    page = open_page(name, size)
    page.evaluate("document.querySelectorAll('details.chapter').forEach(element => element.open = true)")
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
@pytest.mark.parametrize("size", ["phone", "desk"])
def test_the_first_screen_has_the_answer(open_page, size, scheme):
    page = open_page("note", size, scheme)
    bottom = page.evaluate("document.querySelector('#figure-answer tbody').getBoundingClientRect().bottom")
    assert bottom <= SIZES[size][1]
    assert page.locator("nav").bounding_box()["y"] == 0
    heading = page.locator("h1").inner_text()
    assert heading.startswith("smoothl1 0.03 is ")
    assert " than mse 0.05" in heading
    for row in page.locator("#figure-answer tbody tr").all():
        assert row.locator(".badge").is_visible()
        assert row.locator(".axis").bounding_box()["width"] > 200


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["note", "grid", "search"])
def test_text_contrasts_with_the_background(open_page, name, scheme):
    """The ratio of WCAG 2.2 is at least 4.5 for all visible text, also in figures."""
    page = open_page(name, scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(element => element.open = true)")
    low = page.evaluate(
        """() => {
            const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
            const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
                .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
                .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
            const behind = element => {
                for (let e = element; e; e = e.parentElement) {
                    const colour = parse(getComputedStyle(e).backgroundColor);
                    if (colour.length === 3 || colour[3] === 1) return colour;
                }
                return [255, 255, 255];
            };
            const found = [];
            const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
            for (let node; (node = walker.nextNode());) {
                const element = node.parentElement, box = element.getBoundingClientRect();
                if (!node.textContent.trim() || element.closest('script, style, [hidden]') || !box.width) continue;
                const style = getComputedStyle(element);
                const [one, two] = [light(parse(element.closest('svg') ? style.fill : style.color)), light(behind(element))];
                const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
                if (ratio < 4.5) found.push([ratio.toFixed(2), node.textContent.trim().slice(0, 40)]);
            }
            return found;
        }"""
    )
    assert low == []


def test_arms_are_switched_off_and_on(open_page):
    page = open_page("note")
    parts = page.locator("#figure-dev-f1 [data-arm='1']")
    assert parts.count() == 2  # the line and its band
    page.locator("details.arms summary").focus()
    page.keyboard.press("Enter")
    box = page.get_by_role("checkbox", name="smoothl1 0.03")
    box.uncheck()
    assert page.locator("#figure-dev-f1 [data-arm='1']:visible").count() == 0
    assert page.locator("#figure-dev-f1 [data-arm='0']:visible").count() == 2
    box.check()
    assert page.locator("#figure-dev-f1 [data-arm='1']:visible").count() == 2
    page.keyboard.press("Escape")
    assert not box.is_visible()


def test_the_columns_of_the_matrix_follow_the_switches(open_page):
    page = open_page("grid")
    columns = page.locator(".matrix thead th")
    assert columns.count() == 4  # the claim and three arms
    page.locator("details.arms summary").click()
    page.locator("details.arms input").nth(1).uncheck()
    assert page.locator(".matrix thead th:visible").count() == 3
    assert page.locator(".matrix tbody tr").first.locator("td:visible").count() == 2


@pytest.mark.parametrize("size", ["desk", "phone"])
def test_the_rows_of_tables_follow_the_switches(open_page, size):
    page = open_page("grid", size)
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    tables = {}
    for name in ("table-arms", "table-verdicts", "table-pairs", "table-scores"):
        rows = page.locator(f"#{name} tbody tr")
        tables[name] = rows.count()
        assert page.locator(f"#{name} tbody tr[data-arm]").count() == rows.count(), f"{name} has rows without an arm"
    page.locator("details.arms input").nth(1).uncheck()
    for name, rows in tables.items():
        of_arm = page.locator(f"#{name} tbody tr[data-arm='1']").count()
        assert 0 < of_arm < rows
        assert page.locator(f"#{name} tbody tr:visible").count() == rows - of_arm
    page.emulate_media(media="print")
    assert page.locator("#table-arms tbody tr:visible").count() == tables["table-arms"]


def test_values_at_the_pointer_and_with_the_keys(open_page):
    page = open_page("note")
    figure, reading = page.locator("#figure-dev-f1 svg.plot"), page.locator("#reading")
    figure.scroll_into_view_if_needed()
    assert not reading.is_visible()
    x, y, _, text = page.evaluate("JSON.parse(document.querySelector('#figure-dev-f1 .values').textContent)[10]")
    box = figure.bounding_box()
    scale = box["width"] / page.evaluate("document.querySelector('#figure-dev-f1 svg').viewBox.baseVal.width")
    page.mouse.move(box["x"] + x * scale, box["y"] + y * scale)
    assert reading.inner_text() == f"mse 0.05: {text}"
    page.mouse.move(5, 5)
    assert not reading.is_visible()
    figure.focus()
    page.keyboard.press("ArrowRight")
    first = reading.inner_text()
    page.keyboard.press("ArrowRight")
    assert first.startswith("mse 0.05: epoch 0.25: ")
    assert reading.inner_text().startswith("mse 0.05: epoch 0.5: ")


def test_the_slider_shows_the_gain_at_each_target(open_page):
    page = open_page("note")
    slider, shown = page.locator(".ladder input"), page.locator(".ladder p:visible")
    assert shown.inner_text().startswith("95\u00a0% of the way")
    slider.fill("0")
    assert shown.inner_text().startswith("50\u00a0% of the way")
    assert shown.count() == 1
    assert "smoothl1 0.03: " in shown.inner_text()


def test_tables_are_sorted_by_a_column(open_page):
    page = open_page("search")
    table = page.locator("#table-trials")
    numbers = lambda: [int(text) for text in table.locator("tbody tr th").all_inner_texts()]  # noqa: E731
    best_first = numbers()
    button = table.locator("thead button", has_text="trial")
    button.click()
    assert numbers() == sorted(best_first)
    assert table.locator("thead th").first.get_attribute("aria-sort") == "ascending"
    button.focus()
    page.keyboard.press("Enter")
    assert numbers() == sorted(best_first, reverse=True)


def test_a_search_is_titled_by_its_best_setting(open_page):
    page = open_page("search")
    assert page.locator("h1").inner_text().startswith("Best of 12 trials: objective ")
    figures = {figure.get_attribute("id") for figure in page.locator("figure").all()}
    assert figures == {
        "figure-parameter-1", "figure-parameter-2", "figure-study-history", "figure-study-curves", "figure-study-importances",
        "figure-study-timeline",
    }  # fmt: skip
    assert page.locator("#table-trials tbody tr").count() == 12
    assert page.locator("#table-trials", has_text="pruned").count() == 1
    assert "3 pruned" in page.locator("#figure-study-curves figcaption").inner_text()


def test_several_objectives_have_a_front(open_page):
    page = open_page("front")
    assert "cannot be improved in one objective" in page.locator("h1").inner_text()
    assert page.locator("#figure-study-front svg").is_visible()


def test_a_link_opens_a_collapsed_chapter(open_page):
    page = open_page("note")
    chapter = page.locator("#method details")
    assert not chapter.evaluate("element => element.open")
    page.locator("nav a", has_text="Methods").click()
    assert chapter.evaluate("element => element.open")


def test_without_scripts_everything_is_readable(browser, pages):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(pages["note"])
    assert page.locator("#figure-answer").is_visible()
    assert not page.locator("details.arms").is_visible()
    assert not page.locator(".ladder").is_visible()
    page.locator("#speed details summary", has_text="other targets").click()
    assert page.locator("#table-ladder").is_visible()
    context.close()


@pytest.mark.parametrize("name", ["note", "grid", "search"])
def test_in_print_everything_is_expanded_light_and_within_the_margins(open_page, name):
    page = open_page(name, "print", "dark", media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("nav").is_hidden()
    if name == "note":
        assert page.locator("#table-pairs").is_visible()  # inside a closed <details>
    colour = page.evaluate("getComputedStyle(document.querySelector('h1')).color.match(/\\d+/g).map(Number)")
    assert sum(colour) < 300
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES["print"][0]
    broken = page.evaluate(
        """() => [...document.querySelectorAll('th, td')].filter(cell => cell.scrollWidth > cell.clientWidth + 1)
            .map(cell => cell.textContent)"""
    )
    assert broken == []
    kept = page.evaluate(
        "[...document.querySelectorAll('h2, h3')].every(element => getComputedStyle(element).breakAfter === 'avoid')"
    )
    assert kept
    assert len(page.pdf(format="A4")) > 20_000


def test_tables_are_reachable_by_keyboard_and_have_labels(open_page):
    page = open_page("grid", "phone")
    page.evaluate("document.querySelectorAll('details').forEach(element => element.open = true)")
    for box in page.locator(".scrolls, .restacks").all():
        assert box.get_attribute("tabindex") == "0"
        assert box.get_attribute("aria-label")
    snapshot = page.locator("#verdicts").aria_snapshot()
    assert "Verdict on every claim" in snapshot
    assert page.locator("#figure-dev-f1 svg").aria_snapshot().startswith('- img "Dev weighted F1 (%) over training')
