"""The Hydra sweeper `optuna_pruned`: Optuna search with pruning, resuming, parallel workers and paired comparisons.

`plugin` is the Hydra plugin. It calls `driver`, which launches and monitors workers. A `worker` claims trials and runs
each one in a separate process, the `trainer`. `plan` holds the trials to run, `study` wraps the Optuna study,
`registry` stores members and leases, and `status` reports the progress of a sweep.
"""
