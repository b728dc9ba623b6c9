"""A small Hydra program without torch, written to a folder, and its sweeps."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

from tests.support import sweeps
from tests.support.fork_server import ForkServer

#: The settings of the program.
CONFIG = """\
x: 0.5
seed: 1
steps: 4
"""

#: The function of most tests: it returns (x - 0.3)^2 + 1 / steps.
MAIN = """\
    for step in range(cfg.steps):
        value = (cfg.x - 0.3) ** 2 + 1 / (step + 1)
        trial.report(value, step)
    return value
"""

#: The settings of the program of paired comparisons.
PAIRED_CONFIG = "lr: 0.3\nbonus: 0.0\nsteps: 10\nseed: 1\nfail: []\npause: 0.0\n"

#: Its function. The accuracy of a run rises towards a limit. Two runs of a pair share most of their luck.
PAIRED = """\
    rate = cfg.lr * (1 + 0.05 * random.Random(f"rate {cfg.seed}").gauss(0, 1))
    rate *= 1 + 0.02 * random.Random(f"rate {cfg.seed} {cfg.lr}").gauss(0, 1)
    limit = 0.7 + cfg.bonus + 0.01 * random.Random(f"limit {cfg.seed} {cfg.lr}").gauss(0, 1)
    if f"{cfg.seed} {cfg.lr}" in cfg.fail:
        raise ValueError("diverged")
    for step in range(1, cfg.steps + 1):
        time.sleep(cfg.pause)
        accuracy = limit * (1 - math.exp(-rate * step))
        trial.report(accuracy, step, {"accuracy": accuracy})
    return accuracy
"""


def write(folder: Path, body: str = MAIN, config: str = CONFIG, before: str = "", after: str | None = None) -> Path:
    """Write the program main.py with conf/config.yaml, and return its path.

    Args:
        folder: The folder of the program.
        body: The lines of the function main(cfg).
        config: The content of conf/config.yaml.
        before: Lines before the function.
        after: Lines after it; None: the usual call of main.
    """
    (folder / "conf").mkdir(parents=True, exist_ok=True)
    (folder / "conf/config.yaml").write_text(config)
    guard = 'if __name__ == "__main__":\n    main()\n' if after is None else after
    text = (
        "import os\nimport sys\nfrom pathlib import Path\n\nimport hydra\n\nfrom joyful.sweeper import trial\n\n"
        f"{dedent(before)}\n\n"
        '@hydra.main(config_path="conf", config_name="config")\n'
        f"def main(cfg):\n{body}\n\n{guard}"
    )
    path = folder / "main.py"
    path.write_text(text)
    return path


def write_paired(folder: Path) -> Path:
    """Write the program of paired comparisons, and return its path. Its arms differ in `lr` and `bonus`."""
    return write(folder, PAIRED, PAIRED_CONFIG, "import math\nimport random\nimport time\n")


def command(folder: Path, *overrides: str) -> list[str]:
    """Return the command of a sweep of the program in a folder, which writes to multirun/main."""
    return [sys.executable, str(folder / "main.py"), "-m", "hydra/sweeper=optuna_pruned", *overrides]


def run(folder: Path, *overrides: str, server: ForkServer | None = None) -> subprocess.CompletedProcess[str]:
    """Run a sweep of the program in a folder to its end."""
    return sweeps.run(command(folder, *overrides), folder, server)
