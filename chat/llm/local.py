"""A local causal language model, through transformers.

One answer at a time: the others wait in line. Leaves out batching and how a text is generated (`generation.py`, which loads
torch); for many users, serve the model with `transformers serve` or vLLM and use `openai.py`.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from chat.errors import LLMError
from chat.ports import Chunk
from chat.types import FinishReason, Message, Sampling, Usage

Strategy = Literal["greedy", "beam", "sample"]


@dataclass(frozen=True, slots=True)
class LocalConfig:
    """Which model, and how it chooses its words when the request doesn't say."""

    model: str
    """A folder or a hub id, with safetensors weights; code that comes with a model is never run."""
    device: str = "cpu"
    max_new_tokens: int = 256
    strategy: Strategy = "greedy"
    """A request's temperature overrides it: 0 is greedy, more is sampling. Beam search can't stream."""
    num_beams: int = 4
    """For `beam`; at least 2."""
    temperature: float = 0.7
    """For `sample`; above 0."""
    top_k: int = 50
    """For `sample`: only the k likeliest tokens; 0 is all."""
    top_p: float = 1.0
    """For `sample`: only the likeliest tokens that together reach this probability, in (0, 1]."""

    def __post_init__(self) -> None:
        for name, least in (("max_new_tokens", 1), ("num_beams", 2), ("top_k", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        if not self.temperature > 0:
            raise ValueError(f"temperature: expected above 0, got {self.temperature}; greedy is a strategy of its own")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p: expected 0 < p <= 1, got {self.top_p}")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a generation ended."""

    finish: FinishReason
    usage: Usage


class LocalClient:
    """Generates with one model in this process."""

    def __init__(self, config: LocalConfig) -> None:
        """Load the model. Raises: LLMError when it is missing or can't be used."""
        # imported here: torch and transformers take seconds, and nobody else in `chat` needs them
        from chat.llm.generation import Generator

        self._config = config
        self._generator = Generator(config)
        # one thread is the line in which requests wait, and holds none of the event loop's own threads meanwhile
        self._line = ThreadPoolExecutor(max_workers=1, thread_name_prefix="local-llm")

    @property
    def model(self) -> str:
        return self._config.model

    async def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncGenerator[Chunk]:
        """The answer as it is generated (beam search: at its end). A reader who goes away ends the generation.

        Raises: LLMError, before or between chunks.
        """
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        unwanted = threading.Event()

        def emit(text: str) -> None:
            if not unwanted.is_set():
                loop.call_soon_threadsafe(pieces.put_nowait, text)

        generation: asyncio.Future[Ended]
        generation = loop.run_in_executor(self._line, self._generate, tuple(messages), sampling, emit, unwanted)
        generation.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            while (piece := await pieces.get()) is not None:
                yield Chunk(piece)
            ended = await generation
        finally:
            unwanted.set()
            generation.cancel()  # takes it out of the line, if it still waits there
        yield Chunk("", ended.finish, ended.usage)

    def close(self) -> None:
        """Let go of the thread; what waits in line is cancelled."""
        self._line.shutdown(wait=False, cancel_futures=True)

    def _generate(
        self, messages: tuple[Message, ...], sampling: Sampling, emit: Callable[[str], None], unwanted: threading.Event
    ) -> Ended:
        """One generation, on the line's thread. Raises: LLMError."""
        try:
            return self._generator.generate(messages, sampling, emit, unwanted)
        except MemoryError as error:
            raise LLMError(f"{self.model}: there isn't memory enough for this answer; try again later", retryable=True) from error
        except (RuntimeError, ValueError, IndexError) as error:
            # torch's word for a device out of memory is a RuntimeError too
            memory = "out of memory" in str(error)
            raise LLMError(f"{self.model}: the generation failed ({error}); check the model, or use another",
                           retryable=memory) from error
