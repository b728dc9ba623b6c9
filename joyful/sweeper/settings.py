"""The settings of hydra/sweeper=optuna_pruned, with units and ranges. `plugin.DEFAULTS` has their defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from joyful.records import InputError
from joyful.trackers import require
from joyful.validation import Positive, validate

Direction = Literal["maximize", "minimize"]

#: Seeds of the calibration runs, which train the baseline arm.
CALIBRATION_SEEDS = (9000, 9001, 9002)


@dataclass(frozen=True)
class Finals:
    """How the finalists of a search are trained again.

    Attributes:
        count: Largest number of finalists.
        seeds: The further seeds. The first seed of each finalist is that of the search.
        seed_key: The setting of the program that holds the seed.
    """

    count: int
    seeds: tuple[int, ...]
    seed_key: str

    @property
    def most(self) -> int:
        """Largest number of trials."""
        return self.count * len(self.seeds)


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
    pairs: Annotated[int, Field(ge=1, le=1000)] | Literal["auto"] = Field(
        description="seeds per arm (with arms); auto: pairs until the claims are decided"
    )
    max_pairs: Annotated[int, Field(ge=6, le=1000)] = Field(description="largest number of pairs (with pairs=auto)")
    claims: str | None = Field(
        description="claims file, or the name of one of joyful's, that the sweep registers before its first run (with arms); "
        "a path refers to the current folder, or else to that of the program"
    )
    first_seed: Annotated[int, Field(ge=0, le=1_000_000)] = Field(description="first of these seeds (with arms)")
    folds: list[Annotated[int, Field(ge=0, le=99)]] | None = Field(
        description="folds of each seed of each arm (with arms); null: there are no folds"
    )
    seeds: Annotated[int, Field(ge=1, le=1000)] = Field(
        description="seeds of each finalist of a search; the best is the best mean over them; 1: every configuration has one"
    )
    finalists: Annotated[int, Field(ge=1, le=1000)] = Field(
        description="configurations that are trained on further seeds when the search is over (with seeds)"
    )
    calibration: bool = Field(description="run the baseline arm on seeds 9000 to 9002 first (with arms)")
    direction: Direction | list[Direction] = Field(
        description="minimize or maximize what the program returns; a list for several objectives"
    )
    metric_names: list[str] | None = Field(description="name of each objective, for dashboards; null: none")
    seed_key: str = Field(description="setting of the program that holds the seed")
    fold_key: str = Field(description="setting of the program that holds the fold (with folds)")
    role_key: str | None = Field(
        description="setting of the program that is set to calibration for the calibration runs; null: there is none"
    )
    may_differ: list[str] = Field(
        description="settings of the program that may differ between two commands of one sweep, such as folders"
    )
    storage: str | None = Field(description="database URL (sqlite or postgresql); null: study.db in the sweep folder")
    study_name: str | None = Field(description="name of the study; null: the sweep folder's name")
    track: list[str] = Field(
        description="trackers that get a copy of parameters, reports and results: tensorboard, mlflow, wandb"
    )
    workers_per_gpu: Positive = Field(description="workers that share a GPU")
    lease_seconds: Annotated[float, Field(ge=5.0, le=86_400.0)] = Field(
        description="seconds without a heartbeat after which a worker on another machine counts as dead"
    )

    @property
    def most_pairs(self) -> int:
        """Return the number of pairs, or the largest number with pairs=auto."""
        return self.max_pairs if self.pairs == "auto" else self.pairs

    @property
    def directions(self) -> list[Direction]:
        """Return the direction of each objective."""
        return [self.direction] if isinstance(self.direction, str) else list(self.direction)


def check_settings(values: Mapping[str, Any]) -> SweepSettings:
    """Validate the settings.

    Args:
        values: The settings as plain values.

    Raises:
        InputError: If a value is out of range, or if settings contradict each other.
    """
    settings = validate(SweepSettings, values, prefix="hydra.sweeper.")
    if not settings.directions:
        raise InputError("hydra.sweeper.direction: expected minimize, maximize or a list of them, got an empty list")
    if settings.metric_names is not None and len(settings.metric_names) != len(settings.directions):
        raise InputError(
            f"hydra.sweeper.metric_names: expected {len(settings.directions)} names, one for each direction, got "
            f"{settings.metric_names}"
        )
    if settings.folds is not None and (not settings.folds or len(set(settings.folds)) < len(settings.folds)):
        raise InputError(
            f"hydra.sweeper.folds: expected one or more different folds, got {settings.folds}; remove duplicates or "
            "set null"
        )
    overlap = set(range(settings.first_seed, settings.first_seed + settings.most_pairs)) & set(CALIBRATION_SEEDS)
    if settings.arms and settings.calibration and overlap:
        raise InputError(
            f"hydra.sweeper.first_seed: expected seeds that the calibration does not use, got {sorted(overlap)}; "
            "set another first_seed, or hydra.sweeper.calibration=false"
        )
    if settings.pairs == "auto" and not settings.arms:
        raise InputError("hydra.sweeper.pairs=auto: expected hydra.sweeper.arms, got none; set the arms to compare")
    if settings.pairs == "auto" and settings.claims is None:
        raise InputError(
            "hydra.sweeper.pairs=auto: expected claims to decide, got none; set hydra.sweeper.claims to a claims file"
        )
    _check_seeds(settings)
    require(settings.track, "hydra.sweeper.track")
    sources = [name for name in ("trials", "arms", "params") if getattr(settings, name)]
    if len(sources) > 1:
        raise InputError(
            f"hydra.sweeper: expected one of trials, arms and params, got {' and '.join(sources)}; keep one"
        )
    return settings


def _check_seeds(settings: SweepSettings) -> None:
    """Raise InputError if finalists of a search are wanted and the sweep is no search of one objective."""
    what = f"hydra.sweeper.seeds={settings.seeds}"
    if settings.seeds > 1 and (settings.trials or settings.arms):
        name = "trials" if settings.trials else "arms"
        raise InputError(
            f"{what}: expected a search space, got hydra.sweeper.{name}, which has its own seeds; set hydra.sweeper.seeds=1"
        )
    if settings.seeds > 1 and len(settings.directions) > 1:
        raise InputError(
            f"{what}: expected one objective, got the directions {', '.join(settings.directions)}; set hydra.sweeper.seeds=1"
        )
