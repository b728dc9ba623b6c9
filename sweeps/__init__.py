"""Ready-made sweeps: ``joyful train -m +sweeps=NAME``."""
