"""Wrong commands as users type them: each ends with one line, exit code 2 and the remedy, and creates nothing.

A name that does not exist gets the same message wherever it stands: on the command line with any sign, in a swept
parameter, in a file of --config-dir, in hydra.sweeper.params, or as an option.
"""

import os
import re
from pathlib import Path

import pytest

from tests.support import small_program
from tests.support.faults import Tally
from tests.support.fork_server import ForkServer

ROOT = Path(__file__).resolve().parents[2]
RUN = str(ROOT / "run.py")
OWN = ("-m", "hydra/sweeper=optuna_pruned")

LOSSES = "loss: expected one of mse, smoothl1, weighted_mse, got "
SWEEPS = "expected one of ablation, basic_optimization, encoder_loss_weight, first_look, loss_type, parts, preset, weights, got "
COMMANDS = "expected one of train, report, predict, export, audit, import, card, sweep, prepare, schema, got "
FOLDER = "expected the folder of a run (with run.json), found none; set "
WEIGHT = "weights.encoder_loss_weight: expected a number >= 0.0 and <= 1000000.0, got 'abc'; set "
LR = "lr: there is no such setting; did you mean optimizer.learning_rate?"
ENCODER = "there is no such setting; did you mean weights.encoder_loss_weight?"

#: Files of an overlay: name -> content.
OVERLAY = {
    "experiment/key.yaml": "# @package _global_\ntraining: {epohcs: 3}\n",
    "experiment/group.yaml": "# @package _global_\ndefaults:\n  - override /loss: msee\n",
    "experiment/target.yaml": "# @package _global_\nhydra: {callbacks: {mine: {_target_: my.Callback}}}\n",
    "experiment/params.yaml": "# @package _global_\nhydra: {sweeper: {params: {lr: 'interval(0,1)'}}}\n",
    "experiment/basic_params.yaml": "# @package _global_\nhydra: {sweeper: {params: {lr: '0.1,0.2'}}}\n",
}

#: Arguments of run.py, or of joyful if the first is "joyful" -> the remedy in the message.
WRONG: dict[tuple[str, ...], str] = {
    # settings that do not exist
    ("lr=0.1",): LR,
    ("joyful", "train", "lr=0.1"): LR,
    ("+lr=0.1",): LR,
    ("++lr=0.1",): LR,
    ("~lr",): LR,
    ("training.optmizer.lr=0.1",): f"training.optmizer.{LR}",
    ("encoder_loss_weight=0.03",): f"encoder_loss_weight: {ENCODER}",
    ("weights.encoder_los_weight=0.03",): f"weights.encoder_los_weight: {ENCODER}",
    ("batch_size=8",): "did you mean training.batch_size?",
    ("epochs=3",): "did you mean training.epochs?",
    ("training.epohcs=3",): "did you mean training.epochs or data.fine_tuning.epochs?",
    ("loss.nam=mse",): "did you mean loss.name?",
    ("losss=mse",): "losss: there is no such setting; did you mean loss?",
    ("smoothl1=true",): "did you mean loss=smoothl1?",
    ("use_smooth_l1=true",): "did you mean loss=smoothl1?",
    ("data.synthetic.dialogues.trian=3",): "did you mean data.synthetic.dialogues.train?",
    ("++data.synthetic.dialogues.trian=3",): "did you mean data.synthetic.dialogues.train?",
    ("dataset=meld",): "dataset: there is no such setting; did you mean data?",
    ("xyzzy=1",): "xyzzy: there is no such setting (--cfg job lists all)",
    ("hydra.job.nam=x",): "did you mean hydra.job.name",
    ("hydra.sweeper.n_trails=3",): "did you mean hydra.sweeper.n_trials? It needs hydra/sweeper=optuna_pruned",
    ("n_trials=3",): "n_trials: there is no such setting; did you mean hydra.sweeper.n_trials?",
    ("hydra.sweeper.pairs=3",): "add hydra/sweeper=optuna_pruned",
    (*OWN, "hydra.sweeper.n_trails=3", "seed=1,2"): "did you mean hydra.sweeper.n_trials?",
    (*OWN, "+hydra.sweeper.n_trails=3", "seed=1,2"): "did you mean hydra.sweeper.n_trials?",
    ("--config-dir=OVERLAY", "experiment=key"): (
        "training.epohcs: there is no such setting; did you mean training.epochs or data.fine_tuning.epochs?"
    ),
    # swept parameters
    ("-m", "lr=0.1,0.2"): f"run 0 (lr=0.1): {LR}",
    ("-m", "+lr=0.1,0.2"): f"run 0 (+lr=0.1): {LR}",
    (*OWN, "lr=0.1,0.2"): f"a trial with lr=0.1: {LR}",
    (*OWN, "weights.encoder_los_weight=interval(0,1)"): f"weights.encoder_los_weight: {ENCODER}",
    (*OWN, "+hydra.sweeper.params.weights.encoder_los_weight=interval(0,1)"): f"weights.encoder_los_weight: {ENCODER}",
    ("-m", "hydra.sweeper.params.lr=interval(0,1)"): LR,
    (*OWN, "+hydra.sweeper.params.optimizer.learning_rate=interval(0,1)"): "set 'optimizer.learning_rate=interval(0,1)'",
    ("--config-dir=OVERLAY", *OWN, "experiment=params"): LR,
    ("--config-dir=OVERLAY", "-m", "experiment=basic_params"): LR,
    (*OWN, "hydra.sweeper.trials=['loss=mse','lr=3']"): f"trial 1 (lr=3): {LR}",
    (*OWN, "hydra.sweeper.arms=['loss=mse','loss=smothl1']"): "did you mean smoothl1?",
    (*OWN, "hydra.sweeper.arms=[loss=mse,loss=smoothl1]"): """'hydra.sweeper.arms=["loss=mse","loss=smoothl1"]'""",
    ("-m", "weights.encoder_loss_weight=0.05,abc"): f"run 1 (weights.encoder_loss_weight=abc): {WEIGHT}",
    ("-m", "seed=1,2", "weights.encoder_loss_weight=0.05,abc"): f"run 1 (weights.encoder_loss_weight=abc): {WEIGHT}",
    (*OWN, "weights.encoder_loss_weight=0.05,abc"): f"a trial with weights.encoder_loss_weight=abc: {WEIGHT}",
    ("-m", "loss=mse,smoothl"): f"run 1 (loss=smoothl): {LOSSES}'smoothl'; did you mean smoothl1?",
    (*OWN, "loss=mse,smoothl"): f"a trial with loss=smoothl: {LOSSES}'smoothl'; did you mean smoothl1?",
    ("-m", "loss=mse,_common"): f"run 1 (loss=_common): {LOSSES}'_common'",
    (*OWN, "loss=mse,_common"): f"{LOSSES}'_common'",
    ("-m", "weights.encoder_loss_weight=interval(0,1)"): "add hydra/sweeper=optuna_pruned",
    ("-m", "data=synthetic,meld"): "run 1 (data=meld): data=meld needs the folder of",
    OWN: "set NAME='interval(LOW,HIGH)'",
    # choices
    ("loss=smoothl",): f"{LOSSES}'smoothl'; did you mean smoothl1?",
    ("loss=_common",): f"{LOSSES}'_common'",
    ("loss=focal",): f"{LOSSES}'focal'; did you mean classification=focal?",
    ("optimizer=Adam",): "expected one of adam, adamw, rmsprop, sgd, got 'Adam'; did you mean adam?",
    ("modalities=va",): "did you mean av?",
    ("weights=basics",): "did you mean basic?",
    ("experiment=nothing",): "dialogues, emorynlp, full, iemocap, meld, mosi, got 'nothing'; set experiment=NAME",
    ("--config-dir=OVERLAY", "experiment=group"): f"{LOSSES}'msee'; did you mean mse?",
    ("hydra/launcher=jobli",): "did you mean joblib?",
    ("hydra/sweeper=optuna_prune",): "did you mean optuna_pruned?",
    ("hydra/sweeper/pruner=asha",): "add hydra/sweeper=optuna_pruned",
    (*OWN, "hydra/sweeper/pruner=asah"): "did you mean asha?",
    ("loss.name=msee",): "expected one of mse, smoothl1, weighted_mse, got 'msee'; did you mean mse?",
    # ready-made sweeps
    ("+sweeps=first_look",): f"run python {RUN} -m +sweeps=first_look",
    ("joyful", "train", "+sweeps=first_look", "seed=3"): "run joyful train -m +sweeps=first_look seed=3",
    ("-m", "sweeps=first_look"): "set -m +sweeps=first_look",
    ("-m", "+sweep=first_look"): "did you mean +sweeps=NAME",
    ("-m", "+sweeps=frist_look"): f"{SWEEPS}'frist_look'; did you mean first_look?",
    ("-m", "+sweeps=_paired"): f"sweeps: {SWEEPS}'_paired'",
    # values
    ("seed=1.5",): "seed: expected an integer >= 0 and <= 2147483647, got 1.5",
    ("seed=1,2",): f"add -m: python {RUN} -m seed=1,2",
    ("device=gpu",): "device: expected one of 'auto', 'cuda' or 'cpu', got 'gpu'; set device=VALUE",
    ("training.epochs=three",): "training.epochs: expected an integer >= 1 and <= 100000, got 'three'",
    ("objectives=[dev_f2]",): "expected one of 'dev_f1' or 'epochs_to_target', got 'dev_f2'",
    ("+seed=3",): "the setting exists, so the sign + is wrong; set seed=3",
    ("seed",): "set seed=VALUE",
    ("loss", "=", "mse"): "expected NAME=VALUE without spaces around =",
    ("loss:mse",): "set loss=mse",
    ("loss=[mse",): "close all brackets",
    ("resume=nowhere",): f"resume=nowhere: {FOLDER}resume=FOLDER",
    ("data=meld",): "set data.root=FOLDER",
    ("data=meld", "data.root=nowhere"): "data.root=nowhere is not a folder",
    (*OWN, "hydra.sweeper.storage=foo", "seed=1,2"): "expected sqlite:///FILE or postgresql://USER@HOST/NAME, got 'foo'",
    # classes that are not allowed
    ("--config-dir=OVERLAY", "experiment=target"): "set the environment variable JOYFUL_TARGETS=my.Callback",
    (*OWN, "hydra.sweeper.sampler._target_=my.Sampler", "seed=1,2"): "JOYFUL_TARGETS=my.Sampler",
    # options and commands
    ("--mutlirun", "seed=1,2"): "--mutlirun: there is no such option; did you mean --multirun?",
    ("--loss=mse",): "did you mean loss=mse?",
    ("--encoder_loss_weight=0.05",): "did you mean weights.encoder_loss_weight=0.05?",
    ("--cfg=jb",): "choose from",
    ("--config-name=confg",): "leave --config-name out",
    ("--config-dir=nowhere",): "set --config-dir=FOLDER",
    ("joyful", "reprot"): f"{COMMANDS}'reprot'; did you mean report?",
    ("joyful", "report", "nowhere"): "nowhere: expected a folder of runs",
    ("joyful", "report", "x", "--basline=y"): "did you mean --baseline?",
    ("joyful", "sweep", "status", "nowhere"): "nowhere: expected the folder of a sweep",
    ("joyful", "sweep", "statsu", "x"): "expected one of status, watch, trials, retry, got 'statsu'; did you mean status?",
    ("joyful", "sweep", "retry", "x"): "required: --failed",
    ("joyful", "audit", "nowhere"): "nowhere: expected the folder of a sweep",
    ("joyful", "import", "cvs", "x"): "did you mean csv?",
    ("joyful", "prepare", "dta=meld", "out=x"): "did you mean data?",
    ("joyful", "prepare", "data=mled", "out=x"): "did you mean meld?",
}  # fmt: skip

#: What no message may contain: advice to add unknown keys, and internals of Hydra.
FORBIDDEN = ("use +", "append", "provider=", "struct", "Traceback", "HYDRA_FULL_ERROR", "In 'config'")


@pytest.fixture(scope="module")
def overlay(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("overlay")
    (folder / "experiment").mkdir()
    for name, text in OVERLAY.items():
        (folder / name).write_text(text)
    return str(folder)


def problems(arguments: tuple[str, ...], remedy: str, stderr: str) -> list[str]:
    """Return what is wrong with the message of a wrong command."""
    found = [] if remedy in stderr else [f"no remedy: {remedy}"]
    if not (stderr.startswith("joyful") and stderr.endswith("\n") and stderr.count("\n") == 1):
        found.append("not one line")
    found += [f"contains {text}" for text in FORBIDDEN if text in stderr]
    typed = " ".join(arguments)
    return found + [f"offers {name}" for name in set(re.findall(r"\b_(?:common|paired)", stderr)) if name not in typed]


#: Every third command runs in `make test`. Neighbours in the table are of one kind.
THIRD = [
    pytest.param(arguments, marks=[pytest.mark.soak("one of three of its kind")] if number % 3 else [])
    for number, arguments in enumerate(WRONG)
]


@pytest.mark.parametrize("arguments", THIRD, ids=map(" ".join, WRONG))
def test_a_wrong_command_is_answered_with_the_remedy(
    arguments: tuple[str, ...], overlay: str, fork_server: ForkServer, tmp_path: Path, tally: Tally
) -> None:
    given = [argument.replace("OVERLAY", overlay) for argument in arguments]
    command = ["-m", "joyful.cli", *given[1:]] if given[0] == "joyful" else [RUN, *given]
    done = fork_server.run(command, tmp_path, os.environ)
    found = problems(arguments, WRONG[arguments], done.stderr)
    assert (done.returncode, found, list(tmp_path.iterdir())) == (2, [], []), done.stderr
    tally("wrong command", 1)


def test_there_are_more_than_fifty() -> None:
    assert len(WRONG) > 50


def test_other_programs_get_names_of_their_own(fork_server: ForkServer, tmp_path: Path) -> None:
    """The sweeper neither knows joyful's settings in them nor offers those."""
    small_program.write_paired(tmp_path)
    done = small_program.run(tmp_path, "lrr=0.1,0.2", server=fork_server)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "a trial with lrr=0.1: lrr: there is no such setting; did you mean lr? (--cfg job lists all)" in done.stderr
    done = small_program.run(tmp_path, "epochs=1,2", server=fork_server)
    assert "epochs=1: epochs: there is no such setting (--cfg job lists all)" in done.stderr
    assert not (tmp_path / "multirun").exists()
