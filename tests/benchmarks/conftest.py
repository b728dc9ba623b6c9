"""Fixtures that run a benchmark's command, and compare its output with its JSON file."""

import json
import math

import pytest
import torch

from benchmarks.figures import Figure


@pytest.fixture(autouse=True)
def _torch_as_it_was():
    """Restore threads and determinism, which benchmarks set for the whole process."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture
def measured(tmp_path, capsys):
    """Return a function (main, *arguments) -> (figures by name, JSON document) with the checks of all benchmarks."""

    def run(main, *arguments):
        file = tmp_path / "figures.json"
        main([*arguments, "--json", str(file)])
        title, *lines = capsys.readouterr().out.splitlines()
        document = json.loads(file.read_text())
        figures = [Figure(**one) for one in document["figures"]]
        assert lines == [one.line() for one in figures] + [f"note: {note}" for note in document["notes"]]
        assert document["machine"]["processor"] in title
        named = {one.name: one for one in figures}
        assert len(named) == len(figures), "two figures of one name"
        for one in figures:
            assert one.unit == one.unit.strip()
            assert math.isfinite(one.value)
            assert one.value >= 0 or one.name.endswith(" saved"), one  # a saving may be a loss
            assert one.to
            if one.to in named:
                other = named[one.to]
                assert one.ratio == pytest.approx(one.value / other.value), one
                assert one.unit == other.unit, one
        return named, document

    return run
