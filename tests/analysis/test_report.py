"""The command `joyful report`: the files, the text of the page, and the error messages."""

import html.parser
import math
import re
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from joyful.analysis.claims import VERDICT_COLUMNS, Claim, Metric
from joyful.analysis.claims_file import claimed
from joyful.analysis.importers.__main__ import main as import_curves
from joyful.analysis.page import markdown
from joyful.analysis.page.words import change
from joyful.analysis.report import build, main
from joyful.analysis.statistics import UNKNOWN, Estimate
from joyful.results import InputError
from tests.support.analysis import NOTE_ARMS, Truth, history, simulate_sweep, write_run
from tests.support.findings import findings_of

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = '<script>alert("1")</script><img src=http://example.invalid/x> |$x_1$| `a` [b](http://example.invalid)'


class Page(html.parser.HTMLParser):
    """The parsed page: tags, attributes, and the text outside of <style> and <script>."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.parts: list[str] = []
        self._style = self._joins = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._style = tag in ("style", "script")
        self._joins = tag == "wbr"

    def handle_endtag(self, tag):
        self._style = False

    def handle_data(self, data):
        if self._joins and self.parts:  # a place where a word may be broken
            self.parts[-1] += data
        elif not self._style:
            self.parts.append(data)
        self._joins = False

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.parts)).replace("\u00a0", " ")


def report_text(sweep: Path, **options: str) -> str:
    """Return the text of a report. Markdown has all of it, and is rendered without the figures."""
    return re.sub(r"\\([\\`*_\[\]|~$])", r"\1", markdown.render(build(sweep, **options)[1]))


def own_scripts_only(page: Page) -> bool:
    """Return whether the page has the scripts that joyful writes and no others."""
    scripts = [attributes for tag, attributes in page.tags if tag == "script"]
    return all(s.get("id") == "page-script" or s == {"type": "application/json", "class": "values"} for s in scripts)


def report(sweep: Path, *options: str) -> Page:
    assert main([str(sweep), *options]) == 0
    return Page((sweep / "report" / "index.html").read_text())


@pytest.fixture(scope="module")
def note(tmp_path_factory) -> Path:
    """A sweep with two arms and eight pairs, whose true effects are as claimed."""
    folder = tmp_path_factory.mktemp("sweeps") / "note"
    simulate_sweep(folder, NOTE_ARMS, range(1, 9), epochs=12)
    return folder


@pytest.fixture(scope="module")
def page(note) -> Page:
    return report(note)


@pytest.mark.slow
def test_the_files_of_a_report(note, page):
    folder = note / "report"
    verdicts = pd.read_csv(folder / "verdicts.csv")
    assert tuple(verdicts.columns) == VERDICT_COLUMNS
    assert set(verdicts["claim"]) == {
        "convergence_speed", "convergence_stability", "training_stability", "training_loss", "f1",
    }  # fmt: skip
    names = {path.stem for path in folder.glob("*.parquet")}
    assert names == {
        "runs", "left_out", "curves", "differences", "pairs", "ladder",
        "means", "profiles", "secondary", "scores", "survival", "reach",
        "gradient_ratio", "arm_gradient_ratio", "response",
    }  # fmt: skip
    scores = pd.read_parquet(folder / "scores.parquet")
    assert len(scores) == 16
    assert scores["dev_f1"].between(0.3, 1).all()  # files hold fractions
    pairs = pd.read_parquet(folder / "pairs.parquet")
    speed = pairs[pairs["claim"] == "convergence_speed"].set_index("seed")["effect"]
    by, after = (scores.set_index(["arm", "seed"])[name] for name in ("epochs_to_target", "not_before"))
    fastest, slowest = by["mse 0.05"] / after["smoothl1 0.03"], after["mse 0.05"] / by["smoothl1 0.03"]
    by_hand = 100 * (np.sqrt(fastest * slowest) - 1)
    assert speed.to_dict() == pytest.approx(by_hand.to_dict())
    assert not list(folder.glob(".*"))


def test_the_page_starts_with_the_answer_and_what_was_run(page):
    start = page.text[: page.text.index("What was compared", page.text.index("this page by"))]
    assert "smoothl1 0.03 is " in start
    for row in (
        "Convergence speed",
        "claimed 15 to 25 % faster",
        "Train reconstruction MSE",
        "claimed 1 to 2 points higher",
    ):
        assert row in start
    assert "units differ: SmoothL1 is half of MSE near zero" in start
    for fact in (
        "pairs 8",
        "seeds 1 to 8",
        "epochs 12",
        "date 2026-01-31",
        "folder note",
        "this page by joyful report note",
    ):
        assert fact in start, fact


def test_then_comes_what_was_compared(page):
    start = page.text[: page.text.index("Verdict on every claim")]
    assert (
        "Two arms are compared. They differ in loss (mse → smoothl1) and weights.encoder_loss_weight (0.05 → 0.03)."
        in start
    )
    assert "8 pairs of runs, 12 epochs each" in start
    assert "95 % of the way from 0.00 % to" in start
    assert "Train total loss: Units differ: SmoothL1 is half of MSE near zero" in start


@pytest.mark.slow
def test_every_claim_and_chapter_is_there(note, page):
    verdicts = pd.read_csv(note / "report" / "verdicts.csv")
    for word, number in verdicts["verdict"].value_counts().items():
        assert f"{number} {word}" in page.text
    ids = {attributes.get("id") for tag, attributes in page.tags if tag == "section"}
    assert ids == {
        "answer", "compared", "verdicts", "curves", "speed", "stability", "losses", "encoder-gradient-ratio", "effects", "profiles",
        "method",
    }  # fmt: skip
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert {link.removeprefix("#") for link in links if link.startswith("#")} == ids
    runs = [link for link in links if not link.startswith("#")]
    assert len(runs) == 16  # the runs of the table of scores
    assert all((note / "report" / link / "run.json").is_file() for link in runs)


def test_every_figure_has_a_caption_and_labels(page):
    figures = [attributes for tag, attributes in page.tags if tag == "svg" and attributes.get("class") == "plot"]
    assert len(figures) >= 15
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for attributes in figures:
        assert attributes["role"] == "img"
        assert set(attributes["aria-labelledby"].split()) <= set(ids)
    assert len([tag for tag, _ in page.tags if tag == "figcaption"]) == len(figures) + 1  # and the answer
    assert "Nothing was measured" not in page.text


def test_the_page_loads_no_external_resources(page):
    for tag, attributes in page.tags:
        assert tag not in ("iframe", "object", "embed", "img"), tag
        for name in ("src", "href", "srcset", "action"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:,", "../")), (tag, value)
            assert not any(key.startswith("on") for key in attributes)


@pytest.mark.slow
def test_the_same_sweep_gives_the_same_bytes(note, page, tmp_path):
    copy = tmp_path / "elsewhere" / "note"
    shutil.copytree(note, copy, ignore=shutil.ignore_patterns("report"))
    report(copy)
    for path in sorted((note / "report").iterdir()):
        assert (copy / "report" / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_files_hold_no_absolute_path(note, page):
    for name in ("index.html", "report.md", "verdicts.csv"):
        assert str(note.parent) not in (note / "report" / name).read_text()


def test_markdown_tables_are_well_formed(note, page):
    text = (note / "report" / "report.md").read_text()
    assert text.startswith("# smoothl1 0.03 is ")
    assert "| claim | claimed range | effect, 95 % interval | verdict |" in text
    for block in text.split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("| ")]
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) <= 1, block


@pytest.mark.slow
def test_target_and_baseline_can_be_chosen(note):
    text = report_text(note, baseline="loss=smoothl1 weights=basic", target="dev_f1=0.5")
    assert text.startswith("# mse 0.05 is ")
    assert "`joyful report note --baseline 'loss=smoothl1 weights=basic' --target dev_f1=0.5`" in text
    assert "a dev weighted F1 of 50.00 %" in text


def test_the_output_folder_can_be_chosen_and_is_printed_last(tmp_path, capsys):
    simulate_sweep(tmp_path / "one", NOTE_ARMS[:1], range(1, 3), epochs=6)
    assert main([str(tmp_path / "one"), "--out", str(tmp_path / "out")]) == 0
    out, error = capsys.readouterr()
    assert out.splitlines()[-1] == str(tmp_path / "out" / "index.html")
    assert error == ""
    assert not (tmp_path / "one" / "report").exists()
    page = Page((tmp_path / "out" / "index.html").read_text())
    assert "The sweep has one arm" in page.text
    assert "the sweep has only one arm" in page.text
    assert pd.read_csv(tmp_path / "out" / "verdicts.csv").empty


@pytest.mark.slow
def test_another_claims_file(note, tmp_path):
    (tmp_path / "claims.yaml").write_text(
        "claims:\n  - claim: macro\n    says: Macro F1 rises.\n    metrics: [{measure: best, split: dev, of: f1_macro}]\n"
        "    range: [0.5, 3]\n    unit: points\n    direction: increase\n"
    )
    text = report_text(note, claims=tmp_path / "claims.yaml")
    assert "| Macro<br>claimed 0.5 to 3 points higher |" in text.replace("&lt;", "<").replace("&gt;", ">")
    assert "Convergence speed<br>" not in text
    assert "`joyful report note --claims FILE`" in text


@pytest.mark.parametrize(
    ("pairs", "text"), [(1, "With fewer than two pairs"), (4, "A claim is judged only with at least 6 pairs")]
)
def test_with_few_pairs_the_page_states_what_cannot_be_concluded(tmp_path, pairs, text):
    simulate_sweep(tmp_path / "few", NOTE_ARMS, range(1, pairs + 1), epochs=6)
    findings, page = build(tmp_path / "few")
    assert text in " ".join(page.unseen)
    assert set(page.counts) == {"not testable"}
    assert set(findings.verdict_table["verdict"]) == {"not testable"}


@pytest.mark.slow
def test_runs_that_cannot_be_used_are_counted_and_named(tmp_path):
    simulate_sweep(tmp_path / "part", NOTE_ARMS, range(1, 4), epochs=6)
    columns = history(NOTE_ARMS[0], 3, 4, np.random.default_rng(1), np.random.default_rng(2))
    overrides = {
        **NOTE_ARMS[0].overrides,
        "training.epochs": 6,
        "training.evaluations_per_epoch": 4,
        "role": "comparison",
    }
    for seed, status in enumerate(("running", "interrupted", "pruned", "failed"), start=20):
        write_run(tmp_path / "part" / status, columns, overrides, seed=seed, status=status, reason=HOSTILE)
    path = tmp_path / "part" / "4" / "history.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    page = report(tmp_path / "part")
    assert "5 of 13 runs are left out (1 damaged, 1 failed, 1 interrupted, 1 pruned and 1 running)" in page.text
    start = page.text.index("Runs left out", page.text.index("could not be used") - 200)
    for word in (
        "running",
        "interrupted",
        "pruned",
        "failed",
        "damaged",
        "its SHA-256 is not in run.json",
    ):
        assert word in page.text[start:]
    assert re.sub(r"\s+", " ", HOSTILE) in page.text
    assert "img" not in {tag for tag, _ in page.tags}
    assert own_scripts_only(page)


def test_only_unfinished_runs(tmp_path):
    columns = history(NOTE_ARMS[0], 3, 1, np.random.default_rng(1), np.random.default_rng(2))
    write_run(tmp_path / "new" / "0", columns, {"training.epochs": 6}, status="running")
    assert report_text(tmp_path / "new").startswith("# Best dev weighted F1 ")  # the page of one run
    write_run(tmp_path / "new" / "1", columns, {"training.epochs": 6}, status="failed")
    assert "2 of 2 runs are left out (1 failed and 1 running)" in report_text(tmp_path / "new")


def test_a_search_without_a_comparison(tmp_path):
    columns = history(NOTE_ARMS[0], 3, 1, np.random.default_rng(1), np.random.default_rng(2))
    for seed in (5000, 5001):
        write_run(tmp_path / "search" / str(seed), columns, {"training.epochs": 3, "role": "search"}, seed=seed)
    text = report_text(tmp_path / "search")
    assert "2 of 2 runs are left out (2 from a search)" in text
    assert "No claim was judged, because the sweep has no usable comparison run" in text


def test_a_target_that_no_run_has(note, tmp_path):
    (tmp_path / "claims.yaml").write_text(
        "claims:\n  - claim: speed\n    metrics: [{measure: time_to_target, split: dev, of: typo, better: higher}]\n"
        "    range: [15, 25]\n    unit: percent\n    direction: increase\n"
    )
    with pytest.raises(InputError, match="no run has a dev value of 'typo'"):
        build(note, claims=tmp_path / "claims.yaml", target="dev_typo=0.6")


@pytest.mark.slow
@pytest.mark.soak("takes 4 s; tests/faults/test_hostile_report.py shows such names in a browser")
def test_markup_in_names_is_escaped(tmp_path):
    rows = [
        f'"{arm.replace(chr(34), chr(34) * 2)}",{seed},{epoch},{split},{0.3 + 0.05 * epoch + 0.001 * seed},{1 / (epoch + seed)}'
        for arm in ("plain", HOSTILE, "多=<b>", "=cmd|' /C calc'!A0", "‮txt\ttab")
        for seed in range(1, 8)
        for epoch in range(1, 7)
        for split in ("train", "dev")
    ]
    (tmp_path / "curves.csv").write_text("\n".join(["arm,seed,epoch,split,f1_weighted,nll", *rows]))
    assert import_curves(["csv", str(tmp_path / "curves.csv"), "--out", str(tmp_path / HOSTILE[:8])]) == 0
    page = report(tmp_path / HOSTILE[:8], "--baseline", "arm=plain")
    assert re.sub(r"\s+", " ", HOSTILE) in page.text
    assert "多=<b>" in page.text
    assert "img" not in {tag for tag, _ in page.tags}
    assert own_scripts_only(page)
    markdown = (tmp_path / HOSTILE[:8] / "report" / "report.md").read_text()
    assert "<script" not in markdown
    assert not re.search(r"(?<!\\)\]\(http", markdown)
    assert "http:" not in markdown


@pytest.mark.slow
def test_the_page_says_how_exactly_times_are_known(note, page):
    scores = pd.read_parquet(note / "report" / "scores.parquet").query("reached")
    step = scores["epochs_to_target"] - scores["not_before"]
    assert set(step) == {0.25}
    share = 100 * (step / scores["epochs_to_target"]).median()
    assert f"step between two evaluations: 0.25 epochs in the median, {share:.0f} % of the time." in page.text
    one = scores.iloc[0]
    assert f"{one['not_before']:.2f} to {one['epochs_to_target']:.2f}" in page.text


def test_one_name_has_one_number(note):
    """The drawdown, also within an epoch, is the same among the secondary measures and in the table of runs."""
    findings = findings_of(note)
    scores, secondary = findings.tables["scores"], findings.tables["secondary"]
    drawdown = scores.set_index(["seed", "arm"])["f1_drawdown"].unstack()
    fall = 100 * (drawdown["mse 0.05"] - drawdown["smoothl1 0.03"]).dropna().mean()
    (shown,) = secondary.loc[secondary["name"] == "largest drawdown of dev f1_weighted, smaller", "estimate"]
    assert shown == pytest.approx(fall)


@pytest.mark.parametrize(
    ("effect", "text"),
    [
        (Estimate(4.0, 1.0, 7.0), "4.0 % faster (1.0 to 7.0 %)"),
        (Estimate(-1.2, -3.0, 0.6), "1.2 % slower (3.0 % slower to 0.6 % faster)"),
        (Estimate(-4.0, -7.0, -1.0), "4.0 % slower (1.0 to 7.0 %)"),
        (Estimate(0.01, -1.0, 1.0), "no change (1.0 % slower to 1.0 % faster)"),
        (Estimate(4.0, 1.0, math.inf), "4.0 % faster (at least 1.0 % faster)"),
        (Estimate(4.0, -1.0, math.inf), "4.0 % faster (at most 1.0 % slower)"),
        (Estimate(-4.0, -math.inf, -1.0), "4.0 % slower (at least 1.0 % slower)"),
        (Estimate(4.0, -math.inf, math.inf), "4.0 % faster"),
        (UNKNOWN, "–"),
    ],
)
def test_an_effect_is_named_by_its_direction(effect, text):
    metric = Metric("time_to_target", "dev", "f1_weighted")
    claim = Claim("speed", "Faster.", (metric,), 15, 25, "percent", "increase")
    assert change(claim, metric, effect) == text


def test_effects_have_the_digits_of_their_claim():
    metric = Metric("final", "train", "nll")
    claim = Claim("loss", "Lower.", (metric,), 0.05, 1, "percent", "decrease")
    assert change(claim, metric, Estimate(0.1234, 0.04, 0.2)) == "0.123 % lower (0.040 to 0.200 %)"
    assert claimed(claim) == "0.050 to 1.000 % decrease"
    absolute = replace(claim, unit="absolute", direction="increase", lower=1.0, upper=2.0)
    assert change(absolute, metric, Estimate(1.5, 1.4, 1.6)) == "1.50 higher (1.40 to 1.60)"


@pytest.mark.slow
def test_imported_curves_are_judged_where_they_can_be(tmp_path):
    rows = [
        f"{arm},{seed},{epoch},dev,{min(0.9, 0.1 * epoch * (1.3 if arm == 'new' else 1.0) + 0.003 * seed):.4f}"
        for arm in ("old", "new")
        for seed in range(1, 9)
        for epoch in range(1, 9)
    ]
    (tmp_path / "curves.csv").write_text("\n".join(["arm,seed,epoch,split,f1_weighted", *rows]))
    assert import_curves(["csv", str(tmp_path / "curves.csv"), "--out", str(tmp_path / "runs")]) == 0
    findings, page = build(tmp_path / "runs", baseline="arm=old", target="dev_f1=0.6")
    verdicts = findings.verdict_table.set_index("claim")
    assert verdicts.loc["convergence_speed", "n_pairs"] == 8
    assert verdicts.loc["convergence_speed", "verdict"] in ("supported", "inconclusive", "contradicted")
    assert verdicts.loc["training_stability", "verdict"] == "not testable"  # no train rows were logged
    assert page.title == "new against old"


@pytest.mark.slow
def test_a_grid_draws_response_curves_and_a_study_its_history(tmp_path):
    import optuna

    arms = [Truth({"loss": "mse", "weights.encoder_loss_weight": weight}) for weight in (0.05, 0.01, 0.1, 0.5)]
    simulate_sweep(tmp_path / "grid", arms, range(1, 7), epochs=6)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(storage=f"sqlite:///{tmp_path / 'grid' / 'study.db'}", direction="maximize")
    study.optimize(lambda trial: trial.suggest_float(HOSTILE, 0, 1), n_trials=8)
    page = report(tmp_path / "grid")
    figures = {attributes["id"] for tag, attributes in page.tags if tag == "figure"}
    for measure in ("f1", "speed", "stability"):
        assert f"figure-response-weights-encoder-loss-weight-{measure}" in figures
    assert "figure-study-history" not in figures  # runs in pairs are no search
    assert pd.read_parquet(tmp_path / "grid/report/trials.parquet")["number"].tolist() == list(range(8))


@pytest.mark.slow
def test_a_damaged_study_does_not_prevent_the_report(note, tmp_path):
    shutil.copytree(note, tmp_path / "note", ignore=shutil.ignore_patterns("report"))
    sqlite3.connect(tmp_path / "note" / "study.db").executescript("create table t (x); insert into t values (1);")
    assert report_text(tmp_path / "note").startswith("# smoothl1 0.03 is ")
    (tmp_path / "search").mkdir()
    shutil.copy(tmp_path / "note" / "study.db", tmp_path / "search")
    assert "study.db" in report_text(tmp_path / "search")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--baseline", "loss=huber"], "huber"),
        (["--baseline", "nonsense"], "nonsense"),
        (["--baseline", "loss='mse"], "No closing quotation"),
        (["--claims", "none.yaml"], "none.yaml"),
        (["--target", "dev_f1=62"], "a fraction such as 0.62"),
        (["--target", "test_f1=0.6"], "a target refers to the dev split"),
        (["--target", "dev_nll=0.6"], "expected a target of dev f1_weighted for the claims on speed, got nll"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(note, tmp_path, capsys, options, message):
    assert main([str(note), "--out", str(tmp_path / "out"), *options]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("joyful report: ")
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "out").exists()


def test_no_such_folder_a_file_and_a_folder_without_runs(note, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for name in ("none", "file", "empty"):
        assert main([str(tmp_path / name)]) == 2
        assert name in capsys.readouterr().err
    (tmp_path / "claims.yaml").write_text("claims: [{]")
    assert main([str(note), "--claims", str(tmp_path / "claims.yaml")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_an_output_folder_that_cannot_be_created_is_exit_code_one(tmp_path, capsys):
    simulate_sweep(tmp_path / "one", NOTE_ARMS[:1], range(1, 3), epochs=6)
    (tmp_path / "file").write_text("")
    assert main([str(tmp_path / "one"), "--out", str(tmp_path / "file" / "report")]) == 1
    assert "choose another folder with --out" in capsys.readouterr().err


@pytest.mark.soak("takes 6 s; tests/test_wheel.py writes a report where torch is not installed")
def test_a_report_needs_no_torch(note, tmp_path):
    """Neither a complete report nor the reader of studies imports torch."""
    code = (
        "import sys; from joyful.analysis.report import main; import joyful.analysis.optuna_study; "
        f"code = main([{str(note)!r}, '--out', {str(tmp_path / 'out')!r}]); print(code, 'torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.splitlines()[-1] == "0 False"
    assert result.stderr == ""
