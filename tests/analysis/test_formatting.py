"""Formatting of numbers, quantities, intervals and lists."""

import math

import pytest

from joyful.analysis import formatting


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [
        (1.25, False, "1.2"), (-0.04, True, "0.0"), (-3.456, False, "−3.5"), (3.456, True, "+3.5"), (None, False, "–"),
        (math.nan, True, "–"), (math.inf, False, "∞"), (-math.inf, False, "−∞"), (12345.6, False, "12 345.6"),
        (-1.5e9, False, "−1.50e+09"),
    ],
)  # fmt: skip
def test_number(value, signed, text):
    assert formatting.number(value, 1, signed=signed) == text


def test_quantities_and_intervals():
    assert formatting.percent(0.6234) == "62.3 %"
    assert formatting.quantity(1.5, "points", signed=True) == "+1.50 points"
    assert formatting.quantity(math.nan, "percent") == "–"
    assert formatting.interval(-3.0, 21.64, "percent") == "−3.0 to 21.6 %"
    assert formatting.interval(math.nan, 1.0, "percent") == "–"
    assert formatting.p_value(0.0004) == "< 0.001"
    assert formatting.p_value(0.0314) == "0.031"
    assert formatting.three_digits(0.0012345) == "0.00123"


def test_counts_lists_and_headings():
    assert formatting.count(1, "run") == "1 run"
    assert formatting.count(1200, "run") == "1 200 runs"
    assert formatting.listing(["a, b", "c"]) == "a, b and c"
    assert formatting.listing(list("abcdef"), 2) == "a, b and 4 more"
    assert formatting.listing([]) == ""
    assert formatting.heading("convergence_speed") == "Convergence speed"
    assert formatting.heading("f1") == "F1"
    assert formatting.metric("final train recon_mse") == "final train reconstruction MSE"
    assert formatting.metric("my_metric") == "my_metric"


def test_numbers_stay_together_in_a_line():
    assert formatting.no_break("3.0 to −1.5 % of 10 runs in 12 345 steps") == (
        "3.0\u00a0to\u00a0−1.5\u00a0% of 10\u00a0runs in 12\u00a0345 steps"
    )
