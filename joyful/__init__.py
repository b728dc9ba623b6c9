"""Train JOYFUL emotion recognition in dialogue, sweep its loss weights, and judge training curves with intervals.

The model is that of Li et al., "Joyful: Joint Modality Fusion and Graph Contrastive Learning for Multimodal Emotion
Recognition", EMNLP 2023. :mod:`joyful.analysis` judges the curves of any trainer and does not need torch.
"""

__version__ = "0.2.0"
