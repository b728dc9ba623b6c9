"""Signals, memory, disk space and the connection to Hydra. This package does not import torch."""
