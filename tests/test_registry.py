"""Registries, and members that other packages add."""

import subprocess
import sys

import pytest

from joyful.messages import expected_one_of
from joyful.records import InputError
from joyful.registry import Registry


def shapes() -> Registry[str]:
    registry = Registry[str]("shape")
    registry.register("square", "four corners")("a square")
    registry.register("circle", "round")("a circle")
    return registry


def test_members_are_sorted_and_have_summaries():
    registry = shapes()
    assert list(registry) == list(registry.summaries()) == ["circle", "square"]
    assert dict(registry) == {"circle": "a circle", "square": "a square"}
    assert registry.summaries() == {"circle": "round", "square": "four corners"}
    assert ("circle" in registry, "cube" in registry, len(registry)) == (True, False, 2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sqare", "shape: expected one of circle, square, got 'sqare'; did you mean square?"),
        ("xyz", "shape: expected one of circle, square, got 'xyz'"),
        (3, "shape: expected one of circle, square, got 3"),
        ([], r"shape: expected one of circle, square, got \[\]"),
    ],
)
def test_an_unknown_name_lists_the_names_and_the_nearest(name, message):
    with pytest.raises(InputError, match=message.replace("?", r"\?") + "$"):
        shapes()[name]


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="shape: the name 'circle' is registered twice"):
        shapes().register("circle", "another")("another circle")


def test_expected_one_of_names_the_nearest():
    assert expected_one_of("a", ("abc",)) == "expected one of abc, got 'a'"


def plugin(folder, source, names="my_shapes"):
    (folder / "my_shapes.py").write_text(source)
    code = (
        "from joyful.registry import Registry, InputError\n"
        "import joyful.registry as r\n"
        "r.SHAPES = Registry('shape')\n"
        "try: print(dict(r.SHAPES))\n"
        "except InputError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(folder), "JOYFUL_PLUGINS": names}, capture_output=True, text=True, check=True, cwd=folder,
    )  # fmt: skip
    return done.stdout.strip()


def test_modules_of_the_environment_variable_add_members(tmp_path):
    source = "import joyful.registry as r\nlen(r.SHAPES)\nr.SHAPES.register('cube', 'six faces')('a cube')\n"
    assert plugin(tmp_path, source) == "{'cube': 'a cube'}"
    assert plugin(tmp_path, source, " my_shapes , ") == "{'cube': 'a cube'}"


def test_a_module_that_cannot_be_imported_is_named(tmp_path):
    assert plugin(tmp_path, "1 / 0") == ("JOYFUL_PLUGINS: the module my_shapes cannot be imported (division by zero)")
    assert plugin(tmp_path, "", "nowhere") == (
        "JOYFUL_PLUGINS: the module nowhere cannot be imported (No module named 'nowhere')"
    )


def test_create_passes_the_settings_that_a_member_takes():
    registry = Registry("shape")

    @registry.register("box", "four corners", depth=(float, 1.0))
    class Box:
        def __init__(self, width, depth=2.0, colour="red"):
            self.all = (width, depth, colour)

    assert registry.create("box", {"depth": 3.0, "radius": 9}, width=1).all == (1, 3.0, "red")
    assert registry.settings_of("box") == {"depth": (float, 1.0)}
    with pytest.raises(InputError, match="expected one of box, got 'bix'"):
        registry.settings_of("bix")
