"""The page of a search: its best setting, the commands that use it, and how the trials went."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Mapping
from typing import Any

from joyful.analysis.arms import name_part
from joyful.analysis.columns import SHORT, is_score
from joyful.analysis.commands import made_by
from joyful.analysis.findings import Findings
from joyful.analysis.formatting import NONE, count, metric, number, three_digits
from joyful.analysis.optuna_study import Study
from joyful.analysis.page.parts import Section, Table, clean
from joyful.analysis.page.tables import make_table
from joyful.analysis.plots import study as plots
from joyful.analysis.plots.style import Plot
from joyful.results import InputError, read_run
from joyful.results.arms import flatten

#: Maximum number of parameters that are drawn, the most important first.
_MOST_PARAMETERS = 12

#: Maximum number of trials whose curves are drawn, the best first.
_MOST_CURVES = 200

#: File of the best settings below the folder of a sweep.
_OVERLAY = "experiment/best.yaml"


def is_search(findings: Findings) -> bool:
    """Return whether the sweep is a search: an Optuna study of parameters, without pairs of runs that could be compared."""
    study, sweep = findings.study, findings.sweep
    if study is None or any(len(sweep.pairs(arm)) > 1 for arm in sweep.others):
        return False
    return bool(len(study.settings.columns)) or (bool(study.note) and not sweep.arms)


def headline(findings: Findings) -> str:
    """Return the title of a search: its best setting."""
    study = findings.study
    assert study is not None
    name, scale, unit = _objective(findings)
    if study.best is None:
        return f"No trial of {clean(study.name) or 'the search'} is complete yet"
    if len(study.directions) > 1:
        trials = count(len(study.objectives), "complete trial")
        return f"{count(len(study.front), 'setting')} of {trials} cannot be improved in one objective without losing in another"
    best = float(study.trials.set_index("number")["value"].to_dict()[study.best])
    value = _value(best if study.mean is None else study.mean.mean, scale, unit)
    if study.mean is not None:
        error = study.mean.standard_error
        spread = "" if error is None else f", standard error {_value(error, scale, unit)}"
        value += f" (mean of {count(study.mean.seeds, 'seed')}{spread})"
    trials = count(len(study.trials) - len(study.repeats), "trial")
    return f"Best of {trials}: {name} {value} with {clean(_settings(study, study.best))}"


def _value(value: float, scale: float, unit: str) -> str:
    return f"{number(scale * value, 2)} %" if unit else three_digits(value)


def sections(findings: Findings) -> tuple[Section, ...]:
    """Return the sections of a search."""
    study = findings.study
    assert study is not None
    name, scale, unit = _objective(findings)
    axis = f"{name} ({unit})" if unit else name
    remarks = [clean(text) for text in (study.note,) if text]
    if not len(study.trials):
        return (Section("search", "Search", tuple(remarks)),)
    states = {int(n): str(s) for n, s in zip(study.trials["number"], study.trials["state"], strict=True)}
    ranked = _ranked(study)
    drawn = study.reported[study.reported["number"].isin(ranked[:_MOST_CURVES])]
    of_search = study.trials[~study.trials["number"].isin(list(study.repeats))]
    overview: list[Plot] = [plots.history(of_search, axis, study.maximise, scale)]
    overview += [plots.curves(drawn, states, axis, study.best, scale)] if len(drawn) else []
    overview += [plots.importances(study.importances)] if len(study.importances) else []
    overview += [plots.timeline(study.trials)] if study.trials["start"].notna().any() else []
    if len(study.directions) > 1 and len(study.objectives):
        overview.insert(0, plots.front(study.objectives, study.front))
    finalists = _finalists(findings, name, scale, unit)
    built = (
        Section("best", "Use the best setting", _advice(study), tables=finalists, commands=_commands(findings)),
        Section("parameters", "Score against each parameter", plots=tuple(_parameters(study, axis, scale))),
        Section("search", "How the search went", tuple(remarks), tuple(overview)),
        Section("trials", "Trials", tables=(_trials(findings, name, scale, unit, ranked),)),
    )
    return tuple(s for s in built if s.text or s.plots or s.tables or s.commands)


def _advice(study: Study) -> tuple[str, ...]:
    text = "The best of many trials is better than its setting by luck too, because the luckiest run was selected."
    if study.mean is not None:
        text = "The mean of a finalist is better than its setting by luck too, because its first run was selected."
    return (f"{text} Confirm it in pairs with new seeds before you report it.",) if study.best is not None else ()


def _commands(findings: Findings) -> tuple[tuple[str, str], ...]:
    """Return the commands that train the best setting and that compare it with the baseline in pairs."""
    study, sweep = findings.study, findings.sweep
    if study is None or study.best is None or study.best not in study.overrides:
        return ()
    origin = made_by(sweep.path, list(sweep.runs["run"].dropna())[:1])
    program, place = origin.program or "python run.py", shlex.quote(clean(origin.folder or sweep.path.resolve().name))
    if not (sweep.path / _OVERLAY).is_file():
        return (("Train the best:", f"{program} {clean(study.overrides[study.best])}"),)
    own = "training.epochs" in _config(findings)
    chosen = f"{'' if own else '+'}experiment=best"
    baseline = "loss=mse weights=baseline" if own else "BASELINE_OVERRIDES"
    settings = "+sweeps=_paired" if own else "hydra/sweeper=optuna_pruned hydra/sweeper/pruner=none"
    pairs = f"hydra.sweeper.pairs=12 \"hydra.sweeper.arms=['{baseline}','{chosen}']\""
    name = " sweep_name=confirm" if own else ""
    return (
        ("Train the best:", f"{program} --config-dir {place} {chosen}"),
        ("Confirm the best in pairs:", f"{program} -m --config-dir {place} {settings} {pairs}{name}"),
    )


def _config(findings: Findings) -> Mapping[str, Any]:
    """Return the settings of the first run that can be read, by their dotted names."""
    for name in findings.sweep.runs["run"].dropna():
        with contextlib.suppress(InputError, OSError):
            return flatten(read_run(findings.sweep.path / name).get("config") or {})
    return {}


def _objective(findings: Findings) -> tuple[str, float, str]:
    """Return the name of the objective, the factor from its values to the page, and their unit there."""
    study = findings.study
    assert study is not None
    name = study.objective
    for run in study.trials.loc[study.trials["number"] == study.best, "run"]:
        with contextlib.suppress(InputError, OSError):
            name = name or str(read_run(findings.sweep.path / run).get("objective_name") or "")
    dev = "dev " * name.startswith("dev_")
    words = [SHORT.get(word, word) for word in clean(name).removeprefix("dev_").split(" ")]
    score = is_score(words[-1])
    return metric(dev + " ".join(words)) or "objective", 100.0 if score else 1.0, "%" if score else ""


def _ranked(study: Study) -> list[int]:
    """Return the numbers of the trials, the best first; trials without a value come last."""
    order = study.trials.assign(done=study.trials["state"] == "complete").sort_values(
        ["done", "value", "number"], ascending=[False, not study.maximise, True], na_position="last"
    )
    return [int(number) for number in order["number"]]


def _parameters(study: Study, axis: str, scale: float) -> list[Plot]:
    names = [name for name in study.importances.sort_values(ascending=False).index if name in study.settings]
    names += [name for name in study.settings.columns if name not in names]
    drawn = [
        plots.against(study.trials, study.settings[name], str(name), axis, f"parameter-{number}", scale)
        for number, name in enumerate(names[:_MOST_PARAMETERS], start=1)
    ]
    return [plot for plot in drawn if plot is not None]


def _settings(study: Study, trial: int) -> str:
    """Return the parameters of a trial with short names: "encoder 0.03, cl 0.2"."""
    return ", ".join(name_part(name, _rounded(value)) for name, value in _parameters_of(study, trial).items())


def _parameters_of(study: Study, trial: int) -> dict[str, Any]:
    """Return the parameters of a trial."""
    if trial not in study.settings.index:
        return {}
    values: dict[Any, Any] = study.settings.loc[[trial]].to_dict("records")[0]
    return {str(name): value for name, value in values.items() if value is not None and value == value}


def _setting(value: Any) -> str:
    return NONE if value is None else three_digits(value) if isinstance(value, float) else str(value)


def _rounded(value: Any) -> Any:
    return float(f"{value:.3g}") if isinstance(value, float) else value


def _finalists(findings: Findings, name: str, scale: float, unit: str) -> tuple[Table, ...]:
    """Return the table of the finalists that were trained on further seeds, the best first."""
    study = findings.study
    if study is None or not study.finalists:
        return ()
    rows = []
    for one in study.finalists:
        error = "" if one.standard_error is None else _value(one.standard_error, scale, "")
        mean = number(scale * one.mean, 2) if unit else three_digits(one.mean)
        rows.append([one.trial, _settings(study, one.trial), mean, error or NONE, one.seeds])
    label = f"mean {name} ({unit})" if unit else f"mean {name}"
    columns = ["trial", "settings", label, "standard error", "seeds"]
    return (make_table("table-finalists", "Finalists, best mean first", columns, rows, text=(1,)),)


def _trials(findings: Findings, name: str, scale: float, unit: str, ranked: list[int]) -> Table:
    study = findings.study
    assert study is not None
    names, several = list(study.settings.columns), list(study.objectives.columns)
    names += ["seed"] if study.repeats and "seed" not in names else []
    by_number = {row["number"]: row for row in study.trials.to_dict("records")}
    of_objectives: dict[Any, dict[Any, Any]] = study.objectives.to_dict("index")
    rows = []
    for trial in ranked:
        row, settings = by_number[trial], _parameters_of(study, trial)
        value = number(scale * row["value"], 2) if unit else three_digits(row["value"])
        if trial in study.repeats:
            settings = settings | {"seed": study.repeats[trial]}
        others = [three_digits(of_objectives.get(trial, {}).get(column)) for column in several[1:]]
        found = [_setting(settings.get(parameter)) for parameter in names]
        rows.append(
            [trial, row["state"], value, *others, *found, number(row["end"] - row["start"], 1), row["run"] or NONE]
        )
    columns = ["trial", "state", f"{name} ({unit})" if unit else name, *several[1:], *names, "seconds", "run"]
    last = len(columns) - 1
    return make_table(
        "table-trials", "Trials, best first", columns, rows, text=(1, last), file="trials.parquet", runs=last
    )
