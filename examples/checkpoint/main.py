"""A random search that continues from its own checkpoint after a kill, and that stops soon when the sweep ends.

python main.py -m hydra/sweeper=optuna_pruned hydra/launcher=joblib hydra.sweeper.n_trials=10 \
    'width=tag(log,interval(0.01,1))'

Press Ctrl-C, or kill any of its processes, and run the same command again.
"""

import json
import logging
import os
import time

import hydra
import numpy as np

from joyful.sweeper import trial

log = logging.getLogger(__name__)


def save(path, state):
    """Write a file so that a kill or a power failure leaves the old content or the new."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("w") as file:
        json.dump(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


@hydra.main(config_path="conf", config_name="config")
def main(cfg):
    checkpoint = trial.folder / "checkpoint.json"
    rng, first, best = np.random.default_rng(cfg.seed), 0, np.full(3, 2.0)
    if trial.resumed and checkpoint.exists():
        state = json.loads(checkpoint.read_text())
        first, best, rng.bit_generator.state = state["step"] + 1, np.array(state["best"]), state["rng"]
        log.info("continues at step %d", first)
    for step in range(first, cfg.steps):
        candidate = best + cfg.width * rng.normal(size=3)
        best = min(best, candidate, key=loss)
        time.sleep(cfg.pause)
        # Report before saving. A kill between the two repeats the step, and no report is missing.
        trial.report(loss(best), step)
        save(checkpoint, {"step": step, "best": best.tolist(), "rng": rng.bit_generator.state})
        if trial.should_stop:
            log.info("stops after step %d", step)
            return None  # the value is not used
    return loss(best)


def loss(x):
    return float(np.sum(x**2) + 0.1 * np.sum(1 - np.cos(3 * x)))


if __name__ == "__main__":
    main()
