"""A linear classifier of handwritten digits. Each epoch reports its accuracy on the training and the test images.

python main.py -m +sweep=search     # searches two settings
python main.py -m +sweep=compare    # compares two arms in pairs that share a seed
joyful report multirun/compare
"""

import hydra
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import train_test_split

from joyful.sweeper import trial


@hydra.main(config_path="conf", config_name="config")
def main(cfg):
    images, digits = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split(images / 16, digits, test_size=0.3, random_state=cfg.seed, stratify=digits)
    model = SGDClassifier(
        alpha=cfg.alpha, eta0=cfg.eta0, average=cfg.average, learning_rate="constant", random_state=cfg.seed
    )
    order = np.random.default_rng(cfg.seed)
    for epoch in range(1, cfg.epochs + 1):
        shuffled = order.permutation(len(x))
        model.partial_fit(x[shuffled], y[shuffled], classes=np.unique(digits))
        accuracy = model.score(x_test, y_test)
        trial.report(accuracy, epoch, metrics={"accuracy": accuracy, "train_accuracy": model.score(x, y)})
    return accuracy


if __name__ == "__main__":
    main()
