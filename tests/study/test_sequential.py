"""Simulated sweeps that buy pairs until their claims are decided, and the replay of the study's archives."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from joyful.analysis.censored_means import paired_interval
from joyful.analysis.claims import read_claims
from joyful.analysis.rules import ANY_SIZE, FIXED
from joyful.analysis.statistics import paired_t
from joyful.analysis.verdict import decide
from study import sequential, sequential_replay
from study.report import CLAIMS
from study.sequential import FIRST, GRID, LAST, SETTINGS, fixed_pairs, interval, look, simulate, table
from study.sequential_replay import differing, racing, replay
from study.simulated_sweeps import Setting, draw
from study.tables import PARTS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs/CONVERGENCE_ANALYSIS.md").read_text()
SIMULATED = pd.read_csv(
    ROOT / "study/sequential.csv", dtype={"truth": str, "fixed": "Int64", "fixed_80": "Int64", "misses": str}
).fillna({"misses": ""})
REPLAYED = pd.read_csv(ROOT / "study/sequential_replay.csv")

EXACT = Setting("g", "exact", exact=True)


@pytest.mark.parametrize("rule", [ANY_SIZE, FIXED], ids=["any size", "fixed"])
@pytest.mark.parametrize("pairs", [6, 17, 60])
def test_intervals_are_those_of_the_analysis(rule, pairs: int) -> None:
    rows = np.array([0, 2, 3])
    (drawn,) = draw(EXACT, LAST, 4, np.random.default_rng(0))
    low, high = interval(EXACT, drawn, rows, pairs, rule)
    expected = [paired_t(drawn.d[0][row, :pairs], rule) for row in rows]
    assert low == pytest.approx([e.low for e in expected])
    assert high == pytest.approx([e.high for e in expected])
    (drawn,) = draw(GRID, LAST, 4, np.random.default_rng(0))
    new, base = ([np.where(np.arange(LAST) < pairs, end, np.nan) for end in arm] for arm in drawn.samples)
    _, expected_low, expected_high = paired_interval(new, base, rule)  # pairs with NaN are dropped
    assert interval(GRID, drawn, rows, pairs, rule) == (
        pytest.approx(expected_low[rows], rel=1e-6),
        pytest.approx(expected_high[rows], rel=1e-6),
    )


def test_a_sweep_is_decided_at_the_first_look_that_decides() -> None:
    (drawn,) = draw(EXACT, LAST, 30, np.random.default_rng(0), EXACT.scale.difference(22))
    found = look(EXACT, drawn, ANY_SIZE)
    effect, claim = EXACT.scale.effect, EXACT.claim
    for d, word, used in zip(drawn.d[0], found.words, found.used, strict=True):
        limits = [paired_t(d[:pairs], ANY_SIZE) for pairs in range(FIRST, LAST + 1)]
        words = [decide(effect(e.low), effect(e.high), claim.lower, claim.upper)[0] for e in limits]
        first = next((n for n, verdict in enumerate(words) if verdict != "inconclusive"), None)
        assert (word, used) == (("", LAST) if first is None else (words[first], FIRST + first))
        assert (word == "") == all(e.low <= EXACT.truth <= e.high for e in limits)  # covered at once
    assert set(found.words) == {"supported", ""}


@pytest.mark.slow
@pytest.mark.parametrize("truth", [None, 0.25])
@pytest.mark.soak("takes 12 s; the study is finished")
def test_looks_far_from_a_decision_may_be_left_out(monkeypatch, truth: float | None) -> None:
    monkeypatch.setattr(sequential, "LAST", 16)
    (drawn,) = draw(GRID, 16, 20, np.random.default_rng(1), truth)
    found = [look(GRID, drawn, rule) for rule in (ANY_SIZE, FIXED)]
    computed = sequential._near_edge(GRID, drawn, 16, ANY_SIZE).mean()
    assert computed < 0.5 if truth is None else computed > 0.5
    monkeypatch.setattr(sequential, "_NEAR", 0.0)
    for before, rule in zip(found, (ANY_SIZE, FIXED), strict=True):
        after = look(GRID, drawn, rule)
        assert [list(x) for x in vars(before).values()] == [list(x) for x in vars(after).values()]


def test_the_fixed_number_of_pairs_is_the_smallest_that_suffices() -> None:
    (drawn,) = draw(EXACT, LAST, 500, np.random.default_rng(0), 0.0)
    (found,) = fixed_pairs(EXACT, drawn, "contradicted", [0.8])
    shares = []
    for pairs in (found - 1, found):
        low, high = interval(EXACT, drawn, np.arange(500), pairs, FIXED)
        shares.append(sequential.verdicts(EXACT, low, high).count("contradicted") / 500)
    assert shares[0] < 0.8 <= shares[1]
    assert 9 <= found <= 13  # 11 pairs have a power of 80 % for 0.93 standard deviations
    assert fixed_pairs(EXACT, drawn, "supported", [0.8]) == [LAST + 1]


# --- bars


@pytest.mark.parametrize("setting", [s for s in SETTINGS if s.exact and s.noisier == 1], ids=lambda s: s.label)
def test_the_sequence_keeps_the_bars(setting: Setting) -> None:
    cell = simulate(setting, "edge", 400, 2)
    assert cell.misses == []
    assert cell.rates.covered is not None
    assert cell.rates.covered.value >= 0.95
    assert cell.plain is not None
    assert cell.plain.covered is not None
    assert cell.plain.covered.value < 0.8
    assert simulate(setting, "0", 400, 2).rates.contradicted.value > 0.95


def test_the_t_interval_after_each_pair_misses_the_bars(monkeypatch) -> None:
    monkeypatch.setattr(sequential, "ANY_SIZE", FIXED)
    cell = simulate(EXACT, "edge", 400, 2)
    assert cell.misses == ["covered", "supported", "contradicted"]
    rates = table([cell])
    assert sequential.markdown(rates).count("**") == 6
    assert "- g, exact, truth edge: covered " in sequential.markdown(rates)


def test_the_document_has_the_tables_of_the_files() -> None:
    assert sequential.markdown(SIMULATED) in DOCUMENT
    assert sequential_replay.markdown(REPLAYED) in DOCUMENT
    changed = SIMULATED.assign(covered=SIMULATED["covered"] - 1)
    assert sequential.markdown(changed) not in DOCUMENT


@pytest.mark.slow
@pytest.mark.parametrize("truth", ["0", "edge"])
def test_the_file_holds_what_the_command_computes(truth: str) -> None:
    row = SIMULATED[(SIMULATED["setting"] == "normal") & (SIMULATED["truth"] == truth)]
    cell = simulate(SETTINGS[0], truth, 4000, 1)
    pd.testing.assert_frame_equal(table([cell]), row.reset_index(drop=True), check_dtype=False, atol=0.05, rtol=0)


def test_the_command_prints_the_tables(capsys, tmp_path) -> None:
    sequential.main(["--sweeps", "100", "--only", "F1", "--csv", str(tmp_path / "rates.csv")])
    out, err = capsys.readouterr()
    assert out.startswith("`python -m study.sequential --sweeps 100 --seed 1`")
    assert out.count("\n| F1, sd 0.7 points |") == 5
    assert err.count("\n") == 4
    assert len((tmp_path / "rates.csv").read_text().splitlines()) == 5
    for wrong in (["--sweeps", "10"], ["--only", "nothing"]):
        with pytest.raises(SystemExit):
            sequential.main(wrong)


# --- replay


@pytest.mark.slow
@pytest.mark.soak("takes 5 s; the study is finished")
def test_an_archive_gives_the_lines_of_the_file() -> None:
    part = next(part for part in PARTS if part.name == "confirm_synthetic_second")
    expected = REPLAYED[REPLAYED["archive"] == part.title].reset_index(drop=True)
    pd.testing.assert_frame_equal(replay(part, read_claims(CLAIMS)), expected)
    assert set(expected["sequential"]) >= {"contradicted", "inconclusive"}
    assert 6 <= expected["used"].min() < expected["used"].max() == 20


@pytest.mark.slow
def test_archives_with_few_pairs_are_left_out() -> None:
    assert replay(next(part for part in PARTS if part.name == "reference"), read_claims(CLAIMS)[:1]).empty


def lines(*rows: tuple[str, str, str, int]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["arm", "fixed", "sequential", "used"])
    return table.assign(archive="A", claim="c", metric="m", pairs=20)


def test_an_arm_stops_when_all_its_claims_are_decided() -> None:
    found = lines(
        ("one", "supported", "supported", 8),
        ("one", "contradicted", "contradicted", 11),
        ("one", "not testable", "not testable", 20),
        ("two", "supported", "inconclusive", 20),
        ("two", "supported", "supported", 6),
    )
    (cost,) = racing(found).to_dict("records")
    assert (cost["arms"], cost["stopped"], cost["pairs"], cost["used"]) == (2, 1, 40, 31)
    assert (cost["runs"], cost["runs_used"]) == (60, 51)  # the baseline runs as long as the second arm
    assert (cost["single"], cost["single_used"]) == (80, 45)
    assert (cost["claims"], cost["fixed"], cost["sequential"]) == (4, 4, 3)
    (cost,) = racing(found[found["arm"] == "one"]).to_dict("records")
    assert (cost["used"], cost["runs_used"]) == (11, 22)


def test_the_document_gives_the_shares_of_the_decided_claims() -> None:
    decided = REPLAYED[REPLAYED["sequential"].isin(["supported", "contradicted"])]
    by_all = REPLAYED[REPLAYED["fixed"].isin(["supported", "contradicted"])]
    shares = [f"{100 * lines['used'].sum() / lines['pairs'].sum():.0f} %" for lines in (decided, by_all)]
    text = " ".join((ROOT / "docs/CONVERGENCE_ANALYSIS.md").read_text().split())
    assert (
        f"The {len(decided)} claims that the sequence decides take {shares[0]} of the pairs, "
        f"{decided['used'].median():g} of 20 in the median. The {len(by_all)} claims that the t interval of all pairs decides "
        f"take {shares[1]}."
    ) in text


def test_decided_verdicts_that_differ_are_listed() -> None:
    found = lines(("one", "supported", "contradicted", 8), ("one", "inconclusive", "contradicted", 9))
    assert list(differing(found).index) == [0]
    assert "- A, one, c (m): supported after 20 pairs, contradicted after 8" in sequential_replay.markdown(found)
    assert sequential_replay.markdown(lines(("one", "supported", "supported", 8))).endswith("differ: none.")
