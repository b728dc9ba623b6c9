"""The Hydra sweeper `optuna_pruned`: Optuna search with pruning, resuming, parallel workers and paired comparisons.

It runs any Hydra program. The program reports to the sweep through the object `trial`, see `current_trial`.

`plugin` is the Hydra plugin. It calls `driver`, which launches and monitors workers. A `worker` claims trials and runs
each one in a separate process, the `trainer`, which rebuilds the `program`. `plan` holds the trials to run, `study`
wraps the Optuna study, `registry` stores members and leases, and `status` reports the progress of a sweep.
"""

from typing import Any

from joyful.sweeper.current_trial import CurrentTrial, trial

__all__ = ["CurrentTrial", "TrialPaused", "trial"]


def __getattr__(name: str) -> Any:
    if name == "TrialPaused":  # it needs Optuna, which the rest of the package's interface does not import
        from joyful.sweeper import current_trial

        return current_trial.TrialPaused
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
