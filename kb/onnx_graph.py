"""A sentence-transformers encoder as one ONNX file: its graph from token ids to unit vectors, with its tokenizer.

Made by torch once and kept in a folder under a name with the hashes of the encoder's files and of its own content, so that
another encoder is another file and a damaged one is seen. What is made must give torch's vectors before it is kept. Nothing is
pickled. Leaves out batches and threads (`onnx.py`).
"""

import fcntl
import hashlib
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kb.embedder import HUB_FILES, Source, Vectors, first_line, load_torch
from kb.errors import EmbedderError

logger = logging.getLogger(__name__)

Precision = Literal["fp32", "int8"]
FORMAT = 1
"""Of the file; another makes every kept one out of date."""
TOLERANCE = 1e-4
"""Of the cosine between torch's vector of a probe and the graph's."""
INT8_COSINE = 0.9
"""At least so near are the vectors of int8 to those of fp32; the packaged encoder's are at 0.97 or more."""
PROBES = (
    "", "?", "refund", "How do I get my money back?", "a card that was lost, stolen or swallowed by a machine " * 3,
    "Wo ist mein Paket? کجاست؟ 🤷🏽‍♀️", "the fee for a transfer abroad depends on the amount " * 200,
)
"""Short, long, cut, empty, in letters that a tokenizer may not know: as a batch and one by one they show what an export froze."""


class Graph:
    """An encoder that onnxruntime has loaded. May be used from several threads once it is truncated."""

    def __init__(self, content: bytes) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        notes = self._session.get_modelmeta().custom_metadata_map
        self._tokenizer = Tokenizer.from_str(notes["tokenizer"])
        self.dimension = int(notes["dimension"])

    def truncate(self, max_tokens: int) -> int:
        """Read at most so many tokens of a text, or the encoder's own limit if that is lower; the limit that holds."""
        settings: dict[str, Any] = dict(self._tokenizer.truncation or {})
        settings["max_length"] = min(max_tokens, settings["max_length"])
        self._tokenizer.enable_truncation(**settings)
        return int(settings["max_length"])

    def encode(self, texts: list[str]) -> Vectors:
        """Unit vectors of one batch, which is padded to its longest text."""
        found = self._tokenizer.encode_batch(texts)
        inputs = {"input_ids": np.array([text.ids for text in found], dtype=np.int64),
                  "attention_mask": np.array([text.attention_mask for text in found], dtype=np.int64)}
        vectors: Vectors = self._session.run(["vectors"], inputs)[0]
        return vectors

    def lengths(self, texts: list[str]) -> list[int]:
        """Tokens that are read of each text."""
        return [sum(text.attention_mask) for text in self._tokenizer.encode_batch(texts)]


def kept_graph(source: Source, precision: Precision, folder: Path) -> Graph:
    """The encoder's graph out of the folder; made where there is none, or a damaged one.

    Raises: EmbedderError when it can't be made, or the folder can't be written.
    """
    try:
        stem = _stem(source, precision)
        content = _kept(folder, stem)
        if content is None:
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder):
                content = _kept(folder, stem)  # another process may have made it meanwhile
                if content is None:
                    logger.info("%s: making the %s encoder for onnxruntime, once", source.name, precision)
                    content = _made(source, precision, folder)
                    _write(folder, stem, content)
    except OSError as error:
        raise EmbedderError(f"{folder}: expected a folder where encoders for onnxruntime can be kept, and it can't be used "
                            f"({error.strerror or error}); name another one, or use runtime 'torch'") from error
    try:
        return Graph(content)
    except Exception as error:  # onnxruntime's errors have no base of their own
        raise EmbedderError(f"{source.name}: expected an encoder that onnxruntime loads, and it doesn't ({first_line(error)}); "
                            f"delete {folder / stem}* or use runtime 'torch'") from error


def _stem(source: Source, precision: Precision) -> str:
    """How the name of the encoder's file begins: hashes of its weights and of modules, pooling and tokenizer, and how it is made."""
    folder, digest = source.folder, hashlib.sha256()
    for path in sorted({path for pattern in HUB_FILES for path in folder.rglob(pattern) if path.suffix != ".safetensors"}):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode() + content)
    return f"{source.weights[:12]}-{digest.hexdigest()[:8]}-{precision}-v{FORMAT}"


def _kept(folder: Path, stem: str) -> bytes | None:
    """The content of a file with that stem which is as it was written."""
    for path in sorted(folder.glob(f"{stem}-*.onnx")):
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest().startswith(path.stem.rpartition("-")[2]):
            return content
        logger.warning("%s: expected content with the hash in its name; the file is damaged and is made anew", path)
        path.unlink(missing_ok=True)
    return None


def _write(folder: Path, stem: str, content: bytes) -> None:
    """Write the file to the side and on to the disk, then give it its name."""
    temporary = folder / f".new-{os.getpid()}"
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, folder / f"{stem}-{hashlib.sha256(content).hexdigest()[:16]}.onnx")
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One maker at a time, without the litter of those that died; the lock of a process that dies goes with it."""
    with (folder / ".lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for litter in folder.glob(".new-*"):
            litter.unlink(missing_ok=True)
        yield


def _made(source: Source, precision: Precision, folder: Path) -> bytes:
    """The content of the encoder's file. Raises: EmbedderError."""
    exported = _kept(folder, _stem(source, "fp32")) if precision == "int8" else None
    if exported is None:
        exported = _exported(source)
    return exported if precision == "fp32" else _quantized(source, exported)


def _exported(source: Source) -> bytes:
    """The encoder in fp32, which gives torch's vectors of the probes."""
    model = load_torch(source.folder, "cpu")
    if not getattr(model.tokenizer, "is_fast", False) or model.prompts.get(model.default_prompt_name):
        raise EmbedderError(f"{source.name}: expected an encoder with a fast tokenizer and without a default prompt, got another, "
                            "which can't be made for onnxruntime; use runtime 'torch'")
    theirs = model.encode(list(PROBES), normalize_embeddings=True, show_progress_bar=False)
    if not np.isfinite(theirs).all():
        raise EmbedderError(f"{source.name}: expected finite vectors, got NaN or infinity; the weights are damaged")
    with _making(source, "exported to ONNX", instead="torch"):
        graph = _graph(model)
        for key, value in {"tokenizer": _tokenizer_json(model), "dimension": str(theirs.shape[1])}.items():
            graph.metadata_props.add(key=key, value=value)
        content: bytes = graph.SerializeToString()
        ours = Graph(content)
        cosine = min(_least_cosine(ours.encode(list(PROBES)), theirs), _least_cosine(_singly(ours), theirs))
    if not cosine >= 1 - TOLERANCE:
        raise EmbedderError(f"{source.name}: expected an ONNX export with torch's vectors, got a cosine of {cosine:.5f} to them; "
                            "use runtime 'torch'")
    return content


def _graph(model: Any) -> Any:
    """The model's graph, from token ids and mask to unit vectors; axes of batch and sequence are free."""
    import torch

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            features = self.model({"input_ids": input_ids, "attention_mask": attention_mask})
            return torch.nn.functional.normalize(features["sentence_embedding"], dim=1)

    # "sdpa" exports guards against rows that are masked whole, which cost 15 % of int8's time
    model[0].auto_model.set_attn_implementation("eager")
    example = model.preprocess(["how do I", "get a refund for what I paid"])
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    program = torch.onnx.export(Encoder().eval(), (example["input_ids"], example["attention_mask"]), dynamo=True, verbose=False,
                                dynamic_shapes=(free, free), input_names=["input_ids", "attention_mask"], output_names=["vectors"])
    assert program is not None
    return program.model_proto


def _quantized(source: Source, content: bytes) -> bytes:
    """The encoder with int8 weights, a scale for each output channel; activations are quantised as they come."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    with _making(source, "quantised to int8", instead="onnx"), tempfile.TemporaryDirectory() as folder:
        graph = onnx.load_from_string(content)
        add_pre_process_metadata(graph)  # the exporter has optimised it, and the quantizer needn't warn that nobody has
        path = Path(folder) / "int8.onnx"
        quantize_dynamic(graph, path, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8)
        quantized = path.read_bytes()
        cosine = _least_cosine(_singly(Graph(quantized)), _singly(Graph(content)))
    if not cosine >= INT8_COSINE:
        raise EmbedderError(f"{source.name}: expected int8 vectors with a cosine of at least {INT8_COSINE} to those of fp32, got "
                            f"{cosine:.3f}; use runtime 'onnx'")
    return quantized


def _singly(graph: Graph) -> Vectors:
    """Vectors of the probes, one by one."""
    vectors: Vectors = np.concatenate([graph.encode([text]) for text in PROBES])
    return vectors


def _least_cosine(a: Vectors, b: Vectors) -> float:
    return float(np.einsum("nd,nd->n", a, b).min())


def _tokenizer_json(model: Any) -> str:
    """The tokenizer as torch's encoder uses it, which cuts at the model's limit and pads to the longest."""
    from tokenizers import Tokenizer

    ours, theirs = Tokenizer.from_str(model.tokenizer.backend_tokenizer.to_str()), model.tokenizer
    ours.enable_truncation(min(model.max_seq_length or 2**31, 2**31), direction=theirs.truncation_side)
    ours.enable_padding(direction=theirs.padding_side, pad_id=theirs.pad_token_id, pad_type_id=theirs.pad_token_type_id,
                        pad_token=theirs.pad_token)
    return str(ours.to_str())


@contextmanager
def _making(source: Source, what: str, *, instead: str) -> Iterator[None]:
    """Any failure as an error of ours, and no reports of the exporter and the quantizer meanwhile; what they make is checked."""
    levels = {each: each.level for each in map(logging.getLogger, ("torch.onnx", "onnxscript", "onnx_ir"))}
    handler = logging.NullHandler()  # the quantizer logs by functions that give a root logger without handlers one for good
    logging.getLogger().addHandler(handler)
    try:
        for each in levels:
            each.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # exporter, quantizer and onnxruntime fail in any way on a module that they don't know
        raise EmbedderError(f"{source.name}: expected an encoder that can be {what}, and it can't ({first_line(error)}); "
                            f"use runtime {instead!r}") from error
    finally:
        logging.getLogger().removeHandler(handler)
        for each, level in levels.items():
            each.setLevel(level)
