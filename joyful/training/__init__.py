"""Training of one run: steps (``coach``), evaluation, optimizers, checkpoints and the whole run (``experiment``)."""
