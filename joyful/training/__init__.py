"""Training of one run: the steps (``coach``), evaluation, optimizers, checkpoints, and the run as a whole (``experiment``)."""
