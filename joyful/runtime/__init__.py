"""What a program needs around its work: signals, memory, disk space, and the edges to Hydra. Imports no torch."""
