"""A knowledge base that changes while it is searched: edits, and what others do to its FAQ file or index folder.

Every change is made on a copy, saved, and only then put in the place of what is searched: a search sees the old state or the
new one, and a change that fails leaves everything as it was. What holds for an FAQ id is, in this order: the last edit over
HTTP (the journal, `edits.py`), then what the FAQ file or the index folder says now. Leaves out who may edit (`service/`)
and when to look at the file (`watch.py`).
"""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from kb.calibrate import read_calibration
from kb.edits import Difference, Edits, changed, difference, journal_written, one_editor, read_journal
from kb.embedder import Embedder, EmbedderConfig, Progress
from kb.errors import IndexFolderError, UnknownFaqError
from kb.folder import MANIFEST, Manifest, read_manifest
from kb.index import passages
from kb.retriever import FaqRetriever
from kb.source import read_faqs
from kb.types import Comparison, Faq, Hit

logger = logging.getLogger(__name__)

Stamp = Manifest | tuple[int, int, int] | str | None
"""Something that is different once a file or a folder was changed."""
Bar = Callable[[int], AbstractContextManager[Progress | None]]
"""Opens a progress display for so many passages."""


@dataclass(frozen=True, slots=True)
class Home:
    """Where a knowledge base is kept, and what is the truth for it."""

    folder: Path
    """Index folder; saved before a change counts."""
    encoder: EmbedderConfig
    journal: Path
    calibration: Path
    """Read with every state; void for another version."""
    source: Path | None = None
    """The FAQ file whose index the folder keeps; None: the folder is what others change."""
    shipped: Path | None = None
    """An index folder of that file to begin from, where none is kept yet; only read."""


@dataclass(frozen=True, slots=True)
class Edited:
    """An edit that was made."""

    before: str
    """Version of the knowledge base until then."""
    kb: FaqRetriever
    """The state since then, which no later edit changes."""
    made: Difference


class LivingKb:
    """The Retriever of a running service. Searches never wait for changes; changes wait for each other."""

    def __init__(self, embedder: Embedder, home: Home, bar: Bar = lambda _: nullcontext()) -> None:
        """Open what is kept in the folder, as the FAQ file and the journal say. Raises: KbError."""
        self._embedder = embedder
        self._home = home
        self._changing = threading.Lock()
        self._current: FaqRetriever | None = None
        """Only ever replaced as a whole."""
        self._served: Stamp = None
        """Of the file or folder as it is in `current`."""
        self._looked_at: Stamp = None
        """As it was when last looked at: what still changes isn't taken in."""
        self._refused: Stamp = None
        """As it was when it couldn't be taken in."""
        if home.source is not None:
            try:
                home.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise IndexFolderError(f"{home.folder}: can't be made ({error.strerror}); set another data folder") from error
        with one_editor(home.folder):
            self.opened = self._take_in(self._stamp(), bar)
            """What was different from what the folder kept."""

    @property
    def current(self) -> FaqRetriever:
        """The state that is searched now; it stays as it is when a newer one takes its place."""
        assert self._current is not None, "a knowledge base is opened before it is used"
        return self._current

    @property
    def version(self) -> str:
        return self.current.version

    @property
    def faqs(self) -> tuple[Faq, ...]:
        return self.current.faqs

    def get(self, faq_id: str) -> Faq | None:
        """The FAQ of that id; None when there is none (any more)."""
        return self.current.get(faq_id)

    def search(self, query: str, *, k: int = 3, min_similarity: float = -1.0, previous: str | None = None) -> tuple[Hit, ...]:
        """As `FaqRetriever.search`, in the current state."""
        return self.current.search(query, k=k, min_similarity=min_similarity, previous=previous)

    def compare(self, query: str, previous: str | None, faq_ids: Sequence[str]) -> Comparison:
        """As `FaqRetriever.compare`, in the current state."""
        return self.current.compare(query, previous, faq_ids)

    def edit(
        self, put: Sequence[Faq] = (), remove: Sequence[str] = (), *, before_saving: Callable[[str, str], None] = lambda *_: None
    ) -> Edited:
        """Add or replace FAQs and remove others, all or nothing; once this returns, it survives a crash.

        `before_saving` is told the old and the new version; what it raises stops the edit. Raises: UnknownFaqError for an id to
        remove that isn't there; KbError when the edit can't be embedded or saved.
        """
        with self._changing, one_editor(self._home.folder):
            if self._home.source is None and (stamp := self._stamp()) != self._served:
                self._take_in(stamp)  # else saving would undo what others saved
            old = self.current
            if unknown := [faq_id for faq_id in remove if old.get(faq_id) is None]:
                raise UnknownFaqError(f"{', '.join(unknown[:10])}: expected ids of FAQs that are there, got {len(unknown)} that aren't")
            edits = Edits().then(put, remove)
            made = difference(old.faqs, edits.applied(old.faqs))
            new = changed(old, self._embedder, made) if made else old
            before_saving(old.version, new.version)
            with journal_written(self._home.journal, read_journal(self._home.journal).then(put, remove)):
                served = self._save(new, self._served) if made else self._served
            new.adopt(read_calibration(self._home.calibration))
            self._current, self._served = new, served
        return Edited(old.version, new, made)

    def refresh(self, *, settled: bool = False) -> Difference | None:
        """Take in what others made of the file or folder since; None when there is nothing new.

        It must be the same in two calls, lest a file be read that is still being written, unless it is known to be `settled`.
        Raises: KbError when it can't be used, once for each change; the old state is searched on.
        """
        with self._changing:
            stamp = self._stamp()
            waits = stamp != self._looked_at and not settled
            self._looked_at = stamp
            if stamp in (self._served, self._refused) or waits:
                return None
            with one_editor(self._home.folder):
                return self._take_in(self._stamp())

    def _take_in(self, stamp: Stamp, bar: Bar = lambda _: nullcontext()) -> Difference:
        """Serve what the file or folder says, with the edits of the journal. Gives what that changed."""
        self._refused = stamp
        before, edits = self._current, read_journal(self._home.journal)
        saved: FaqRetriever | None
        if self._home.source is None:
            saved = FaqRetriever.load(self._home.folder, self._embedder)
            said = saved.faqs
        else:
            saved, said = before or self._kept(), read_faqs(self._home.source)
        wanted = edits.applied(said)
        made = difference(saved.faqs if saved else (), wanted)
        if saved is None:
            with bar(sum(len(passages(faq)) for faq in wanted)) as progress:
                new = FaqRetriever.build(self._embedder, wanted, progress=progress)
        else:
            new = changed(saved, self._embedder, made) if made else saved
        served = stamp if new is saved else self._save(new, stamp)
        new.adopt(read_calibration(self._home.calibration))
        self._current, self._served, self._refused = new, served, None
        if edits.by_id:
            logger.info("%d FAQs are as they were edited over HTTP, whatever %s says; %s has these edits", len(edits.by_id),
                        self._home.source or self._home.folder, self._home.journal)
        return made if before is None else difference(before.faqs, new.faqs)

    def _kept(self) -> FaqRetriever | None:
        """The index of the FAQ file as it was when last served, to spare embedding what is the same; None: there is none of use."""
        for folder in (self._home.folder, self._home.shipped):
            if folder is None or not (folder / MANIFEST).exists():
                continue
            try:
                return FaqRetriever.load(folder, self._embedder)
            except IndexFolderError as error:
                logger.warning("the index in %s is of no use, and is passed over: %s", folder, error)
        return None

    def _save(self, new: FaqRetriever, stamp: Stamp) -> Stamp:
        """Save a state that was made of what has this stamp; the stamp of what is saved."""
        manifest = new.save(self._home.folder, model=self._home.encoder.model, max_tokens=self._home.encoder.max_tokens,
                            runtime=self._home.encoder.runtime)
        return manifest if self._home.source is None else stamp

    def _stamp(self) -> Stamp:
        try:
            if self._home.source is None:
                return read_manifest(self._home.folder)
            stat = self._home.source.stat()
            return stat.st_ino, stat.st_mtime_ns, stat.st_size
        except (OSError, IndexFolderError) as error:
            return str(error)
