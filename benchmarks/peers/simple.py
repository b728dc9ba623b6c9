"""Simple models: majority, logistic regression, a perceptron, and a two-way GRU over the dialogue.

All see the features that joyful's model sees: the vectors of the modalities side by side, each column scaled by mean and
standard deviation of the training split. The two networks also see the speaker as a one-hot vector. Their training
differs from joyful's only in the loss, which is the cross-entropy alone: Adam, batches of the same seed, a moving
average of the parameters, class weights, and the test score at the evaluation with the best dev weighted F1.

Utterances without a label are context: they are neither trained on nor scored.

Shape letters: B dialogues, N utterances, D features, S speakers, C classes, H hidden units.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression as SklearnLogisticRegression
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot
from torch.nn.utils.rnn import pack_sequence, unpack_sequence

from joyful.losses.classification import class_weights
from joyful.model.joyful import Standardise
from joyful.records import DialogueDataset, Dialogues, InputError
from joyful.results.class_scores import scores
from joyful.training.averaging import ParameterAverage
from joyful.training.batching import epoch_order
from joyful.training.metrics import counts

#: Longest training of a network, and evaluations without a better dev F1 after which it ends.
EPOCHS, PATIENCE = 30, 6
#: Decays of the moving average of the parameters. One training evaluates all, because averaging does not change it.
AVERAGES = (0.0, 0.99)
#: An epoch has at least this many steps, unless there are fewer dialogues; batches have at most 32 dialogues.
STEPS, LARGEST_BATCH = 8, 32


@dataclass(frozen=True)
class Split:
    """One split, with scaled features.

    Attributes:
        features: (N, D) float32, all modalities.
        speakers: (N, S) float32, one-hot.
        labels: (N,) int64, -1 without a label.
        lengths: B numbers of utterances, sum N.
    """

    features: Tensor
    speakers: Tensor
    labels: Tensor
    lengths: np.ndarray

    def take(self, dialogues: np.ndarray) -> Split:
        """Return these dialogues, in this order."""
        starts = np.cumsum(self.lengths) - self.lengths
        rows = torch.from_numpy(np.concatenate([np.arange(starts[d], starts[d] + self.lengths[d]) for d in dialogues]))
        return Split(self.features[rows], self.speakers[rows], self.labels[rows], self.lengths[dialogues])

    def labelled(self) -> tuple[Tensor, Tensor]:
        """Return the features (M, D) and the labels (M,) of the utterances that have a label."""
        chosen = self.labels >= 0
        return self.features[chosen], self.labels[chosen]


@dataclass(frozen=True)
class Task:
    """The three splits of a dataset, and its number of classes C."""

    splits: Mapping[str, Split]
    classes: int


@dataclass(frozen=True)
class Result:
    """What one training of a model reached.

    Attributes:
        options: Description of the options, such as "rate 0.001, dropout 0.5".
        parameters: Number of trained parameters.
        dev: Weighted F1 of the dev split, as a fraction; of a network, the best evaluation.
        test: Weighted F1 of the test split at the same evaluation.
    """

    options: str
    parameters: int
    dev: float
    test: float


class SimpleModel(Protocol):
    """A model to compare with.

    Attributes:
        name: Name in the table.
        grid: The options to choose from.
        seeded: Whether the result depends on the seed.
    """

    name: str
    grid: Sequence[Mapping[str, Any]]
    seeded: bool

    def train(self, task: Task, options: Mapping[str, Any], seed: int) -> list[Result]:
        """Train with one entry of the grid, and return one or more results, always of the same options in order."""


def prepare(data: DialogueDataset) -> Task:
    """Scale the features of a dataset by its training split, as `joyful.model.joyful.Standardise` does.

    The features of a modality that an utterance lacks become 0, the mean.

    Raises:
        InputError: If the utterances have several labels each.
    """
    if data.multilabel:
        raise InputError(
            f"data={data.name}: expected one label per utterance, got several; set data.emotion=7class or other data"
        )
    layers = {modality: Standardise(width) for modality, width in data.dimensions.items()}
    for modality, layer in layers.items():
        layer.fit(_features(data.splits["train"], modality)[_present(data.splits["train"], modality)])
    splits = {}
    for name, part in data.splits.items():
        scaled = [
            layer(_features(part, modality)) * _present(part, modality).unsqueeze(1)
            for modality, layer in layers.items()
        ]
        speakers = one_hot(torch.tensor(part.speakers), data.n_speakers).float()
        splits[name] = Split(torch.cat(scaled, dim=1), speakers, torch.tensor(part.labels), np.asarray(part.lengths))
    return Task(splits, len(data.labels))


def f1_weighted(logits_NC: Tensor, labels: Tensor) -> float:
    """Return joyful's weighted F1 of the utterances that have a label, as a fraction."""
    chosen = labels >= 0
    return scores(counts(logits_NC[chosen], labels[chosen]).numpy(), int(chosen.sum()))["f1_weighted"]


class Majority(SimpleModel):
    """The most frequent class of the training split."""

    name = "majority"
    grid = ({},)
    seeded = False

    def train(self, task: Task, options: Mapping[str, Any], seed: int) -> list[Result]:
        """Count the labels. There are no options."""
        frequent = torch.bincount(task.splits["train"].labelled()[1], minlength=task.classes).argmax()
        return [_result("", 0, task, lambda split: frequent.expand(len(split.labels)))]


class LogisticRegression(SimpleModel):
    """Multinomial logistic regression on the features of the utterance, by scikit-learn.

    Options: the inverse strength of the L2 penalty, and class weights as `classification.class_weight` of joyful, scaled
    to mean 1 over the utterances.
    """

    name = "logistic regression"
    seeded = False
    grid = tuple(
        {"C": c, "class weights": weights}
        for c, weights in itertools.product((0.0001, 0.001, 0.01, 0.1, 1.0, 10.0), ("none", "sqrt", "inverse"))
    )

    def train(self, task: Task, options: Mapping[str, Any], seed: int) -> list[Result]:
        """Fit with L-BFGS from zero. The seed is not used."""
        features, labels = task.splits["train"].labelled()
        weights = class_weights(torch.bincount(labels, minlength=task.classes), options["class weights"])
        of_utterances = torch.ones(len(labels)) if weights is None else weights[labels] / weights[labels].mean()
        model = SklearnLogisticRegression(C=options["C"], max_iter=2000)
        model.fit(features.numpy(), labels.numpy(), of_utterances.numpy())
        size = model.coef_.size + model.intercept_.size
        return [
            _result(describe(options), size, task, lambda split: torch.tensor(model.predict(split.features.numpy())))
        ]


class Perceptron(nn.Module):
    """One hidden layer on the features and the speaker of the utterance, without context.

    Args:
        features: D.
        speakers: S.
        classes: C.
        dropout: Probability, of the features and of the hidden units.
        hidden: H.
    """

    def __init__(self, features: int, speakers: int, classes: int, dropout: float, hidden: int = 256) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.hidden = nn.Linear(features + speakers, hidden)
        self.output = nn.Linear(hidden, classes)

    def forward(self, split: Split) -> Tensor:
        """Return the logits, (N, C)."""
        x = self.hidden(torch.cat([self.dropout(split.features), split.speakers], dim=1))
        return self.output(self.dropout(torch.relu(x)))


class TwoWayGRU(nn.Module):
    """A GRU over the dialogue in both directions, between a projection of the features and a linear layer.

    The speaker's one-hot vector is appended to the projection. For 384 features, 9 speakers and 7 classes the network has
    128,135 parameters.

    Args:
        features: D.
        speakers: S.
        classes: C.
        dropout: Probability, of the features, of the projection and of the GRU's outputs.
        projection: Width of the projection.
        hidden: H, in each direction.
    """

    def __init__(
        self, features: int, speakers: int, classes: int, dropout: float, projection: int = 128, hidden: int = 64
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.projection = nn.Linear(features, projection)
        self.gru = nn.GRU(projection + speakers, hidden, bidirectional=True)
        self.output = nn.Linear(2 * hidden, classes)

    def forward(self, split: Split) -> Tensor:
        """Return the logits, (N, C)."""
        x = self.dropout(torch.relu(self.projection(self.dropout(split.features))))
        dialogues = torch.cat([x, split.speakers], dim=1).split(split.lengths.tolist())
        hidden, _ = self.gru(pack_sequence(dialogues, enforce_sorted=False))
        return self.output(self.dropout(torch.cat(unpack_sequence(hidden))))


class NetworkModel(SimpleModel):
    """A network, trained with Adam.

    Options: learning rate, dropout, class weights (as `classification.class_weight` of joyful) and the decay of the
    moving average of the parameters.

    Args:
        name: Name in the table.
        build: Function (D, S, C, dropout) -> network, which maps a Split to logits (N, C).
    """

    seeded = True
    grid = tuple(
        {"rate": rate, "dropout": dropout, "class weights": weights}
        for rate, dropout, weights in itertools.product((0.001, 0.003), (0.3, 0.5), ("none", "sqrt"))
    )

    def __init__(self, name: str, build: Callable[[int, int, int, float], nn.Module]) -> None:
        self.name, self._build = name, build

    def train(self, task: Task, options: Mapping[str, Any], seed: int) -> list[Result]:
        """Train, and return a result for each decay of AVERAGES."""
        torch.manual_seed(seed)
        train = task.splits["train"]
        widths = train.features.shape[1], train.speakers.shape[1]
        network = self._build(*widths, task.classes, options["dropout"])
        optimizer = torch.optim.Adam(network.parameters(), options["rate"])
        weights = class_weights(torch.bincount(train.labelled()[1], minlength=task.classes), options["class weights"])
        averages = [ParameterAverage(dict(network.named_parameters()), decay) for decay in AVERAGES]
        size, best, last = sum(p.numel() for p in network.parameters()), [(-1.0, 0.0)] * len(averages), 0
        step, batch_size = 0, batch_size_for(len(train.lengths))
        for epoch in range(1, EPOCHS + 1):
            for dialogues in epoch_order(len(train.lengths), batch_size, seed, epoch):
                step += 1
                _step(network, optimizer, train.take(dialogues), weights)
                for average in averages:
                    average.update(step)
            for place, average in enumerate(averages):
                with average.applied():
                    dev = _evaluate(network, task.splits["dev"])
                    if dev > best[place][0]:
                        best[place], last = (dev, _evaluate(network, task.splits["test"])), epoch
            if epoch - last >= PATIENCE:
                break
        return [
            Result(describe({**options, "average": average.decay}), size, *found)
            for average, found in zip(averages, best, strict=True)
        ]


#: The models in the order of the table, by their names for --models.
MODELS: Mapping[str, SimpleModel] = {
    "majority": Majority(),
    "lr": LogisticRegression(),
    "mlp": NetworkModel("perceptron, speaker", Perceptron),
    "gru": NetworkModel("two-way GRU, speaker", TwoWayGRU),
}


def batch_size_for(n_dialogues: int) -> int:
    """Return the dialogues per batch for a training split of this size.

    Example:
        >>> batch_size_for(1000), batch_size_for(19)
        (32, 2)
    """
    return max(1, min(LARGEST_BATCH, n_dialogues // STEPS))


def describe(options: Mapping[str, Any]) -> str:
    """Return options on one line.

    Example:
        >>> describe({"C": 0.01, "class weights": "none"})
        'C 0.01, class weights none'
    """
    return ", ".join(f"{name} {value}" for name, value in options.items())


def _step(network: nn.Module, optimizer: torch.optim.Optimizer, batch: Split, weights: Tensor | None) -> None:
    if not (batch.labels >= 0).any():
        return
    network.train()
    optimizer.zero_grad()
    cross_entropy(network(batch), batch.labels, weights, ignore_index=-1).backward()
    optimizer.step()


def _evaluate(network: nn.Module, split: Split) -> float:
    network.eval()
    with torch.no_grad():
        return f1_weighted(network(split), split.labels)


def _result(options: str, parameters: int, task: Task, predict: Callable[[Split], Tensor]) -> Result:
    """Score a model that predicts class indices (N,)."""
    dev, test = (
        f1_weighted(one_hot(predict(task.splits[name]), task.classes).float(), task.splits[name].labels)
        for name in ("dev", "test")
    )
    return Result(options, parameters, dev, test)


def _features(part: Dialogues, modality: str) -> Tensor:
    return torch.tensor(part.features[modality])


def _present(part: Dialogues, modality: str) -> Tensor:
    missing = part.missing.get(modality)
    return torch.ones(len(part.labels), dtype=torch.bool) if missing is None else torch.tensor(~missing)
