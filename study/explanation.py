"""The figures and tables of docs/what-the-weights-do.md, from study/archives/. `study.report` writes them.

Sources: the encoder gradient ratio is that of `joyful.analysis.gradient_ratio`. The effect of a weight is the slope of the best
dev F1 in log10 of the weight, by ordinary least squares over the recorded configurations, in which all weights were drawn at
random; where the learning rate was drawn too, it enters with its square.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from benchmarks.recorded import Recorded, read_recorded
from joyful.analysis.findings import Findings
from joyful.analysis.formatting import interval, number, percent
from joyful.analysis.page.markdown import table
from joyful.analysis.plots import Plot, learning_curves
from joyful.analysis.plots.curves import draw_bands
from joyful.analysis.plots.style import MUTED, joined, label_axes, log_scale, look, looks, panel
from study.tables import DATASETS, FAIR_NOTE, Part, Studies, effect_text, verdicts_by_claim

Values = NDArray[np.float64]

#: Part -> line of the first figure: the baseline of the note, and the reference's own encoder loss.
GRADIENTS = {
    **DATASETS,
    "synthetic_legacy": "Synthetic, legacy_sum",
}

#: Setting -> its name in the figures.
WEIGHTS = {
    "weights.encoder_loss_weight": "encoder weight",
    "weights.cl_loss_weight": "contrast weight",
    "weights.gate_reg_weight": "gate weight",
}

#: Column of a history -> its name in the table.
SHARES = {
    "share_classification": "classification",
    "share_contrastive": "contrast",
    "share_encoder": "reconstruction",
    "share_gate_reg": "gate",
}

#: Setting that was drawn as well, on some datasets.
RATE = "optimizer.learning_rate"

#: Names of the arms of `fair/note` that the last two figures compare with its first arm.
CONTRAST, AVERAGED = "contrast 0.025", "averaged"


def gradients(studies: Studies) -> Plot:
    """Plot the encoder gradient ratio of MSE at weight 0.05 over training, with a line for each dataset."""
    ratios = {
        GRADIENTS[part.name]: _of_first_arm(findings) for part, findings in studies.items() if part.name in GRADIENTS
    }
    names = {"ratio": "mean", "ratio_low": "low", "ratio_high": "high"}
    bands = [rows.assign(arm=title).rename(columns=names) for title, rows in ratios.items()]
    with panel() as (figure, axes):
        ends = draw_bands(axes, pd.concat(bands), looks(list(ratios)), 100)
        axes.axhline(100, color=MUTED, linewidth=1, dashes=(2, 2))
        log_scale(axes.yaxis)
        label_axes(axes, "encoder / classification (%)", "epoch")
    sentences = [
        f"{title} ends at {number(mean, 1)} % ({interval(low, high, digits=1)})"
        for title, (mean, low, high, _) in ends.items()
    ]
    title = "Gradient of the weighted reconstruction, as a share of that of the classification"
    return Plot("explain-gradients", title, joined(sentences), figure)


def _of_first_arm(findings: Findings) -> pd.DataFrame:
    """Return the gradient ratios of the baseline."""
    rows = findings.tables["gradient_ratio"]
    return rows[rows["arm"] == findings.sweep.arms[0].name]


def shares_table(studies: Studies) -> str:
    """Return the share of each component in the training loss of MSE at weight 0.05, at three epochs of each dataset."""
    rows = []
    for part, findings in studies.items():
        frame = findings.sweep.frame
        if part.name not in DATASETS:
            continue
        frame = frame[(frame["arm"] == findings.sweep.arms[0].name) & (frame["split"] == "train")]
        if not set(SHARES) <= set(frame.dropna(axis=1, how="all")):
            continue  # an archive with fewer columns
        for epoch in (1.0, 5.0, frame["epoch"].max()):
            means = frame.loc[frame["epoch"] == epoch, list(SHARES)].mean()
            rows.append([part.title, number(epoch, 0), *(f"{number(100 * means[name], 1)} %" for name in SHARES)])
    return table(["data", "epoch", *SHARES.values()], rows)


def effects(recorded: Sequence[Recorded]) -> dict[str, tuple[float, float, float]]:
    """Return the effect of each weight, tenfold, on the best dev F1 in points, with its 95 % interval.

    Args:
        recorded: Configurations with the three weights drawn at random.
    """
    f1, of_weights, of_rate = _columns(recorded)
    design, slopes, residual = _fit(f1, of_weights, of_rate)
    freedom = len(f1) - design.shape[1]
    variances = residual @ residual / freedom * np.diag(np.linalg.inv(design.T @ design))
    reach = stats.t.ppf(0.975, freedom) * np.sqrt(variances)
    return {
        name: (float(slopes[i]), float(slopes[i] - reach[i]), float(slopes[i] + reach[i]))
        for i, name in enumerate(WEIGHTS, start=1)
    }


def explained(recorded: Sequence[Recorded]) -> tuple[float, float | None]:
    """Return the share of the variance of F1 that the weights explain, and that of the learning rate where it was drawn."""
    f1, of_weights, of_rate = _columns(recorded)

    def share(columns: Values) -> float:
        return float(1 - np.var(_fit(f1, columns)[2]) / np.var(f1))

    return share(of_weights), share(of_rate) if of_rate.shape[1] else None


def _fit(f1: Values, *columns: Values) -> tuple[Values, Values, Values]:
    """Return design, coefficients and residual of the least squares fit of F1 to a constant and the columns."""
    design = np.column_stack([np.ones(len(f1)), *columns])
    slopes = np.asarray(np.linalg.lstsq(design, f1)[0], dtype=np.float64)
    return design, slopes, np.asarray(f1 - design @ slopes)


def _columns(recorded: Sequence[Recorded]) -> tuple[Values, Values, Values]:
    """Return the best F1 in points, log10 of the weights, and log10 of the learning rate with its square (or no column)."""
    f1 = np.array([100 * one.curve[-1] for one in recorded])
    of_weights = np.log10([[one.settings[name] for name in WEIGHTS] for one in recorded])
    rate = np.log10([one.settings[RATE] for one in recorded])
    return f1, of_weights, np.column_stack([rate, rate**2] if np.ptp(rate) > 0 else [np.empty((len(f1), 0))])


def weights(recorded: Sequence[Recorded]) -> Plot:
    """Plot the best dev F1 of each configuration against its encoder weight and its contrast weight."""
    found, (f1, of_weights, _), names = effects(recorded), _columns(recorded), list(WEIGHTS)
    sentences = []
    with panel() as (figure, axes):
        for index, name in ((0, "weights.encoder_loss_weight"), (2, "weights.cl_loss_weight")):
            style = look(index)
            x = 10 ** of_weights[:, names.index(name)]
            axes.plot(x, f1, style.marker, color=style.colour, label=WEIGHTS[name], alpha=0.8)
            estimate, low, high = found[name]
            sentences.append(
                f"Ten times the {WEIGHTS[name]} changes the best dev F1 by {number(estimate, 1)} points "
                f"(95 % interval {interval(low, high, digits=1)})"
            )
        log_scale(axes.xaxis)
        axes.set_xlabel("weight")
        axes.set_ylabel("best dev weighted F1 (%)")
    title = f"{len(recorded)} configurations with random weights, embedded data"
    return Plot("explain-weights", title, joined(sentences), figure)


def weights_table(recorded: Mapping[str, Sequence[Recorded]]) -> str:
    """Return the effects of the weights. recorded: name of a dataset -> its configurations."""
    rows = []
    for name, configurations in recorded.items():
        cells = [
            f"{number(value, 2)} ({interval(low, high, digits=2)})"
            for value, low, high in effects(configurations).values()
        ]
        by_weights, by_rate = explained(configurations)
        cells += [percent(by_weights, 0), "not varied" if by_rate is None else percent(by_rate, 0)]
        rows.append([DATASETS[name], str(len(configurations)), *cells])
    columns = ["data", "runs", *(f"ten times the {name}, points of F1" for name in WEIGHTS.values())]
    return table([*columns, "variance of F1 explained by the weights", "by the learning rate"], rows)


def single_runs(findings: Findings, name: str) -> Plot:
    """Plot the dev F1 of one seed with and without an average of the parameters, after the first quarter."""
    frame = findings.sweep.frame
    frame = frame[
        (frame["split"] == "dev") & (frame["seed"] == frame.loc[frame["role"] != "calibration", "seed"].min())
    ]
    sentences = []
    with panel() as (figure, axes):
        for index, arm in enumerate((FAIR_NOTE[0], AVERAGED)):
            rows, style = frame[frame["arm"] == arm].sort_values("epoch"), look(index)
            rows = rows[rows["epoch"] >= rows["epoch"].max() / 4]
            x, y = rows["epoch"].to_numpy(), 100 * rows["f1_weighted"].to_numpy()
            axes.plot(x, y, color=style.colour, linestyle=style.dashes, label=arm)
            steps = np.abs(np.diff(y[len(y) // 2 :]))
            sentences.append(
                f"{arm}: in the second half, an evaluation differs from the one before by {number(steps.mean(), 2)} points"
            )
        label_axes(axes, "dev weighted F1 (%)", "epoch")
    return Plot(name, "Dev F1 of one seed, with and without an average of the parameters", joined(sentences), figure)


def note_table(notes: Mapping[Part, Findings], arm: str) -> str:
    """Return the effects of an arm of `fair/note` on each dataset, each with the pairs that decided its claim."""
    rows = []
    for part, findings in notes.items():
        known = verdicts_by_claim(findings, arm)
        chosen = [known[name] for name in ("convergence_speed", "convergence_stability", "f1_gain")]
        rows.append([part.title, *(f"{effect_text(v)}, {len(v.differences)} pairs" for v in chosen)])
    return table(["data", "speed", "steadiness", "best dev F1"], rows)


def blocks(studies: Studies, archives: Path) -> tuple[dict[str, str], list[Plot]]:
    """Return the generated parts of the page by name, and its figures. Parts without an archive are left out."""
    files = {name: archives / f"curves_{name}.parquet" for name in DATASETS}
    recorded = {name: read_recorded(file) for name, file in files.items() if file.is_file()}
    notes = {part: findings for part, findings in studies.items() if part.name.startswith("fair_note_")}
    parts: dict[str, list[Plot | str]] = {}
    if any(part.name in GRADIENTS for part in studies):
        parts |= {"gradients": [gradients(studies)], "shares": [shares_table(studies)]}
    if "synthetic" in recorded:
        parts["weights"] = [weights(recorded["synthetic"]), weights_table(recorded)]
    if notes:
        first = next(iter(notes.values()))
        contrast = learning_curves(
            first.band("f1_weighted", "dev"), [FAIR_NOTE[0], CONTRAST], name="explain-contrast", quantity="dev weighted F1",
            scale=100, unit="%",
        )  # fmt: skip
        parts["contrast"] = [contrast, note_table(notes, CONTRAST)]
        parts["average"] = [single_runs(first, "explain-average"), note_table(notes, AVERAGED)]
    markdown = {
        f"explain_{name}": "\n\n".join(_image(item) if isinstance(item, Plot) else item for item in items)
        for name, items in parts.items()
    }
    return markdown, [item for items in parts.values() for item in items if isinstance(item, Plot)]


def _image(plot: Plot) -> str:
    return f"![{plot.title}: {plot.finding}](../study/images/{plot.name}.png)\n\n*{plot.title}.* {plot.finding}"
