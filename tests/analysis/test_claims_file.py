"""Claims files: the default file, a user's file, and the error messages for invalid content."""

import copy
import math
from pathlib import Path

import pytest
import yaml

from joyful.analysis.claims_file import BASIC_OPTIMIZATION, parse_claims, read_claims
from joyful.analysis.measures import MEASURES
from joyful.results import InputError

GOOD = {
    "factors": ["loss"],
    "claims": [
        {
            "claim": "f1",
            "says": "F1 is higher.",
            "metrics": [{"measure": "best", "split": "dev", "of": "f1_weighted"}],
            "range": [1, 2],
            "unit": "points",
            "direction": "increase",
        }
    ],
}


def test_the_default_claims() -> None:
    claims = read_claims()
    assert [(c.name, c.lower, c.upper, c.unit, c.direction) for c in claims] == [
        ("convergence_speed", 15, 25, "percent", "increase"),
        ("convergence_stability", 30, 40, "percent", "increase"),
        ("training_stability", 25, 35, "percent", "increase"),
        ("training_loss", 10, 20, "percent", "decrease"),
        ("f1", 1, 2, "points", "increase"),
    ]
    assert [metric.label for metric in claims[3].metrics] == [
        "final train nll", "final train recon_mse", "final train recon_mae", "final train loss_total",
    ]  # fmt: skip
    assert claims[0].metrics[0].label == "epochs to the target of dev f1_weighted"
    assert {claim.factors for claim in claims} == {("loss", "weights.encoder_loss_weight")}
    assert all(claim.says.endswith(".") for claim in claims)
    assert BASIC_OPTIMIZATION.name == "basic_optimization.yaml"


def test_a_users_file(tmp_path: Path) -> None:
    text = """
claims:
  - claim: floor
    metrics: [{measure: area, split: dev, of: bleu, better: higher}]
    range: [5, .inf]
    unit: percent
    direction: increase
    factors: [optimizer]
"""
    (tmp_path / "mine.yaml").write_text(text)
    (claim,) = read_claims(tmp_path / "mine.yaml")
    assert math.isinf(claim.upper)
    assert claim.factors == ("optimizer",)
    assert claim.says == "floor: increase by 5 percent or more"


def change(place: str, value: object) -> dict:
    content = copy.deepcopy(GOOD)
    *path, last = place.split(".")
    node: object = content
    for part in path:
        node = node[int(part) if part.isdigit() else part]  # type: ignore[index]
    if value is None:
        del node[last]  # type: ignore[attr-defined]
    else:
        node[int(last) if last.isdigit() else last] = value  # type: ignore[index]
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"the file: expected a mapping with claims, got \[\]"),
        (None, "the file: expected a mapping"),
        (change("claims", []), r"claims: expected a list of claims, got \[\]"),
        (change("claims", {"a": 1}), "claims: expected a list"),
        (change("factor", ["loss"]), r"unknown key: expected one of claims, factors, got 'factor'; did you mean factors\?"),
        (change("factors", "loss"), r"factors: expected a list of groups and settings such as \[loss\], got 'loss'"),
        (change("claims.0.range", None), r"claims\[0\]: expected one of between, at_least, .*, got none of them"),
        (change("claims.0.margin", 1), r"claims\[0\]: unknown key: expected one of .*, within, got 'margin'"),
        (change("claims.0.claim", "f 1"), r"claims\[0\].claim: expected a name of letters, digits and _, got 'f 1'"),
        (change("claims.0.range", [2, 1]), r"claims\[0\].range: expected \[lower, upper\]"),
        (change("claims.0.range", [1]), "expected .lower, upper."),
        (change("claims.0.range", [True, 2]), "expected .lower, upper."),
        (change("claims.0.range", [math.nan, 2]), "expected .lower, upper."),
        (change("claims.0.unit", "percents"), "unit: expected one of percent, points, absolute, got .*; did you mean percent"),
        (change("claims.0.direction", "up"), "direction: expected one of increase, decrease, got 'up'"),
        (change("claims.0.metrics", "f1"), "metrics: expected a list, got 'f1'"),
        (change("claims.0.metrics.0.measure", "last"), f"measure: expected one of {', '.join(MEASURES)}, got 'last'"),
        (change("claims.0.metrics.0.measure", "finall"), "got 'finall'; did you mean final?"),
        (change("claims.0.metrics.0.measure", ["best"]), r"measure: expected one of .*, got \['best'\]"),
        (change("claims.0.metrics.0.measure", "x" * 1000), "got 'x{99}$"),
        (change("claims.0.metrics.0.of", "a b"), "of: expected a column of histories such as f1_weighted, got 'a b'"),
        (change("claims.0.metrics.0.of", None), r"metrics\[0\]: expected .*missing: of"),
        (change("claims.0.metrics.0.split", "test"), "on the test split, got best; set measure: at_best_dev or"),
        (change("claims.0.metrics.0.measure", "time_to_target"),
         "measures a speed: expected unit percent and split dev, got unit points and split dev"),
        (change("claims.0.says", 7), "says: expected text, got 7"),
        ({"claims": GOOD["claims"] * 2}, r"claims\[1\].claim: expected unique names, got f1 twice; rename one of the claims"),
        (change("claims.0", GOOD["claims"][0] | {"unit": "percent", "direction": "decrease", "range": [90, 100]}),
         r"less than 100 % for best dev f1_weighted, got 90 to 100"),
    ],
)  # fmt: skip
def test_invalid_content_is_refused(content: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_claims(content)


def test_at_best_dev_allows_the_test_split() -> None:
    content = change("claims.0.metrics.0.measure", "at_best_dev")
    content["claims"][0]["metrics"][0]["split"] = "test"
    assert parse_claims(content)[0].metrics[0].label == "test f1_weighted at the best dev epoch"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml: the claims file cannot be read \(No such file"):
        read_claims(tmp_path / "none.yaml")
    path = tmp_path / "claims.yaml"
    for text, message in (
        ("claims: [", "it is not valid YAML"),
        ("claims: !!python/object/apply:os.system ['true']", r"claims\[0\]: expected a mapping .*, got 'true'"),
        ("claims: []", r"claims\.yaml, line 1: claims: expected a list"),
        ("#" * (2**20 + 1), "at most 1048576 bytes"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            read_claims(path)
    path.write_text(yaml.safe_dump(GOOD))
    assert len(read_claims(path)) == 1


MARGIN = """
claims:
  - claim: loss
    metrics:
      - {measure: final, split: dev, of: nll}
      - {measure: final, split: dev, of: accuracy}
    within: 0.05
    unit: percent
  - claim: score
    metrics: [{measure: best, split: dev, of: wer, better: lower}]
    no_worse_than: 1.5
    unit: absolute
  - claim: speed
    metrics: [{measure: time_to_target, split: dev, of: wer, better: lower}]
    at_least: 10
    unit: percent
    direction: increase
"""


def test_claims_of_every_kind(tmp_path: Path) -> None:
    (tmp_path / "claims.yaml").write_text(MARGIN)
    same, no_worse, speed = read_claims(tmp_path / "claims.yaml")
    assert (same.kind, same.lower, same.upper) == ("within", -0.05, 0.05)
    assert [same.direction_of(metric) for metric in same.metrics] == ["decrease", "increase"]  # the better one
    assert same.says == "loss: a change of less than 0.05 percent"
    assert same.digits == 3
    assert (no_worse.kind, no_worse.lower, no_worse.upper, no_worse.unit) == (
        "no_worse_than",
        -1.5,
        math.inf,
        "absolute",
    )
    assert no_worse.direction_of(no_worse.metrics[0]) == "decrease"
    assert no_worse.says == "score: worse by less than 1.5 absolute"
    assert (speed.kind, speed.lower, speed.upper) == ("at_least", 10, math.inf)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("within: 0.05", "wihtin: 0.05", r"line 7: claims\[0\]: unknown key: .*did you mean within\?"),
        (
            "of: nll}",
            "of: nll, better: higher}",
            r"line 5: claims\[0\].metrics\[0\].better: lower values of nll are better",
        ),
        (
            "better: lower}]\n    no",
            "better: low}]\n    no",
            r"line 10: .*better: expected one of higher, lower, got 'low'",
        ),
        (", better: lower}]\n    no", "}]\n    no", r"line 10: .*of: wer: expected to know .* --better wer=lower"),
        (
            "at_least: 10",
            "at_least: -1",
            r"line 15: claims\[2\].at_least: expected a finite number of 0 or more, got -1",
        ),
        ("no_worse_than: 1.5", "no_worse_than: 0", r"line 11: .*expected a margin, a finite number above 0, got 0"),
        (
            "    direction: increase\n",
            "",
            r"line 13: claims\[2\]: expected direction: increase or decrease for at_least",
        ),
        ("at_least: 10", "at_least: 10\n    within: 3", r"line 13: .*expected one of .*, got at_least and within"),
    ],
)
def test_an_error_names_the_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert MARGIN.count(old) == 1
    (tmp_path / "claims.yaml").write_text(MARGIN.replace(old, new))
    with pytest.raises(InputError, match=rf"claims\.yaml, {message}"):
        read_claims(tmp_path / "claims.yaml")


def test_a_direction_from_outside_the_file(tmp_path: Path) -> None:
    (tmp_path / "claims.yaml").write_text(MARGIN.replace(", better: lower", ""))
    assert read_claims(tmp_path / "claims.yaml", {"wer": "lower"})[1].metrics[0].better == "lower"
