"""A knowledge base in a Milvus server: shared, exact, and whole again after whatever befalls client and server."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from kb.embedder import Progress, Vectors
from kb.errors import EmbedderError, IndexFolderError, SourceError, UnknownFaqError
from kb.milvus import MilvusRetriever
from kb.milvus_rows import MilvusConfig, MilvusRows, Row
from kb.retriever import FaqRetriever
from kb.types import Faq
from tests.conversation import Conversation
from tests.fakes import HashEmbedder
from tests.milvus_server import GivenServer, MilvusServer, needs_milvus, shared_milvus

pytestmark = needs_milvus

ROOT = Path(__file__).parents[3]
PAY = Faq("pay", "How do I pay?", "By card.", "billing", ("payment methods",), "https://example.org/pay")
REFUND = Faq("refund", "How do I get a refund?", "Within 30 days.")
SHIP = Faq("ship", "Where do you ship?", "To all of Europe.")
THREE = (PAY, REFUND, SHIP)


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GivenServer]:
    server = shared_milvus(tmp_path_factory.mktemp("milvus"))
    yield server
    server.kill()


@pytest.fixture
def config(shared_server: GivenServer) -> MilvusConfig:
    """A collection of the test's own."""
    return shared_server.config()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MilvusServer]:
    """A server for a test that does it harm."""
    server = MilvusServer(tmp_path)
    yield server
    server.kill()


class Counting(HashEmbedder):
    texts = 0

    def embed(self, texts: Sequence[str], *, progress: Progress | None = None) -> Vectors:
        self.texts += len(texts)
        return super().embed(texts, progress=progress)


def built(config: MilvusConfig, *faqs: Faq) -> MilvusRetriever:
    return MilvusRetriever.build(config, HashEmbedder(), faqs or THREE)


def found(retriever: MilvusRetriever | FaqRetriever, query: str, k: int = 3) -> list[str]:
    return [hit.faq.id for hit in retriever.search(query, k=k)]


def many(count: int, word: str = "thing") -> list[Faq]:
    rng = np.random.default_rng(7)
    return [Faq(f"faq{n}", f"What about {word} {rng.integers(10**9)}?", f"So it is, {n}.", paraphrases=tuple(
        f"{word} {rng.integers(10**9)}" for _ in range(n % 4))) for n in range(count)]


def test_what_is_put_is_had_back_as_it_was(config: MilvusConfig) -> None:
    odd = (Faq("it's\"\\]_or_name_!=_\"é🤷", "Déjà vu? 🤷", "x" * 30_000, None, ("à", "á")),
           Faq("-0", "Tab\there?", ""), Faq("version", "", "Only an answer."))
    retriever = built(config, *THREE, *odd)
    assert set(retriever.faqs) == {*THREE, *odd}
    assert [retriever.get(faq.id) for faq in (*THREE, *odd)] == [*THREE, *odd]
    assert found(retriever, "Only an answer.", 1) == ["version"]
    retriever.remove([faq.id for faq in odd])
    assert retriever.faqs == THREE


def test_what_one_process_changes_another_sees_at_once(config: MilvusConfig) -> None:
    here = built(config)
    program = f"""
from kb.milvus import MilvusRetriever
from kb.milvus_rows import MilvusConfig
from kb.types import Faq
from tests.fakes import HashEmbedder
there = MilvusRetriever(MilvusConfig({config.uri!r}, {config.collection!r}), HashEmbedder())
for line in iter(input, "end"):
    if line == "put":
        there.put([Faq("ship", "Opening hours?", "Nine to five.")])
    elif line == "remove":
        there.remove(["ship"])
    found = [hit.faq.id for hit in there.search("Opening hours?", k=1)]
    print(there.version, found, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as there:
        assert there.stdin is not None
        assert there.stdout is not None

        def does(what: str) -> str:
            assert there.stdin is not None
            assert there.stdout is not None
            there.stdin.write(f"{what}\n")
            there.stdin.flush()
            return there.stdout.readline().strip()

        for _ in range(5):
            after = does("put")
            assert found(here, "Opening hours?", 1) == ["ship"]
            assert after == f"{here.version} ['ship']"
            assert "Europe" not in str(here.search("Where do you ship? To all of Europe.", k=9))
            does("remove")
            assert "ship" not in found(here, "Opening hours?", 9)
            assert (here.get("ship"), here.compare("ship", None, ("ship",)).faqs) == (None, (None,))
            here.put([REFUND, SHIP])
            assert does("look").startswith(here.version)
        does("end")


def test_the_version_is_that_of_an_index_of_the_same_faqs_by_vectors_alone(config: MilvusConfig) -> None:
    retriever = built(config)
    version = retriever.version
    assert version == FaqRetriever.build(HashEmbedder(), THREE, lexical_weight=0.0).version
    retriever.remove(["refund"])
    assert retriever.version == FaqRetriever.build(HashEmbedder(), (PAY, SHIP), lexical_weight=0.0).version
    retriever.put([REFUND])
    assert (retriever.version, MilvusRetriever(config, HashEmbedder()).version) == (version, version)


def test_building_again_changes_and_embeds_only_what_is_different(config: MilvusConfig) -> None:
    built(config)
    embedder, changed = Counting(), Faq("pay", "How do I pay?", "By bank transfer.")
    retriever = MilvusRetriever.build(config, embedder, (changed, SHIP))
    assert (retriever.faqs, embedder.texts) == ((changed, SHIP), 1)
    assert "By card" not in str(retriever.search("payment methods", k=9))
    assert MilvusRetriever.build(config, embedder, (changed, SHIP)).version == retriever.version
    assert embedder.texts == 2  # the query


def test_collections_know_nothing_of_each_other(shared_server: GivenServer) -> None:
    ours, theirs = built(shared_server.config(), PAY), built(shared_server.config(), REFUND, SHIP)
    assert (found(ours, "How do I get a refund?", 9), ours.get("refund")) == (["pay"], None)
    assert sorted(found(theirs, "How do I pay?", 9)) == ["refund", "ship"]
    with pytest.raises(UnknownFaqError):
        ours.remove(["ship"])
    assert theirs.faqs == (REFUND, SHIP)


def test_it_finds_just_what_an_exact_index_finds_also_after_many_changes(config: MilvusConfig) -> None:
    faqs = many(600)
    retriever, twin = built(config, *faqs), FaqRetriever.build(HashEmbedder(), faqs, kind="flat", lexical_weight=0.0)
    changed = [Faq(faq.id, faq.question, "Otherwise.") for faq in faqs[:200]]
    for kb in (retriever, twin):
        kb.put(changed)
        kb.remove([faq.id for faq in faqs[100:400]])
    for query in ("thing 12", *(faq.question for faq in faqs[::10])):
        ours, theirs = retriever.search(query, k=12), twin.search(query, k=12)
        assert [hit.similarity for hit in ours] == pytest.approx([hit.similarity for hit in theirs], abs=1e-6)
        assert {hit.faq for hit in ours if hit.similarity > theirs[-1].similarity + 1e-6} <= {hit.faq for hit in theirs}
        ours_beside, theirs_beside = (kb.compare(query, "things", ("faq0", "faq7", "faq401")) for kb in (retriever, twin))
        assert ours_beside.joined_faqs == pytest.approx(theirs_beside.joined_faqs, abs=1e-6)


def test_faqs_behind_another_ones_many_paraphrases_are_found(config: MilvusConfig) -> None:
    crowd = Faq("crowd", "How do I pay?", "By card.", paraphrases=tuple(f"How do I pay? {n}" for n in range(1500)))
    retriever = built(config, crowd, REFUND, SHIP)
    assert found(retriever, "How do I pay?") == ["crowd", *found(retriever, "How do I pay?")[1:]]
    assert len(found(retriever, "How do I pay?")) == 3
    retriever.put([PAY, Faq("crowd", "Something else", "entirely")])
    assert found(retriever, "How do I pay? 77", 1) == ["pay"]


def test_opposite_queries_have_no_nearest_faq_together(config: MilvusConfig) -> None:
    class Opposite(HashEmbedder):
        def embed(self, texts: Sequence[str], *, progress: Progress | None = None) -> Vectors:
            return super().embed(["refund"] * len(texts)) * np.array([[-1.0 if text == "not" else 1.0] for text in texts], dtype=np.float32)

    compared = MilvusRetriever.build(config, Opposite(), THREE).compare("not", "refund", ("pay",))
    assert (compared.joined_faqs, compared.joined_top1) == ((0.0,), None)


def test_bad_changes_are_refused_and_change_nothing(config: MilvusConfig) -> None:
    class Broken(HashEmbedder):
        def embed(self, texts: Sequence[str], *, progress: Progress | None = None) -> Vectors:
            vectors = super().embed(texts)
            vectors[-1, 3] = np.nan
            return vectors

    retriever = built(config)
    version = retriever.version
    with pytest.raises(UnknownFaqError, match="gone: expected an FAQ id of http.*, got one that it doesn't hold"):
        retriever.remove(["pay", "gone"])
    with pytest.raises(UnknownFaqError, match="pay: expected each FAQ id once"):
        retriever.put([PAY, SHIP, PAY])
    with pytest.raises(SourceError, match="long: expected an FAQ of at most 65535 characters of JSON.*split it"):
        retriever.put([Faq("new", "New?", "Yes."), Faq("long", "Long?", "x" * 70_000)])
    with pytest.raises(EmbedderError, match="new: expected finite vectors"):
        MilvusRetriever(config, Broken()).put([Faq("new", "New?", "Yes.")])
    assert (retriever.faqs, retriever.version) == (THREE, version)


def test_another_encoder_is_refused(config: MilvusConfig) -> None:
    class Other(HashEmbedder):
        model_id = "other/64"

    built(config)
    with pytest.raises(IndexFolderError, match="expected the encoder hash/64.*got other/64.*build into another collection"):
        MilvusRetriever(config, Other())
    with pytest.raises(IndexFolderError, match="expected an encoder of dimension 64, got one of 32; use the encoder"):
        MilvusRetriever(config, HashEmbedder(32), create=True)


def test_a_collection_that_is_not_there_or_not_ours_is_refused(config: MilvusConfig) -> None:
    with pytest.raises(IndexFolderError, match="expected a knowledge base, got no such collection; check the name or build it"):
        MilvusRetriever(config, HashEmbedder())
    client = pytest.importorskip("pymilvus").MilvusClient(config.uri)
    client.create_collection(config.collection, dimension=64)
    client.close()
    with pytest.raises(IndexFolderError, match="expected a knowledge base with the fields name, vector.*choose another name"):
        MilvusRetriever(config, HashEmbedder(), create=True)


@pytest.mark.parametrize("name", ["", "a-b", "1a", "a b", "é", "a" * 256])
def test_a_name_that_milvus_does_not_take_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="collection: expected at most 255 letters"):
        MilvusConfig("http://127.0.0.1:19530", name)


def test_the_token_is_not_shown() -> None:
    assert "secret" not in repr(MilvusConfig("http://127.0.0.1:19530", "kb", token="root:secret"))


@pytest.mark.parametrize("listens", [False, True], ids=["nobody listens", "it takes connections and is silent"])
def test_a_server_that_does_not_answer_is_an_error_in_good_time(listens: bool) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if listens:
            silent.listen()
        began = time.monotonic()
        with pytest.raises(IndexFolderError, match=r"collection kb: expected Milvus to answer, and it failed .*; check that it runs there"):
            MilvusRetriever(MilvusConfig(f"http://127.0.0.1:{silent.getsockname()[1]}", "kb", timeout=1), HashEmbedder())
    assert time.monotonic() - began < 5


def test_a_server_that_goes_away_is_an_error_at_once_and_is_used_again_when_it_is_back(server: MilvusServer) -> None:
    retriever = built(server.config(timeout=1))
    version = retriever.version
    server.kill()
    for call in (lambda: retriever.search("refund"), lambda: retriever.get("pay"), lambda: retriever.compare("refund", None, ("pay",)),
                 lambda: retriever.put([PAY]), lambda: retriever.remove(["pay"]), lambda: retriever.faqs):
        began = time.monotonic()
        with pytest.raises(IndexFolderError, match="expected Milvus to answer"):
            call()
        assert time.monotonic() - began < 3
    assert retriever.version == version
    server.start()
    assert eventually(retriever, "How do I get a refund?") == "refund"


def test_a_server_that_hangs_holds_up_one_call_and_not_those_after_it(server: MilvusServer) -> None:
    retriever = built(server.config(timeout=1))
    server.pause()
    began = time.monotonic()
    with pytest.raises(IndexFolderError, match="expected Milvus to answer, and it failed"):
        retriever.search("refund")
    assert 0.5 < time.monotonic() - began < 3
    began = time.monotonic()
    for _ in range(20):
        with pytest.raises(IndexFolderError, match="a moment ago it didn't; it is asked again in 2 s"):
            retriever.search("refund")
    assert time.monotonic() - began < 0.5
    server.resume()
    assert eventually(retriever, "How do I get a refund?") == "refund"


async def a_turn_is_answered(retriever: MilvusRetriever) -> tuple[str, ...]:
    return (await Conversation(retriever=retriever).ask("How do I get a refund?")).degraded


@pytest.mark.asyncio
async def test_turns_go_on_without_the_knowledge_base_and_say_so(server: MilvusServer) -> None:
    retriever = built(server.config(timeout=1))
    assert await a_turn_is_answered(retriever) == ()
    server.kill()
    assert await a_turn_is_answered(retriever) == ("kb_unavailable",)


def test_what_was_put_and_removed_is_so_after_a_crash_of_the_server(server: MilvusServer) -> None:
    config = server.config()
    retriever = built(config)
    for round_ in range(2):
        retriever.put([Faq("new", f"New in round {round_}?", "Yes.")])
        retriever.remove(["ship"])
        server.kill()
        server.start()
        assert eventually(retriever, f"New in round {round_}?") == "new"
        assert (retriever.get("ship"), "ship" in found(retriever, "Where do you ship?", 9)) == (None, False)
        assert MilvusRetriever(config, HashEmbedder()).version == retriever.version
        retriever.put([SHIP])


def test_a_change_that_a_crash_cut_off_leaves_each_faq_whole_and_can_be_made_again(server: MilvusServer) -> None:
    config, old, new = server.config(), many(2000, "old"), many(2000, "new")
    retriever = built(config, *old)

    def crash() -> None:
        while not retriever.version.startswith("changing-"):
            retriever.get("faq0")
        time.sleep(0.1)
        server.kill()

    crashing = threading.Thread(target=crash)
    crashing.start()
    with pytest.raises(IndexFolderError):
        retriever.put(new)
    crashing.join()
    server.start()
    assert eventually(retriever, "old thing")
    assert retriever.version.startswith("changing-")
    known = {*old, *new}
    for faq in (*old[::100], *new[::100]):
        hits = retriever.search(faq.text, k=5)
        assert {hit.faq for hit in hits} <= known
        assert len({hit.faq.id for hit in hits}) == 5
        assert (hits[0].faq == faq) == (retriever.get(faq.id) == faq)
    retriever.put(new)
    assert retriever.version == FaqRetriever.build(HashEmbedder(), new, kind="flat", lexical_weight=0.0).version


def test_passages_of_an_older_state_of_an_faq_are_passed_over(config: MilvusConfig) -> None:
    retriever, rows = built(config), MilvusRows(config, 64, create=False)
    query = HashEmbedder().embed(["payment methods"])[0]
    key = rows.search(query[None], 1)[0][0].name.partition("-")[0]
    rows.write([[Row(f"{key}-7", HashEmbedder().embed(["a left-over question"])[0], "older"),
                 Row("0" * 32 + "-1", HashEmbedder().embed(["a left-over question"])[0], "nobody's")]])
    hits = retriever.search("a left-over question", k=9)
    assert sorted(hit.faq.id for hit in hits) == ["pay", "refund", "ship"]
    assert hits[0].similarity < 0.9


def test_a_file_serves_one_process_without_a_server(tmp_path: Path) -> None:
    config = MilvusConfig(str(tmp_path / "kb.db"), "kb")
    retriever = built(config)
    assert found(retriever, "payment methods", 1) == ["pay"]
    assert MilvusRetriever(config, HashEmbedder()).faqs == THREE


def test_an_approximate_index_may_be_chosen(config: MilvusConfig) -> None:
    approximate = MilvusConfig(config.uri, config.collection, index="AUTOINDEX")
    assert found(built(approximate, *THREE, *many(50)), "payment methods", 1) == ["pay"]


def test_the_client_is_imported_when_it_is_used_and_reads_no_env_file(config: MilvusConfig) -> None:
    built(config)
    program = f"""
import os, sys
from kb.milvus import MilvusRetriever
from kb.milvus_rows import MilvusConfig
from tests.fakes import HashEmbedder
assert "pymilvus" not in sys.modules
before = dict(os.environ)
MilvusRetriever(MilvusConfig({config.uri!r}, {config.collection!r}), HashEmbedder())
assert "pymilvus" in sys.modules
assert dict(os.environ) == before
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], cwd=ROOT, check=True)


def test_without_the_client_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, config: MilvusConfig) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(IndexFolderError, match=r"isn't installed; install fetchgate\[milvus\]"):
        MilvusRetriever(config, HashEmbedder())


def eventually(retriever: MilvusRetriever, query: str) -> str | None:
    """The id of the nearest FAQ, once the server is asked again."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return retriever.search(query, k=1)[0].faq.id
        except IndexFolderError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
