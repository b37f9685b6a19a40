"""One text from a causal language model: prompt to tokens, tokens to text, and how each token is chosen.

Importing it loads torch and transformers, so `local.py` does that only when a model is asked for. Sampling draws its noise from
a generator of its own (argmax of log-probabilities and Gumbel noise is a draw from them), so that a seed gives the same text
whatever else the process draws. Leaves out threads.
"""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.generation import (
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.generation.streamers import BaseStreamer
from transformers.utils import logging as transformers_logging

from chat.errors import LLMError
from chat.llm.local import Ended, LocalConfig
from chat.llm.stopping import StopStrings
from chat.types import FinishReason, Message, Sampling, Usage

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What a letter of several tokens decodes to until it is whole."""
PLAIN_STOPS = ("\nuser:", "\nsystem:")
"""Where a model without a chat template begins to speak for the others."""


class Generator:
    """A model with its tokenizer. Not safe for two threads at once."""

    def __init__(self, config: LocalConfig) -> None:
        """Load them. Raises: LLMError when they are missing or can't be used."""
        self._config = config
        self._tokenizer, self._model = _load(config)
        own = self._model.generation_config
        ends = own.eos_token_id if own.eos_token_id is not None else self._tokenizer.eos_token_id
        self._ends = set(ends) if isinstance(ends, list) else set() if ends is None else {ends}
        pad = self._tokenizer.pad_token_id
        # the strategy is ours to choose: nothing else of the model's own generation settings stays
        self._model.generation_config = GenerationConfig(
            eos_token_id=sorted(self._ends) or None, pad_token_id=pad if pad is not None else min(self._ends, default=0)
        )

    def generate(
        self, messages: Sequence[Message], sampling: Sampling, emit: Callable[[str], None], unwanted: threading.Event
    ) -> Ended:
        """Generate until the end, a stop string, `max_tokens`, or `unwanted`; `emit` gets the text in pieces, never an empty one.

        Raises: LLMError when the prompt leaves no room for an answer.
        """
        prompt = self._encoded(messages)
        input_tokens = int(prompt.shape[1])
        limit = self._limit(input_tokens, sampling.max_tokens)
        stops = StopStrings((*sampling.stop, *(() if self._tokenizer.chat_template else PLAIN_STOPS)))
        speaker = Speaker(self._text, stops, emit)
        beams = self._config.num_beams if sampling.temperature is None and self._config.strategy == "beam" else 1
        with torch.inference_mode():
            tokens = self._model.generate(
                prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=limit, do_sample=False, num_beams=beams,
                logits_processor=self._sampler(sampling), streamer=speaker if beams == 1 else None,
                stopping_criteria=StoppingCriteriaList([_StopWhen(lambda: stops.stopped or unwanted.is_set())]),
            )[0, input_tokens:].tolist()
        if beams > 1:  # transformers streams no beams
            speaker.say_all(tokens)
        ended = stops.stopped or (bool(tokens) and tokens[-1] in self._ends)
        finish: FinishReason = "length" if not ended and len(tokens) >= limit else "stop"
        return Ended(finish, Usage(input_tokens, len(tokens), source="model"))

    def _encoded(self, messages: Sequence[Message]) -> torch.Tensor:
        """Token ids, shape (1, n): by the chat template, else as "role: text" lines."""
        if self._tokenizer.chat_template:
            chat = [{"role": message.role, "content": message.content} for message in messages]
            try:
                encoded = self._tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt",
                                                              return_dict=True)
            except TemplateError as error:
                raise LLMError(f"{self._config.model}: its chat template refuses this prompt ({error}); use a model whose "
                               "template knows system, user and assistant messages", retryable=False) from error
        else:
            lines = [f"{message.role}: {message.content}" for message in messages]
            encoded = self._tokenizer("\n".join([*lines, "assistant:"]), return_tensors="pt")
        ids: torch.Tensor = encoded["input_ids"].to(self._config.device)
        return ids

    def _limit(self, input_tokens: int, max_tokens: int | None) -> int:
        """Most tokens of the answer. Raises: LLMError when the context has no room for one."""
        wanted = self._config.max_new_tokens if max_tokens is None else max_tokens
        context: int | None = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        if context is None:
            return wanted
        if input_tokens >= context:
            raise LLMError(f"{self._config.model}: expected a prompt of fewer than {context} tokens, its context, got "
                           f"{input_tokens}; show fewer FAQs or past turns, or use a model of longer context", retryable=False)
        return min(wanted, context - input_tokens)

    def _sampler(self, sampling: Sampling) -> LogitsProcessorList:
        """What turns greedy choice into sampling; empty for greedy and beam search."""
        chosen = sampling.temperature is not None
        temperature = sampling.temperature if sampling.temperature is not None else self._config.temperature
        if temperature == 0 or not (chosen or self._config.strategy == "sample"):
            return LogitsProcessorList()
        top_p = self._config.top_p if sampling.top_p is None else sampling.top_p
        noise = torch.Generator(self._config.device)
        if sampling.seed is None:
            noise.seed()
        else:
            noise.manual_seed(sampling.seed % 2**63)
        warpers = [TemperatureLogitsWarper(float(temperature))]
        warpers += [TopKLogitsWarper(self._config.top_k)] if self._config.top_k else []
        warpers += [TopPLogitsWarper(top_p)] if top_p < 1 else []
        return LogitsProcessorList([*warpers, GumbelNoise(noise)])

    def _text(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))


class GumbelNoise(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped here
    """Adds the noise with which the largest logit is a draw from softmax(logits)."""

    def __init__(self, noise: torch.Generator) -> None:
        self._noise = noise

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Shapes: scores and result (B, V)."""
        uniform = torch.rand(scores.shape, generator=self._noise, device=scores.device)
        smallest = torch.finfo(uniform.dtype).tiny
        return scores.float() - torch.log((-torch.log(uniform.clamp(min=smallest))).clamp(min=smallest))


class _StopWhen(StoppingCriteria):  # type: ignore[misc]
    """Ends a generation at the next token."""

    def __init__(self, over: Callable[[], bool]) -> None:
        self._over = over

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self._over(), dtype=torch.bool, device=input_ids.device)


class Speaker(BaseStreamer):  # type: ignore[misc]
    """Tokens to text, as they come: whole letters only, and nothing of a stop string.

    transformers' own TextIteratorStreamer knows no stop strings, and holds every word back until the next one begins.
    """

    def __init__(self, text: Callable[[Sequence[int]], str], stops: StopStrings, emit: Callable[[str], None]) -> None:
        self._text = text
        self._stops = stops
        self._emit = emit
        self._line: list[int] = []
        """Tokens since the last line's end: all that decoding the next one depends on."""
        self._said = 0
        """Characters of that line that were said."""
        self._is_prompt = True

    def put(self, value: torch.Tensor) -> None:
        """The prompt first, then one token at a time."""
        if self._is_prompt:
            self._is_prompt = False
            return
        self._line += value.flatten().tolist()
        text = self._text(self._line)
        if not text.endswith(UNFINISHED):
            self._say(text)

    def end(self) -> None:
        """What is left, unfinished or held back."""
        self._say(self._text(self._line))
        if rest := self._stops.flush():
            self._emit(rest)

    def say_all(self, tokens: Sequence[int]) -> None:
        """A whole text at once."""
        self._line = list(tokens)
        self.end()

    def _say(self, text: str) -> None:
        if shown := self._stops.feed(text[self._said :]):
            self._emit(shown)
        self._said = len(text)
        if text.endswith("\n"):
            self._line, self._said = [], 0


def _load(config: LocalConfig) -> tuple[Any, Any]:
    """Tokenizer and model."""
    transformers_logging.disable_progress_bar()
    options = {"trust_remote_code": False, "local_files_only": Path(config.model).expanduser().is_dir()}
    try:
        tokenizer = AutoTokenizer.from_pretrained(config.model, **options)
        model = AutoModelForCausalLM.from_pretrained(config.model, use_safetensors=True, dtype="auto", **options)
        return tokenizer, model.to(config.device).eval()
    # AssertionError is torch's word for a device that it wasn't built for
    except (OSError, ValueError, RuntimeError, ImportError, KeyError, AssertionError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise LLMError(f"{config.model}: expected a causal language model for the device {config.device}, and it doesn't load "
                       f"({reason}); give a folder with config.json, a tokenizer and model.safetensors, or the hub id of such a "
                       "model", retryable=False) from error
