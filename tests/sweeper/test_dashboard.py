"""A finished sweep in optuna-dashboard, in a real browser."""

import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.support import sweeps
from tests.support.browser import needs_chromium, open_browser

pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed: pip install 'joyful-sweeps[sweep]'")

pytestmark = needs_chromium


def responds(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


@pytest.fixture
def dashboard(tmp_path, fork_server):
    """The folder of a finished sweep, and the URL of its dashboard."""
    command = sweeps.command(
        "looked_at", "hydra/sweeper=optuna_pruned", "hydra/sweeper/sampler=grid", "seed=choice(1,2,3)", epochs=2
    )
    done = sweeps.run(command, tmp_path, fork_server)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "multirun/looked_at"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    program = Path(sys.executable).with_name("optuna-dashboard")
    arguments = [str(program), f"sqlite:///{folder}/study.db", "--host", "127.0.0.1", "--port", port]
    with (tmp_path / "dashboard.log").open("w") as log:
        process = subprocess.Popen(arguments, stdout=log, stderr=log, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}/dashboard/"
        sweeps.wait_until(lambda: responds(url) or process.poll() is not None, 120)
        assert process.poll() is None, (tmp_path / "dashboard.log").read_text()
        yield folder, url
    finally:
        process.kill()
        process.wait()


@pytest.mark.soak("takes 20 s; the dashboard is another project, which reads the study that test_study.py checks")
def test_the_dashboard_shows_the_same_as_status(dashboard, tmp_path):
    folder, url = dashboard
    status = [sys.executable, "-m", "joyful.sweeper", "status", str(folder), "--json"]
    shown = json.loads(subprocess.run(status, capture_output=True, text=True, check=True, cwd=sweeps.RUN.parent).stdout)
    assert (shown["complete"], shown["n_trials"]) == (3, 3)

    with open_browser() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(60_000)
        errors = []
        page.on("pageerror", lambda error: errors.append(error))
        page.goto(url)
        page.get_by_text("looked_at").first.click()
        page.get_by_text(f"Best Trial (number={shown['best_trial']})").wait_for()
        best = page.inner_text("body")
        page.goto(f"{page.url.rstrip('/')}/trials")
        page.get_by_text("3 Trials").wait_for()
        listed = page.inner_text("body")
    assert errors == []
    assert f"{shown['best_value']}\n" in best
    assert f"Params = [seed: {shown['best_params']['seed']}]" in best
    for trial in sweeps.study(folder).trials:
        assert f"Trial {trial.number}\nComplete" in listed
