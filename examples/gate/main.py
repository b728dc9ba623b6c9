"""Compares the trainer of this folder with its released version, in pairs that share a seed. See ci.yaml and try_rates.sh.

git worktree add released v1.0     # the released version
python main.py -m +sweep=change
joyful report multirun/change --require f1=no_worse_than:0.5 --require speed=no_worse_than:5%
"""

import importlib.util
from pathlib import Path

import hydra

from joyful.sweeper import trial

FOLDERS = {"released": "released", "change": "."}


@hydra.main(config_path="conf", config_name="config")
def main(cfg):
    path = Path(__file__).parent / FOLDERS[cfg.code] / "trainer.py"
    spec = importlib.util.spec_from_file_location("trainer", path)
    trainer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(trainer)
    best = 0.0
    for step, f1 in enumerate(trainer.train(cfg.seed, cfg.rate, cfg.steps)):
        best = max(best, f1)
        trial.report(best, step, metrics={"f1_weighted": f1})
    return best


if __name__ == "__main__":
    main()
