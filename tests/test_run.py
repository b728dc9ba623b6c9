"""run.py and train.py, run in separate processes from another working directory."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import train
from joyful import results
from tests.support.fork_server import ForkServer
from tests.support.runs import TINY, compose_plain

ROOT = Path(__file__).resolve().parents[1]


def call(script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / script), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def quick_call(fork_server: ForkServer) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`call` without importing the libraries again."""

    def run(script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        return fork_server.run([str(ROOT / script), *arguments], cwd, os.environ, timeout=300)

    return run


def results_folder(output: str) -> Path:
    return Path(re.search(r"^results: (.*)$", output, re.M).group(1))


def test_a_run_ends_with_a_table_and_its_folder(tmp_path):
    done = call("run.py", *TINY, "seed=5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = results_folder(done.stdout)
    log = (folder / "run.log").read_text().splitlines()
    assert [line[28:] for line in log] == done.stderr.splitlines()  # without a terminal, the log of the run
    assert folder.is_relative_to(tmp_path / "outputs")
    info = results.read_run(folder)
    assert f"{100 * info['objective']:.2f} %" in done.stdout
    assert (info["status"], info["seed"], info["choices"]["model"]) == ("completed", 5, "small")
    assert (folder / ".hydra" / "config.yaml").is_file()


def test_help_and_cfg_answer_without_torch(tmp_path):
    for option, message in ((("--help",), "== Groups =="), (("--cfg", "job"), "encoder_loss_weight: 0.03")):
        code = f"import sys; sys.argv = ['run.py', *{option!r}]; import runpy\n"
        code += "try: runpy.run_path(sys.argv[0], run_name='__main__')\nexcept SystemExit as e: assert not e.code\n"
        code += "assert 'torch' not in sys.modules and 'pandas' not in sys.modules, 'slow imports'"
        done = subprocess.run(
            [sys.executable, "-c", code.replace("'run.py'", repr(str(ROOT / "run.py")))],
            cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert message in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("training.epochs=0",), 2, "training.epochs: expected >= 1"),
        (("data=meld",), 2, "data.root"),
        (("data=iemocap", "data.root=nowhere"), 2, "data_iemocap.pkl"),
        (("resume=nowhere",), 2, "resume=nowhere: expected the folder of a run"),
        (("los=mse",), 2, "los: there is no such setting; did you mean loss?"),
    ],
)
def test_bad_input_is_one_line_and_a_code(tmp_path, quick_call, arguments, code, message):
    done = quick_call("run.py", *arguments, cwd=tmp_path)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    if code == 2:
        assert done.stderr.count("\n") == 1


def test_multiruns_repeat_single_runs_byte_for_byte(tmp_path, quick_call):
    grid = ("loss=mse,smoothl1", "weights.encoder_loss_weight=0.03,0.5")
    for name, launcher in (("basic", ()), ("joblib", ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"))):
        if launcher:
            pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
        done = quick_call("run.py", "-m", *TINY, *grid, f"sweep_name={name}", *launcher, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    single = quick_call("run.py", *TINY, "loss=smoothl1", "weights.encoder_loss_weight=0.03", cwd=tmp_path)
    folders = {name: tmp_path / "multirun" / name for name in ("basic", "joblib")}
    digests = {
        name: [(folder / str(i) / "history.parquet").read_bytes() for i in range(4)] for name, folder in folders.items()
    }
    assert digests["basic"] == digests["joblib"]
    assert len(set(digests["basic"])) == 4
    assert digests["basic"][2] == (results_folder(single.stdout) / "history.parquet").read_bytes()
    frame = results.load(folders["basic"])
    assert frame["run"].nunique() == 4
    assert set(frame.attrs["arms"]) == {"loss", "weights.encoder_loss_weight"}
    # the same command resumes the multirun and trains nothing twice
    before = [(folders["basic"] / str(i) / "timing.parquet").stat().st_mtime_ns for i in range(4)]
    again = quick_call("run.py", "-m", *TINY, *grid, "sweep_name=basic", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert [(folders["basic"] / str(i) / "timing.parquet").stat().st_mtime_ns for i in range(4)] == before


def test_a_bad_value_of_a_multirun_is_refused_before_the_first_run(tmp_path, quick_call):
    done = quick_call("run.py", "-m", *TINY, "seed=1,2", "training.epochs=1,-1", "sweep_name=bad", cwd=tmp_path)
    assert done.returncode == 2
    assert "joyful: run 2 (training.epochs=-1): training.epochs: expected >= 1" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_bad_job_of_a_multirun_is_named(tmp_path, quick_call):
    done = quick_call(
        "run.py", "-m", *TINY, "model.context=transformer", "model.context_heads=997,2", "sweep_name=bad", cwd=tmp_path
    )
    assert done.returncode == 1
    assert "joyful: run 0 failed: " in done.stderr
    assert "model.context_heads" in done.stderr
    assert results.read_run(tmp_path / "multirun/bad/1")["status"] == "completed"
    assert "Traceback" not in done.stderr


# --- train.py


def overrides_of(*arguments: str) -> list[str]:
    return train.overrides(train.parser().parse_args(arguments))


def test_the_command_of_the_note_becomes_hydra_overrides():
    overrides = overrides_of("--dataset=iemocap_4", "--modalities=atv", "--encoder_loss_weight=0.03", "--use_smooth_l1")
    for override in ("data=iemocap_4", "modalities=atv", "loss=smoothl1", "weights.encoder_loss_weight=0.03",
                     "fusion=hierarchical", "model=reference", "device=auto", "data.root=./data"):  # fmt: skip
        assert override in overrides


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--dataset=meld"], "data=meld_cogmen"),
        (["--modalities=tv"], "modalities=tv"),
        (["--data_dir_path=/some where/x"], "data.root='/some where/x'"),
        (["--device=cuda"], "device=cuda"),
        (["--epochs=55"], "training.epochs=55"),
        (["--batch_size=16"], "training.batch_size=16"),
        (["--optimizer1=adamw"], "optimizer=adamw"),
        (["--scheduler=reduceLR"], "training.scheduler.name=reduceLR"),
        (["--learning_rate=0.0001"], "optimizer.learning_rate=0.0001"),
        (["--weight_decay=0.01"], "optimizer.weight_decay=0.01"),
        (["--drop_rate=0.5"], "model.dropout=0.5"),
        (["--max_grad_norm=0"], "training.max_grad_norm=0.0"),
        (["--cl_loss_weight=0.5"], "weights.cl_loss_weight=0.5"),
        (["--gate_reg_weight=0.005"], "weights.gate_reg_weight=0.005"),
        (["--use_hierarchical_fusion"], "fusion=hierarchical"),
        (["--fusion=auto"], "fusion=auto"),
        (["--use_ulgm"], "fusion.use_ulgm=true"),
        (["--unimodal_loss_weight=0.01"], "fusion.unimodal_loss_weight=0.01"),
        (["--ulgm_hidden_size=64"], "fusion.ulgm_hidden_size=64"),
        (["--wp=-1", "--wf=3"], "model.wp=-1"),
        (["--hidden_size=64"], "model.hidden_size=64"),
        (["--rnn=gru"], "model.context=gru"),
        (["--class_weight"], "classification.class_weight=inverse"),
        (["--concat_gin_gout"], "model.concat_gin_gout=true"),
        (["--seqcontext_nlayer=2"], "model.context_layers=2"),
        (["--gnn_nheads=7"], "model.graph_heads=7"),
        (["--use_highway"], "model.use_highway=true"),
        (["--seed=1"], "seed=1"),
        (["--dataset=mosei", "--emotion=7class"], "data.emotion=7class"),
        (["--model_ckpt=runs/1"], "fork=runs/1"),
    ],
)
def test_the_overrides_of_every_flag_compose(flags, expected):
    overrides = overrides_of(*flags)
    assert expected in overrides
    config, _ = compose_plain(overrides)
    name, value = expected.split("=", 1)
    if "." in name:
        node = config
        for part in name.split("."):
            node = node[part]
        assert str(node).lower() in (
            value.strip("'").lower(),
            str(float(value)) if value.replace(".", "").isdigit() else value,
        )


def test_flags_without_effect_change_no_override():
    assert overrides_of("--n_speakers=9", "--from_begin", "--use_hierarchical_fusion") == overrides_of()
    assert overrides_of("--model_ckpt=x", "--from_begin") == overrides_of()


def test_defaults_are_passed_explicitly():
    names = {override.split("=")[0] for override in overrides_of()}
    assert {"optimizer.learning_rate", "training.epochs", "weights.cl_loss_weight", "model.dropout", "seed"} <= names


def test_train_py_trains_and_prints_the_command_of_run_py(tmp_path, quick_call):
    sizes = [item for item in TINY if item.startswith(("data.", "model."))]
    done = quick_call("train.py", "--dataset=synthetic", "--epochs=2", "--batch_size=2", "--hidden_size=8",
                      "--seqcontext_nlayer=1", "--gnn_nheads=2", *sizes, cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("python run.py data=synthetic modalities=atv fusion=hierarchical model=reference")
    info = json.loads((results_folder(done.stdout) / "run.json").read_text())
    assert info["config"]["training"]["epochs"] == 2
    assert info["config"]["optimizer"]["learning_rate"] == 3e-5


def test_missing_data_are_reported_with_their_path_and_an_alternative(tmp_path, quick_call):
    done = quick_call("train.py", "--dataset=iemocap_4", cwd=tmp_path)
    assert done.returncode == 2
    assert "data/iemocap_4/data_iemocap_4.pkl" in done.stderr
    assert "python run.py data=synthetic" in done.stderr
    assert quick_call("train.py", "--dataset=nonsense", cwd=tmp_path).returncode == 2
