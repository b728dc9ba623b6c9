"""Analysis of a sweep: learning curves, convergence, stability, confidence intervals and verdicts on claims.

The package reads the results format (`joyful.results`). It imports no other part of joyful and does not need torch, so
a sweep can be analysed on a machine that cannot train.

    read_sweep (sweep) -> curves -> convergence, stability, gradient_ratio -> measures -> claims, response -> report

Functions take tidy data frames or arrays and return new ones. Random generators are passed in and never created inside.
"""
