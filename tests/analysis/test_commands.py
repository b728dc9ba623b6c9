"""The command that made runs, rebuilt from the overrides that Hydra records."""

import pytest

from joyful.analysis.commands import Origin, made_by

BASIC, OWN = "hydra._internal.BasicSweeper", "joyful.sweeper.plugin.OptunaPrunedSweeper"


def write(folder, tasks, own=(), *, mode="MULTIRUN", sweeper=BASIC, name="run"):
    for number, task in enumerate(tasks):
        hydra = folder / str(number) / ".hydra"
        hydra.mkdir(parents=True)
        (hydra / "overrides.yaml").write_text("".join(f"- {text!r}\n" for text in task) or "[]")
        items = "".join(f"\n      - {text!r}" for text in own) or " []"
        (hydra / "hydra.yaml").write_text(
            f"hydra:\n  mode: {mode}\n  sweeper: {{_target_: {sweeper}}}\n  job: {{name: {name}}}\n"
            f"  sweep: {{dir: multirun/x}}\n  run: {{dir: /absolute/x}}\n  overrides:\n    hydra:{items}\n"
        )
    return [str(number) for number in range(len(tasks))]


def test_the_values_of_a_grid_are_joined_and_those_of_a_sweeper_left_out(tmp_path):
    tasks = [["loss=mse", "a=1", "+b=2"], ["loss=mse", "a=3", "+b=2"]]
    runs = write(tmp_path / "grid", tasks)
    command = "python run.py -m loss=mse a=1,3 +b=2"
    assert made_by(tmp_path / "grid", runs) == Origin("python run.py", command, "multirun/x")
    runs = write(
        tmp_path / "search", tasks, ["hydra.sweeper.n_trials=2", "hydra.mode=MULTIRUN"], sweeper=OWN, name="cli"
    )
    assert made_by(tmp_path / "search", runs).command == "joyful train -m loss=mse +b=2 hydra.sweeper.n_trials=2"


def test_a_report_shows_no_password_and_no_absolute_path(tmp_path):
    own = ["hydra.sweeper.storage=postgresql://me:secret@host/db", "hydra.sweep.dir=/home/me/runs"]
    command = made_by(tmp_path, write(tmp_path, [["data.root=/home/me/meld"]], own)).command
    assert "secret" not in command
    assert "/home" not in command
    assert "postgresql://me:***@host/db" in command
    assert "data.root=…/meld" in command


def test_a_single_run_and_runs_that_hydra_did_not_start(tmp_path):
    runs = write(tmp_path, [["seed=1", "~x"]], mode="RUN")
    assert made_by(tmp_path, runs) == Origin("python run.py", "python run.py seed=1 '~x'", "")
    assert made_by(tmp_path, ["none"]) == Origin()


@pytest.mark.parametrize("text", ["[", "3", "hydra: 3", "hydra: {overrides: 3, job: [], sweeper: x}"])
def test_a_damaged_file_gives_what_is_known(tmp_path, text):
    runs = write(tmp_path, [["a=1"]])
    (tmp_path / "0" / ".hydra" / "hydra.yaml").write_text(text)
    assert made_by(tmp_path, runs).command == "python program.py a=1"
