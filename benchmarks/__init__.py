"""Benchmarks. Each prints a line per figure with a ratio measured in the same run, and writes JSON with --json FILE.
simple_models prints scores in place of ratios.

Modules figures and measuring hold shared code, workload builds the data and models, and peers holds the implementations
that joyful is compared with. docs/PERFORMANCE.md describes the measurements and their results.
"""
