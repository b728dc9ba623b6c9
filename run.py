"""Train one run, or many: `python run.py --help`."""

import sys
from pathlib import Path

from joyful.runtime import heap, signals as interruption

if __name__ == "__main__":
    interruption.leave_at_ctrl_c()
    heap.start_over()  # before anything is loaded

import hydra
from omegaconf import DictConfig

from joyful.records import tell
from joyful.runtime.run_guard import refusing, targets


@refusing
@hydra.main(str(Path(__file__).resolve().parent / "conf"), "config", execution_whitelist=targets())
def main(config: DictConfig) -> float:
    """Train what the composed configuration says; returns the best dev weighted F1, to be maximised."""
    from joyful.training import experiment  # torch is imported here, so that --help and --cfg answer at once
    from joyful.runtime import hydra_request

    return experiment.door(lambda: hydra_request.from_hydra(config))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:  # between two runs of a multirun: experiment and the sweeper have answers of their own
        tell("interrupted by Ctrl-C; nothing that was completed is lost")
        sys.exit(130)
