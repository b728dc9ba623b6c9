"""The JOYFUL model: fusion of the modalities, context over the dialogue, dialogue graph, classifier.

``fusion`` and ``hierarchical_fusion`` join audio, text and video, ``context`` reads the dialogue in order, ``graph_layers`` and
``graph_model`` link utterances of a dialogue and classify them, and ``augmentation`` makes the views that the contrastive loss
compares. ``kernels`` holds what is replaced for speed.
"""
