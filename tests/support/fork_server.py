"""Fast execution of Python commands by forking a process that has already imported torch, Hydra and pandas.

    with ForkServer() as server:
        done = server.run(["run.py", "loss=smoothl1"], folder, environment)

A command behaves as `python ARGUMENTS` in its own process, session and folder, including its exit code. Only the
imports of libraries are shared, which saves seconds for each command. Child processes of the command, such as workers
and launchers, start normally.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import types
from collections.abc import Mapping, Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[2]

#: Libraries of joyful's own commands.
LIBRARIES = (
    "torch", "hydra", "optuna", "optuna.importance", "sqlalchemy.dialects.sqlite", "pandas", "rich.progress",
    "joyful.training.experiment", "joyful.sweeper.status", "joyful.analysis.findings", "joyful.analysis.plots.survival",
    "joyful.analysis.page.html",
)  # fmt: skip


class ForkServer:
    """The server process. It ends with the `with` block.

    Args:
        prefix: Command that starts the server, such as setpriv with its options.
        python: The interpreter.
        libraries: Modules that the server imports. They must not start threads, and must not be run with `python -m`.
        environment: Environment variables of the server; by default those of this process. The commands keep the path of
            the server's PYTHONPATH.
    """

    def __init__(
        self,
        prefix: Sequence[str] = (),
        python: Path | str = sys.executable,
        libraries: Sequence[str] = LIBRARIES,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._process = subprocess.Popen(
            [*prefix, str(python), "-m", "tests.support.fork_server", *libraries],
            cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)

    def run(
        self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str], timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run `python ARGUMENTS` in `folder`.

        Raises:
            subprocess.TimeoutExpired: After `timeout` seconds. All processes of the command's session are killed.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.TemporaryDirectory() as scratch:
            outputs = [Path(scratch, name) for name in ("stdout", "stderr")]
            request = {
                "arguments": list(arguments), "folder": str(folder), "environment": dict(environment),
                "outputs": [str(path) for path in outputs], "timeout": timeout,
            }  # fmt: skip
            print(json.dumps(request), file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
            if not answer:
                raise RuntimeError("the fork server has ended; see its output on standard error")
            out, err = (path.read_text(errors="replace") for path in outputs)
        code = json.loads(answer)
        if code is None:
            raise subprocess.TimeoutExpired(list(arguments), timeout, out, err)
        return subprocess.CompletedProcess(list(arguments), code, out, err)


@functools.cache
def shared() -> ForkServer:
    """Return the server of this process, which is started at the first call and ends with the process."""
    server = ForkServer()
    atexit.register(server.__exit__)
    return server


def _serve() -> None:
    for name in sys.argv[1:]:
        importlib.import_module(name)
    gc.freeze()  # keeps the garbage collector of the forks from visiting the shared objects
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            answers.close()
            _end(_become(request))
        print(json.dumps(_wait(child, request["timeout"])), file=answers, flush=True)


def _wait(child: int, timeout: float) -> int | None:
    """Return the exit code, negative for a signal, or None after a timeout."""
    deadline = time.monotonic() + timeout
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.01)


def _end(code: int) -> NoReturn:
    """Exit as the interpreter does: wait for threads, call exit handlers and flush buffers."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


class _Script(SourceFileLoader):
    """Loads a script. Like Python, it writes no bytecode of it."""

    def set_data(self, path: Any, data: Any, *, _mode: int = 0) -> None:
        """Write nothing."""


def _run_script(path: Path) -> None:
    """Run a script as the module __main__, whose __file__ is absolute, as Python does."""
    main = types.ModuleType("__main__")
    main.__file__ = str(path)
    sys.modules["__main__"] = main
    _Script("__main__", str(path)).exec_module(main)


def _become(request: dict[str, Any]) -> int:
    """Run the command in this fork, and return its exit code."""
    os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for descriptor, path in enumerate(request["outputs"], start=1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(file, descriptor)
        os.close(file)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    sys.path[1:1] = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    first, *rest = request["arguments"]
    # The first entry of sys.path is the script's folder, or the working directory for -m.
    try:
        if first == "-m":
            sys.argv, sys.path[0] = rest, os.getcwd()
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv, sys.path[0] = [first, *rest], str(Path(first).resolve().parent)
            _run_script(Path(first).absolute())
    except SystemExit as end:
        if isinstance(end.code, int) or end.code is None:
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    _serve()
