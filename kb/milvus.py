"""A knowledge base in Milvus: the chat's Retriever over a vector database with a server of its own, which many processes share.

A collection is one knowledge base, made by one encoder. A row is a passage of an FAQ, named by a hash of the FAQ's id and the
passage's number, with the FAQ's `revision`, a hash of its content; row 0 holds the FAQ itself. Rows of another revision than
row 0's, which a change that was cut off may leave, are passed over: a hit is always one state of an FAQ.

Milvus has no transactions: others see a change FAQ by FAQ, each whole, and until all is done the version is `changing-…`.
Processes must take turns to make changes. Leaves out the database (`milvus_rows.py`), a service's edits (`milvus_kb.py`), embedding,
and who may edit.
"""

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Self
from uuid import uuid4

import numpy as np

from kb.embedder import Embedder, Progress, Vectors
from kb.errors import EmbedderError, IndexFolderError, SourceError, UnknownFaqError
from kb.folder import FORMAT, content_version
from kb.index import ROWS_A_FAQ
from kb.milvus_rows import BATCH, MOST_CHARACTERS, MOST_ROWS, MilvusConfig, MilvusRows, Row
from kb.retriever import NO_MINIMUM, RECENT_TEXTS, between, embedded
from kb.types import Comparison, Faq, Hit, better_of

VERSION_ROW = "version"
"""Its revision is the knowledge base's version, its text says what made it; it belongs to no FAQ."""
CHANGING = "changing-"
LEXICAL_WEIGHT = 0.0
"""A query's words don't count: similarities are those of a `FaqRetriever` of this weight."""
LEAST_ROWS = 32  # of one search


@dataclass(frozen=True, slots=True)
class _Stored:
    """An FAQ that is in the collection."""

    faq: Faq
    revision: str
    rows: int


class MilvusRetriever:
    """FAQs in a Milvus collection, for several threads. All but `version` raises IndexFolderError when Milvus doesn't answer."""

    def __init__(self, config: MilvusConfig, embedder: Embedder, *, create: bool = False) -> None:
        """Open the collection; `create` makes an empty one if there is none. Raises: IndexFolderError, also for another encoder."""
        self._embedder = embedder
        self._place = config.place
        self._about = {"format": FORMAT, "model_id": embedder.model_id}
        self._rows = MilvusRows(config, embedder.dimension, create=create)
        # remembered, since a turn asks for its queries several times
        self._vector = lru_cache(RECENT_TEXTS)(lambda text: np.asarray(embedder.embed([text])[0], dtype=np.float32))
        self._changing = threading.Lock()
        self._all: tuple[str, tuple[Faq, ...]] = ("", ())
        """All FAQs of one version, once somebody asked."""
        self._version, about = self._rows.texts([VERSION_ROW], sure=True).get(VERSION_ROW, ("", ""))
        if not about:  # it is new
            self._seal()
        elif (made := json.loads(about)) != self._about:
            raise IndexFolderError(f"{self._place}: expected the encoder {made.get('model_id')} and format {made.get('format')} that made "
                                   f"it, got {embedder.model_id} and {FORMAT}; use that encoder or build into another collection")

    @classmethod
    def build(
        cls, config: MilvusConfig, embedder: Embedder, faqs: Sequence[Faq], *, progress: Progress | None = None
    ) -> Self:
        """A collection with these FAQs and no others; those that are in it already aren't embedded again. Raises: as `put`."""
        retriever = cls(config, embedder, create=True)
        there = {faq.id: faq for faq in retriever.state()[1]}
        changed = [faq for faq in faqs if there.get(faq.id) != faq]
        retriever._change(changed, there.keys() - {faq.id for faq in faqs}, progress)
        return retriever

    @property
    def version(self) -> str:
        """Changes with any FAQ or with the encoder, and is that of a `FaqRetriever` that compares the same way; as of the last call."""
        return self._version

    @property
    def faqs(self) -> tuple[Faq, ...]:
        """All FAQs, by id."""
        return self.state()[1]

    def state(self) -> tuple[str, tuple[Faq, ...]]:
        """The version, and all FAQs by id; read again only where the version is another one."""
        version, _ = self._read(())
        known = self._all
        if known[0] != version or version.startswith(CHANGING):
            known = version, self._read_all()
            if self._read(())[0] == version:  # nobody changed anything meanwhile
                self._all = known
        return known

    def get(self, faq_id: str) -> Faq | None:
        return self.get_many([faq_id]).get(faq_id)

    def get_many(self, faq_ids: Iterable[str]) -> dict[str, Faq]:
        """Those of the FAQs that are there, by id, in one request."""
        keys = dict.fromkeys(map(key_of, faq_ids))
        return {one.faq.id: one.faq for one in self._read(keys)[1].values()} if keys else {}

    def search(
        self, query: str, *, k: int = 3, min_similarity: float = NO_MINIMUM, previous: str | None = None
    ) -> tuple[Hit, ...]:
        """At most k FAQs with a similarity of at least `min_similarity`, best first; () for a blank query."""
        if k < 1:
            raise ValueError(f"k: expected at least 1, got {k}")
        if not query.strip():
            return ()
        vector = self._vector(query)
        hits = self._nearest(vector, k)
        if previous is not None and previous.strip():
            hits = better_of(hits, self._nearest(between(vector, self._vector(previous)), k))
        return tuple(hit for hit in hits[:k] if hit.similarity >= min_similarity)

    def compare(self, query: str, previous: str | None, faq_ids: Sequence[str]) -> Comparison:
        """The query, alone and taken together with the one before, beside these FAQs and the nearest one."""
        if not query.strip():
            return Comparison((None,) * len(faq_ids), None, (), None)
        vector = self._vector(query)
        if previous is None or not previous.strip():
            return Comparison(_cosines(vector, self._vectors(faq_ids, sure=True)), None, (), None)
        before = self._vector(previous)
        joined = between(vector, before)
        nearest = self._nearest(joined, 1) if joined.any() else ()
        known = self._vectors(faq_ids, sure=not joined.any())  # what a search was sure of is at hand after it
        cosine = float(np.clip(vector @ before, -1.0, 1.0))
        return Comparison(_cosines(vector, known), cosine, _cosines(joined, known), nearest[0] if nearest else None)

    def put(self, faqs: Sequence[Faq]) -> None:
        """Add FAQs, or replace those whose ids are there; once this returns, every process finds them.

        Raises: UnknownFaqError for an id that comes twice, SourceError for an FAQ that is too long, EmbedderError; nothing is
        changed then. After IndexFolderError a part may be changed; putting them again mends it.
        """
        self._change(faqs, ())

    def remove(self, faq_ids: Iterable[str]) -> None:
        """Forget FAQs; once this returns, no process finds them. Raises: as `put`, and UnknownFaqError for an id that isn't there."""
        self._change((), faq_ids)

    def close(self) -> None:
        self._rows.close()

    def _read(self, keys: Iterable[str], *, sure: bool = True) -> tuple[str, dict[str, _Stored]]:
        """The version, and the FAQs of these keys that are there, by key."""
        texts = self._rows.texts([VERSION_ROW, *(f"{key}-0" for key in keys)], sure=sure)
        self._version, _ = texts.pop(VERSION_ROW, ("", ""))
        return self._version, {key_of_row(name): _stored(text, revision) for name, (revision, text) in texts.items()}

    def _read_all(self) -> tuple[Faq, ...]:
        return tuple(sorted((_stored(text).faq for text in self._rows.first_texts()), key=lambda faq: faq.id))

    def _vectors(self, faq_ids: Sequence[str], *, sure: bool) -> list[Vectors | None]:
        """Each FAQ's vectors, shape (n, dimension); None: it isn't there."""
        keys = [key_of(faq_id) for faq_id in faq_ids]
        if not keys:
            return []
        groups: dict[str, list[list[float]]] = {}
        _, stored = self._read(dict.fromkeys(keys), sure=sure)
        names = [name for key, one in stored.items() for name in _names(key, one.rows)]
        for name, vector in self._rows.vectors(names).items():
            groups.setdefault(key_of_row(name), []).append(vector)
        return [np.array(groups[key], dtype=np.float32) if key in groups else None for key in keys]

    def _nearest(self, vector: Vectors, k: int) -> tuple[Hit, ...]:
        """The k nearest FAQs, each once by its best passage; best first, and by id where they are equally near."""
        limit, sure = min(max(k * ROWS_A_FAQ, LEAST_ROWS), MOST_ROWS), False
        while True:
            [rows] = self._rows.search(vector[np.newaxis], limit)
            best: dict[tuple[str, str], float] = {}
            for row in rows:
                if row.name != VERSION_ROW:
                    best.setdefault((key_of_row(row.name), row.revision), row.similarity)
            # the search was sure that these rows are there; their revisions show whether these FAQs are theirs
            _, stored = self._read(dict.fromkeys(key for key, _ in best), sure=sure)
            hits = [Hit(stored[key].faq, similarity) for (key, revision), similarity in best.items()
                    if key in stored and stored[key].revision == revision]
            if not sure and len(hits) < len(best):
                sure = True  # an FAQ was changed just now, or a change was cut off
                continue
            hits.sort(key=lambda hit: (-hit.similarity, hit.faq.id))
            # unless all rows were given: more FAQs, or others as near as the k-th, may stand behind these ones' paraphrases
            if len(rows) < limit or limit == MOST_ROWS or (len(hits) >= k and rows[-1].similarity < hits[k - 1].similarity):
                return tuple(hits[:k])
            limit = min(limit * 4, MOST_ROWS)

    def _change(self, put: Sequence[Faq], remove: Iterable[str], progress: Progress | None = None) -> None:
        """Put FAQs and remove others. What no longer belongs goes first, so whatever is cut off leaves no row that would be found."""
        groups = self._groups(put, progress)
        gone = {key_of(faq_id): faq_id for faq_id in remove}
        with self._changing:
            before, there = self._read([*gone, *(key_of(faq.id) for faq in put)])
            if unknown := [faq_id for key, faq_id in gone.items() if key not in there]:
                raise UnknownFaqError(f"{unknown[0]}: expected an FAQ id of {self._place}, got one that it doesn't hold")
            version, known = self._all
            after = {faq.id: faq for faq in known} | {faq.id: faq for faq in put} if version == before else None
            changing = f"{CHANGING}{uuid4().hex[:12]}"
            self._say_version(changing)
            kept = {row.name for group in groups for row in group}
            # an FAQ's own row goes last: until then its id is known, and the removal can be made again
            self._rows.delete([name for key, stored in there.items() for name in reversed(_names(key, stored.rows)) if name not in kept])
            self._rows.write(groups)
            if len(kept) >= BATCH:
                self._rows.flush()
            if self._read(())[0] != changing:
                after = None  # another process changed something meanwhile: what is there now counts
            self._seal(None if after is None else [faq for faq in after.values() if key_of(faq.id) not in gone])

    def _groups(self, faqs: Sequence[Faq], progress: Progress | None) -> list[list[Row]]:
        """The rows of each FAQ, checked."""
        if twice := [faq_id for faq_id, times in Counter(faq.id for faq in faqs).items() if times > 1]:
            raise UnknownFaqError(f"{twice[0]}: expected each FAQ id once, got it twice")
        groups = []
        for faq, (_, own) in zip(faqs, embedded(self._embedder, faqs, progress), strict=True):
            if not np.isfinite(own).all():
                raise EmbedderError(f"{faq.id}: expected finite vectors, got NaN or infinity")
            record = json.dumps({"rows": len(own), "faq": asdict(faq)})
            if len(record) > MOST_CHARACTERS:
                raise SourceError(f"{faq.id}: expected an FAQ of at most {MOST_CHARACTERS} characters of JSON, which is what Milvus keeps, "
                                  f"got {len(record)}; split it")
            revision = content_version((faq,), self._embedder.model_id, LEXICAL_WEIGHT)
            groups.append([Row(name, vector, revision, "" if n else record, first=n == 0)
                           for n, (name, vector) in enumerate(zip(_names(key_of(faq.id), len(own)), own, strict=True))])
        return groups

    def _seal(self, known: Iterable[Faq] | None = None) -> None:
        """Say that the knowledge base is as it should be: what is known of it, else what it holds."""
        faqs = self._read_all() if known is None else tuple(sorted(known, key=lambda faq: faq.id))
        version = content_version(faqs, self._embedder.model_id, LEXICAL_WEIGHT)
        self._say_version(version)
        self._version, self._all = version, (version, faqs)

    def _say_version(self, version: str) -> None:
        anywhere = np.eye(1, self._embedder.dimension, dtype=np.float32)[0]
        self._rows.write([[Row(VERSION_ROW, anywhere, version, json.dumps(self._about))]])


def key_of(faq_id: str) -> str:
    """What an FAQ's rows are named by; no id gets into Milvus's filters."""
    return hashlib.sha256(faq_id.encode("utf-8", errors="surrogatepass")).hexdigest()[:32]


def key_of_row(name: str) -> str:
    return name.partition("-")[0]


def _names(key: str, count: int) -> list[str]:
    return [f"{key}-{n}" for n in range(count)]


def _stored(text: str, revision: str = "") -> _Stored:
    record = json.loads(text)
    return _Stored(Faq.from_record(record["faq"]), revision, record["rows"])


def _cosines(vector: Vectors, groups: Sequence[Vectors | None]) -> tuple[float | None, ...]:
    """Of the vector to the nearest of each group, shape (n, dimension)."""
    return tuple(None if group is None else float(np.clip((group @ vector).max(), -1.0, 1.0)) for group in groups)
