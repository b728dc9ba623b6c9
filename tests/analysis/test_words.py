"""The sentence that answers, results in plain words, labels of arms and the places of the answer's figure."""

from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest

from joyful.analysis.arms import Arm
from joyful.analysis.claims_file import Claim
from joyful.analysis.lines import ALL_TASKS
from joyful.analysis.measures import Metric
from joyful.analysis.page.answer import answer, cell
from joyful.analysis.page.labels import labels
from joyful.analysis.page.words import claimed, headline, result
from joyful.analysis.statistics import UNKNOWN, Estimate
from joyful.analysis.verdict import Verdict

SPEED, SPREAD = Metric("time_to_target", "dev", "f1_weighted"), Metric("spread", "dev", "f1_weighted")
F1, NLL = Metric("best", "dev", "f1_weighted"), Metric("final", "train", "nll")


def verdict(
    metric, effect, lower=10, upper=20, *, unit="percent", kind="between", direction="", arm="new", task="", reason=""
):
    """A verdict on the claim of an effect from `lower` to `upper`, given the effect with its interval."""
    claim = Claim(metric.measure, "", (metric,), lower, upper, unit, direction, kind=kind)
    found = Verdict(claim, metric, arm, "base", pd.DataFrame({"low": [0.1], "high": [0.1]}), task=task, reason=reason)
    return replace(found, mean=UNKNOWN if reason else Estimate(*effect).map(found.scale.difference))


def findings(*verdicts, tasks=(), others=1):
    arms = [SimpleNamespace(name="base"), *(SimpleNamespace(name=f"arm {i}") for i in range(others))]
    sweep = SimpleNamespace(baseline=arms[0], others=tuple(arms[1:]), tasks=tasks)
    return SimpleNamespace(verdicts=list(verdicts), sweep=sweep)


@pytest.mark.parametrize(
    ("verdicts", "sentence"),
    [
        (
            [verdict(SPEED, (0, -1, 1)), verdict(SPREAD, (0, -1, 1)), verdict(NLL, (-9, -10, -8))],
            "new is not faster, steadier or better than base as claimed; its train NLL is 9.0 % worse",
        ),
        ([verdict(SPEED, (15, 12, 18)), verdict(SPREAD, (15, 12, 18))], "new is faster and steadier than base"),
        (
            [verdict(SPEED, (15, 12, 18)), verdict(SPREAD, (0, -5, 5))],
            "new is faster than base; it is not steadier as claimed",
        ),
        ([verdict(SPEED, (5, 1, 9))], "new is 5.0 % faster in dev weighted F1 than base, less than claimed"),
        ([verdict(SPEED, (-5, -9, -1))], "new is not faster than base; it is 5.0 % slower in dev weighted F1"),
        ([verdict(SPEED, (12, 5, 19))], "It is undecided whether new is faster than base"),
        (
            [verdict(NLL, (15, 12, 18)), verdict(F1, (0, -1, 0.5), 1, 2, unit="points")],
            "new is better in train NLL than base; it is not better in dev weighted F1 as claimed",
        ),
        (
            [verdict(F1, (0, -0.3, 0.3), -0.5, 0.5, unit="points", kind="within")],
            "new is equal to base",
        ),
        (
            [verdict(F1, (0, -0.3, 0.3), -0.5, float("inf"), unit="points", kind="no_worse_than")],
            "new is no worse than base",
        ),
        # a claim of a change for the worse, which is contradicted because it got better
        ([verdict(NLL, (-9, -10, -8), direction="increase")], "new is not higher than base"),
        (
            [verdict(SPEED, (0, -1, 1)), verdict(F1, (0, 0, 0), reason="no F1")],
            "new is not faster than base as claimed",
        ),
        ([verdict(F1, (0, 0, 0), reason="no F1")], ""),
    ],
)
def test_the_sentence_on_one_arm(verdicts, sentence):
    assert headline(findings(*verdicts)) == sentence


def test_the_sentence_on_several_arms():
    none = [verdict(SPEED, (0, -1, 1), arm=arm) for arm in ("arm 0", "arm 1", "arm 2")]
    assert headline(findings(*none, others=3)) == "None of 3 arms is faster than base as claimed"
    unjudged = [*none[:2], verdict(SPEED, (0, 0, 0), arm="arm 2", reason="differs")]
    assert (
        headline(findings(*unjudged, others=3)) == "None of 2 arms that could be judged is faster than base as claimed"
    )
    good = [*none[:2], verdict(SPEED, (15, 12, 18), arm="arm 2"), verdict(SPREAD, (12, 5, 19), arm="arm 2")]
    assert headline(findings(*good, others=3)) == (
        "Against base, arm 2 is faster; the other 2 arms bear out no claim; 1 comparison is undecided"
    )
    partly = [
        *none[:1],
        verdict(NLL, (15, 12, 18), arm="arm 1"),
        verdict(F1, (0, -1, 0.5), 1, 2, unit="points", arm="arm 1"),
    ]
    assert headline(findings(*partly, others=2)).startswith(
        "Against base, arm 1 is better in train NLL; the other arm bears "
    )


def test_the_sentence_over_tasks():
    of_tasks = [verdict(SPEED, (15, 12, 18), task=task) for task in ("a", "b", ALL_TASKS)]
    assert headline(findings(*of_tasks, tasks=("a", "b"))) == "Over 2 tasks, new is faster than base"
    assert headline(findings(*of_tasks[:2], tasks=("a", "b"))).startswith(
        "Against base, new on a is faster; new on b is faster"
    )


@pytest.mark.parametrize(
    ("effect", "text"),
    [
        ((15, 12, 18), "faster as claimed"), ((25, 22, 28), "faster, more than claimed"),
        ((5, 1, 9), "faster, but by less than claimed"), ((0, -1, 1), "not 10 % faster"), ((-5, -9, -1), "slower"),
        ((12, 5, 19), "undecided"),
    ],
)  # fmt: skip
def test_a_result_in_a_few_words(effect, text):
    assert result(verdict(SPEED, effect)) == text


def test_margins_and_edges_in_words():
    within = verdict(F1, (0, -0.3, 0.3), -0.5, 0.5, unit="points", kind="within")
    assert (result(within), claimed(within.claim, F1)) == (
        "equal within the margin",
        "a change of less than 0.5 points",
    )
    no_worse = verdict(F1, (-2, -3, -1), -0.5, float("inf"), unit="points", kind="no_worse_than")
    assert (result(no_worse), claimed(no_worse.claim, F1)) == (
        "worse by more than the margin",
        "at most 0.5 points worse",
    )
    at_least = verdict(F1, (0, -0.1, 0.1), 1, float("inf"), unit="points", kind="at_least")
    assert (result(at_least), claimed(at_least.claim, F1)) == ("not 1 point higher", "at least 1 point higher")


def test_the_places_of_a_cell():
    found = cell(verdict(SPEED, (5, 1, 9)))  # the axis goes from -30 to 35
    assert found.zero == pytest.approx(100 * 30 / 65, abs=0.01)
    assert found.band == pytest.approx((100 * 40 / 65, 100 * 50 / 65), abs=0.01)
    assert found.line == pytest.approx((100 * 31 / 65, 100 * 39 / 65), abs=0.01)
    assert found.point == pytest.approx(100 * 35 / 65, abs=0.01)
    far = cell(verdict(SPEED, (-60, -70, 50)))
    assert (far.line, far.point, far.before, far.beyond) == ((0.0, 100.0), None, "−60.0 %", "")
    beyond = cell(verdict(SPEED, (60, 50, 70)))
    assert (beyond.line, beyond.before, beyond.beyond) == ((100.0, 100.0), "", "+60.0 %")
    unknown = cell(verdict(F1, (0, 0, 0), 1, 2, unit="points", reason="units differ: one is half (a against b)"))
    assert (unknown.line, unknown.point, unknown.short, unknown.text) == (None, None, "", "units differ: one is half")


def test_the_answer_is_a_row_a_claim_or_a_matrix():
    one = answer(findings(verdict(SPEED, (5, 1, 9)), verdict(F1, (1, 0.5, 1.5), 1, 2, unit="points")))
    assert [(row.head, row.detail) for row in one.rows] == [
        ("Time to target", "10 to 20 % faster"), ("Best", "1 to 2 points higher"),
    ]  # fmt: skip
    matrix = answer(findings(verdict(SPEED, (5, 1, 9), arm="a"), verdict(SPEED, (0, -1, 1), arm="b"), others=2))
    assert matrix.columns == ("a", "b")
    assert [c.verdict for c in matrix.rows[0].cells] == ["contradicted", "contradicted"]
    assert [c.short for c in matrix.rows[0].cells] == ["+5.0 %", "0.0 %"]
    tasks = answer(findings(*(verdict(SPEED, (5, 1, 9), task=task) for task in ("x", "y")), tasks=("x", "y")))
    assert tasks.columns == ("x", "y")


def arm(name, **settings):
    return Arm(name, settings, name == "base", {}, {})


def test_labels_list_what_differs_from_the_baseline():
    settings = {"loss": "mse", "weights.encoder_loss_weight": 0.05, "weights.cl_loss_weight": 0.2}
    arms = (arm("base", **settings), arm("a", **settings | {"loss": "smoothl1"}),
            arm("b", **settings | {"weights.encoder_loss_weight": 0.03, "weights.cl_loss_weight": 0.1}))  # fmt: skip
    assert labels(arms, tuple(settings)) == {"base": "baseline", "a": "smoothl1", "b": "encoder 0.03 cl 0.1"}
    two = tuple(settings)[:2]
    assert labels(arms[:2], two) == {"base": "base", "a": "a"}  # short names stay


def test_labels_that_would_be_equal_are_the_names():
    settings = {"fusion": "auto", "context": "gru", "x": 1}
    arms = (
        arm("base", **settings),
        arm("a", **settings | {"fusion": "none"}),
        arm("b", **settings | {"context": "none"}),
    )
    assert labels(arms, tuple(settings)) == {"base": "base", "a": "a", "b": "b"}
