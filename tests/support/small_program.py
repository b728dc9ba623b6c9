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


def command(folder: Path, *overrides: str) -> list[str]:
    """Return the command of a sweep of the program in a folder, which writes to multirun/main."""
    return [sys.executable, str(folder / "main.py"), "-m", "hydra/sweeper=optuna_pruned", *overrides]


def run(folder: Path, *overrides: str, server: ForkServer | None = None) -> subprocess.CompletedProcess[str]:
    """Run a sweep of the program in a folder to its end."""
    return sweeps.run(command(folder, *overrides), folder, server)
