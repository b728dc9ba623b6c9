"""A model checker of the claim protocol: it runs the real registry, worker and driver in every order of their statements.

`databases` keeps each content of the database, `actors` runs the real code one statement at a time, `world` has the states
and the faults, `search` visits all states, `invariants` judges them. docs/RELIABILITY.md says what this shows.
"""
