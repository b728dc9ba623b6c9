"""`joyful report` on folders that hold no pairs: one run, a grid, a search of any program, curves of another trainer."""

import itertools
import json
import re
from pathlib import Path

import numpy as np
import optuna
import pytest

from joyful.analysis.importers.__main__ import main as import_curves
from joyful.analysis.page import markdown
from joyful.analysis.report import build
from tests.support.analysis import NOTE_ARMS, Truth, history, simulate_sweep, write_run


def text_of(folder: Path) -> str:
    """Return the report as Markdown without escapes."""
    return re.sub(r"\\([\\`*_\[\]|~$])", r"\1", markdown.render(build(folder)[1]))


def one_run(folder: Path, **info: object) -> None:
    columns = history(NOTE_ARMS[0], 3, 2, np.random.default_rng(1), np.random.default_rng(2))
    write_run(folder, columns, {"training.epochs": 3, "loss": "mse", "role": "search"}, **info)


@pytest.mark.parametrize("inside", [False, True])
def test_one_run_also_of_a_search(tmp_path, inside):
    one_run(tmp_path / "sweep" / "7")
    _, page = build(tmp_path / "sweep" / "7" if inside else tmp_path / "sweep")
    assert re.fullmatch(r"Best dev weighted F1 [\d.]+ % at epoch [\d.]+ of 3, test [\d.]+ % there", page.headline)
    assert [section.key for section in page.sections] == ["curves", "losses", "scores", "settings"]
    figures = [plot.title for section in page.sections for plot in section.plots]
    assert {"Weighted F1 (%)", "NLL", "Reconstruction MSE", "Total loss", "Share encoder"} <= set(figures)
    (scores,) = page.sections[2].tables
    assert ("weighted F1", "dev") in {row[:2] for row in scores.rows}
    assert page.answer is None


def test_an_unfinished_run_is_shown(tmp_path):
    one_run(tmp_path / "run", status="failed", reason="loss is NaN")
    _, page = build(tmp_path / "run")
    assert page.headline.endswith(" (failed)")
    assert page.sections[0].text == ("The run ended: loss is NaN.",)


def test_a_damaged_run_is_named(tmp_path):
    one_run(tmp_path / "run")
    (tmp_path / "run" / "history.parquet").write_bytes(b"damaged")
    _, page = build(tmp_path / "run")
    (section,) = page.sections
    assert section.title == "The history cannot be read"


def test_the_scores_per_class_follow_from_the_confusion_matrix(tmp_path):
    one_run(tmp_path / "run")
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    info["confusion"] = {"labels": ["joy", "fear"], "dev": [[8, 2], [3, 7]], "test": [[1, 0], [1, 0]]}
    (tmp_path / "run" / "run.json").write_text(json.dumps(info))
    _, page = build(tmp_path / "run")
    (section,) = [section for section in page.sections if section.key == "classes"]
    dev, test = section.tables
    # by hand: joy has 8 hits, 10 labels, 11 predictions
    assert dev.rows[0] == ("joy", "10", "72.7 %", "80.0 %", "76.2 %")
    assert test.rows[1] == ("fear", "1", "–", "0.0 %", "0.0 %")
    assert section.plots[0].finding == "75.0 % of 20 utterances are predicted correctly."


def test_the_scores_per_class_of_several_labels_at_once(tmp_path):
    one_run(tmp_path / "run")
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    scores = {"joy": {"precision": 0.5, "recall": 0.25, "f1": 1 / 3, "support": 8}}
    scores["fear"] = {"precision": None, "recall": 0.0, "f1": 0.0, "support": 1}
    info["per_class"] = {"dev": scores, "test": scores}
    (tmp_path / "run" / "run.json").write_text(json.dumps(info))
    _, page = build(tmp_path / "run")
    (section,) = [section for section in page.sections if section.key == "classes"]
    assert section.text == ("At the best dev evaluation.",)
    assert [table.caption for table in section.tables] == ["Scores per class, dev", "Scores per class, test"]
    assert section.tables[0].rows == (("joy", "8", "50.0 %", "25.0 %", "33.3 %"), ("fear", "1", "–", "0.0 %", "0.0 %"))
    assert section.plots == ()


@pytest.mark.parametrize(
    "confusion", [3, {"labels": "x"}, {"labels": ["a"], "dev": [[1, 2]], "test": "no"}, {"labels": ["a"]}]
)
def test_a_confusion_matrix_of_another_form_is_left_out(tmp_path, confusion):
    one_run(tmp_path / "run")
    info = json.loads((tmp_path / "run" / "run.json").read_text()) | {"confusion": confusion}
    (tmp_path / "run" / "run.json").write_text(json.dumps(info))
    _, page = build(tmp_path / "run")
    assert "classes" not in [section.key for section in page.sections]


def test_a_grid_is_titled_by_its_best_setting(tmp_path):
    arms = [
        Truth(
            {"loss": loss, "weights.encoder_loss_weight": weight},
            tau=1.0,
            ceiling=0.5 + 0.1 * (weight == 0.1) + 0.05 * (loss == "mse"),
        )
        for loss, weight in itertools.product(("mse", "smoothl1"), (0.01, 0.05, 0.1))
    ]
    simulate_sweep(tmp_path / "grid", arms, range(1, 2), epochs=5, calibration=())
    _, page = build(tmp_path / "grid")
    assert re.match(r"Best of 6 settings: dev weighted F1 [\d.]+ % with mse 0.1$", page.headline)
    assert page.answer is None
    assert [section.key for section in page.sections][:3] == ["compared", "surface", "response"]
    (surface,) = page.sections[1].plots
    assert "the best is at loss mse, weights.encoder_loss_weight 0.1" in surface.finding
    (table,) = page.sections[0].tables
    assert table.rows[0][0] == "mse 0.1"  # the best first
    assert "No claim was judged" in " ".join(page.unseen)


def test_a_search_of_any_program_whose_runs_have_no_role(tmp_path):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder = tmp_path / "search"
    folder.mkdir()
    study = optuna.create_study(storage=f"sqlite:///{folder / 'study.db'}", direction="minimize")
    study.set_metric_names(["dev loss"])

    def objective(trial: optuna.Trial) -> float:
        weight = trial.suggest_float("weight", 0.01, 1)
        columns = history(NOTE_ARMS[0], 2, 1, np.random.default_rng(1), np.random.default_rng(2))
        write_run(folder / str(trial.number), columns, {"weight": weight})
        trial.set_user_attr("folder", f"/elsewhere/search/{trial.number}")
        trial.set_user_attr("overrides", f"weight={weight}")
        return weight

    study.optimize(objective, n_trials=5)
    _, page = build(folder)
    best = study.best_trial
    assert page.headline == f"Best of 5 trials: dev loss {best.value:.3g} with weight {best.params['weight']:.3g}"
    (table,) = [table for section in page.sections for table in section.tables]
    assert table.rows[0][-1] == str(best.number)  # the folder of its run, although the sweep was moved
    assert table.runs == len(table.columns) - 1
    assert page.sections[0].commands == (("Train the best:", f"python run.py weight={best.params['weight']}"),)


def test_curves_of_another_trainer_are_drawn_without_a_claim(tmp_path):
    rows = [f"{arm},{seed},{step},dev,{1 / step}" for arm in ("a", "b") for seed in range(3) for step in range(1, 6)]
    (tmp_path / "log.csv").write_text("\n".join(["arm,seed,step,split,wer", *rows]))
    assert import_curves(["csv", str(tmp_path / "log.csv"), "--out", str(tmp_path / "runs")]) == 0
    _, page = build(tmp_path / "runs")
    assert page.answer is None
    assert page.counts == {}
    titles = [plot.title for section in page.sections for plot in section.plots]
    assert titles == ["Dev wer over training", "Dev wer: arm minus baseline"]
    assert "Write a claims file about their columns" in " ".join(page.unseen)
    (table,) = page.sections[0].tables
    assert [row[-1] for row in table.rows] == ["3", "3"]
