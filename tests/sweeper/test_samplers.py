"""Samplers and pruners: what reaches Optuna, a user's own classes, and what is refused."""

import inspect
import sys
from importlib import import_module

import cloudpickle
import optuna
import pytest
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from joyful.records import InputError
from joyful.sweeper.samplers import SamplerBuilder, allowed_targets, build_pruner, set_by_user
from tests.support import sweeps

TPE = {"_target_": "optuna.samplers.TPESampler", "multivariate": False, "constant_liar": False, "n_startup_trials": 10}
BARE = {"_target_": "optuna.samplers.TPESampler"}

#: The module of a user.
MODULE = """
import optuna

class Fixed(optuna.samplers.RandomSampler):
    def __init__(self, value=0.05):
        super().__init__(seed=1)
        self.value = value

    def sample_independent(self, study, trial, name, distribution):
        return self.value + 0.001 * trial.number

class Seeded(optuna.samplers.RandomSampler):
    def __init__(self, seed, shift=0.0):
        super().__init__(seed=seed)
        self.given, self.shift = seed, shift

class Patient(optuna.pruners.NopPruner):
    pass

class NoSampler:
    pass
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a user's module `own_samplers`, and return its folder."""
    (tmp_path / "own_samplers.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    monkeypatch.delitem(sys.modules, "own_samplers", raising=False)


def stock(name):
    import_module("hydra_plugins.hydra_optuna_sweeper.config")
    return OmegaConf.to_container(ConfigStore.instance().load(f"hydra/sweeper/sampler/{name}.yaml").node)


def test_defaults_of_the_stock_file_are_left_to_optuna():
    assert set_by_user(stock("tpe"), "tpe", []) == BARE
    assert set_by_user(stock("grid"), "grid", []) == {"_target_": "optuna.samplers.GridSampler", "_partial_": True}


@pytest.mark.parametrize("name", ["multivariate", "constant_liar"])
@pytest.mark.parametrize("form", ["{}.{}=false", "+{}.{}=false", "++{}.{}=false", "{}={{{}: false}}"])
def test_a_value_on_the_command_line_is_set_even_if_it_equals_the_stock_file(name, form):
    others = ["hydra/sweeper=optuna_pruned", "hydra.sweep.subdir=${hydra.job.override_dirname}"]
    text = form.format("hydra.sweeper.sampler", name)
    assert set_by_user(TPE, "tpe", [*others, text]) == BARE | {name: False}


def test_a_value_that_differs_from_the_stock_file_is_set():
    config = stock("tpe") | {"multivariate": True, "n_startup_trials": 3}
    assert set_by_user(config, "tpe", []) == BARE | {"multivariate": True, "n_startup_trials": 3}


@pytest.mark.parametrize("choice", ["mine", None])
def test_the_file_of_another_package_is_kept_whole(choice):
    assert set_by_user(TPE, choice, []) == TPE


@pytest.mark.parametrize("name", ["tpe", "random", "cmaes", "gp", "qmc"])
def test_only_two_defaults_of_the_stock_files_differ_from_optunas(name):
    """So that leaving a default to Optuna changes these two alone. A new version may change more."""
    config = stock(name)
    parameters = inspect.signature(SamplerBuilder(config, allowed_targets(None)).kind).parameters
    differing = {key for key, value in config.items() if not key.startswith("_") and value != parameters[key].default}
    assert differing == ({"multivariate", "constant_liar"} if name == "tpe" else set())


def test_tpe_is_built_with_optunas_defaults():
    built = SamplerBuilder(set_by_user(stock("tpe"), "tpe", []), allowed_targets(None))(seed=3)
    plain = optuna.samplers.TPESampler(seed=3)
    for name in ("_multivariate", "_constant_liar", "_n_startup_trials", "_n_ei_candidates"):
        assert getattr(built, name) == getattr(plain, name)


@pytest.mark.parametrize("name", ["tpe", "random", "cmaes", "gp", "qmc", "nsgaii", "nsgaiii"])
def test_every_stock_sampler_is_built_with_and_without_its_defaults(name):
    for config in (stock(name), set_by_user(stock(name), name, [])):
        assert isinstance(SamplerBuilder(config, allowed_targets(None))(seed=1), optuna.samplers.BaseSampler)


def test_the_names_of_the_program_and_of_the_environment_are_allowed(monkeypatch):
    monkeypatch.setenv("JOYFUL_TARGETS", "mine.*,other.Sampler")
    assert {"mine.*", "other.Sampler", "program.*", "optuna.samplers.*"} <= set(allowed_targets(("program.*",)))
    monkeypatch.delenv("JOYFUL_TARGETS")
    assert set(allowed_targets(None)) == {
        "hydra_plugins.hydra_optuna_sweeper.*", "optuna.samplers.*", "optuna.pruners.*",
        "joyful.sweeper.pausing.PromotionPruner",
    }  # fmt: skip


@pytest.mark.parametrize("partial", [{}, {"_partial_": True}])
def test_own_samplers_with_and_without_a_seed(module, partial):
    allowed = ("own_samplers.*",)
    seeded = SamplerBuilder({"_target_": "own_samplers.Seeded", "shift": 2.0, **partial}, allowed)(seed=7)
    assert (seeded.given, seeded.shift) == (7, 2.0)
    assert SamplerBuilder({"_target_": "own_samplers.Fixed", "value": 0.5, **partial}, allowed)(seed=7).value == 0.5


def test_a_worker_needs_no_environment_variable(module, monkeypatch):
    monkeypatch.setenv("JOYFUL_TARGETS", "own_samplers.Fixed")
    sent = cloudpickle.dumps(SamplerBuilder({"_target_": "own_samplers.Fixed"}, allowed_targets(None)))
    monkeypatch.delenv("JOYFUL_TARGETS")
    assert cloudpickle.loads(sent)(seed=1).value == 0.05


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"_target_": "own_samplers.Other"},
            "expected a class of Optuna, got own_samplers.Other, which is not allowed",
        ),
        (
            {"_target_": "os.system", "command": "true"},
            r"os\.system, which is not allowed; .*JOYFUL_TARGETS=os\.system",
        ),
        ({"_target_": "own_samplers.NoSampler"}, "expected a sampler of Optuna, got <own_samplers.NoSampler"),
        ({"_target_": "own_samplers.Seeded", "nope": 1}, "nope"),
        ({"_target_": "optuna.samplers.Nope"}, "Nope"),
        ({"_target_": "optuna.samplers.GridSampler"}, "search_space"),
        ({}, "expected the name of a class, got None"),
    ],
)
def test_other_classes_are_refused_in_one_line(module, config, message):
    with pytest.raises(InputError, match=message) as raised:
        SamplerBuilder(config, allowed_targets(["own_samplers.NoSampler", "own_samplers.Seeded"]))(seed=1)
    assert "\n" not in str(raised.value)


def test_own_pruners(module):
    assert type(build_pruner({"_target_": "own_samplers.Patient"}, ["own_samplers.*"])).__name__ == "Patient"
    assert isinstance(
        build_pruner({"_target_": "optuna.pruners.NopPruner"}, allowed_targets(None)), optuna.pruners.NopPruner
    )
    with pytest.raises(InputError, match="expected a pruner of Optuna"):
        build_pruner({"_target_": "optuna.samplers.RandomSampler"}, allowed_targets(None))
    with pytest.raises(InputError, match=r"hydra.sweeper.pruner._target_: .*not allowed"):
        build_pruner({"_target_": "own_samplers.Patient"}, allowed_targets(None))


@pytest.mark.soak("takes 6 s for each launcher; the tests above build own samplers")
@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        "basic",
        pytest.param("joblib", marks=pytest.mark.soak("takes 12 s; test_a_worker_needs_no_environment_variable")),
    ],
)
def test_a_sweep_with_own_sampler_and_pruner(module, monkeypatch, launcher, fork_server):
    monkeypatch.setenv("JOYFUL_TARGETS", "own_samplers.*")
    monkeypatch.setenv("PYTHONPATH", str(module), prepend=":")
    command = sweeps.command(
        "own", "hydra/sweeper=optuna_pruned", f"hydra/launcher={launcher}", "hydra/sweeper/pruner=none",
        "hydra.sweeper.sampler._target_=own_samplers.Fixed", "+hydra.sweeper.sampler.value=0.07",
        "hydra.sweeper.pruner._target_=own_samplers.Patient", "hydra.sweeper.n_trials=3",
        "weights.encoder_loss_weight=interval(0.01,0.1)", epochs=1,
    )  # fmt: skip
    result = sweeps.run(command, module, fork_server)
    assert result.returncode == 0, result.stderr
    trials = sweeps.study(module / "multirun/own").trials
    assert [trial.params["weights.encoder_loss_weight"] for trial in trials] == pytest.approx([0.07, 0.071, 0.072])
    if launcher == "joblib":
        return
    monkeypatch.delenv("JOYFUL_TARGETS")
    refused = sweeps.run([*command, "sweep_name=refused"], module, fork_server)
    assert refused.returncode == 2
    assert "own_samplers.Fixed, which is not allowed" in refused.stderr
    assert not (module / "multirun/refused").exists()
