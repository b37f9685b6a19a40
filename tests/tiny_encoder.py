"""Real encoders that load in a moment: one layer of random weights, a BERT over letters and pairs of them, a GPT-2 over bytes."""

import string
from collections.abc import Sequence
from pathlib import Path

DIMENSION = 16
LONGEST = 64
"""Tokens that the model reads at most."""


def make_tiny_encoder(folder: Path, *, seed: int = 0, longest: int = LONGEST) -> Path:
    """Write the model into a folder. Another seed gives other weights."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel

    part = folder.with_name(f"{folder.name}-part")
    words = _save_tokenizer(part, longest)
    torch.manual_seed(seed)
    BertModel(BertConfig(vocab_size=words, hidden_size=DIMENSION, num_hidden_layers=1, num_attention_heads=2,
                         intermediate_size=32, max_position_embeddings=longest)).save_pretrained(part)
    transformer = Transformer(str(part), max_seq_length=longest)
    SentenceTransformer(modules=[transformer, Pooling(DIMENSION)], device="cpu").save(str(folder))
    return folder


def make_tiny_cross_encoder(folder: Path, *, outputs: int = 1) -> Path:
    """A cross-encoder with random weights over the same letters, written into a folder."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    words = _save_tokenizer(folder, LONGEST)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertForSequenceClassification(BertConfig(
            vocab_size=words, hidden_size=DIMENSION, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=LONGEST, num_labels=outputs, initializer_range=0.5))
    model.save_pretrained(folder)
    return folder


def _save_tokenizer(folder: Path, longest: int) -> int:
    """Letters and parts of words that are one letter, in a new folder; how many there are."""
    from transformers import BertTokenizerFast

    letters = string.ascii_lowercase + string.digits
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=longest).save_pretrained(folder)
    return len(words)


def make_tiny_gpt2(folder: Path, texts: Sequence[str], *, layers: int = 1) -> Path:
    """A GPT-2 as others make it, written into a folder: byte-level BPE learned from the texts, none of our tokens, no padding."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    from policy.encoder import quiet_transformers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    bpe.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                                       special_tokens=["<|endoftext|>"], show_progress=False))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|endoftext|>", bos_token="<|endoftext|>")
    shape = GPT2Config(vocab_size=len(tokenizer), n_layer=layers, n_embd=DIMENSION, n_head=2, n_positions=LONGEST, bos_token_id=0,
                       eos_token_id=0)
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(0)
        GPT2LMHeadModel(shape).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder
