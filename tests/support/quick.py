"""Which tests `make test ARGS="-m quick"` runs: those that start no program, inject no faults and are not marked slow or soak.

A test starts programs if it, a function of its file that it calls, or a fixture that it uses mentions a module of
PROGRAMS or a helper in tests/support/ or benchmarks/ that does so. This is read from the source, so files without a quick
test need not be imported.
"""

from __future__ import annotations

import ast
import functools
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

#: Tests that inject faults.
FAULTS = ROOT / "tests/faults"

#: Modules that start other programs: commands, sweeps, database servers, clusters, browsers and notebooks.
PROGRAMS = frozenset({"subprocess", "multiprocessing", "playwright", "papermill", "ray"})


@functools.cache
def quick_tests(path: Path) -> frozenset[str]:
    """Return the names of the quick tests of a file: functions, and methods as Class.method."""
    tree, heavy = _tree(path), _heavy_names(path)
    if path.is_relative_to(FAULTS) or "pytestmark" in heavy or _is_slow(_assigned(tree, "pytestmark")):
        return frozenset()
    tests = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
            tests |= {node.name} if _is_quick(node, heavy) else set()
        elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            methods = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name.startswith("test")]
            rest = [*node.bases, *node.decorator_list, *(item for item in node.body if item not in methods)]
            if not any(_names(item) & heavy for item in rest):
                tests |= {f"{node.name}.{method.name}" for method in methods if _is_quick(method, heavy)}
    return frozenset(tests)


@functools.cache
def starts_programs(path: Path) -> bool:
    """Return whether a file mentions a module of PROGRAMS or a helper that does."""
    return bool(_heavy_imports(path)) or any(_skips_without(node) in PROGRAMS for node in ast.walk(_tree(path)))


def _is_quick(node: ast.FunctionDef, heavy: frozenset[str]) -> bool:
    return not (_names(node) & heavy or any(_is_slow(decorator) for decorator in node.decorator_list))


def _skips_without(node: ast.AST) -> str:
    """Return the package that pytest.importorskip imports here, or an empty string."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "importorskip":
        return str(getattr(node.args[0], "value", "")).split(".")[0]
    return ""


def _is_slow(node: ast.AST | None) -> bool:
    return node is not None and any(isinstance(x, ast.Attribute) and x.attr in ("slow", "soak") for x in ast.walk(node))


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _assigned(tree: ast.Module, name: str) -> ast.AST | None:
    values = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets)
    ]
    return values[-1] if values else None


def _names(node: ast.AST) -> set[str]:
    """Return all names that a definition mentions, including its parameters, which may be fixtures."""
    found = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            found.add(part.id)
        elif isinstance(part, ast.arg):
            found.add(part.arg)
        elif isinstance(part, ast.Constant) and isinstance(part.value, str):
            found.add(part.value)  # getfixturevalue("name") and usefixtures("name")
    return found


def _heavy_imports(path: Path) -> frozenset[str]:
    """Return the names by which a file imports what starts programs."""
    heavy = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            heavy |= {(a.asname or a.name).split(".")[0] for a in node.names if a.name.split(".")[0] in PROGRAMS}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                modules = (node.module, f"{node.module}.{alias.name}")
                if node.module.split(".")[0] in PROGRAMS or any(_is_heavy_helper(name, path) for name in modules):
                    heavy.add(alias.asname or alias.name)
    return frozenset(heavy)


def _is_heavy_helper(module: str, importer: Path) -> bool:
    path = ROOT / f"{module.replace('.', '/')}.py"
    return (
        module.startswith(("tests.", "benchmarks.")) and path != importer and path.is_file() and starts_programs(path)
    )


@functools.cache
def _heavy_names(path: Path) -> frozenset[str]:
    """Return the names in a file that start programs: imports, functions, classes, constants and fixtures."""
    heavy = set(_heavy_imports(path))
    if path.name != "conftest.py":
        conftests = (folder / "conftest.py" for folder in path.parents if folder.is_relative_to(ROOT))
        heavy |= {name for conftest in conftests if conftest.is_file() for name in _heavy_names(conftest)}
    definitions: list[tuple[set[str], ast.AST]] = []
    for node in _tree(path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            definitions.append(({node.name}, node))
        elif isinstance(node, ast.Assign):
            definitions.append(({target.id for target in node.targets if isinstance(target, ast.Name)}, node.value))
    while found := set().union(*(names for names, node in definitions if _names(node) & heavy)) - heavy:
        heavy |= found
    return frozenset(heavy)
