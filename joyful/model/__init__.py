"""The JOYFUL model: fusion of the modalities, context over the dialogue, dialogue graph, classifier.

``fusion`` and ``hierarchical_fusion`` combine audio, text and video. ``context`` encodes the dialogue as a sequence.
``dialogue_graph`` builds the edges and attention blocks of a batch, and ``graph_layers`` the layers that use them.
``augmentation`` makes the views for the contrastive loss. ``graph_model`` is the complete model. ``kernels`` holds
operations that replace PyTorch's for speed or memory.
"""
