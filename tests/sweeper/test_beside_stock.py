"""What stock Hydra and its Optuna sweeper do is the same with joyful installed as without.

Two virtual environments have the same libraries, and one of them has joyful too. The suites of Hydra's wheel, commands
of the stock Optuna sweeper, and what programs say about themselves run in both, and all that they print and write is
compared. `hydra/sweeper=optuna_pruned` and the group `hydra/sweeper/pruner` are the only additions.
"""

import functools
import json
import re
import shlex
import shutil
import sys
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor

import optuna
import pytest

from tests.support.fork_server import ForkServer
from tests.support.installed import ROOT, build_wheel, call, environment, surroundings

pytestmark = pytest.mark.slow

FIXTURES = ROOT / "tests/fixtures/hydra"

#: The two environments.
NAMES = ("with", "without")

#: Hydra plugins of joyful.
PLUGINS = {
    "joyful.runtime.config_source.OwnSearchPath",
    "joyful.runtime.config_source.PackageSource",
    "joyful.sweeper.plugin.OptunaPrunedSweeper",
}

#: Resolvers of joyful: the folders of runs and sweeps.
RESOLVERS = {
    "joyful_run_folder", "joyful_sweep_folder", "joyful_hydra_folder", "joyful_objectives", "joyful_directions",
}  # fmt: skip

#: Beginning of the commands of the stock Optuna sweeper.
OPTUNA = "-m hydra/sweeper=optuna hydra.sweep.dir=out hydra.sweeper.n_trials=2 hydra.sweeper.n_jobs=1"

#: The same with a seed.
SEEDED = f"{OPTUNA} hydra.sweeper.sampler.seed=7"

#: Options of a search with two objectives.
TWO = "returns=two 'hydra.sweeper.direction=[minimize,maximize]'"

#: Options of a genetic search of more than one generation.
GENERATIONS = "hydra.sweeper.n_trials=5 hydra.sweeper.sampler.population_size=2"

#: Options of a study in a database that two commands share.
SHARED = "hydra.sweeper.storage=sqlite:///../shared.db hydra.sweeper.study_name=shared"

#: Commands of the stock Optuna sweeper, with the number of jobs that they finish or the end of what they say.
COMMANDS = {
    # every sampler
    "tpe": (f"{SEEDED} hydra/sweeper/sampler=tpe x=interval(-1,1) n=range(0,5) kind=choice(a,bb)", 2),
    "tpe_multivariate": (f"{SEEDED} hydra.sweeper.sampler.multivariate=true x=interval(-1,1) y=interval(0,1)", 2),
    "tpe_after_startup": (
        f"{SEEDED} hydra.sweeper.n_trials=6 hydra.sweeper.sampler.n_startup_trials=3 x=interval(-1,1) kind=a,bb", 6,
    ),
    "random": (f"{SEEDED} hydra/sweeper/sampler=random x=interval(-1,1) n=interval(1,9)", 2),
    "grid": (f"{SEEDED} hydra/sweeper/sampler=grid hydra.sweeper.n_trials=9 n=range(0,2) kind=choice(a,bb)", 4),
    "cmaes": (f"{SEEDED} hydra/sweeper/sampler=cmaes hydra.sweeper.n_trials=4 x=interval(-1,1) y=interval(0,1)", 4),
    "nsgaii": (f"{SEEDED} hydra/sweeper/sampler=nsgaii {TWO} {GENERATIONS} x=interval(-1,1)", 5),
    "nsgaiii": (f"{SEEDED} hydra/sweeper/sampler=nsgaiii {TWO} {GENERATIONS} x=interval(-1,1)", 5),
    "gp": (
        f"{SEEDED} hydra/sweeper/sampler=gp hydra.sweeper.sampler.n_startup_trials=2 hydra.sweeper.n_trials=4 x=interval(-1,1)", 4,
    ),
    "qmc": (f"{SEEDED} hydra/sweeper/sampler=qmc hydra.sweeper.sampler.scramble=true x=interval(-1,1)", 2),
    "motpe": (f"{OPTUNA} hydra/sweeper/sampler=motpe x=interval(-1,1)", "'motpe' sampler was removed in Optuna 4.0"),
    # search spaces
    "log": (f"{SEEDED} x=tag(log,interval(0.001,1))", 2),
    "log_integers": (f"{SEEDED} n=tag(log,interval(1,64))", 2),
    "float_steps": (f"{SEEDED} x=range(0,1,step=0.25)", 2),
    "comma": (f"{SEEDED} kind=a,bb,ccc", 2),
    "groups": (f"{SEEDED} model=choice(small,large) x=interval(-1,1)", 2),
    "shuffled": (f"{SEEDED} hydra/sweeper/sampler=grid kind=sort(bb,a)", 2),
    "custom": (f"{SEEDED} hydra.sweeper.custom_search_space=spaces.dependent x=interval(0.1,1)", 2),
    "in_file": ("--config-name searched -m hydra.sweep.dir=out", 2),
    "in_file_and_command": ("--config-name searched -m hydra.sweep.dir=out n=interval(1,5) kind=bb", 2),
    "params": (f"{SEEDED} '+hydra.sweeper.params={{x:\"interval(-1,1)\"}}'", 2),
    # directions, studies, workers and failures
    "maximize": (f"{SEEDED} hydra.sweeper.direction=maximize x=interval(-1,1)", 2),
    "two_directions": (f"{SEEDED} {TWO} x=interval(-1,1) kind=a,bb", 2),
    "study": (f"{SEEDED} {SHARED} x=interval(-1,1)", 2),
    "study_continued": (f"{SEEDED} {SHARED} hydra.sweeper.n_trials=2 x=interval(-1,1)", 2),
    "batches": (f"{SEEDED} hydra.sweeper.n_jobs=2 x=interval(-1,1)", 2),
    "joblib": (f"{SEEDED} hydra/launcher=joblib hydra.launcher.n_jobs=2 hydra.sweeper.n_jobs=2 x=interval(-1,1)", 2),
    "some_fail": (f"{SEEDED} hydra.sweeper.max_failure_rate=1 fail_above=0.2 hydra.sweeper.n_trials=4 x=interval(-1,1)", 2),
    "too_many_fail": (f"{SEEDED} fail_above=-1 x=interval(-1,1)", "is above -1"),
    "fixed": (f"{SEEDED} kind=bb +extra=3 ~scale hydra.sweep.subdir=job_${{hydra.job.num}} x=interval(-1,1)", 2),
    # errors
    "glob": (f"{SEEDED} model=glob(*)", "assert isinstance(value, ChoiceSweep)"),
    "continuous_grid": (f"{SEEDED} hydra/sweeper/sampler=grid x=interval(0,1)", "only supports discrete distributions."),
    "zero_step": (f"{SEEDED} x=range(0,1,step=0)", "requires a nonzero step"),
    "empty_range": (f"{SEEDED} n=range(3,3)", "must contain at least one value."),
    "no_such_parameter": (f"{SEEDED} z=interval(0,1)", "Could not override 'z'."),
    "no_such_setting": (f"{SEEDED} hydra.sweeper.pruner=median x=interval(0,1)", "Could not override 'hydra.sweeper.pruner'."),
    "no_such_sampler": (
        f"{OPTUNA} hydra/sweeper/sampler=annealing x=interval(0,1)", "Could not find 'hydra/sweeper/sampler/annealing'",
    ),
    "no_such_sweeper": ("-m hydra/sweeper=optimal x=interval(0,1)", "Could not find 'hydra/sweeper/optimal'"),
    "no_such_group": (f"{SEEDED} model=choice(small,huge)", "Could not find 'model/huge'"),
    "number_of_objectives": (f"{SEEDED} 'hydra.sweeper.direction=[minimize,maximize]' x=interval(0,1)", 2),
    "no_number": (f"{SEEDED} returns=text x=interval(0,1)", "No trials are completed yet."),
    "overlapping": (
        f"{SEEDED} n=3 hydra.sweeper.custom_search_space=spaces.overlapping x=interval(0,1)", "Overlapping parameters: ['n']",
    ),
    # the basic sweeper and single runs
    "basic": ("-m hydra.sweep.dir=out kind=a,bb model=glob(*)", 4),
    "single": ("hydra/sweeper=optuna hydra.run.dir=out x=0.5", 1),
    "chdir": ("-m hydra.sweep.dir=out hydra.job.chdir=true x=range(0,2)", 2),
}  # fmt: skip

#: Commands that `make test` runs: samplers with and without a seed of their own, each kind of space, failures and errors.
QUICK = {
    "tpe", "grid", "cmaes", "nsgaii", "groups", "custom", "in_file_and_command", "study", "study_continued", "joblib", "some_fail",
    "zero_step", "no_such_setting", "no_such_sampler", "basic",
}  # fmt: skip
LONG = pytest.mark.soak("one of 50 commands; make test runs one of each kind")

#: What programs say about themselves: arguments, and a part of the answer.
VIEWS = {
    "help": ("--help", "== Configuration groups =="),
    "hydra_help": ("--hydra-help", "hydra/sweeper"),
    "searchpath": ("--info searchpath", "pkg://hydra.conf"),
    "defaults": ("--info defaults", "hydra/sweeper/basic"),
    "defaults_optuna": ("--info defaults hydra/sweeper=optuna", "hydra/sweeper/sampler/tpe"),
    "defaults_tree": ("--info defaults-tree", "hydra/launcher"),
    "config": ("--info config", "width: 1"),
    "cfg_hydra": ("--cfg hydra", "_target_: hydra._internal.core_plugins.basic_sweeper.BasicSweeper"),
    "cfg_hydra_optuna": ("--cfg hydra hydra/sweeper=optuna hydra/sweeper/sampler=qmc", "qmc_type: sobol"),
    "cfg_hydra_resolved": ("--cfg hydra --resolve --package hydra.sweeper hydra/sweeper=optuna", "n_trials: 20"),
    "cfg_job": ("--cfg job", "kind: a"),
    "cfg_all": ("--cfg all", "hydra:"),
}

#: Lines that shells complete, and a suggestion.
LINES = {
    "": "model=",
    "hydra/": "hydra/sweeper",
    "hydra/sweeper": "hydra/sweeper",
    "hydra/sweeper/": "hydra/sweeper/sampler=",
    "hydra/sweeper=": "hydra/sweeper=optuna",
    "hydra/sweeper/sampler=": "hydra/sweeper/sampler=grid",
    "hydra/sweeper=optuna hydra.sweeper.": "hydra.sweeper.n_trials=",
    "hydra/sweeper=optuna hydra.sweeper.sampler.": "hydra.sweeper.sampler.seed=",
    "hydra/launcher=": "hydra/launcher=joblib",
    "model=": "model=large",
}

#: What shells may suggest in addition.
ADDED_WORDS = ("hydra/sweeper=optuna_pruned", "hydra/sweeper/pruner=")

#: Prints what Hydra knows in an environment.
PROBE = """
import importlib.util, json, sys
from hydra import initialize
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from omegaconf.basecontainer import BaseContainer

plugins = sorted(f"{plugin.__module__}.{plugin.__qualname__}" for plugin in Plugins.instance().discover())
imported = sorted({name.split(".")[0] for name in sys.modules})
with initialize(config_path="conf"):
    loader, options = GlobalHydra.instance().config_loader(), {}

    def walk(group):
        options[group] = loader.get_group_options(group, ObjectType.CONFIG)
        for inner in loader.get_group_options(group, ObjectType.GROUP):
            walk(f"{group}/{inner}".lstrip("/"))

    walk("")
    searched = [[element.provider, element.path] for element in loader.get_search_path().get_path()]
resolvers = sorted(BaseContainer._resolvers)
found = importlib.util.find_spec("joyful") is not None
print(json.dumps({
    "joyful": found, "plugins": plugins, "imported": imported, "options": options, "searched": searched, "resolvers": resolvers,
}))
"""


def without_additions(text):
    """Remove what joyful may add: `optuna_pruned` from lists of the group `hydra/sweeper`, and the group of its pruners."""
    text = re.sub(r"(?m)^hydra/sweeper/pruner: .*\n", "", text)
    text = re.sub(r"(?m)^(hydra/sweeper: .*), optuna_pruned$", r"\1", text)
    return re.sub(r"(?m)^(Available options in 'hydra/sweeper':(?:\n\t\w+)*)\n\toptuna_pruned$", r"\1", text)


def test_the_additions_are_the_only_ones_that_are_removed():
    listed = "hydra/launcher: basic\nhydra/sweeper: basic, optuna\nhydra/sweeper/sampler: tpe\n"
    more = listed.replace("optuna\n", "optuna, optuna_pruned\nhydra/sweeper/pruner: asha, median\n")
    options = "Available options in 'hydra/sweeper':\n\tbasic\n\toptuna\n"
    assert without_additions(more) == listed
    assert without_additions(f"{options}\toptuna_pruned\nConfig search path:\n") == f"{options}Config search path:\n"
    for other in (
        "hydra/sweeper/sampler: tpe, optuna_pruned\n",
        "hydra/sweeper: basic, optuna, optuna_other\n",
        "hydra/launcher: basic, optuna_pruned\n",
        "pruner: asha\n",
        "Available options in 'hydra/sweeper/sampler':\n\tgrid\n\toptuna_pruned\n",
    ):
        assert without_additions(other) == other


@pytest.fixture(scope="module")
def pythons(tmp_path_factory):
    """The interpreters of the two environments."""
    wheel = build_wheel(tmp_path_factory.mktemp("source"))
    wheels = {"with": wheel, "without": None}
    return {name: environment(tmp_path_factory.mktemp("environment"), wheels[name]) for name in NAMES}


@pytest.fixture(scope="module")
def places(pythons, tmp_path_factory):
    """A folder with the program for each environment. The paths have one length, because some answers are tables."""
    folders = {name: tmp_path_factory.mktemp("program") for name in NAMES}
    for folder in folders.values():
        shutil.copytree(FIXTURES / "program", folder, dirs_exist_ok=True)
    return folders


@pytest.fixture(scope="module")
def servers(pythons):
    """A fork server in each environment."""
    options = {"libraries": ("hydra", "optuna"), "environment": surroundings()}
    with (
        ForkServer(python=pythons["with"], **options) as one,
        ForkServer(python=pythons["without"], **options) as other,
    ):
        yield {"with": one, "without": other}


def in_both(function):
    """Call a function with the name of each environment, at the same time, and return the results by name."""
    with ThreadPoolExecutor(len(NAMES)) as pool:
        return dict(zip(NAMES, pool.map(function, NAMES), strict=True))


@pytest.fixture(scope="module")
def plain(pythons, places):
    """A function that removes from a text what differs between any two runs: folders, times and generated names."""

    def clean(name, text):
        for folder in (places[name], pythons[name].parents[1]):
            text = text.replace(str(folder), "FOLDER")
        text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}", "TIME", text)
        return re.sub(r"no-name-[0-9a-f-]{36}", "no-name", text)

    return clean


@pytest.fixture(scope="module")
def outcomes(servers, places, plain):
    """A function that runs a command once, and returns for each environment: exit code, lines of output, files written."""

    def run(name, command):
        folder = places[name] / command
        folder.mkdir()
        done = servers[name].run(["../program.py", *shlex.split(COMMANDS[command][0])], folder, surroundings())
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        return {
            "code": done.returncode,
            "stdout": sorted(plain(name, done.stdout).splitlines()),  # in any order: joblib's workers share it
            "stderr": sorted(without_additions(plain(name, done.stderr)).splitlines()),
            "files": {str(path.relative_to(folder)): plain(name, path.read_text()) for path in files},
        }

    return functools.cache(lambda command: in_both(lambda name: run(name, command)))


@pytest.mark.parametrize("command", [name if name in QUICK else pytest.param(name, marks=LONG) for name in COMMANDS])
def test_a_command_of_the_stock_sweeper_gives_the_same(command, outcomes):
    expected = COMMANDS[command][1]
    outcome = outcomes(command)
    code, stdout, stderr, files = outcome["without"].values()
    if isinstance(expected, str):
        assert code == 1, stdout
        assert expected in "\n".join(stderr)
    else:
        assert code == 0, stderr
        assert sum(name.endswith("value.txt") for name in files) == expected
        assert sum(name.endswith(".hydra/overrides.yaml") for name in files) >= expected
    assert outcome["with"] == outcome["without"]


def test_the_trials_of_a_study_are_the_same(outcomes, places):
    outcomes("study")
    outcomes("study_continued")

    def trials(name):
        study = optuna.load_study(study_name="shared", storage=f"sqlite:///{places[name]}/shared.db")
        return [(trial.number, trial.state, trial.params, trial.values, trial.user_attrs) for trial in study.trials]

    assert len(trials("without")) == 4
    assert trials("with") == trials("without")


def answer(name, arguments, servers, places, plain, line=None):
    """Return the exit code and what the program says in an environment."""
    variables = surroundings() if line is None else {**surroundings(), "COMP_LINE": f"python program.py {line}"}
    done = servers[name].run(arguments, places[name], variables)
    return plain(name, f"{done.returncode}\n{done.stdout}{done.stderr}")


@pytest.mark.parametrize("view", VIEWS)
def test_a_program_says_the_same_about_itself(view, servers, places, plain):
    arguments, part = VIEWS[view]
    said = in_both(lambda name: answer(name, ["program.py", *shlex.split(arguments)], servers, places, plain))
    assert said["without"].startswith("0\n")
    assert part in said["without"]
    assert without_additions(said["with"]) == said["without"]


@pytest.mark.parametrize("shell", ["bash", pytest.param("fish", marks=pytest.mark.soak("another shell"))])
def test_tab_completion_is_the_same(shell, servers, places, plain):
    for line, part in LINES.items():
        query = ["program.py", "-sc", f"query={shell}"]
        said = in_both(lambda name, line=line, query=query: answer(name, query, servers, places, plain, line))
        words = {name: text.split() for name, text in said.items()}
        assert part in words["without"], line
        assert [word for word in words["with"] if word not in ADDED_WORDS] == words["without"], line


@pytest.mark.soak("takes 5 s; the views of a program above are compared in make test")
@pytest.mark.parametrize("module", ["hydra.test_utils.example_app", "hydra.test_utils.completion"])
@pytest.mark.parametrize("arguments", ["--help", "--hydra-help", "--info searchpath", "--info defaults", "--cfg all"])
def test_the_programs_of_the_wheel_say_the_same(module, arguments, servers, places, plain):
    said = in_both(lambda name: answer(name, ["-m", module, *arguments.split()], servers, places, plain))
    code = int("example_app" in module and "help" in arguments)  # it fails: there is a file .yml in its folder
    assert said["without"].startswith(f"{code}\n")
    assert without_additions(said["with"]) == said["without"]


def test_hydra_finds_the_same_but_for_the_plugins_and_their_sweeper(pythons, places, plain):
    def ask(name):
        (places[name] / "probe.py").write_text(PROBE)
        done = call(pythons[name], "probe.py", cwd=places[name])
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(plain(name, done.stdout))

    found = in_both(ask)
    assert (found["without"]["joyful"], found["with"]["joyful"]) == (False, True)
    assert set(found["with"]["plugins"]) - set(found["without"]["plugins"]) == PLUGINS
    assert set(found["without"]["plugins"]) < set(found["with"]["plugins"])
    libraries = {name: set(found[name]["imported"]) - sys.stdlib_module_names for name in ("with", "without")}
    assert libraries["with"] == libraries["without"] | {"joyful"}  # and no other library
    assert set(found["with"]["resolvers"]) == set(found["without"]["resolvers"]) | RESOLVERS
    assert found["with"]["searched"] == found["without"]["searched"]
    options = found["with"]["options"]
    options.pop("hydra/sweeper/pruner", None)
    options["hydra/sweeper"] = [option for option in options["hydra/sweeper"] if option != "optuna_pruned"]
    assert options == found["without"]["options"]
    assert {"tpe", "grid"} < set(options["hydra/sweeper/sampler"])


@pytest.mark.soak("takes 4 minutes; the commands of the stock sweeper above are compared in make test")
def test_the_suites_of_the_wheel_pass_with_joyful_as_without(pythons, tmp_path):
    def run(name):
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(FIXTURES / "suites.py", folder)
        done = call(
            pythons[name], "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short",
            "--junitxml=outcomes.xml", "suites.py", cwd=folder, timeout=3600,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        cases = ET.parse(folder / "outcomes.xml").iter("testcase")
        return {f"{case.get('classname')}::{case.get('name')}": [part.tag for part in case] for case in cases}

    outcomes = in_both(run)
    assert outcomes["with"] == outcomes["without"]
    assert sum(parts == [] for parts in outcomes["without"].values()) >= 200
