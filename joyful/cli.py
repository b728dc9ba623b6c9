"""The console script ``joyful`` with commands for training, sweeps, reports, audits and imports.

Each command is imported when it is called, so ``joyful --help`` is fast and ``joyful report`` does not need torch.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import joyful
from joyful import platforms
from joyful.messages import KnownNames, expected_one_of
from joyful.records import FailedRun, InputError, print_error
from joyful.runtime import closed_pipes, heap, signals

#: Command -> description for the help.
COMMANDS = {
    "train": "train one run, or many with -m: a grid, an Optuna search or a paired comparison",
    "report": "compare the arms of a sweep, with verdicts and intervals",
    "predict": "label new dialogues with a trained model",
    "export": "write a trained model to a folder that can be shared",
    "audit": "check a report: its files, and some of its runs trained again",
    "import": "convert the curves of another training program to runs that report can compare",
    "card": "write a model card: data, scores with intervals, licences and limits of a trained model",
    "sweep": "show the state of a sweep or its trials, watch it, or queue its failed trials again",
    "prepare": "convert a dataset once, so that runs load it quickly",
    "schema": "print the JSON schema of all settings, for editors, or their reference",
}

#: Hydra's options that print a script for the shell, or the words that complete a command.
_COMPLETION = frozenset({"-sc", "--shell-completion"})

#: Command -> packages that it needs in addition to the dependencies, all in the extra `train`.
NEEDS = {
    "train": ("torch", "safetensors"),
    "predict": ("torch", "safetensors"),
    "export": ("torch", "safetensors"),
    "prepare": ("safetensors",),
}


def usage() -> str:
    """Return the text of ``joyful --help``."""
    lines = "\n".join(f"  {name:9}{what}" for name, what in COMMANDS.items())
    return f"""\
usage: joyful COMMAND ...

{joyful.__doc__.splitlines()[0] if joyful.__doc__ else ""}

{lines}

joyful COMMAND --help describes a command. joyful --version prints the version.
Exit codes: 0 success, 1 training or the disk failed, 2 bad input, 130 and 143 interrupted;
of report --require: 3 a requirement does not hold, 4 one is undecided; of audit: 3 something differs.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The command and its arguments; None takes those of the process.

    Returns:
        The exit code. ``train`` exits the process itself if it fails.
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
    if name in _COMPLETION:
        return _complete(rest)
    if name not in COMMANDS:
        print_error(f"{expected_one_of(name, list(COMMANDS))} (joyful --help)")
        return 2
    if reason := platforms.reason_against():
        print_error(reason)
        return 2
    if name == "train":
        if arguments is None:
            signals.exit_on_ctrl_c()
            heap.restart_with_heap_settings()  # before other modules are loaded
        # the completion of the shell belongs to the program joyful
        sys.argv = ["joyful" if _COMPLETION & set(rest) else "joyful train", *rest]
        train()
        return 0
    closed_pipes.tolerate()
    return _main_of(name)(rest) if _is_installed(name) else 2


def _complete(rest: Sequence[str]) -> int:
    """Answer Hydra's completion in bash, which calls ``joyful -sc query=bash`` for every command of joyful.

    Args:
        rest: Arguments after -sc: install=bash, uninstall=bash or query=bash. The shell puts the line into COMP_LINE.
    """
    line = os.environ.get("COMP_LINE", "")
    training = re.match(r"\S+\s+train\s(.*)", line)
    if rest[:1] == ["query=bash"] and training is None:
        command = re.fullmatch(r"\S+\s+(\S*)", line)
        print(*(name for name in COMMANDS if command is not None and name.startswith(command[1])))
        return 0
    if training is not None:
        os.environ["COMP_LINE"] = f"joyful {training[1]}"
    sys.argv = ["joyful", "-sc", *rest]
    train()
    return 0


def train() -> None:
    """Train as ``sys.argv`` specifies. This is the program of ``joyful train``, run.py and train.py.

    Raises:
        SystemExit: If training fails or a package is missing, with the exit code.
    """
    if not _is_installed("train"):
        sys.exit(2)
    closed_pipes.tolerate()
    if sys.stderr.isatty() and not heap.PRINTING_ARGUMENTS.intersection(sys.argv):
        print_error("loading torch and the settings")  # this takes seconds
    import hydra

    from joyful.runtime import config_errors
    from joyful.runtime.run_guard import RunGuard, allowed_targets, report_config_errors

    config_errors.describe_program(_known_names)
    RunGuard.check_start = staticmethod(_check_start)
    try:
        config_errors.refuse_unknown_options(sys.argv[1:])
        report_config_errors(
            hydra.main("pkg://joyful.conf", "config", execution_whitelist=allowed_targets())(_train_composed)
        )()
    except InputError as error:
        print_error(error)
        sys.exit(2)
    except KeyboardInterrupt:  # between two runs of a multirun; runs and sweeps handle Ctrl-C themselves
        print_error("interrupted by Ctrl-C; nothing that was completed is lost")
        RunGuard.print_how_to_go_on()
        sys.exit(130)
    except SystemExit as end:
        if end.code in (130, 143):
            RunGuard.print_how_to_go_on()
        raise


def _known_names() -> KnownNames:
    from joyful.config import known_names

    return known_names()


def _check_start(settings: Any) -> None:
    from joyful.training.experiment import check_start

    check_start(settings)


def _train_composed(config: Any) -> float | list[float]:
    """Train with the composed configuration, and return the value of the objective, or a list of several.

    The function has the scope of the module, because joblib's multiprocessing passes it by name.
    """
    from joyful.runtime import hydra_request
    from joyful.runtime.run_guard import RunGuard
    from joyful.sweeper import trial
    from joyful.training import experiment, sweep_client  # these import torch, which --help and --cfg do not need

    closed_pipes.tolerate()  # here too, because a launcher may run this in another process
    if trial.number is not None:
        return sweep_client.train_trial(hydra_request.from_hydra(config))
    try:
        best = experiment.main(lambda: hydra_request.from_hydra(config), hydra_request.is_multirun())
    except SystemExit as end:  # after a signal; in a process of joblib, the exception would never reach the command
        if RunGuard.process == os.getpid() or not isinstance(end.code, int):
            raise
        sys.stdout.flush()
        os._exit(end.code)
    if isinstance(best, FailedRun) or config.objectives is None or not hydra_request.is_multirun():
        return best
    return sweep_client.objective_values(hydra_request.from_hydra(config), best)


def _is_installed(name: str) -> bool:
    """Return whether the packages of a command are installed, and print an error that names the missing ones."""
    missing = [package for package in NEEDS.get(name, ()) if find_spec(package) is None]
    if missing:
        print_error(f"{name} needs {' and '.join(missing)}; run pip install 'joyful-sweeps[train]'")
    return not missing


#: Command -> module with a function `main` that runs it.
MODULES = {
    "report": "joyful.analysis.report",
    "predict": "joyful.prediction.command",
    "export": "joyful.prediction.export_command",
    "audit": "joyful.audit.command",
    "import": "joyful.analysis.importers.__main__",
    "card": "joyful.analysis.card.command",
    "sweep": "joyful.sweeper.__main__",
    "prepare": "joyful.data.prepare",
    "schema": "joyful.schema.command",
}


def _main_of(name: str) -> Callable[[Sequence[str]], int]:
    main: Callable[[Sequence[str]], int] = import_module(MODULES[name]).main
    return main


if __name__ == "__main__":
    sys.exit(main())
