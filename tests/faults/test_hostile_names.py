"""Names that leave their folder are refused before anything is written, and hostile YAML never executes code."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from joyful.analysis import report
from joyful.analysis.claims_file import read_claims
from joyful.analysis.importers.__main__ import main as import_curves
from joyful.config import check
from joyful.data.sources import SOURCES
from joyful.records import InputError
from joyful.results import read_runs
from joyful.results.tables import history_bytes
from joyful.runtime.config_source import _run_folder, _sweep_folder
from tests.support.analysis import Truth, simulate_sweep
from tests.support.datasets import data_settings, fake_encode
from tests.support.faults import Tally
from tests.support.fork_server import ForkServer
from tests.support.runs import TINY, compose_plain
from tests.support.small_files import curves_table, write_mosi
from tests.support.sweeps import RUN

NAMES = ("../x", "../../x", "/x", "a/b", "a/../../b", "..", ".", "", "a\nb", "a\0b", "~/x", "~root", "-x", "a b", "$(touch x)",
         "`x`", "a;b", "\N{RIGHT-TO-LEFT OVERRIDE}a", "\N{FULLWIDTH FULL STOP}\N{FULLWIDTH FULL STOP}/x", "a\\..\\b", "C:x",
         "a\n", "%2e%2e%2fx")  # fmt: skip


def files(root: Path) -> list[Path]:
    return sorted(root.rglob("*"))


@pytest.mark.parametrize("setting", ["sweep_name", "data.name"])
def test_a_name_that_is_a_path_is_refused_in_one_line(setting: str, tally: Tally) -> None:
    config, _ = compose_plain()
    *path, last = setting.split(".")
    node = config
    for part in path:
        node = node[part]  # type: ignore[assignment]
    for name in NAMES:
        node[last] = name
        with pytest.raises(InputError) as caught:
            check(config)
        message = str(caught.value)
        assert message.startswith(f"{setting}: expected a name of letters")
        assert message.isprintable()
    tally("path in place of a name", len(NAMES))


def test_sweep_names_do_not_leave_the_folder_of_sweeps() -> None:
    for name in NAMES:
        assert _sweep_folder(name, "multirun/dated") == "multirun/dated"
    assert _sweep_folder("good", "multirun/dated") == "multirun/good"


def test_nothing_is_written_if_there_is_no_run_to_resume(tmp_path: Path) -> None:
    for place in (tmp_path / "nowhere", "../x", "/etc"):
        assert _run_folder(str(place), "outputs/dated") == "outputs/dated"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("sweep_name=../../x",), "sweep_name: expected a name"),
        (("-m", "sweep_name=../../x", "seed=1,2"), "sweep_name: expected a name"),
        (("-m", "hydra/sweeper=optuna_pruned", "sweep_name=../../x", "seed=range(1,9)"), "sweep_name: expected a name"),
        (("data.source=../../x",), "data.source: expected one of cogmen"),
        (("data.source=restricted_pickle",), "data.source: expected one of cogmen"),
        (("resume=../../x",), "resume=../../x: expected the folder of a run"),
        (("fork=../x",), "fork=../x: expected the folder of a run"),
        (
            ("+hydra.job.env_set.PYTHONPATH=.",),
            "hydra.job.env_set: expected no variables that determine the code, got PYTHONPATH",
        ),
    ],
)
def test_nothing_is_written_before_a_name_is_refused(
    arguments: tuple[str, ...], words: str, fork_server: ForkServer, tmp_path: Path, tally: Tally
) -> None:
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    before = files(tmp_path)
    done = fork_server.run([str(RUN), *arguments], inside, os.environ)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert words in done.stderr
    if (
        "restricted_pickle" not in arguments[0]
    ):  # the existence of the reader is checked after Hydra has written its files
        assert files(tmp_path) == before
    assert not (tmp_path / "x").exists()
    tally("path in place of a name", 1)


def test_names_in_data_stay_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Paths as names of an arm and of a video become folders below the output folder, and an id."""
    table = tmp_path / "curves.csv"
    table.write_bytes(curves_table("../../../x,1,5,1,dev,0.1,1.0", "/etc/x,1,5,1,dev,0.1,1.0", "..,1,5,1,dev,0.1,1.0"))
    assert import_curves(["csv", str(table), "--out", str(tmp_path / "a" / "out")]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"a", "curves.csv"}
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["out"]
    write_mosi(tmp_path / "mosi")
    transcripts = tmp_path / "mosi" / "transcripts.csv"
    transcripts.write_text(transcripts.read_text().replace("v0_1", "../../x_1"))
    settings = data_settings("mosi", root=str(tmp_path / "mosi"))
    dataset = SOURCES[settings.source].read(settings, fake_encode)
    assert "../../x" in {name for part in dataset.splits.values() for name in part.ids}


def hostile_yaml(canary: Path) -> dict[str, str]:
    """Return documents that would execute code or exhaust the memory in an unsafe reader."""
    touch = f"touch {canary}"
    laughs = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{n}: &{n} [{','.join([f'*{m}'] * 9)}]\n" for m, n in zip("abcdefghij", "bcdefghijk", strict=True)
    )
    return {
        "apply": f"data: !!python/object/apply:os.system ['{touch}']",
        "new": f"data: !!python/object/new:subprocess.Popen [['touch', '{canary}']]",
        "name": "data: !!python/name:os.system ''",
        "module": "data: !!python/module:os ''",
        "object": "data: !!python/object:os.system {}",
        "local_tag": f"data: !os.system '{touch}'",
        "verbatim_tag": f"data: !<tag:yaml.org,2002:python/object/apply:os.system> ['{touch}']",
        "tag_directive": f"%TAG ! tag:yaml.org,2002:python/object/apply:\n---\ndata: !os.system ['{touch}']",
        "environment": "data: ${oc.env:HOME}\nseed: ${oc.env:PATH}",
        "decode": "data: ${oc.decode:'[1,2]'}\nx: ${oc.create:{_target_:os.system}}",
        "resolver": "x: ${hydra:runtime.cwd}\ny: ${joyful_sweep_folder:../../x,y}\nz: ${now:%Y}",
        "target": f"data: {{_target_: os.system, command: '{touch}'}}",
        "laughs": laughs,
        "laughing_claims": laughs + "claims: *k",
        "merge": "a: &a {x: 1}\nb: {<<: *a}",
        "deep": "a: " + "[" * 10_000,
        "deep_blocks": "".join(" " * n + "a:\n" for n in range(500)),
        "long_key": "? " + "a" * 100_000 + "\n: 1",
        "binary": "data: !!binary 'gASVAAAA'",
        "many_documents": "a: 1\n---\nb: 2\n",
        "not_utf_8": "a: \udcff\udcfe",
        "null_byte": "a: \0",
    }


def test_yaml_of_an_untrusted_run_is_text_or_a_damaged_run(tmp_path: Path, tally: Tally) -> None:
    canary = tmp_path / "canary"
    documents = hostile_yaml(canary)
    history = history_bytes([{"step": 1, "epoch": 1.0, "split": "dev", "nll": 0.5}])
    for name, text in documents.items():
        for file in ("config.yaml", "hydra.yaml"):
            folder = tmp_path / "runs" / f"{name}-{file}"
            (folder / ".hydra").mkdir(parents=True)
            (folder / "history.parquet").write_bytes(history)
            (folder / ".hydra" / file).write_bytes(text.encode("utf-8", "surrogateescape"))
    runs = read_runs(tmp_path / "runs")
    assert len(runs.headers) + len(runs.damaged) == 2 * len(documents)
    damaged = {header.name.partition("-")[0] for header in runs.damaged}
    assert damaged == {
        "laughs",
        "laughing_claims",
        "merge",
        "deep",
        "deep_blocks",
        "many_documents",
        "not_utf_8",
        "null_byte",
    }
    assert all(header.damage.isprintable() and len(header.damage) < 500 for header in runs.damaged)
    settings = {header.name: header.settings for header in runs.headers}
    assert settings["environment-config.yaml"]["data"] == "${oc.env:HOME}"
    assert settings["apply-config.yaml"]["data"] == f'["touch {canary}"]'
    assert not canary.exists()
    tally("hostile YAML in a run's folder", 2 * len(documents))


def test_lone_surrogates_in_a_run_are_shown_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """UTF-8 cannot encode a lone surrogate, so it must not reach the frame, the page or the terminal."""
    runs = tmp_path / "runs"
    simulate_sweep(runs, [Truth({"loss": "mse"}), Truth({"loss": "smoothl1"})], range(1, 4), epochs=2)
    for path in runs.glob("*/run.json"):
        info = json.loads(path.read_text())
        if info["choices"]["loss"] == "smoothl1":
            info["choices"]["loss"] = "smooth\ud800"
            info["config"]["loss"] |= {"k\ud801": "v\ud802", "several": ["\ud803"]}
        path.write_text(json.dumps(info))
    info |= {"status": "failed", "reason": "r\udcff", "role": "\ud804", "host": "\ud805"}
    path.write_text(json.dumps(info))
    folder = tmp_path / "yaml"
    (folder / ".hydra").mkdir(parents=True)
    (folder / "history.parquet").write_bytes(history_bytes([{"step": 1, "epoch": 1.0, "split": "dev"}]))
    (folder / ".hydra" / "config.yaml").write_text('seed: 1\na: "\\ud800"\n')
    read = read_runs(tmp_path)
    headers = [*read.headers, *read.damaged]
    assert "\\ud800" in {header.choices.get("loss", "")[6:] for header in headers}
    assert not [header for header in headers if re.search("[\ud800-\udfff]", str(vars(header)))]
    assert report.main([str(runs), "--baseline", "loss=mse"]) == 0
    assert "smooth\\ud800" in (runs / "report" / "index.html").read_text("utf-8")
    assert capsys.readouterr().err == ""


def test_yaml_of_a_claims_file_is_refused(tmp_path: Path, tally: Tally) -> None:
    canary = tmp_path / "canary"
    for name, text in hostile_yaml(canary).items():
        path = tmp_path / f"{name}.yaml"
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(InputError) as caught:
            read_claims(path)
        assert " ".join(str(caught.value).split()).isprintable()
        assert len(str(caught.value)) < 1000, name
    assert not canary.exists()
    tally("hostile YAML as claims", len(hostile_yaml(canary)))


RUNS_CODE = "stmt: 'import os; os.system(\"touch {canary}\")'"


@pytest.mark.parametrize(
    ("overlay", "group", "words"),
    [
        (
            "seed: !!python/object/apply:os.system ['touch {canary}']",
            "",
            "could not determine a constructor for the tag",
        ),
        (
            "hydra: {{callbacks: {{x: {{_target_: os.system, command: touch {canary}}}}}}}",
            "",
            "got os.system, which is never allowed",
        ),
        (
            "hydra: {{callbacks: {{x: {{_target_: timeit.timeit, " + RUNS_CODE + "}}}}}}",
            "",
            "got timeit.timeit, which is",
        ),
        ("defaults: [override /hydra/sweeper: evil]", "sweeper", "'timeit.timeit'"),
        ("defaults: [override /hydra/launcher: evil]", "launcher", "'timeit.timeit'"),
        ("defaults: [override /hydra/job_logging: evil]", "job_logging", "'timeit.timeit'"),
        ("hydra: {{job: {{env_set: {{PYTHONSTARTUP: x, LD_PRELOAD: y}}}}}}", "", "got PYTHONSTARTUP, LD_PRELOAD"),
    ],
    ids=["tag", "callback", "callback_of_the_library", "sweeper", "launcher", "logging", "environment"],
)
def test_an_overlay_of_an_untrusted_folder_runs_nothing(
    overlay: str, group: str, words: str, fork_server: ForkServer, tmp_path: Path, tally: Tally
) -> None:
    """`python run.py --config-dir FOLDER experiment=best` with hostile files."""
    canary, folder = tmp_path / "canary", tmp_path / "sweep"
    (folder / "experiment").mkdir(parents=True)
    (folder / "experiment" / "best.yaml").write_text("# @package _global_\n" + overlay.format(canary=canary))
    if group:
        code = RUNS_CODE.format(canary=canary)
        text = f"{{_target_: timeit.timeit, {code}}}"
        if group == "job_logging":
            text = f"{{version: 1, root: {{handlers: [x]}}, handlers: {{x: {{(): timeit.timeit, {code}}}}}}}"
        (folder / "hydra" / group).mkdir(parents=True)
        (folder / "hydra" / group / "evil.yaml").write_text(text)
    many = ["-m", "seed=1,2"] if group in ("launcher", "sweeper") else []
    command = [str(RUN), *many, "--config-dir", str(folder), "experiment=best", *TINY, "training.epochs=1"]
    done = fork_server.run(command, tmp_path, os.environ)
    assert done.returncode != 0, done.stdout
    assert words in done.stderr
    assert not canary.exists()
    assert not list(tmp_path.rglob("run.json"))
    tally("overlay that names code", 1)
