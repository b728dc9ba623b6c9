"""Judge the study's archives again, as if each arm had run only until its claims were decided. See `study.sequential`."""

from __future__ import annotations

import tempfile
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from joyful.analysis.arms import Arm
from joyful.analysis.claims import judge_line, read_claims
from joyful.analysis.claims_file import Claim
from joyful.analysis.page.markdown import table
from joyful.analysis.rules import ANY_SIZE, FIXED
from joyful.analysis.sweep import Sweep, read_sweep
from study import archive
from study.report import ARCHIVES, CLAIMS
from study.tables import PARTS, Part, plan_name

#: Fewest pairs of an archive that is replayed.
PAIRS_FROM = 20

#: Verdicts that decide a claim.
DECIDED = ("supported", "contradicted")


def replay(part: Part, claims: Sequence[Claim]) -> pd.DataFrame:
    """Judge an archive by the t interval of all pairs, and by the confidence sequence of the first pairs that decide.

    Args:
        part: The archive.
        claims: The claims.

    Returns:
        A row for each arm, claim and metric: `archive`, `arm`, `claim`, `metric`, the `pairs` that were run, the verdict
        `fixed` of the t interval on all of them, the verdict `sequential` of the confidence sequence, and the pairs `used`
        for it. All pairs are used where the sequence does not decide. The table is empty for fewer than PAIRS_FROM pairs.
    """
    with tempfile.TemporaryDirectory() as folder:
        archive.unpack(ARCHIVES / f"{part.name}.parquet", Path(folder) / part.name)
        sweep = read_sweep(Path(folder) / part.name)
        arms = sweep.others if sweep.design == "paired" else ()
        rows = [
            (part.title, _name(part, sweep, arm), *row)
            for arm in arms
            if len(sweep.pairs(arm)) >= PAIRS_FROM
            for row in _replay_arm(sweep, arm, claims)
        ]
    return pd.DataFrame(rows, columns=["archive", "arm", "claim", "metric", "pairs", "fixed", "sequential", "used"])


def replay_all() -> Iterator[pd.DataFrame]:
    """Yield the replay of each archive that has enough pairs."""
    claims = read_claims(CLAIMS)
    for part in PARTS:
        found = replay(part, claims)
        if len(found):
            yield found


def racing(lines: pd.DataFrame) -> pd.DataFrame:
    """Return what each archive would have cost if its arms had stopped.

    An arm stops when all its claims that can be tested are decided. The baseline runs as long as any arm does.

    Args:
        lines: The rows of `replay`, of one archive or several.

    Returns:
        A row for each archive: `archive`, the number of `arms` without the baseline, the arms that `stopped` before the last
        pair, the `pairs` that were run over all arms and those `used`, the same for `runs` and `runs_used`, which include
        the baseline, the same for `single` and `single_used`, in which each claim stops alone, the `claims` that can be
        tested, and those that were decided `fixed` and `sequential`.
    """
    rows = []
    for name, part in lines.groupby("archive", sort=False):
        testable = part[part["fixed"] != "not testable"]
        of_arm = testable.groupby("arm", sort=False)[["pairs", "used"]].max()
        pairs, used = of_arm["pairs"], of_arm["used"]
        rows.append(
            {
                "archive": name, "arms": len(of_arm), "stopped": int((used < pairs).sum()),
                "pairs": int(pairs.sum()), "used": int(used.sum()),
                "runs": int(pairs.sum() + pairs.max()), "runs_used": int(used.sum() + used.max()),
                "single": int(testable["pairs"].sum()), "single_used": int(testable["used"].sum()),
                "claims": len(testable),
                **{rule: int(testable[rule].isin(DECIDED).sum()) for rule in ("fixed", "sequential")},
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def differing(lines: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `replay` that both rules decide, with different verdicts."""
    both = lines["fixed"].isin(DECIDED) & lines["sequential"].isin(DECIDED)
    return lines[both & (lines["fixed"] != lines["sequential"])]


def markdown(lines: pd.DataFrame) -> str:
    """Return the cost of each archive with the totals as a Markdown table, and the list of verdicts that differ."""
    costs = racing(lines)
    total = costs.drop(columns="archive").sum().to_dict() | {"archive": "all"}
    columns = [
        "archive", "arms", "stopped early", "pairs used", "share of pairs", "share of runs", "share, each claim alone", "claims",
        "decided by all pairs", "decided by the sequence",
    ]  # fmt: skip
    rows = [
        [
            row["archive"], str(row["arms"]), str(row["stopped"]), f"{row['used']} of {row['pairs']}",
            _share(row, "used", "pairs"), _share(row, "runs_used", "runs"), _share(row, "single_used", "single"),
            str(row["claims"]), str(row["fixed"]), str(row["sequential"]),
        ]
        for row in (*costs.to_dict("records"), total)
    ]  # fmt: skip
    other = [
        f"- {row['archive']}, {row['arm']}, {row['claim']} ({row['metric']}): {row['fixed']} after {row['pairs']} pairs, "
        f"{row['sequential']} after {row['used']}"
        for _, row in differing(lines).iterrows()
    ]
    return (
        table(columns, rows) + "\n\nDecided verdicts that differ:" + ("\n\n" + "\n".join(other) if other else " none.")
    )


def _share(row: Mapping[Hashable, Any], used: str, of: str) -> str:
    return f"{100 * row[used] / row[of]:.0f} %"


def _replay_arm(sweep: Sweep, arm: Arm, claims: Sequence[Claim]) -> Iterator[tuple[str, str, int, str, str, int]]:
    seeds = sweep.pairs(arm)
    for claim in claims:
        for metric in claim.metrics:
            (fixed, _), *_ = judge_line(sweep, arm, claim, metric, None, None, rule=FIXED)
            (found, _), *_ = judge_line(sweep, arm, claim, metric, None, None, rule=ANY_SIZE)
            used = seeds.index(found.differences.index[-1]) + 1 if found.verdict in DECIDED else len(seeds)
            yield claim.name, metric.label, len(seeds), fixed.verdict, found.verdict, used


def _name(part: Part, sweep: Sweep, arm: Arm) -> str:
    return part.arms[sweep.arms.index(arm)] if part.arms else plan_name(arm)
