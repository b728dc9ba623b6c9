"""What a sweep says: curves, convergence, stability, intervals and verdicts, from the results format alone.

Everything here reads `joyful.results` and nothing else of joyful; no torch, so a laptop opens what a cluster trained.

    read_sweep (sweep) -> curves -> convergence, stability, gradient_ratio -> statistics -> claims, response

Functions take tidy frames or arrays and return new ones; random generators are passed in, never made inside.
"""
