"""Figures as inline SVG: deterministic bytes, text as text, unique ids, readable colours, no global settings changed."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import matplotlib as mpl
import pytest

from joyful.analysis.plots.style import (
    MOST_LINES,
    MUTED,
    PALETTE,
    Plot,
    log_scale,
    look,
    looks,
    panel,
    short,
    shortened,
)

HOSTILE = '<script>alert(1)</script> $x_1$ id="a" url(#b) #1f2328 --> &amp;'


def plot(name: str = "one", label: str = "an arm") -> Plot:
    with panel() as (figure, axes):
        axes.plot([1, 2, 3], [3, 1, 2], label=label, color=look(1).colour, marker="s")
        axes.fill_between([1, 2, 3], [2, 0, 1], [4, 2, 3], color=look(1).colour, alpha=0.2)
    return Plot(name, f"Title of {label}", f"It shows {label}.", figure)


def texts(svg: str) -> list[str]:
    return ["".join(node.itertext()) for node in ET.fromstring(svg).iter() if node.tag.endswith("}text")]


def test_the_same_figure_gives_the_same_text_without_dates():
    first, second = plot().svg(), plot().svg()
    assert first == second
    assert "metadata" not in first
    assert "<!--" not in first
    assert "<style" not in first  # It would apply to the whole page


def test_the_text_alternative():
    root = ET.fromstring(plot(label=HOSTILE).svg())
    assert root.get("role") == "img"
    named = {node.get("id"): node.text for node in root if node.get("id")}
    title, description = root.get("aria-labelledby").split()
    assert named[title] == f"Title of {HOSTILE}"
    assert named[description] == f"It shows {HOSTILE}."


def test_labels_are_escaped():
    svg = plot(label=HOSTILE).svg()
    assert HOSTILE in texts(svg)
    assert "<script" not in svg


def test_ids_of_two_figures_are_disjoint_and_references_resolve():
    svgs = plot("one").svg(), plot("two").svg()
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in svgs]
    assert ids[0] & ids[1] == set()
    for svg, own in zip(svgs, ids, strict=True):
        used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg))
        assert used
        assert {first or second for first, second in used} <= own


def test_every_colour_is_a_variable():
    assert re.findall(r"#[0-9a-fA-F]{6}\b", plot().svg()) == []


def test_drawing_does_not_change_the_settings_of_the_caller():
    before = dict(mpl.rcParams)
    with mpl.rc_context({"font.size": 31, "axes.grid": False}):
        inside = dict(mpl.rcParams)
        svg = plot().svg()
        plot()._repr_png_()
        assert dict(mpl.rcParams) == inside
    assert dict(mpl.rcParams) == before
    assert svg == plot().svg()  # The style of the caller does not affect the figure


def test_importing_does_not_change_settings():
    code = "import matplotlib as mpl; before = dict(mpl.rcParams)\n"
    code += "import joyful.analysis.plots; print(dict(mpl.rcParams) == before)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["True"]


def luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2.2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_by_hand():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_lines_and_text_have_enough_contrast(mode):
    card = PALETTE["card"][mode]
    for name, colours in PALETTE.items():
        if name.startswith("series-"):
            assert contrast(colours[mode], card) >= 3, name  # WCAG 1.4.11, graphics
    for name in ("ink", "muted"):
        assert contrast(PALETTE[name][mode], card) >= 4.5, name  # WCAG 1.4.3, text


def test_arms_differ_in_more_than_colour():
    every = [look(index) for index in range(MOST_LINES)]
    for what in ("colour", "dashes", "marker"):
        assert len({str(getattr(one, what)) for one in every}) == MOST_LINES
    assert look(MOST_LINES).colour == MUTED
    assert looks(["a", "b"])["b"] == look(1)


def test_light_colours_are_distinct():
    """The SVG replaces each colour by its name, so two names must not share a colour."""
    light = [pair[0] for pair in PALETTE.values()]
    assert len(set(light)) == len(light)


def test_a_long_name_keeps_its_ends():
    assert short("abc") == "abc"
    assert len(short("a" * 50 + "z")) == 34
    assert short("a" * 50 + "z").endswith("z")


@pytest.mark.parametrize("bounds", [(0.002, 0.011), (0.02, 0.06), (1e-6, 10)])
def test_logarithmic_ticks_are_plain_numbers(bounds):
    with panel() as (figure, axes):
        axes.plot(bounds, [0, 1])
        log_scale(axes.xaxis)
    svg = Plot("log", "t", "d", figure).svg()
    numbers = [text for text in texts(svg) if re.fullmatch(r"[\d.e+-]+", text)]
    assert "$" not in svg
    assert len([text for text in numbers if bounds[0] <= float(text) <= bounds[1]]) >= 2


@pytest.mark.parametrize(
    ("names", "longest", "labels"),
    [
        (["base", "new"], 10, ["base", "new"]),
        (["lr 0.1 depth 3 width 64", "lr 0.2 depth 3 width 64"], 12, ["…0.1…", "…0.2…"]),
        (["one two three four five", "one two four"], 10, ["…thr… five", "…four"]),
        (["x" * 30 + "a" + "x" * 30, "x" * 30 + "b" + "x" * 30], 12, ["xxxxx…xxxxxx", "xxx…xxxx (2)"]),
        (["a very long name indeed"], 12, ["a ver…indeed"]),
    ],
)
def test_labels_differ_where_names_differ(names: list[str], longest: int, labels: list[str]) -> None:
    found = shortened(names, longest)
    assert list(found) == names
    assert len(set(found.values())) == len(names)
    assert list(found.values()) == labels
