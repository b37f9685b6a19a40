"""A local causal language model, through transformers.

One answer at a time: a model's weights and its random state are shared. Leaves out batching; for many users, serve the model
with `transformers serve` or vLLM and use `openai.py`.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from chat.errors import LLMError
from chat.llm.stopping import StopStrings
from chat.ports import Chunk
from chat.types import FinishReason, Message, Sampling, Usage

Strategy = Literal["greedy", "beam", "sample"]
Emit = Callable[[str | None], object]


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
        self._seed = sampling.seed
        self._stops = StopStrings(sampling.stop)
        self.stopped = threading.Event()
        self.finish: FinishReason = "stop"
        self.input_tokens = int(ids.shape[1])
        self.output_tokens = 0

    def generate(self, emit: Emit) -> None:
        """Generate; `emit` gets the pieces of text, and None at the end, however it ends."""
        try:
            self._generate(emit)
            emit(self._stops.flush())
        finally:
            emit(None)

    def _generate(self, emit: Emit) -> None:
        import torch

        streaming = self._options["num_beams"] == 1
        with torch.random.fork_rng(enabled=self._seed is not None):
            if self._seed is not None:
                torch.manual_seed(self._seed)
            done = self._model.generate(
                self._ids, attention_mask=torch.ones_like(self._ids), stopping_criteria=self._criteria(),
                pad_token_id=self._tokenizer.eos_token_id if self._tokenizer.pad_token_id is None else self._tokenizer.pad_token_id,
                streamer=self._streamer(emit) if streaming else None, **self._options,
            )
        new = done[0, self.input_tokens :].tolist()
        if not streaming:
            emit(self._stops.feed(self._tokenizer.decode(new, skip_special_tokens=True)))
        self.output_tokens = len(new)
        end = self._model.generation_config.eos_token_id
        ended = bool(new) and new[-1] in (end if isinstance(end, list) else [end])
        if len(new) >= self._options["max_new_tokens"] and not ended and not self._stops.stopped:
            self.finish = "length"

    def _criteria(self) -> Any:
        """Ends the generation when its reader has gone, or a stop string has come."""
        import torch
        from transformers import StoppingCriteria, StoppingCriteriaList

        run = self

        class Stop(StoppingCriteria):  # type: ignore[misc]
            def __call__(self, ids: Any, scores: Any, **_: Any) -> Any:
                return torch.full((ids.shape[0],), run.stopped.is_set() or run._stops.stopped, device=ids.device)

        return StoppingCriteriaList([Stop()])

    def _streamer(self, emit: Emit) -> Any:
        from transformers import TextStreamer

        run = self

        class Emitting(TextStreamer):  # type: ignore[misc]
            def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
                emit(run._stops.feed(text))

        return Emitting(self._tokenizer, skip_prompt=True, skip_special_tokens=True)
