"""`hydra/sweeper=optuna_pruned`: Optuna search with pruning, resume and workers, and paired sweeps by lists of overrides.

plugin (Hydra's face) -> driver (launches and watches workers) -> worker (claims trials) -> trainer (a process that trains).
plan, space of trials; study, the Optuna study; registry, who is alive and who holds which trial; status, what a sweep shows.
"""
