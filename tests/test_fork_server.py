"""Commands in forks behave as in a new interpreter: arguments, folder, environment, exit codes and child processes."""

import os
import subprocess
import sys
import time

import psutil
import pytest

SHOW = "import os, sys\nprint(sys.argv, sys.path[0], os.getcwd(), os.environ['WORD'], __name__)\n"


@pytest.mark.parametrize("arguments", [("show.py", "a b", "--c"), ("-m", "show", "x=1")])
def test_a_command_sees_the_same_as_in_a_new_interpreter(arguments, fork_server, tmp_path):
    (tmp_path / "show.py").write_text(SHOW)
    environment = {**os.environ, "WORD": "hello"}
    fresh = subprocess.run([sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True)
    forked = fork_server.run(arguments, tmp_path, environment)
    assert (forked.returncode, forked.stdout, forked.stderr) == (0, fresh.stdout, fresh.stderr)


@pytest.mark.parametrize(
    ("code", "expected", "words"),
    [
        ("import sys; sys.exit(3)", 3, ""),
        ("raise SystemExit", 0, ""),
        ("import sys; sys.exit('a reason')", 1, "a reason"),
        ("1 / 0", 1, "ZeroDivisionError"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -15, ""),
        ("import atexit, sys; atexit.register(lambda: print('at the end', file=sys.stderr))", 0, "at the end"),
    ],
)
def test_exit_codes(code, expected, words, fork_server, tmp_path):
    (tmp_path / "ends.py").write_text(code)
    done = fork_server.run(["ends.py"], tmp_path, os.environ)
    assert done.returncode == expected
    assert words in done.stderr


def test_a_timeout_kills_a_command_and_its_children(fork_server, tmp_path):
    (tmp_path / "waits.py").write_text(
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, flush=True); time.sleep(600)\n"
    )
    for seconds in (2, 60):  # a busy machine may need longer to start it
        with pytest.raises(subprocess.TimeoutExpired) as caught:
            fork_server.run(["waits.py"], tmp_path, os.environ, timeout=seconds)
        if caught.value.stdout:
            break
    child = int(caught.value.stdout)
    deadline = time.monotonic() + 30
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (tmp_path / "next.py").write_text("print('next')")
    assert fork_server.run(["next.py"], tmp_path, os.environ).stdout == "next\n"
