"""Train JOYFUL emotion recognition in dialogue, sweep any Hydra program, and judge training curves with intervals.

The model is that of Li et al., "Joyful: Joint Modality Fusion and Graph Contrastive Learning for Multimodal Emotion Recognition",
EMNLP 2023. :mod:`joyful.sweeper` and :mod:`joyful.analysis` know nothing of it and need no torch.
"""

__version__ = "0.2.0"
