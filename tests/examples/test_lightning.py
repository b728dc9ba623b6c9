"""A Lightning program: examples/lightning."""

import signal
import sys

import pytest

import joyful.results
from tests.support import examples, launchers, sweeps

pytest.importorskip("lightning", reason="needs the extra lightning")

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path):
    return examples.copy("lightning", tmp_path)


def test_the_pruner_ends_a_trial_and_all_metrics_are_stored(folder):
    median = ("hydra/sweeper/pruner=median", "hydra.sweeper.pruner.n_startup_trials=2")
    command = examples.sweep_command(
        examples.trials("lr=0.01", "lr=0.02", "lr=0.000001"),
        *median,
        "hydra.sweeper.pruner.n_warmup_steps=2",
        "epochs=5",
    )
    examples.run(folder, *command)
    sweep = folder / "multirun/main"
    assert sweeps.states(sweep) == {0: "COMPLETE", 1: "COMPLETE", 2: "PRUNED"}
    study = sweeps.study(sweep)
    assert list(study.trials[0].intermediate_values) == [1, 2, 3, 4, 5]
    assert study.trials[0].intermediate_values[5] == study.trials[0].value
    assert max(study.trials[2].intermediate_values) < 5
    rows = joyful.results.load(sweep)
    assert set(rows[rows["run"] == rows["run"].iloc[0]]["split"]) == {"train", "dev"}
    assert rows["loss"].notna().all()


def test_a_paused_trial_has_a_checkpoint_of_its_last_epoch(folder, monkeypatch):
    """Otherwise it would train this epoch again when it is promoted."""
    monkeypatch.syspath_prepend(folder)
    import lightning
    import main as program
    import torch

    from joyful.sweeper import TrialPaused, current_trial
    from joyful.sweeper import lightning as ours

    def report(value, step, metrics):
        if step == 2:
            raise TrialPaused(f"paused at step {step}")

    monkeypatch.setattr(type(current_trial.trial), "report", staticmethod(report))
    checkpoint = program.ModelCheckpoint(folder, filename="last", enable_version_counter=False)
    trainer = lightning.Trainer(
        max_epochs=4, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[ours.ReportCallback("val_loss"), checkpoint],
    )  # fmt: skip
    with pytest.raises(TrialPaused):
        trainer.fit(program.Regression(0.01, 8), *program.data())
    assert torch.load(folder / "last.ckpt", weights_only=False)["epoch"] == 1  # counted from 0
    assert trainer.current_epoch == 2


@pytest.mark.soak("takes half a minute; the test above and test_pausing.py cover its parts")
def test_a_promoted_trial_trains_no_epoch_twice(folder):
    examples.edit(
        folder,
        "def training_step(self, batch):",
        "def on_train_epoch_start(self):\n"
        "        with open(trial.folder / 'epochs.txt', 'a') as file:\n"
        "            file.write(f'{self.current_epoch} ')\n\n"
        "    def training_step(self, batch):",
    )
    pruner = ["hydra/sweeper/pruner=asha_promotion", "hydra.sweeper.pruner.fewest_trials=1"]
    pruner += ["hydra.sweeper.pruner.max_resource=8"]
    rates = [f"lr={rate}" for rate in (0.02, 0.000001, 0.000002)]  # the first is paused, and promoted after the second
    examples.run(folder, *examples.sweep_command(examples.trials(*rates), *pruner, "epochs=8"))
    sweep = folder / "multirun/main"
    states = sweeps.states(sweep)
    assert "PRUNED" in states.values()
    trained = {number: (sweep / str(number) / "epochs.txt").read_text().split() for number in states}
    assert all(epochs == [str(epoch) for epoch in range(len(epochs))] for epochs in trained.values())
    assert all(len(trained[number]) == 8 for number, state in states.items() if state == "COMPLETE")
    output = [path.read_text() for path in sweep.glob(".workers/*/trainer.log")]
    assert any("Restored all states from the checkpoint" in text for text in output)


@pytest.mark.soak("takes a minute")
def test_a_stopped_and_killed_trial_ends_as_without_interruption(folder):
    examples.edit(
        folder, "def training_step(self, batch):", "def training_step(self, batch):\n        time.sleep(0.02)"
    )
    examples.edit(folder, "import hydra\n", "import time\n\nimport hydra\n")
    sweep = folder / "multirun/main"
    command = examples.sweep_command(examples.trials("width=8"), examples.TO_THE_END, "epochs=30", examples.TWO_WORKERS)
    drivers = [sweeps.start(command, folder)]
    try:
        examples.during(drivers[0], lambda: launchers.held_lease(sweep, 2))
        drivers[0].send_signal(signal.SIGTERM)
        examples.wait_for_end(drivers[0], folder, expected=143)
        stopped = sweeps.study(sweep).trials[0]
        assert stopped.state.name == "RUNNING"
        drivers.append(sweeps.start(command, folder))
        examples.kill_a_worker(folder, steps=len(stopped.intermediate_values) + 1)
        examples.wait_for_end(drivers[1], folder)
    finally:
        for driver in drivers:
            sweeps.kill_group(driver)
    (resumed,) = sweeps.study(sweep).trials
    assert list(resumed.intermediate_values) == list(range(1, 31))

    uninterrupted = (*command, "hydra.sweeper.study_name=uninterrupted", "hydra/launcher=basic")
    examples.run(folder, *uninterrupted)
    (expected,) = sweeps.study(folder / "multirun/uninterrupted").trials
    assert resumed.intermediate_values == expected.intermediate_values
    output = [path.read_text() for path in sweep.glob(".workers/*/trainer.log")]
    assert any("Restored all states from the checkpoint" in text for text in output)


@pytest.mark.soak("takes half a minute")
def test_outside_a_sweep_the_callback_does_nothing(folder):
    examples.run(folder, sys.executable, "main.py", "epochs=1", "hydra.run.dir=alone")
    assert (folder / "alone/last.ckpt").is_file()


@pytest.mark.soak("takes half a minute")
def test_a_metric_that_is_not_logged_fails_the_trial(folder):
    examples.edit(folder, 'monitor="val_loss"', 'monitor="val_f1"')
    command = examples.sweep_command(examples.trials("lr=0.01"), "epochs=1")
    examples.run(folder, *command, expected=1)
    (reason,) = examples.status(folder)["failures"].values()
    assert "monitor='val_f1': expected a logged metric, one of ['train_loss', 'val_loss']" in reason
