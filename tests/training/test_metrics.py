import pytest
import torch
from sklearn import metrics as sklearn_metrics

from joyful.results.class_scores import scores
from joyful.training.metrics import counts
from tests.support.host_reads import NoHostReads


def scores_of(logits, labels, parts=1):
    total = sum(counts(*pair) for pair in zip(logits.chunk(parts), labels.chunk(parts), strict=True))
    return scores(total.numpy(), len(labels))


def random_case(seed, classes, present, n=57):
    """Logits over `classes`, of which only the first `present` occur in the labels; mostly right."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(present, (n,), generator=generator)
    logits = torch.randn(n, classes, generator=generator)
    logits[torch.arange(n), labels] += 1.0
    return logits, labels


@pytest.mark.parametrize(("classes", "present"), [(2, 2), (7, 7), (7, 3), (6, 1)])
@pytest.mark.parametrize("parts", [1, 4])
def test_against_sklearn(classes, present, parts):
    logits, labels = random_case(classes + present, classes, present)
    ours, predicted = scores_of(logits, labels, parts), logits.argmax(dim=1)
    assert ours["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(labels, predicted))
    for name in ("weighted", "macro"):
        expected = sklearn_metrics.f1_score(labels, predicted, average=name, zero_division=0)
        assert ours[f"f1_{name}"] == pytest.approx(expected)


def test_classes_that_are_never_predicted_against_sklearn():
    logits, labels = random_case(0, 4, 4)
    logits[:, 2] = -100.0
    expected = sklearn_metrics.f1_score(labels, logits.argmax(dim=1), average="macro", zero_division=0)
    assert scores_of(logits, labels)["f1_macro"] == pytest.approx(expected)


@pytest.mark.parametrize("absent", [(), (1,), (0, 3)])
def test_several_labels_at_once_against_sklearn(absent):
    generator = torch.Generator().manual_seed(1)
    labels = (torch.rand(57, 5, generator=generator) < 0.4).float()
    logits = 2 * labels - 1 + torch.randn(57, 5, generator=generator)
    for label in absent:  # neither in the labels nor predicted
        labels[:, label], logits[:, label] = 0.0, -1.0
    ours, predicted = scores_of(logits, labels, 3), (logits > 0).numpy()
    occurs = [c for c in range(5) if c not in absent]
    assert ours["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(labels.numpy(), predicted))
    for name in ("weighted", "macro"):
        expected = sklearn_metrics.f1_score(labels.numpy()[:, occurs], predicted[:, occurs], average=name)
        assert ours[f"f1_{name}"] == pytest.approx(expected)


def test_by_hand():
    # predictions 0 0 1 1 for labels 0 1 1 1: F1 of class 0 is 2/3 (support 1), of class 1 4/5 (support 3)
    logits = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    result = scores_of(logits, torch.tensor([0, 1, 1, 1]))
    expected = {"accuracy": 0.75, "f1_weighted": (2 / 3 + 3 * 0.8) / 4, "f1_macro": (2 / 3 + 0.8) / 2}
    assert result == pytest.approx(expected)


def test_no_positive_label_and_no_positive_prediction():
    result = scores_of(torch.full((3, 2), -1.0), torch.zeros(3, 2))
    assert result == {"accuracy": 1.0, "f1_weighted": 0.0, "f1_macro": 0.0}


def test_counts_do_not_read_the_device():
    with NoHostReads():
        counts(torch.randn(5, 3), torch.randint(3, (5,)))
        counts(torch.randn(5, 3), torch.ones(5, 3))


def test_scores_are_plain_numbers():
    result = scores_of(*random_case(0, 3, 3))
    assert all(type(value) is float for value in result.values())
