"""Numbers as a reader wants them."""

import math

import pytest

from joyful.analysis import formatting as words


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [
        (1.25, False, "1.2"), (-0.04, True, "0.0"), (-3.456, False, "−3.5"), (3.456, True, "+3.5"), (None, False, "–"),
        (math.nan, True, "–"), (math.inf, False, "∞"), (-math.inf, False, "−∞"), (12345.6, False, "12 345.6"),
        (-1.5e9, False, "−1.50e+09"),
    ],
)  # fmt: skip
def test_number(value, signed, text):
    assert words.number(value, 1, signed=signed) == text


def test_quantities_and_intervals():
    assert words.percent(0.6234) == "62.3 %"
    assert words.quantity(1.5, "points", signed=True) == "+1.50 points"
    assert words.quantity(math.nan, "percent") == "–"
    assert words.interval(-3.0, 21.64, "percent") == "−3.0 to 21.6 %"
    assert words.interval(math.nan, 1.0, "percent") == "–"
    assert words.p_value(0.0004) == "< 0.001"
    assert words.p_value(0.0314) == "0.031"
    assert words.small(0.0012345) == "0.00123"


def test_counts_lists_and_headings():
    assert words.count(1, "run") == "1 run"
    assert words.count(1200, "run") == "1 200 runs"
    assert words.listing(["a, b", "c"]) == "a, b and c"
    assert words.listing(list("abcdef"), 2) == "a, b and 4 more"
    assert words.listing([]) == ""
    assert words.heading("convergence_speed") == "Convergence speed"
    assert words.heading("f1") == "F1"
    assert words.metric("final train recon_mse") == "final train reconstruction MSE"
    assert words.metric("my_metric") == "my_metric"


def test_numbers_stay_together_in_a_line():
    assert words.tied("3.0 to −1.5 % of 10 runs in 12 345 steps") == (
        "3.0\u00a0to\u00a0−1.5\u00a0% of 10\u00a0runs in 12\u00a0345 steps"
    )
