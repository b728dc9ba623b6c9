"""Labels for new dialogues from trained models: `load` a run, `predict` a table, and `export` a model to share it."""

from joyful.prediction.export import export
from joyful.prediction.predictor import Predictions, Predictor, load

__all__ = ["Predictions", "Predictor", "export", "load"]
