"""Ready-made questions: ``joyful train -m +sweeps=NAME``."""
