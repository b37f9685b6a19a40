"""An encoder that remembers gives what the encoder gave, and asks it once."""

from collections.abc import Sequence

from evaluation.embedding import RememberingEmbedder
from kb.embedder import Progress, Vectors
from tests.fakes import HashEmbedder


class CountingEmbedder(HashEmbedder):
    """Counts the texts that it embeds."""

    embedded = 0

    def embed(self, texts: Sequence[str], *, progress: Progress | None = None) -> Vectors:
        self.embedded += len(texts)
        return super().embed(texts, progress=progress)


def test_a_text_is_embedded_once_and_comes_back_the_same() -> None:
    encoder = CountingEmbedder()
    remembering = RememberingEmbedder(encoder)
    texts = ["late fee", "card lost", "late fee"]
    assert (remembering.embed(texts) == HashEmbedder().embed(texts)).all()
    assert (remembering.embed(["card lost"]) == HashEmbedder().embed(["card lost"])).all()
    assert encoder.embedded == 2
    assert remembering.embed([]).shape == (0, encoder.dimension)
    assert remembering.model_id == encoder.model_id
