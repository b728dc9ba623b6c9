"""The settings of hydra/sweeper=optuna_pruned (conf/hydra/sweeper/optuna_pruned.yaml), with units and ranges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from joyful.config import Positive, validate
from joyful.records import InputError

Direction = Literal["maximize", "minimize"]

#: Objective -> its direction.
OBJECTIVES: dict[str, Direction] = {"dev_f1": "maximize", "epochs_to_target": "minimize"}

#: Seeds of the calibration runs, which train the baseline arm.
CALIBRATION_SEEDS = (9000, 9001, 9002)


class SweepSettings(BaseModel):
    """The settings of `hydra.sweeper`, except sampler and pruner. Each field has its description."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    n_trials: Positive = Field(description="total number of trials of the study; running the command again adds none")
    n_jobs: Annotated[int, Field(ge=1, le=10_000)] = Field(description="workers that this command launches")
    params: dict[str, Any] = Field(
        description="search space: name -> interval(...), choice(...), range(...) or a value"
    )
    trials: list[str] | None = Field(description="override strings of the trials, run in this order")
    arms: list[str] | None = Field(description="override strings of the arms; the first is the baseline")
    pairs: Annotated[int, Field(ge=1, le=1000)] = Field(description="seeds per arm (with arms)")
    first_seed: Annotated[int, Field(ge=0, le=1_000_000)] = Field(description="first of these seeds (with arms)")
    folds: list[Annotated[int, Field(ge=0, le=99)]] | None = Field(
        description="values of data.fold for each seed of each arm (with arms); null: data.fold is not varied"
    )
    calibration: bool = Field(description="run the baseline arm on seeds 9000 to 9002 first (with arms)")
    objectives: list[Literal["dev_f1", "epochs_to_target"]] = Field(
        min_length=1, max_length=2, description="objectives: dev_f1 (maximized), epochs_to_target (minimized)"
    )
    target: Annotated[float, Field(gt=0.0, le=1.0)] | None = Field(
        description="dev weighted F1, as a fraction, for epochs_to_target"
    )
    storage: str | None = Field(description="database URL (sqlite or postgresql); null: study.db in the sweep folder")
    study_name: str | None = Field(description="name of the study; null: the sweep folder's name")
    workers_per_gpu: Positive = Field(description="workers that share a GPU")
    lease_seconds: Annotated[float, Field(ge=5.0, le=86_400.0)] = Field(
        description="seconds without a heartbeat after which a worker on another machine counts as dead"
    )

    @property
    def directions(self) -> list[Direction]:
        """Return the direction of each objective."""
        return [OBJECTIVES[name] for name in self.objectives]


def check_settings(values: Mapping[str, Any], pruner: str) -> SweepSettings:
    """Validate the settings.

    Args:
        values: The settings as plain values.
        pruner: Name of the pruner's class; "NopPruner" for none.

    Raises:
        InputError: If a value is out of range, or if settings contradict each other.
    """
    settings = validate(SweepSettings, values, prefix="hydra.sweeper.")
    if len(set(settings.objectives)) != len(settings.objectives):
        raise InputError(
            f"hydra.sweeper.objectives: expected different objectives, got {settings.objectives}; remove the duplicate"
        )
    if "epochs_to_target" in settings.objectives and settings.target is None:
        raise InputError(
            "hydra.sweeper.target: expected a dev weighted F1 for the objective epochs_to_target, got null; "
            "set hydra.sweeper.target=0.62"
        )
    if len(settings.objectives) > 1 and pruner != "NopPruner":
        raise InputError(
            f"hydra/sweeper/pruner: expected none with several objectives, got {pruner}, which ranks trials by a "
            "single value; set hydra/sweeper/pruner=none"
        )
    if settings.objectives == ["epochs_to_target"] and pruner != "NopPruner":
        raise InputError(
            f"hydra/sweeper/pruner: expected none with the objective epochs_to_target, got {pruner}; the objective has "
            "no value before the target is reached; set hydra/sweeper/pruner=none"
        )
    if settings.folds is not None and (not settings.folds or len(set(settings.folds)) < len(settings.folds)):
        raise InputError(
            f"hydra.sweeper.folds: expected one or more different folds, got {settings.folds}; remove duplicates or "
            "set null"
        )
    overlap = set(range(settings.first_seed, settings.first_seed + settings.pairs)) & set(CALIBRATION_SEEDS)
    if settings.arms and settings.calibration and overlap:
        raise InputError(
            f"hydra.sweeper.first_seed: expected seeds that the calibration does not use, got {sorted(overlap)}; "
            "set another first_seed, or hydra.sweeper.calibration=false"
        )
    sources = [name for name in ("trials", "arms", "params") if getattr(settings, name)]
    if len(sources) > 1:
        raise InputError(
            f"hydra.sweeper: expected one of trials, arms and params, got {' and '.join(sources)}; keep one"
        )
    return settings
