"""Contracts of the private names of torch, Hydra and Optuna in joyful.compat, and that no other module uses such names."""

import ast
import re
import subprocess
import sys
import types
from importlib import import_module
from pathlib import Path

import pytest
import sqlalchemy
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from joyful import compat
from joyful.sweeper.database import open_engine, open_storage, storage_url

ROOT = Path(__file__).resolve().parents[1]

PACKAGES = ("torch", "hydra", "hydra_plugins", "optuna")

#: A dotted name of one of these packages with a private part.
PRIVATE = re.compile(rf"\b({'|'.join(PACKAGES)})\.(\w+\.)*_[a-z]\w*")

#: Private attributes of objects of the standard library that are public by their documentation.
DOCUMENTED = {"_exit", "_fields", "_replace", "_asdict", "_make"}


def private_names(source: str) -> list[str]:
    """The private names of PACKAGES in a module, outside its docstrings and comments.

    An attribute ._name of an object counts if the module does not define this name itself.
    """
    tree = ast.parse(source)
    defined = {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    roots, found = {}, []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [(alias.name, alias.asname) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [(f"{node.module}.{alias.name}", alias.asname or alias.name) for alias in node.names]
        else:
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id in ("self", "cls")
            ):
                defined.add(node.attr)
            if isinstance(node, ast.AnnAssign | ast.Assign):
                targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
                defined |= {target.id for target in targets if isinstance(target, ast.Name)}
            continue
        for name, short in names:
            if name.split(".")[0] in PACKAGES:
                roots[short or name.split(".")[0]] = name if short else name.split(".")[0]
                found += [name] if PRIVATE.search(name) else []
    documents = {
        ast.get_docstring(node, clean=False)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            chain = ast.unparse(node)
            root, _, rest = chain.partition(".")
            full = f"{roots[root]}.{rest}" if root in roots else ""
            own = node.attr in defined or node.attr in DOCUMENTED or not re.match(r"_[a-z]", node.attr)
            if PRIVATE.search(full) or full.startswith("torch.ops.") or not (own or node.attr.endswith("_")):
                found.append(full or chain)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in documents:
            found += [match[0] for match in PRIVATE.finditer(node.value)]
    return found


@pytest.mark.parametrize(
    "path", sorted((ROOT / "joyful").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT / "joyful"))
)
def test_only_compat_uses_private_names_of_other_packages(path):
    found = private_names(path.read_text())
    if path == ROOT / "joyful/compat.py":
        assert len(found) >= 7
    else:
        assert not found, f"{path}: move {', '.join(found)} to joyful/compat.py, with a contract test in this file"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import torch\ntorch._foreach_norm([])", "torch._foreach_norm"),
        ("from torch import _foreach_norm", "torch._foreach_norm"),
        ("import torch\ntorch.ops.aten.relu(x)", "torch.ops.aten.relu"),
        ("from hydra._internal.callbacks import Callbacks", "hydra._internal.callbacks.Callbacks"),
        ("def f():\n    from hydra_plugins.a._impl import b", "hydra_plugins.a._impl.b"),
        ("import optuna.storages._rdb.models as m", "optuna.storages._rdb.models"),
        ("from optuna import storages\nstorages._rdb", "optuna.storages._rdb"),
        ("name = 'hydra._internal.core_plugins'", "hydra._internal"),
        ("def f(study):\n    return study._study_id", "study._study_id"),
    ],
)
def test_a_private_name_is_found(source, name):
    assert name in private_names(source)


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.nn.functional.relu(x).relu_()",
        "'''Uses no torch._foreach_norm.'''",
        "class A:\n    def f(self, other):\n        self._x = 1\n        return other._x",
        "config.hydra.sweeper._target_",
        "import os\nos._exit(1)",
    ],
)
def test_other_names_are_not_reported(source):
    assert private_names(source) == []


def test_softmax_backward_agrees_with_autograd():
    x, gradient = torch.randn(2, 3, 4, requires_grad=True), torch.randn(2, 3, 4)
    result = x.softmax(-1)
    (expected,) = torch.autograd.grad(result, x, gradient)
    torch.testing.assert_close(compat.softmax_backward(gradient, result.detach()), expected)


def test_relu_backward_masks_where_the_result_is_not_positive():
    result = torch.tensor([0.0, 2.0, -1.0, 1e-30])
    assert compat.relu_backward(torch.tensor([1.0, 2.0, 3.0, 4.0]), result).tolist() == [0.0, 2.0, 0.0, 4.0]


@pytest.mark.parametrize("name", ["basic_launcher.BasicLauncher", "basic_sweeper.BasicSweeper"])
def test_hydras_own_plugins_are_in_the_allowed_modules(name):
    module, _, plugin = f"{compat.HYDRA_PLUGINS.removesuffix('*')}{name}".rpartition(".")
    assert isinstance(getattr(import_module(module), plugin), type)


def test_ray_is_started_with_the_configuration(monkeypatch):
    """Ray itself is not installed everywhere, so its launcher's module is replaced; test_ray.py uses the real one."""
    started = []
    util = types.ModuleType("hydra_plugins.hydra_ray_launcher._launcher_util")
    util.start_ray = started.append
    monkeypatch.setitem(sys.modules, "hydra_plugins.hydra_ray_launcher", types.ModuleType("hydra_ray_launcher"))
    monkeypatch.setitem(sys.modules, util.__name__, util)
    compat.start_ray({"num_cpus": 1})
    assert started == [{"num_cpus": 1}]


def test_search_spaces_are_read_into_distributions_fixed_values_and_the_rest():
    parsed = compat.parse_search_space(
        ["a=interval(0.1,1.0)", "b=choice(x,y)", "c=range(1,4)", "d=tag(log,interval(1,8))", "e=5", "~f", "+g=h"]
    )
    assert parsed.space == {
        "a": FloatDistribution(0.1, 1.0),
        "b": CategoricalDistribution(("x", "y")),
        "c": IntDistribution(1, 3),
        "d": FloatDistribution(1.0, 8.0, log=True),
    }
    assert not any(parsed.raw.values())
    assert parsed.fixed == {"e": "5", "+g": "h"}
    assert parsed.rest == ["~f"]


def test_choices_that_are_text_of_an_override_are_told_from_strings():
    parsed = compat.parse_search_space(["a=choice('1e-3',x)", "b=choice([1,'2'],{c:d})", "e='1e-3',f,null"])
    assert parsed.space == {
        "a": CategoricalDistribution(("1e-3", "x")),
        "b": CategoricalDistribution(("[1,'2']", "{c:d}")),
        "e": CategoricalDistribution(("'1e-3'", "f", "null")),
    }
    assert parsed.raw == {"a": frozenset(), "b": {"[1,'2']", "{c:d}"}, "e": {"'1e-3'", "null"}}
    with pytest.raises(ValueError, match=r"expected different choices, got \[1,2\] twice"):
        compat.parse_search_space(["a=choice('[1,2]',[1,2])"])


def test_a_shuffled_choice_keeps_its_order():
    for text in ("shuffle(choice(1,2,3,4,5,6,7,8))", "shuffle(1,2,3,4,5,6,7,8)"):
        assert compat.parse_search_space([f"a={text}"]).space["a"].choices == (1, 2, 3, 4, 5, 6, 7, 8)
    assert compat.parse_search_space(["a=shuffle(range(0,9))"]).space["a"] == IntDistribution(0, 8)


def test_grid_choices_of_a_distribution():
    assert compat.grid_choices(IntDistribution(1, 5, step=2)) == [1, 3, 5]
    assert compat.grid_choices(CategoricalDistribution(("x", "y"))) == ["x", "y"]
    assert compat.grid_choices(FloatDistribution(0.0, 1.0, step=0.5)) == [0.0, 0.5, 1.0]
    with pytest.raises(ValueError, match="discrete"):
        compat.grid_choices(FloatDistribution(0.0, 1.0))


def test_optunas_tables_have_the_columns_that_are_read_and_written(tmp_path):
    url = storage_url(None, tmp_path)
    open_storage(url)
    expected = {
        "TrialModel": {"trial_id", "number", "study_id", "state", "datetime_start", "datetime_complete"},
        "TrialUserAttributeModel": {"trial_id", "key", "value_json"},
        "TrialSystemAttributeModel": {"trial_id", "key", "value_json"},
        "StudyModel": {"study_id", "study_name"},
        "TrialValueModel": {"trial_id", "objective", "value", "value_type"},
        "TrialIntermediateValueModel": {"trial_intermediate_value_id", "trial_id", "step", "intermediate_value"},
    }
    inspector = sqlalchemy.inspect(open_engine(url))
    for name, columns in expected.items():
        model = getattr(compat.optuna_models(), name)
        assert columns <= {column["name"] for column in inspector.get_columns(model.__tablename__)}
        assert all(hasattr(model, column) for column in columns)


STEPS_OF_OPTIMIZERS = """\
import sys
import tempfile
from pathlib import Path

import torch
from joyful.config import OptimizerSettings
from joyful.training.experiment import train_run
from joyful.training.optimizers import OPTIMIZERS, build_optimizer, load_state_tensors, state_tensors
from tests.support.runs import tiny_request

def numbers():
    found = []
    for name in OPTIMIZERS:
        settings = OptimizerSettings(name=name, learning_rate=0.1, weight_decay=0.01, momentum=0.9, warmup_steps=0)
        weight = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
        optimizer = build_optimizer(settings, [weight])
        for _ in range(3):
            optimizer.zero_grad()
            weight.pow(2).sum().backward()
            optimizer.step()
            state = state_tensors(optimizer)
            optimizer = build_optimizer(settings, [weight])
            load_state_tensors(optimizer, settings, state)
        found += [weight.tolist(), {key: value.tolist() for key, value in state.items()}]
        assert weight.requires_grad and weight.is_leaf
    return found

with tempfile.TemporaryDirectory() as folder:
    train_run(tiny_request(Path(folder, "run"), "training.epochs=1", "training.moving_average=0.9"))
assert torch.are_deterministic_algorithms_enabled()
first = numbers()
assert not {"torch._dynamo", "torch._inductor"} & set(sys.modules)
import torch._dynamo
assert numbers() == first
marked = torch.optim.Optimizer.zero_grad.__wrapped__.__dynamo_disable
assert marked.__module__.startswith("torch."), marked
import torch._inductor.config
assert torch._inductor.config.deterministic
print(len(first))
"""


@pytest.mark.slow
def test_optimizers_give_the_same_without_torchs_compiler_and_do_not_import_it():
    done = subprocess.run([sys.executable, "-c", STEPS_OF_OPTIMIZERS], capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["8"]), done.stderr
