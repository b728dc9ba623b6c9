"""The trainer as a program of the sweeper: how a run ends at the targets of its sweep."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from optuna import TrialPruned

from joyful.results import RunFolder
from joyful.sweeper import trial
from joyful.sweeper.current_trial import Target
from joyful.training import sweep_client
from tests.support.runs import tiny_request

EPOCHS = ("training.epochs=6", "training.evaluations_per_epoch=2")


@dataclass
class Session:
    """A trial whose reports go to a list."""

    folder: Path
    targets: tuple[Target, ...] = ()
    number: int = 0
    resumed: bool = False
    stopping: bool = False
    reports: list[tuple[int, float]] = field(default_factory=list)

    def report(self, value, step, metrics):
        self.reports.append((step, value))


def train(folder, *targets):
    session = Session(folder, targets)
    with trial.running(session):
        sweep_client.train_trial(tiny_request(folder, *EPOCHS))
    return session


def dev(folder, column):
    rows = [row for row in RunFolder.open(folder, reading=True).history_rows() if row["split"] == "dev"]
    return {row["epoch"]: row[column] for row in rows}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert [step for step, _ in train(folder).reports] == [1, 2, 3, 4, 5, 6]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("column", "higher"), [("nll", False), ("f1_weighted", True)])
def test_a_run_ends_with_the_epoch_in_which_it_reaches_the_target(whole, tmp_path, column, higher):
    values = dev(whole, column)
    best = max if higher else min
    value = best(values[epoch] for epoch in values if epoch <= 2)
    reached = min(epoch for epoch in values if (values[epoch] >= value if higher else values[epoch] <= value))
    last = -(-reached // 1)
    with pytest.raises(TrialPruned):
        train(tmp_path / "run", Target(column, value, higher))
    run = RunFolder.open(tmp_path / "run", reading=True)
    assert run.info["status"] == "pruned"
    expected = [row for row in RunFolder.open(whole, reading=True).history_rows() if row["epoch"] <= last]
    assert run.history_rows() == expected


@pytest.mark.slow
def test_a_run_needs_all_targets_and_is_complete_at_its_last_epoch(whole, tmp_path):
    nll = dev(whole, "nll")
    easy, never = Target("nll", max(nll.values()), False), Target("f1_weighted", 2.0, True)
    assert len(train(tmp_path / "both", easy, never).reports) == 6
    last = Target("nll", min(nll.values()), False)
    if min(nll, key=nll.get) > 5:
        train(tmp_path / "last", last)
        assert RunFolder.open(tmp_path / "last", reading=True).info["status"] == "completed"
    assert RunFolder.open(tmp_path / "both", reading=True).info["status"] == "completed"
    assert dev(tmp_path / "both", "nll") == nll


def test_targets_look_at_dev_rows_with_a_value():
    rows = [{"split": "train", "wer": 0.1}, {"split": "dev"}, {"split": "dev", "wer": 0.5}]
    assert not Target("wer", 0.4, False).is_reached(rows)
    assert Target("wer", 0.5, False).is_reached(rows)
    assert Target("wer", 0.5, True).is_reached(rows)
    assert trial.targets == ()
