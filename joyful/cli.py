"""The console script ``joyful``: one command for training, sweeps, reports and imports.

The commands are imported when they are called, so that ``joyful --help`` is quick and a report needs no torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import joyful
from joyful.records import print_error
from joyful.runtime import heap, signals

#: Command -> what it does, for the help.
COMMANDS = {
    "train": "train a run, or with -m many: a grid, an Optuna search, a paired comparison",
    "report": "compare the arms of a sweep, with verdicts and intervals",
    "import": "turn the curves of another trainer into runs that report can compare",
    "sweep": "show the state of a sweep, or make its failed trials wait again",
    "prepare": "convert a dataset once, so that runs open it at once",
}

#: Command -> packages that it needs beside the dependencies, all in the extra `train`.
NEEDS = {"train": ("torch", "safetensors"), "prepare": ("safetensors",)}


def usage() -> str:
    """The text of ``joyful --help``."""
    lines = "\n".join(f"  {name:9}{what}" for name, what in COMMANDS.items())
    return f"""\
usage: joyful COMMAND ...

{joyful.__doc__.splitlines()[0] if joyful.__doc__ else ""}

{lines}

joyful COMMAND --help explains a command. joyful --version prints the version.
Exit codes: 0 done, 1 training or the disk failed, 2 bad input, 130 and 143 interrupted.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: the command and its arguments; None: those of the process.

    Returns:
        The exit code. ``train`` ends the process itself where it fails.
    """
    if arguments is not None:
        sys.argv = ["joyful", *arguments]
    name, *rest = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h"):
        print(usage(), end="")
        return 0
    if name == "--version":
        print(f"joyful {joyful.__version__}")
        return 0
    if name not in COMMANDS:
        print_error(f"expected one of the commands {', '.join(COMMANDS)}, got {name!r}; see joyful --help")
        return 2
    missing = [package for package in NEEDS.get(name, ()) if find_spec(package) is None]
    if missing:
        print_error(f"joyful {name} needs {' and '.join(missing)}: pip install 'joyful-sweeps[train]'")
        return 2
    if name == "train":
        if arguments is None:
            signals.leave_at_ctrl_c()
            heap.start_over()  # before anything is loaded
        sys.argv = ["joyful train", *rest]
        train()
        return 0
    return _main_of(name)(rest)


def train() -> None:
    """Train what ``sys.argv`` asks for: the program behind ``joyful train``, run.py and train.py.

    Raises SystemExit with the exit code where it fails.
    """
    import hydra

    from joyful.runtime.run_guard import refusing, targets

    try:
        refusing(hydra.main("pkg://joyful.conf", "config", execution_whitelist=targets())(_train_composed))()
    except KeyboardInterrupt:  # between two runs of a multirun: a run and a sweep answer Ctrl-C themselves
        print_error("interrupted by Ctrl-C; nothing that was completed is lost")
        sys.exit(130)


def _train_composed(config: Any) -> float:
    """Train what the composed configuration says; returns the best dev weighted F1, to be maximised."""
    from joyful.runtime import hydra_request
    from joyful.training import experiment  # torch is imported here, so that --help and --cfg answer at once

    return experiment.main(lambda: hydra_request.from_hydra(config))


#: Command -> the module whose `main` runs it.
MODULES = {
    "report": "joyful.analysis.report",
    "import": "joyful.analysis.importers.__main__",
    "sweep": "joyful.sweeper.__main__",
    "prepare": "joyful.data.prepare",
}


def _main_of(name: str) -> Callable[[Sequence[str]], int]:
    main: Callable[[Sequence[str]], int] = import_module(MODULES[name]).main
    return main


if __name__ == "__main__":
    sys.exit(main())
