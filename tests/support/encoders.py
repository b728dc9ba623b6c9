"""Tiny text encoders, written by the libraries that real ones come from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def write_transformer(folder: Path, words: Sequence[str], width: int = 16) -> Path:
    """Write a sentence-transformers folder with one BERT layer of random weights and whole words as tokens.

    Args:
        folder: The new folder.
        words: The vocabulary.
        width: Features of a vector.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizer

    source = folder.with_name(f"{folder.name}-transformer")
    source.mkdir(parents=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    BertTokenizer(vocab={word: index for index, word in enumerate(vocabulary)}).save_pretrained(source)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=2 * width,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(config).save_pretrained(source)
    model = SentenceTransformer(modules=[Transformer(str(source)), Pooling(width)], device="cpu")
    model.save(str(folder), create_model_card=False)
    return folder
