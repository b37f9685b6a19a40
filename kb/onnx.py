"""Texts to unit vectors on onnxruntime: the `Embedder` that needs no torch once its encoder is in the cache.

int8 scales the activations of a whole input with one number, so that a text's vector would depend on the texts beside it; it
therefore encodes one text at a time, which costs as much as a batch where texts are long. Leaves out how an encoder becomes a
graph (`onnx_graph.py`) and devices other than the CPU.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from kb.embedder import BatchEmbedder, EmbedderConfig, Vectors, find_source
from kb.onnx_graph import Precision, kept_graph

CACHE = Path("~/.cache/fetchgate")
PIECE = 8
"""Texts in one call in fp32: enough for little overhead, few enough for the processor's cache."""


class OnnxEmbedder(BatchEmbedder):
    """A sentence-transformers encoder on onnxruntime. May be used from several threads.

    A call into onnxruntime uses the thread that it is made from: at a query's length a second one saves nothing, and threads
    that wait for work by spinning take the processor from everything else. Lists are encoded in several calls at a time.
    """

    def __init__(self, config: EmbedderConfig) -> None:
        """Load the encoder, which is made for onnxruntime unless it is in the cache (seconds for a small one; needs torch).

        Raises: EmbedderError when it is missing, isn't the one expected, or can't be made for onnxruntime.
        """
        precision: Precision = "int8" if config.runtime == "onnx-int8" else "fp32"
        source = find_source(config.model)
        self._graph = kept_graph(source, precision, (config.cache or CACHE).expanduser())
        tokens = self._graph.truncate(config.max_tokens)
        super().__init__(f"{source.model_id(tokens)}/{config.runtime}", self._graph.dimension, config.batch_size)
        self._piece = 1 if precision == "int8" else PIECE
        self._pool = ThreadPoolExecutor(config.threads or _cores(), thread_name_prefix="onnx-embedder")

    def _encode(self, texts: list[str]) -> Vectors:
        pieces = [texts[first : first + self._piece] for first in range(0, len(texts), self._piece)]
        encode = self._graph.encode
        vectors: Vectors = np.concatenate(list(self._pool.map(encode, pieces) if len(pieces) > 1 else map(encode, pieces)))
        return vectors

    def _lengths(self, texts: list[str]) -> list[int]:
        return self._graph.lengths(texts)


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
