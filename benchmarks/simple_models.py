"""Benchmark of simple models on the vectors and seeds of a run: the weighted F1 that joyful has to beat.

    python -m benchmarks.simple_models data=meld data.root=FOLDER modalities=t --seeds 10 [--json FILE]
    python -m benchmarks.simple_models data=mosi data.root=FOLDER modalities=atv --folds 0,1,2,3,4 --seeds 10

The settings are those of a run. `data`, `modalities` and `seed` decide what is trained on; all others have no effect.

Models (`--models`): the majority class (majority), logistic regression (lr), a perceptron without context (mlp), and a
two-way GRU over the dialogue (gru). benchmarks/peers/simple.py describes them and their options. The options are chosen
by the mean dev weighted F1 of the first `--choose` seeds. The models are then trained with all seeds. Test labels have
no part in the choice. Seeds count from `seed` (default 24); a list such as `--seeds 24,30,31` sets them.

With `--folds` (MOSI), the score of a seed is the mean of its scores in the folds, as in study/PLAN.md. The options are
chosen once for all folds, as a preset is. The dev videos of one fold are test videos of another, so scores of presets
and of these models share this advantage.

The table has, for each model: trained parameters, dev weighted F1 (mean over seeds, per cent), test weighted F1 (mean and
standard deviation over seeds, per cent) at the best dev evaluation, seconds with the choice, and the chosen options. The
JSON file also has the scores of each seed, to be paired with runs of the same seed, and the dev F1 of all options.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

from benchmarks.figures import machine, parser
from benchmarks.peers.simple import MODELS, Result, SimpleModel, Task, prepare
from benchmarks.workload import configure_torch_for_run
from joyful.config import Settings, check
from joyful.data.loading import load
from joyful.records import InputError
from tests.support.runs import compose_plain


@dataclass(frozen=True)
class Row:
    """Result of one model.

    Attributes:
        model: Name of the model.
        parameters: Number of trained parameters.
        options: Description of the chosen options.
        dev: Dev weighted F1 of each seed, as a fraction, the mean over folds.
        test: Test weighted F1 of each seed at the best dev evaluation, as a fraction, the mean over folds.
        test_folds: Test weighted F1 of each seed and fold.
        tried: Options -> mean dev weighted F1 of the seeds that chose.
        seconds: Wall seconds, with the choice.
    """

    model: str
    parameters: int
    options: str
    dev: Mapping[int, float]
    test: Mapping[int, float]
    test_folds: Mapping[int, Sequence[float]]
    tried: Mapping[str, float]
    seconds: float

    def line(self) -> str:
        """Return the line of the table."""
        dev, test = ([100 * value for value in part.values()] for part in (self.dev, self.test))
        spread = stdev(test) if len(test) > 1 else 0.0
        shown = f"{self.model:<22}{self.parameters:>11,}{fmean(dev):>8.2f}{fmean(test):>8.2f}{spread:>7.2f}"
        return f"{shown}{self.seconds:>9.1f}  {self.options}".rstrip()


HEADER = f"{'model':<22}{'parameters':>11}{'dev F1':>8}{'test F1':>8}{'sd':>7}{'seconds':>9}  options"


def measure(model: SimpleModel, tasks: Sequence[Task], seeds: Sequence[int], choose: int) -> Row:
    """Choose the options of a model on dev, and train it with all seeds.

    Args:
        model: The model.
        tasks: The folds; without folds, one task.
        seeds: Seeds of the result.
        choose: Number of seeds, the first of `seeds`, whose mean dev weighted F1 chooses the options.
    """
    clock = time.perf_counter()
    distinct = seeds if model.seeded else seeds[:1]
    options_of: dict[str, Mapping[str, Any]] = {}
    found: dict[str, dict[int, tuple[Result, ...]]] = {}  # options -> seed -> a result for each fold
    for options in model.grid:
        for seed in distinct[:choose]:
            for results in _train(model, tasks, options, seed):
                options_of[results[0].options] = options
                found.setdefault(results[0].options, {})[seed] = results
    tried = {name: fmean(_dev(results) for results in by_seed.values()) for name, by_seed in found.items()}
    chosen = max(tried, key=lambda name: tried[name])
    for seed in distinct[choose:]:
        trained = _train(model, tasks, options_of[chosen], seed)
        found[chosen][seed] = next(results for results in trained if results[0].options == chosen)
    by_seed = {seed: found[chosen][seed if model.seeded else seeds[0]] for seed in seeds}
    test = {seed: [result.test for result in results] for seed, results in by_seed.items()}
    return Row(
        model.name,
        by_seed[seeds[0]][0].parameters,
        chosen,
        {seed: _dev(results) for seed, results in by_seed.items()},
        {seed: fmean(values) for seed, values in test.items()},
        test,
        tried,
        time.perf_counter() - clock,
    )


def settings_of(overrides: Sequence[str], folds: Sequence[int]) -> list[Settings]:
    """Return the settings of each fold; without folds, those of the overrides alone."""
    of_folds = [[f"data.fold={fold}"] for fold in folds] or [[]]
    return [check(compose_plain([*overrides, *of_fold])[0]) for of_fold in of_folds]


def seeds_of(numbers: Sequence[int], first: int) -> list[int]:
    """Return the seeds that --seeds describes: one number counts them from `first`, several are the seeds.

    Example:
        >>> seeds_of([3], 24), seeds_of([7, 9], 24)
        ([24, 25, 26], [7, 9])
    """
    return list(range(first, first + numbers[0])) if len(numbers) == 1 else list(numbers)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the models, and print the table."""
    command_line = parser("simple_models", __doc__)
    command_line.add_argument("settings", nargs="*", metavar="NAME=VALUE", help="settings of a run, such as data=meld")
    command_line.add_argument(
        "--seeds", type=_numbers, default=[10], help="number of seeds, or two or more seeds with commas (default: 10)"
    )
    command_line.add_argument("--choose", type=int, default=3, help="seeds that choose options (default: %(default)s)")
    command_line.add_argument(
        "--folds",
        type=_numbers,
        default=[],
        help="folds to average over, such as 0,1,2,3,4 (default: that of data.fold)",
    )
    command_line.add_argument("--models", default=",".join(MODELS), help="models to train (default: %(default)s)")
    command_line.add_argument("--threads", type=int, default=1, help="threads of torch (default: %(default)s)")
    options = command_line.parse_intermixed_args(arguments)
    names = options.models.split(",")
    if unknown := [name for name in names if name not in MODELS]:
        command_line.error(f"--models: expected some of {', '.join(MODELS)}, got {', '.join(unknown)}")
    try:
        settings = settings_of(options.settings, options.folds)
        datasets = [load(one.data, one.modality_names) for one in settings]
        tasks = [prepare(data) for data in datasets]
    except InputError as error:
        command_line.error(str(error))
    seeds = seeds_of(options.seeds, settings[0].seed)
    if not 1 <= options.choose <= len(seeds):
        command_line.error(f"--choose: expected 1 to {len(seeds)}, the number of seeds, got {options.choose}")
    configure_torch_for_run(options.threads)
    of_folds = f", mean of folds {', '.join(map(str, options.folds))}" if options.folds else ""
    inputs = " + ".join(f"{name} {width}" for name, width in datasets[0].dimensions.items())
    print(f"{datasets[0].name}, {inputs}{of_folds}; {len(seeds)} seeds from {seeds[0]}; weighted F1 in per cent")
    print(HEADER, flush=True)
    rows = []
    for name in names:
        rows.append(measure(MODELS[name], tasks, seeds, options.choose))
        print(rows[-1].line(), flush=True)
    if options.json is not None:
        document = {
            "data": settings[0].data.model_dump(mode="json", exclude={"root", "cache"}),
            "dimensions": datasets[0].dimensions,
            "folds": options.folds,
            "seeds": seeds,
            "choose": options.choose,
            "machine": machine(options.threads),
            "models": [asdict(row) for row in rows],
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _train(
    model: SimpleModel, tasks: Sequence[Task], options: Mapping[str, Any], seed: int
) -> list[tuple[Result, ...]]:
    """Train every fold, and return for each result of the model the results of the folds."""
    return list(zip(*(model.train(task, options, seed) for task in tasks), strict=True))


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _dev(results: Sequence[Result]) -> float:
    return fmean(result.dev for result in results)


if __name__ == "__main__":
    main()
