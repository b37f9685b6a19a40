"""The encoder that a gate is built on, with its tokenizer and the tokens that only a gate's state has.

BERT and GPT-2, out of the package that ships, a folder, or the hub; safetensors weights only, and code that comes with a
model is never run. Attention is "sdpa": on CPU as fast as "eager" at a query's length, and up to 8 % faster on 16 texts of 128
tokens. Leaves out heads (`network.py`) and in-domain pre-training (`pretrain.py`).
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from kb.embedder import DEFAULT_MODEL, model_folder
from kb.errors import EmbedderError
from policy.errors import CheckpointError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ENCODER_DEFAULT = DEFAULT_MODEL
SPECIAL_TOKENS = ("[FETCH]", "[NO_FETCH]", "[STATIC]", "[UNKNOWN]")
"""What was done for a previous query; the last stands for a turn that isn't in our log."""
GPT2_ROLES = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
"""Tokens that a BERT has and a GPT-2 hasn't, by the tokenizer's name for them."""

Kind = Literal["bert", "gpt2"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""`model_type` of the encoders that are known."""

_ATTENTION = "sdpa"
_UNTRAINED = ("cls.", "lm_head.")
"""Where the parameters of a language-model head begin; an encoder's checkpoint need not have them."""
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json")
_NOISE = 0.02
"""Standard deviation around the mean row that a new token starts from: BERT's and GPT-2's own for new weights."""


def load_encoder(name: str) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """The encoder (BertModel without pooler, or GPT2Model; float32, dropout off) and its tokenizer.

    `name` is the packaged default's, a folder, or a hub id. Raises: CheckpointError when it is missing, damaged, or of
    another kind.
    """
    from transformers import BertModel, GPT2Model

    folder = _folder(name)
    if encoder_kind(folder) == "bert":
        return _load(BertModel, folder, add_pooling_layer=False)
    return _load(GPT2Model, folder)


def load_language_model(name: str) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """The encoder under its language-model head: BertForMaskedLM or GPT2LMHeadModel; `.base_model` is the encoder.

    The head is tied to the input embeddings; what the checkpoint lacks of it is new, drawn from torch's global generator.
    Raises: CheckpointError as `load_encoder`.
    """
    from transformers import BertForMaskedLM, GPT2LMHeadModel

    folder = _folder(name)
    return _load(BertForMaskedLM if encoder_kind(folder) == "bert" else GPT2LMHeadModel, folder)


def encoder_kind(folder: Path) -> Kind:
    """The kind of the checkpoint in a folder. Raises: CheckpointError for none, or one that isn't known."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: expected the configuration of a BERT or GPT-2 checkpoint, and it can't be read "
                              f"({_first_line(error)}); give a folder that has one") from error
    found = config.get("model_type") if isinstance(config, dict) else type(config).__name__
    for kind in KINDS:
        if found == kind:
            return kind
    raise CheckpointError(f"{path}: expected model_type {' or '.join(KINDS)}, got {found!r}; choose a BERT or GPT-2 encoder")


def add_special_tokens(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", generator_seed: int) -> tuple[str, ...]:
    """The tokens of a gate's state that were missing and are there now, with embeddings that the seed determines.

    A new row is the mean of the old ones plus a little noise. White space around a new token in a text belongs to the token, so
    that a query reads the same at the beginning of a text and after one. Nothing changes where nothing is missing.
    """
    import torch
    from tokenizers import AddedToken

    roles = GPT2_ROLES if model.config.model_type == "gpt2" else {}
    wanted = (*roles.values(), *SPECIAL_TOKENS)
    missing = tuple(text for text in wanted if text not in tokenizer.get_vocab())
    if missing or any(getattr(tokenizer, role) != text for role, text in roles.items()):
        token = {text: AddedToken(text, lstrip=True, rstrip=True, normalized=False, special=True) for text in wanted}
        known = len(tokenizer)
        tokenizer.add_special_tokens({role: token[text] for role, text in roles.items()})
        tokenizer.add_special_tokens({"extra_special_tokens": [token[text] for text in SPECIAL_TOKENS]},
                                     replace_extra_special_tokens=False)
        generator = torch.Generator().manual_seed(generator_seed)
        _new_rows(model, known, tokenizer.convert_tokens_to_ids(list(missing)), len(tokenizer), generator)
    model.config.pad_token_id = tokenizer.pad_token_id
    return missing


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No bars and reports of transformers meanwhile; what they would say of a checkpoint is checked here."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _folder(name: str) -> Path:
    """Where the checkpoint is; a hub model's files are fetched unless they are in the cache."""
    try:
        return model_folder(name, expected="a BERT or GPT-2 checkpoint")
    except EmbedderError as error:
        raise CheckpointError(str(error)) from error


def _load(model_class: "type[PreTrainedModel]", folder: Path, **options: object) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    # imported here: torch and transformers take seconds, and a command's `--help` needs neither
    import torch
    from transformers import AutoTokenizer

    if not any(folder.glob("*.safetensors")):
        raise CheckpointError(f"{folder}: expected model.safetensors in it, got none; only safetensors weights are loaded")
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise CheckpointError(f"{folder}: expected a tokenizer ({', '.join(_TOKENIZER_FILES)}), got none; save it with the weights")
    with quiet_transformers():
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
            model, report = model_class.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32,
                attn_implementation=_ATTENTION, output_loading_info=True, **options,
            )
        except Exception as error:  # a damaged folder makes the library fail in any way
            raise CheckpointError(f"{folder}: expected a BERT or GPT-2 checkpoint that is whole, and it doesn't load "
                                  f"({_first_line(error)}); copy or train it anew") from error
    _check_whole(folder, model, tokenizer, sorted(key for key in report["missing_keys"] if not key.startswith(_UNTRAINED)))
    return model, tokenizer


def _check_whole(folder: Path, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", missing: list[str]) -> None:
    """Refuse what the library loads nevertheless: weights that are missing or not finite, tokens without an embedding."""
    if missing:
        raise CheckpointError(f"{folder}: expected weights for all of a {model.config.model_type} encoder, got none for "
                              f"{missing[0]} and {len(missing) - 1} more; do config.json and the weights belong together?")
    damaged = next((name for name, weight in model.named_parameters() if not weight.isfinite().all()), None)
    if damaged is not None:
        raise CheckpointError(f"{folder}: expected finite weights, got NaN or infinity in {damaged}; copy or train it anew")
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise CheckpointError(f"{folder}: expected an embedding for each of the tokenizer's {len(tokenizer)} tokens, got {rows}; "
                              "do the tokenizer and the weights belong together?")


def _new_rows(model: "PreTrainedModel", known: int, ids: list[int], tokens: int, generator: "torch.Generator") -> None:
    """Give the tokens `ids` their embeddings; the first `known` rows are those of old tokens."""
    import torch

    # a vocabulary that was padded has rows to spare, and is never cut
    if tokens > model.get_input_embeddings().weight.shape[0]:
        with quiet_transformers(), torch.random.fork_rng(devices=[]):  # what it draws is overwritten below
            model.resize_token_embeddings(tokens, mean_resizing=False)
    weight = model.get_input_embeddings().weight
    with torch.no_grad():
        noise = torch.randn(len(ids), weight.shape[1], generator=generator)
        weight[ids] = weight[:known].mean(dim=0) + _NOISE * noise


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
