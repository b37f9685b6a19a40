"""A collection of Milvus as rows of passages: made, checked, read and written, its faults turned into `KbError`s.

A read that is `sure` sees every write that has returned, whichever process wrote, and waits for it: up to 200 ms in a server
with default settings. Any other is answered from what the server has at hand. Leaves out what rows mean (`milvus.py`).
"""

import importlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Literal, TypeVar

from kb.embedder import Vectors
from kb.errors import IndexFolderError

Answer = TypeVar("Answer")

FIELDS = ("name", "vector", "revision", "text", "first")
BATCH = 1000
"""Rows of one request: a few MB, and Milvus takes 64."""
MOST_ROWS = 16_384
"""What Milvus gives to one search."""
MOST_CHARACTERS = 65_535
"""What Milvus takes in one text field."""
SLOW = 60.0
"""Seconds that a change, or reading everything, may wait in one request."""
RETRY_AFTER = 2.0
"""Seconds after a connection fault in which calls fail at once, lest every call of every turn wait for its own timeout."""
CHANNEL = {"grpc.keepalive_permit_without_calls": False, "grpc.keepalive_time_ms": 300_000}
"""The client would ping every 10 s, and a server that follows gRPC's default (milvus-lite's) hangs up on that."""
NOT_CONNECTED, NOT_LOADED = 2, 101
"""Codes of Milvus."""


@dataclass(frozen=True, slots=True)
class MilvusConfig:
    """Where a knowledge base is."""

    uri: str
    """`http(s)://host:19530` of a server or cluster; or a file `….db`, which milvus-lite opens in this process and for it alone."""
    collection: str
    """Its name there, one for each knowledge base: letters, digits and `_`."""
    token: str = field(default="", repr=False)
    """`user:password` or an API key, if the server wants one."""
    database: str = ""
    """Milvus's database; "" is its default one."""
    timeout: float = 5.0
    """Seconds that a read may wait."""
    index: Literal["FLAT", "AUTOINDEX"] = "FLAT"
    """FLAT is exact; AUTOINDEX is Milvus's choice, approximate. It counts when the collection is made."""

    def __post_init__(self) -> None:
        if not self.uri.strip():
            raise ValueError("uri: expected where Milvus is, as http://host:19530, got nothing")
        if not (self.collection.isidentifier() and self.collection.isascii() and len(self.collection) <= 255):
            raise ValueError(f"collection: expected at most 255 letters, digits and _, no digit first, got {self.collection!r}")
        if not self.timeout > 0:
            raise ValueError(f"timeout: expected seconds above 0, got {self.timeout}")

    @property
    def place(self) -> str:
        return f"{self.uri}, collection {self.collection}"


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it is written."""

    name: str
    vector: Vectors
    revision: str
    text: str = ""
    first: bool = False


@dataclass(frozen=True, slots=True)
class Near:
    """A row that a search found."""

    name: str
    revision: str
    similarity: float
    """Cosine, in [-1, 1]."""


class MilvusRows:
    """An open collection. May be used from several threads. Every method raises IndexFolderError when Milvus doesn't do it."""

    def __init__(self, config: MilvusConfig, dimension: int, *, create: bool) -> None:
        """Open the collection, or make an empty one where there is none. Raises: also when it is of another kind or dimension."""
        self._config = config
        self._down_until = 0.0
        milvus = _library()
        self._client = self._ask(lambda: milvus.MilvusClient(
            config.uri, token=config.token, db_name=config.database, timeout=config.timeout, grpc_options=CHANNEL))
        self._read = {"collection_name": config.collection, "consistency_level": "Strong", "timeout": config.timeout}
        self._slow = {"collection_name": config.collection, "timeout": SLOW}
        if not self._ask(lambda: self._client.has_collection(config.collection, timeout=config.timeout)):
            if not create:
                raise IndexFolderError(f"{config.place}: expected a knowledge base, got no such collection; check the name or build it")
            self._ask(lambda: self._create(milvus, dimension))
        self._check(dimension)
        self._ask(lambda: self._client.load_collection(**self._slow))

    def search(self, vectors: Vectors, limit: int) -> list[tuple[Near, ...]]:
        """For each of the vectors, shape (n, dimension), the rows nearest to it, best first; sure."""
        found = self._ask(lambda: self._client.search(
            **self._read, data=vectors.tolist(), anns_field="vector", limit=limit, output_fields=["name", "revision"]))
        return [tuple(Near(hit["name"], hit["entity"]["revision"], max(-1.0, min(1.0, hit["distance"]))) for hit in hits) for hits in found]

    def texts(self, names: Sequence[str], *, sure: bool) -> dict[str, tuple[str, str]]:
        """Revision and text of those of the rows that are there."""
        return {row["name"]: (row["revision"], row["text"]) for row in self._rows(names, ("name", "revision", "text"), sure)}

    def vectors(self, names: Sequence[str]) -> dict[str, list[float]]:
        """The vectors of those of the rows that are there; not sure."""
        return {row["name"]: row["vector"] for row in self._rows(names, ("name", "vector"), sure=False)}

    def first_texts(self) -> Iterator[str]:
        """The texts of all `first` rows; sure."""
        pages = self._ask(lambda: self._client.query_iterator(
            **self._read | {"timeout": SLOW}, batch_size=BATCH, filter="first == true", output_fields=["text"]))
        try:
            while page := self._ask(pages.next):
                yield from (row["text"] for row in page)
        finally:
            pages.close()

    def write(self, groups: Iterable[Sequence[Row]]) -> None:
        """Add rows, or replace those of the same names; a group's come in one request, and are seen together."""
        batch: list[Row] = []
        for group in groups:
            if batch and len(batch) + len(group) > BATCH:
                self._upsert(batch)
                batch = []
            batch.extend(group)
        if batch:
            self._upsert(batch)

    def delete(self, names: Sequence[str]) -> None:
        """Forget rows."""
        for some in _batches(names):
            self._ask(lambda some=some: self._client.delete(**self._slow, ids=some))  # type: ignore[misc]

    def flush(self) -> None:
        """Have what was written indexed; else Milvus does it in its own time."""
        self._ask(lambda: self._client.flush(**self._slow))

    def close(self) -> None:
        self._client.close()

    def _upsert(self, rows: Sequence[Row]) -> None:
        records = [{"name": row.name, "vector": row.vector, "revision": row.revision, "text": row.text, "first": row.first} for row in rows]
        self._ask(lambda: self._client.upsert(**self._slow, data=records))

    def _rows(self, names: Sequence[str], fields: Sequence[str], sure: bool) -> Iterator[dict[str, Any]]:
        level = {"consistency_level": "Strong" if sure else "Eventually"}
        for some in _batches(names):
            yield from self._ask(lambda some=some: self._client.query(  # type: ignore[misc]
                **self._read | level, ids=some, output_fields=list(fields)))

    def _create(self, milvus: Any, dimension: int) -> None:
        schema = milvus.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("name", milvus.DataType.VARCHAR, is_primary=True, max_length=64)
        schema.add_field("vector", milvus.DataType.FLOAT_VECTOR, dim=dimension)
        schema.add_field("revision", milvus.DataType.VARCHAR, max_length=64)
        schema.add_field("text", milvus.DataType.VARCHAR, max_length=MOST_CHARACTERS)
        schema.add_field("first", milvus.DataType.BOOL)
        indexes = milvus.MilvusClient.prepare_index_params()
        # the inner product of unit vectors is their cosine, and is computed as FAISS does
        indexes.add_index("vector", index_type=self._config.index, metric_type="IP")
        # one shard, so that the rows of one request are seen together
        self._client.create_collection(**self._slow, schema=schema, index_params=indexes, consistency_level="Strong", num_shards=1)

    def _check(self, dimension: int) -> None:
        described = self._ask(lambda: self._client.describe_collection(self._config.collection, timeout=self._config.timeout))
        fields = {one["name"]: one for one in described["fields"]}
        if fields.keys() != set(FIELDS):
            raise IndexFolderError(f"{self._config.place}: expected a knowledge base with the fields {', '.join(FIELDS)}, got "
                                   f"{', '.join(fields)[:80]}; choose another name")
        if (made_for := int(fields["vector"]["params"]["dim"])) != dimension:
            raise IndexFolderError(f"{self._config.place}: expected an encoder of dimension {made_for}, got one of {dimension}; "
                                   "use the encoder that made it or build into another collection")

    def _ask(self, call: Callable[[], Answer]) -> Answer:
        """What Milvus answers."""
        if monotonic() < self._down_until:
            raise IndexFolderError(f"{self._config.place}: expected Milvus to answer, and a moment ago it didn't; "
                                   f"it is asked again in {RETRY_AFTER:g} s")
        try:
            return self._loaded(call)
        except Exception as error:  # a server that goes away makes its client fail in any way
            code = getattr(error, "code", None)
            if not isinstance(code, int) or code == NOT_CONNECTED:
                self._down_until = monotonic() + RETRY_AFTER
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise IndexFolderError(f"{self._config.place}: expected Milvus to answer, and it failed ({reason}); check that it runs "
                                   "there and takes the token") from error

    def _loaded(self, call: Callable[[], Answer]) -> Answer:
        try:
            return call()
        except Exception as error:
            if getattr(error, "code", None) != NOT_LOADED:
                raise
        self._client.load_collection(**self._slow)  # it was restarted, or somebody released the collection
        return call()


def _batches(names: Sequence[str]) -> Iterator[list[str]]:
    return (list(names[start : start + BATCH]) for start in range(0, len(names), BATCH))


def _library() -> Any:
    """The client's package, which takes a second to import. Raises: IndexFolderError when it isn't installed."""
    before = os.environ.get("PYTHON_DOTENV_DISABLED")
    os.environ["PYTHON_DOTENV_DISABLED"] = "1"  # it would read any .env above its own folder into this process's environment
    try:
        library = importlib.import_module("pymilvus")
    except ImportError as error:
        raise IndexFolderError("expected the package pymilvus for a knowledge base in Milvus, and it isn't installed; "
                               "install fetchgate[milvus]") from error
    finally:
        if before is None:
            del os.environ["PYTHON_DOTENV_DISABLED"]
        else:
            os.environ["PYTHON_DOTENV_DISABLED"] = before
    for name in ("pymilvus", "pymilvus.milvus_client"):  # all that it logs, with handlers of its own, is in the errors that it raises
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return library
