"""What is installed: the wheel's contents, the commands from an empty folder, and what other Hydra programs see of it.

The commands run from the wheel in an environment of its own, from the editable install, and in an environment without torch. The
environments share the installed libraries by links, so nothing is downloaded.
"""

import re
import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest

import joyful
from tests.support.installed import build_wheel, call, environment
from tests.support.runs import TINY
from tests.support.small_files import curves_table

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build_wheel(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    return environment(tmp_path_factory.mktemp("installed"), wheel).with_name("joyful")


@pytest.fixture(scope="module")
def swept(installed, tmp_path_factory):
    """A sweep that the installed program has trained."""
    place = tmp_path_factory.mktemp("swept")
    quick = [item for item in TINY if not item.startswith("training.threads")]
    short = ("training.epochs=2", "training.evaluations_per_epoch=1", "hydra.sweeper.pairs=1", "hydra/launcher=basic")
    done = call(installed, "train", "-m", "+sweeps=first_look", *quick, *short, cwd=place)
    assert done.returncode == 0, done.stderr
    return place / "multirun/first_look"


@pytest.fixture(scope="module")
def without_torch(wheel, tmp_path_factory):
    return environment(tmp_path_factory.mktemp("without_torch"), wheel, ("torch", "safetensors")).with_name("joyful")


def test_the_wheel_holds_the_library_and_its_data(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"joyful", f"joyful_sweeps-{joyful.__version__}.dist-info"}
    assert {
        "joyful/py.typed",
        "joyful/conf/config.yaml",
        "joyful/conf/hydra/sweeper/optuna_pruned.yaml",
        "joyful/sweeps/first_look.yaml",
        "joyful/claim_files/basic_optimization.yaml",
        "joyful/schema/settings.json",
        "joyful/analysis/templates/page.html.j2",
    } <= set(names)
    assert not [name for name in names if re.search(r"test|benchmark|study_|/study/|hostile|\.parquet|\.png", name)]


def test_every_folder_of_the_library_is_packaged():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "joyful").rglob("*.py")}
    assert set(packages) == folders | {"joyful.conf", "joyful.sweeps", "joyful.claim_files"}


def test_every_file_of_conf_sweeps_and_claims_is_in_the_wheel(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    folders = {"conf": "conf", "sweeps": "sweeps", "claim_files": "analysis/claims"}
    for package, folder in folders.items():
        for path in (ROOT / folder).rglob("*.yaml"):
            assert f"joyful/{package}/{path.relative_to(ROOT / folder).as_posix()}" in names


def test_the_commands_work_in_an_empty_folder(installed, swept, tmp_path):
    """The same from the editable install: the commands of the documents, which test_docs.py runs."""

    def run(*arguments):
        done = call(installed, *arguments, cwd=tmp_path)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    assert run("--version") == f"joyful {joyful.__version__}\n"
    assert run().startswith("usage: joyful COMMAND")
    assert "== Groups ==" in run("train", "--help")
    assert "5/5 trials" in run("sweep", "status", swept)
    assert f"{swept}/report/index.html" in run("report", swept)
    (tmp_path / "curves.csv").write_bytes(curves_table())
    assert "next: joyful report imported" in run("import", "csv", "curves.csv", "--out", "imported")
    run("prepare", "data=synthetic", "out=prepared")
    assert (tmp_path / "prepared/meta.json").is_file()


@pytest.mark.soak("takes 10 s; tests/test_architecture.py has the modules that do without torch")
def test_without_torch_all_works_but_training(without_torch, swept, tmp_path):
    probe = call(without_torch.with_name("python"), "-c", "import torch", cwd=tmp_path)
    assert "No module named 'torch'" in probe.stderr
    (tmp_path / "curves.csv").write_bytes(curves_table())
    for command in (
        ("schema", "--markdown"),
        ("sweep", "status", swept),
        ("report", swept, "--out", "report"),
        ("import", "csv", "curves.csv", "--out", "imported"),
    ):
        done = call(without_torch, *command, cwd=tmp_path)
        assert done.returncode == 0, f"{command}: {done.stderr}"
    both = "torch and safetensors"
    for command, missing in (("train", both), ("predict", both), ("export", both), ("prepare", "safetensors")):
        done = call(without_torch, command, "--help", cwd=tmp_path)
        expected = f"joyful: {command} needs {missing}; run pip install 'joyful-sweeps[train]'\n"
        assert (done.returncode, done.stderr) == (2, expected)
    for script in ("run.py", "train.py"):
        done = call(without_torch.with_name("python"), ROOT / script, cwd=tmp_path)
        expected = "joyful: train needs torch and safetensors; run pip install 'joyful-sweeps[train]'\n"
        assert (done.returncode, done.stderr) == (2, expected)


def test_other_hydra_programs_see_the_sweeper_alone(installed, tmp_path):
    """tests/sweeper/test_beside_stock.py compares their help, search path and plugins with those without joyful."""
    (tmp_path / "app.py").write_text(
        "import hydra\n\n\n"
        "@hydra.main(config_path=None, version_base=None)\n"
        "def main(config):\n"
        "    print(config)\n\n\n"
        "main()\n"
    )
    python = installed.with_name("python")
    value = call(python, "app.py", "+sweeps=first_look", cwd=tmp_path)  # a plain value: there is no such group
    assert value.stdout == "{'sweeps': 'first_look'}\n", value.stderr


def test_no_text_installs_the_package_of_somebody_else():
    """`joyful` is another project on PyPI; ours is joyful-sweeps."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no git checkout: the files to look through are those that git knows")
    old = re.compile(r"pip3? install [^\n]*?(?<![\w/.-])joyful(?!-sweeps)\b(?!\.)")
    assert old.search("pip install joyful")
    assert old.search("pip install 'joyful[train]'")
    assert not old.search("pip install 'joyful-sweeps[train]'")
    found = []
    for name in listed.stdout.split("\0"):
        path = ROOT / name
        if name and path.is_file() and path != Path(__file__):
            try:
                found += [f"{name}: {match[0]}" for match in old.finditer(path.read_text(encoding="utf-8"))]
            except UnicodeDecodeError:
                continue  # a picture or an archive
    assert found == []


def test_the_extras_that_messages_name_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "joyful").rglob("*.py")]
    texts += [path.read_text(encoding="utf-8") for path in (*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md"))]
    named = {
        name for text in texts for group in re.findall(r"joyful-sweeps\[([\w,]+)\]", text) for name in group.split(",")
    }
    assert "train" in named
    assert named <= extras.keys()
