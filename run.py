"""Train one run, or many with -m. The same program as ``joyful train``."""

from joyful.runtime import heap, signals

# Hydra's completion in bash only completes files that contain the text @hydra.main.
if __name__ == "__main__":
    signals.exit_on_ctrl_c()
    heap.restart_with_heap_settings()  # before other modules are loaded

    from joyful.cli import train

    train()
