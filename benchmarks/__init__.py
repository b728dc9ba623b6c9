"""Benchmarks: each prints ratios measured in one run, one line per figure, and writes JSON with --json FILE."""
