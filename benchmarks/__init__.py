"""Benchmarks: each prints ratios measured in one run, one line per figure, and writes JSON with --json FILE.

figures and measuring hold what they share, workload what they train, peers what they are measured against.
docs/PERFORMANCE.md says what each measures and what was found.
"""
