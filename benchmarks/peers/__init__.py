"""Peers of the benchmarks: other implementations of the same model and trainer, and simple models."""
