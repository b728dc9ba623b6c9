"""Experiment trackers that get a copy of what a run writes: TensorBoard, MLflow and Weights & Biases.

`Tracking` is all that the trainer, the sweeper and the report use. Each tracker is a module of this folder with a class
that is registered in TRACKERS; its library is imported when a run starts to use it. A tracker never ends a run.
"""

from joyful.trackers.tracker import TRACKERS, TrackedRun, Tracker, require
from joyful.trackers.tracking import STATE, Tracking, attach_report, by_step

__all__ = ["STATE", "TRACKERS", "TrackedRun", "Tracker", "Tracking", "attach_report", "by_step", "require"]
