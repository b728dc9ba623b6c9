"""``python run.py`` is ``joyful train``: train one run, or many."""

from joyful.runtime import heap, signals

if __name__ == "__main__":
    signals.leave_at_ctrl_c()
    heap.start_over()  # before anything is loaded

    from joyful.cli import train

    train()
