"""Gradient descent with momentum in a narrow valley. The search finds a step size and a momentum.

python main.py -m hydra/sweeper=optuna_pruned hydra/launcher=joblib hydra.sweeper.n_trials=20 \
    'lr=tag(log,interval(0.001,0.1))' 'momentum=interval(0,0.95)'
"""

import random

import hydra

from joyful.sweeper import trial


@hydra.main(config_path="conf", config_name="config")
def main(cfg):
    x, y, dx, dy = random.Random(cfg.seed).uniform(1, 2), 1.0, 0.0, 0.0
    for step in range(cfg.steps):
        dx, dy = cfg.momentum * dx - cfg.lr * x, cfg.momentum * dy - cfg.lr * 50 * y
        x, y = x + dx, y + dy
        value = x**2 / 2 + 25 * y**2
        trial.report(value, step)
    return value


if __name__ == "__main__":
    main()
