"""`make test ARGS="-m quick"` runs tests of every package, and none that starts a program."""

import pytest

from tests.support.quick import ROOT, quick_tests

FILES = sorted((ROOT / "tests").rglob("test_*.py"))


def test_every_package_has_quick_tests():
    packages = {path.parent.name for path in (ROOT / "joyful").glob("*/__init__.py")}
    assert packages >= {"analysis", "data", "losses", "model", "results", "runtime", "sweeper", "training"}
    number = {
        name: sum(len(quick_tests(p)) for p in FILES if (ROOT / "tests" / name) in p.parents) for name in packages
    }
    assert {name: count for name, count in number.items() if count < 6} == {}


@pytest.mark.parametrize(
    "name",
    ["sweeper/test_sweep.py", "sweeper/test_postgresql.py", "sweeper/test_ray.py", "sweeper/test_submitit.py",
     "analysis/test_browser.py", "sweeper/test_dashboard.py", "faults/test_kills.py", "test_wheel.py"],
)  # fmt: skip
def test_sweeps_databases_clusters_and_browsers_are_not_quick(name):
    assert quick_tests(ROOT / "tests" / name) == frozenset()


def test_most_tests_of_a_file_with_some_programs_are_quick(tmp_path):
    """The test that starts the program is found through a function, a constant, a fixture or a class."""
    path = tmp_path / "test_mixed.py"
    path.write_text(
        "import subprocess as s\nfrom tests.support import sweeps, runs\nimport pytest\n"
        "def call(): s.run('true')\n"
        "def twice(): call()\n"
        "@pytest.fixture\ndef folder(): return sweeps.run\n"
        "ROOT = sweeps.RUN.parent\n"
        "def test_plain(): runs.tiny_settings()\n"
        "def test_function(): twice()\n"
        "def test_fixture(folder): pass\n"
        "@pytest.mark.usefixtures('folder')\ndef test_named_fixture(): pass\n"
        "def test_constant(): ROOT\n"
        "@pytest.mark.slow\ndef test_slow(): pass\n"
        "class TestClass:\n    def test_plain(self): pass\n    def test_call(self): call()\n"
    )
    assert quick_tests(path) == {"test_plain", "TestClass.test_plain"}
