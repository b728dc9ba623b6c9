"""JOYFUL: joint modality fusion and graph contrastive learning for emotion recognition in dialogue (Li et al., EMNLP 2023)."""
