"""The sentences of a model card that depend on its runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from joyful.analysis.card.bootstrap import SplitScores
from joyful.analysis.card.model import Model, Run
from joyful.analysis.classes import EVALUATED, classes
from joyful.analysis.formatting import listing, percent
from joyful.analysis.statistics import Estimate
from joyful.results.design import read_designs


def summary(model: Model, name: str, labels: Sequence[str], test: Mapping[str, Estimate]) -> str:
    """Return what the model does, and how well.

    Args:
        model: The model.
        name: Name of its dataset.
        labels: Names of its classes, empty if not known.
        test: Name of a score -> estimate on test.
    """
    seeds = len(model.seeds)
    what = "none, one or several of " if model.best.multilabel else "one of "
    what += f"{len(labels)} classes" if labels else "its classes"
    runs = f" in the mean of {len(model.runs)} runs" if len(model.runs) > 1 else ""
    mean = f" in the mean of {seeds} seeds" if seeds > 1 else runs
    return (
        f"The model predicts {what} for each utterance of a dialogue, from the utterance and from those before and after it. "
        f"On the test split of {name} its weighted F1 is {percent(test['f1_weighted'].estimate)}{mean}."
    )


def intervals(model: Model, single: Mapping[str, SplitScores]) -> str:
    """Return what the intervals are, or why there are none.

    Args:
        model: The model.
        single: Split -> scores with the intervals of the bootstrap; empty for several runs or without predictions.
    """
    if len(model.seeds) > 1:
        decided = any(design.pairs is None for design in read_designs(model.folder))
        open_ended = " The number of seeds was decided while the sweep ran, so it can be too narrow." if decided else ""
        return (
            f"In parentheses: the 95 % t interval of the mean over {len(model.seeds)} seeds. It holds for the test dialogues "
            f"of these runs and does not include the variance over dialogues.{open_ended}"
        )
    if len(model.runs) > 1:
        return "There is no interval: this is one seed."
    if not single:
        return "There is no interval: this is one seed, and its predictions are not recorded."
    found = {split: single[split].scores["f1_weighted"] for split in EVALUATED}
    without = [split for split, score in found.items() if not math.isfinite(score.low)]
    too_few = any(math.isfinite(found[split].estimate) for split in without)
    reason = "a bootstrap needs two dialogues" if too_few else "no utterance has a label"
    if len(without) == len(EVALUATED):
        return f"There is no interval: {reason}."
    rest = f" The scores on {without[0]} have none: {reason}." if without else ""
    return (
        "In parentheses: the 95 % interval of the bootstrap over dialogues. It does not include the variance over seeds: "
        f"another seed can give other scores.{rest}"
    )


def worst(runs: Sequence[Run], single: Mapping[str, SplitScores], f1: Mapping[str, Estimate]) -> str:
    """Return the class with the lowest F1 on test, in words; "" with fewer than two classes that occur in test.

    Args:
        runs: The runs.
        single: See `intervals`.
        f1: Name of a class -> F1 on test.
    """
    occurring = _occurring(runs, single, f1)
    known = {name: value.estimate for name, value in occurring.items() if math.isfinite(value.estimate)}
    if len(known) < 2:
        return ""
    lowest = percent(min(known.values()))
    names = [name for name, value in known.items() if percent(value) == lowest]
    what = "class with the lowest F1 on test is" if len(names) == 1 else "classes with the lowest F1 on test are"
    return f"The {what} {listing(names)} ({lowest})"


def _occurring(
    runs: Sequence[Run], single: Mapping[str, SplitScores], f1: Mapping[str, Estimate]
) -> dict[str, Estimate]:
    """Return the F1 of the classes that occur in test. That of any other class says nothing, as it is 0 or unknown."""
    if single:
        return {name: value for name, value in f1.items() if single["test"].support[name]}
    found = [classes(run.info)["test"] for run in runs] if f1 else []
    return {name: value for name, value in f1.items() if any(scores[name].support for scores in found)}
