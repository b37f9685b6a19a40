"""A local causal language model, through transformers.

One answer at a time: a model's weights and its random state are shared. Leaves out batching; for many users, serve the model
with `transformers serve` or vLLM and use `openai.py`.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from chat.errors import LLMError
from chat.ports import Chunk
from chat.types import FinishReason, Message, Sampling, Usage

Strategy = Literal["greedy", "beam", "sample"]


@dataclass(frozen=True, slots=True)
class LocalConfig:
    """Which model, and how it chooses its words when the request doesn't say."""

    model: str
    """A folder or a hub id, with safetensors weights."""
    device: str = "cpu"
    max_new_tokens: int = 256
    strategy: Strategy = "greedy"
    num_beams: int = 4
    """For `beam`."""
    temperature: float = 0.7
    """For `sample`; above 0."""
    top_k: int = 50
    """For `sample`: only the k likeliest tokens; 0 is all."""
    top_p: float = 1.0
    """For `sample`: only the likeliest tokens that together reach this probability."""


class LocalClient:
    """Generates with one model in this process."""

    def __init__(self, config: LocalConfig) -> None:
        """Load the model. Raises: LLMError when there is none."""
        # imported here: torch and transformers take seconds, and nobody else in `chat` needs them
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._config = config
        options = {"local_files_only": Path(config.model).is_dir(), "trust_remote_code": False}
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(config.model, **options)
            model = AutoModelForCausalLM.from_pretrained(config.model, use_safetensors=True, **options)
        except (OSError, ValueError) as error:
            raise LLMError(f"{config.model}: expected a causal language model (a folder or a hub id, safetensors), and it doesn't "
                           f"load: {error}", retryable=False) from error
        self._model = model.to(config.device).eval()
        self._lock = asyncio.Lock()

    @property
    def model(self) -> str:
        return self._config.model

    async def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncGenerator[Chunk]:
        """The answer as it is generated (beam search: at its end). Raises: LLMError."""
        async with self._lock:
            run = _Run(self._tokenizer, self._model, self._encode(messages), self._generation(sampling), sampling)
            loop = asyncio.get_running_loop()
            pieces: asyncio.Queue[str | None] = asyncio.Queue()
            thread = loop.run_in_executor(None, run.generate, lambda piece: loop.call_soon_threadsafe(pieces.put_nowait, piece))
            try:
                while (piece := await pieces.get()) is not None:
                    if piece:
                        yield Chunk(piece)
                await thread
            except (RuntimeError, ValueError, IndexError) as error:
                raise LLMError(f"{self.model}: generation failed: {error}", retryable=False) from error
            finally:
                run.stopped.set()
                await asyncio.shield(asyncio.wait([thread]))
            yield Chunk("", run.finish, Usage(run.input_tokens, run.output_tokens, source="model"))

    def _encode(self, messages: Sequence[Message]) -> Any:
        """Token ids, shape (1, n). Raises: LLMError when they leave no room for an answer."""
        if self._tokenizer.chat_template:
            chat = [{"role": message.role, "content": message.content} for message in messages]
            ids = self._tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)["input_ids"]
        else:
            text = "".join(f"{message.role}: {message.content}\n" for message in messages) + "assistant:"
            ids = self._tokenizer(text, return_tensors="pt")["input_ids"]
        room = getattr(self._model.config, "max_position_embeddings", None)
        if room is not None and ids.shape[1] >= room:
            raise LLMError(f"{self.model}: expected a prompt of fewer than {room} tokens, got {ids.shape[1]}; lower FETCHGATE_K or "
                           "FETCHGATE_HISTORY_TURNS, or use a model with a longer context", retryable=False)
        return ids.to(self._config.device)

    def _generation(self, sampling: Sampling) -> dict[str, Any]:
        """Arguments of `generate`: the configured strategy, overridden by what the request asks for."""
        config = self._config
        options: dict[str, Any] = {"max_new_tokens": sampling.max_tokens or config.max_new_tokens}
        strategy: Strategy = config.strategy
        if sampling.temperature is not None:
            strategy = "sample" if sampling.temperature > 0 else "greedy"
        if strategy == "beam":
            return options | {"do_sample": False, "num_beams": config.num_beams}
        if strategy == "greedy":
            return options | {"do_sample": False, "num_beams": 1}
        temperature = config.temperature if sampling.temperature is None else sampling.temperature
        top_p = config.top_p if sampling.top_p is None else sampling.top_p
        return options | {"do_sample": True, "num_beams": 1, "temperature": temperature, "top_k": config.top_k, "top_p": top_p}


class _Run:
    """One generation, on a thread of its own."""

    def __init__(self, tokenizer: Any, model: Any, ids: Any, options: dict[str, Any], sampling: Sampling) -> None:
        self._tokenizer = tokenizer
        self._model = model
        self._ids = ids
        self._options = options
        self._sampling = sampling
        self.stopped = threading.Event()
        self.finish: FinishReason = "stop"
        self.input_tokens = int(ids.shape[1])
        self.output_tokens = 0

    def generate(self, emit: Any) -> None:
        """Generate; `emit` gets the pieces of text, and None at the end, however it ends."""
        try:
            self._generate(emit)
        finally:
            emit(None)

    def _generate(self, emit: Any) -> None:
        import torch
        from transformers import StoppingCriteria, StoppingCriteriaList

        run = self

        class Stop(StoppingCriteria):  # type: ignore[misc]
            def __call__(self, ids: Any, scores: Any, **_: Any) -> Any:
                return torch.full((ids.shape[0],), run.stopped.is_set() or run._said_stop(ids), device=ids.device)

        streaming = self._options["num_beams"] == 1
        with torch.random.fork_rng(enabled=self._sampling.seed is not None):
            if self._sampling.seed is not None:
                torch.manual_seed(self._sampling.seed)
            done = self._model.generate(
                self._ids, attention_mask=torch.ones_like(self._ids), stopping_criteria=StoppingCriteriaList([Stop()]),
                pad_token_id=self._tokenizer.pad_token_id if self._tokenizer.pad_token_id is not None else self._tokenizer.eos_token_id,
                streamer=_Streamer(self, emit) if streaming else None, **self._options,
            )
        new = done[0, self.input_tokens :].tolist()
        self.output_tokens = len(new)
        ended = bool(new) and new[-1] in self._end_tokens()
        if not ended and self.output_tokens >= self._options["max_new_tokens"] and not self._cut(self._text(new))[1]:
            self.finish = "length"
        if not streaming:
            emit(self._cut(self._text(new))[0])

    def _end_tokens(self) -> set[int]:
        end = self._model.generation_config.eos_token_id
        return set(end) if isinstance(end, list) else {end}

    def _text(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    def _cut(self, text: str) -> tuple[str, bool]:
        """The text before the first stop text, and whether there was one."""
        places = [place for stop in self._sampling.stop if (place := text.find(stop)) >= 0]
        return (text[: min(places)], True) if places else (text, False)

    def _said_stop(self, ids: Any) -> bool:
        return bool(self._sampling.stop) and self._cut(self._text(ids[0, self.input_tokens :].tolist()))[1]


class _Streamer:
    """What `generate` tells of each token, as text: only what later tokens can't change, and nothing of a stop text."""

    def __init__(self, run: _Run, emit: Any) -> None:
        self._run = run
        self._emit = emit
        self._ids: list[int] = []
        self._sent = 0
        self._prompt = True
        self._held = max((len(stop) for stop in run._sampling.stop), default=1) - 1

    def put(self, value: Any) -> None:
        """The prompt first, then one token at a time."""
        if self._prompt:
            self._prompt = False
            return
        self._ids.extend(value.flatten().tolist())
        text = self._run._text(self._ids)
        # a letter of several tokens decodes to U+FFFD until it is whole
        if not text.endswith("\ufffd"):
            self._send(len(text) - self._held)

    def end(self) -> None:
        """The rest, up to a stop text."""
        self._send(None)

    def _send(self, until: int | None) -> None:
        text, stopped = self._run._cut(self._run._text(self._ids))
        end = len(text) if until is None or stopped else min(until, len(text))
        if end > self._sent:
            self._emit(text[self._sent : end])
            self._sent = end
