"""A real sentence-transformers model that loads in a moment: one BERT layer of random weights over letters and pairs of them."""

import string
from pathlib import Path

DIMENSION = 16
LONGEST = 64
"""Tokens that the model reads at most."""


def make_tiny_encoder(folder: Path, *, seed: int = 0) -> Path:
    """Write the model into a folder. Another seed gives other weights."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    letters = string.ascii_lowercase + string.digits
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    part = folder.with_name(f"{folder.name}-part")
    part.mkdir(parents=True)
    (part / "vocab.txt").write_text("\n".join(words) + "\n")
    BertTokenizerFast(vocab=str(part / "vocab.txt"), model_max_length=LONGEST).save_pretrained(part)
    torch.manual_seed(seed)
    BertModel(BertConfig(vocab_size=len(words), hidden_size=DIMENSION, num_hidden_layers=1, num_attention_heads=2,
                         intermediate_size=32, max_position_embeddings=LONGEST)).save_pretrained(part)
    transformer = Transformer(str(part), max_seq_length=LONGEST)
    SentenceTransformer(modules=[transformer, Pooling(DIMENSION)], device="cpu").save(str(folder))
    return folder
