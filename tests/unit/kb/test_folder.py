"""The index folder: what is saved comes back; damage is refused; a crash, a full disk or a second saver loses nothing."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from kb.embedder import Progress, Vectors
from kb.errors import IndexFolderError
from kb.folder import FORMAT, load_index, read_manifest
from kb.retriever import FaqRetriever
from kb.types import Faq
from tests.fakes import HashEmbedder

ROOT = Path(__file__).parents[3]
PARTS = ("faqs", "index", "rows")


def faqs(count: int, name: str = "f") -> tuple[Faq, ...]:
    return tuple(
        Faq(f"{name}{n}", f"How do I do {name} {n}?", f"Press {n}.\nThen wait.", "pay" if n % 2 else None, (f"{name} {n} how",))
        for n in range(count)
    )


def saved(folder: Path, count: int = 6, name: str = "f") -> FaqRetriever:
    retriever = FaqRetriever.build(HashEmbedder(), faqs(count, name))
    retriever.save(folder, model="hash", max_tokens=7)
    return retriever


def load(folder: Path) -> FaqRetriever:
    return FaqRetriever.load(folder, HashEmbedder())


def part(folder: Path, name: str) -> Path:
    return folder / read_manifest(folder).files[name]


def test_a_saved_knowledge_base_comes_back_whole(tmp_path: Path) -> None:
    before = saved(tmp_path / "deep" / "kb")
    after = load(tmp_path / "deep" / "kb")
    assert (after.faqs, after.version) == (before.faqs, before.version)
    for query in ("how do i do f 3?", "4", "press"):
        assert after.search(query) == before.search(query)


@pytest.mark.parametrize("faq", [
    Faq("a", "  spaces stay ", "\ttabs\r\n"),
    Faq("b", "", "كيف 🤷🏽‍♀️ \u2028 \x85"),
    Faq("c", "a NUL \0", "", "", ("", " x ", "x")),
    Faq("d", "half a pair \ud83e", "x" * 200_000, source_url="https://x.org/ü"),
])
def test_faqs_come_back_exactly_however_odd(tmp_path: Path, faq: Faq) -> None:
    index = FaqRetriever.build(_Anything(), [faq])
    index.save(tmp_path / "kb", model="m", max_tokens=1)
    loaded = FaqRetriever.load(tmp_path / "kb", _Anything())
    assert (loaded.faqs, loaded.version) == ((faq,), index.version)


class _Anything(HashEmbedder):
    """Takes half a surrogate pair too."""

    def embed(self, texts: Sequence[str], *, progress: Progress | None = None) -> Vectors:
        return super().embed([text.encode(errors="replace").decode() for text in texts], progress=progress)


def test_the_manifest_says_what_the_folder_holds(tmp_path: Path) -> None:
    retriever = saved(tmp_path)
    manifest = read_manifest(tmp_path)
    assert (manifest.model_id, manifest.model, manifest.max_tokens, manifest.dimension) == ("hash/64", "hash", 7, 64)
    assert (manifest.faqs, manifest.vectors, manifest.kind, manifest.built_kind) == (6, 12, "auto", "flat")
    assert manifest.content_hash == retriever.version


def test_a_knowledge_base_without_faqs_can_be_saved_and_filled_later(tmp_path: Path) -> None:
    retriever = saved(tmp_path, 2)
    retriever.remove(["f0", "f1"])
    retriever.save(tmp_path, model="hash", max_tokens=7)
    loaded = load(tmp_path)
    assert (loaded.faqs, loaded.search("how?")) == ((), ())
    loaded.put(faqs(1))
    assert loaded.search("how?")[0].faq.id == "f0"


def test_saving_again_replaces_the_files_and_leaves_no_old_ones(tmp_path: Path) -> None:
    for count in (3, 4, 4, 2):
        saved(tmp_path, count)
        assert len(load(tmp_path).faqs) == count
    assert sorted(path.name.split("-")[0] for path in tmp_path.iterdir()) == [".lock", "faqs", "index", "manifest.json", "rows"]


def test_nothing_is_pickled(tmp_path: Path) -> None:
    saved(tmp_path)
    assert json.loads((tmp_path / "manifest.json").read_text())["format"] == FORMAT
    assert json.loads(part(tmp_path, "rows").read_text())[:3] == ["f0", "f0", "f1"]
    assert [json.loads(line)["id"] for line in part(tmp_path, "faqs").read_text().splitlines()][:2] == ["f0", "f1"]


def test_a_folder_with_other_files_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(IndexFolderError, match=r"expected an empty folder or an index, got one with other files \(thesis.tex\)"):
        saved(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_strangers_file_beside_an_index_stays(tmp_path: Path) -> None:
    saved(tmp_path)
    for name in (".DS_Store", "faqs-notes.jsonl", "index.faiss"):
        (tmp_path / name).write_text("mine")
    saved(tmp_path, 3)
    assert len(load(tmp_path).faqs) == 3
    assert all((tmp_path / name).read_text() == "mine" for name in (".DS_Store", "faqs-notes.jsonl", "index.faiss"))


def test_another_encoders_index_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(IndexFolderError, match="expected the encoder hash/64 that made this index, got hash/32"):
        FaqRetriever.load(tmp_path, HashEmbedder(32))


@pytest.mark.parametrize("missing", ["folder", "manifest", *PARTS])
def test_a_missing_folder_or_file_is_named(tmp_path: Path, missing: str) -> None:
    folder = tmp_path / "kb"
    if missing != "folder":
        saved(folder)
        (folder / "manifest.json" if missing == "manifest" else part(folder, missing)).unlink()
    expected = f"{folder}/{missing}-" if missing in PARTS else f"{folder}: expected an index folder with manifest.json, got none"
    with pytest.raises(IndexFolderError) as raised:
        load(folder)
    assert str(raised.value).startswith(expected)


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "rubbish", "longer"])
def test_a_damaged_data_file_is_refused_by_name(tmp_path: Path, name: str, damage: str) -> None:
    saved(tmp_path)
    path = part(tmp_path, name)
    content = path.read_bytes()
    rng = random.Random(f"{name}{damage}")
    for _ in range(20):
        at = rng.randrange(len(content))
        flipped = content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]
        path.write_bytes({"flip": flipped, "cut": content[:at], "empty": b"", "rubbish": rng.randbytes(at + 1),
                          "longer": content + b"\0"}[damage])
        with pytest.raises(IndexFolderError) as raised:
            load(tmp_path)
        assert str(raised.value).startswith(f"{path}: expected content with SHA-256")
        assert str(raised.value).endswith("build the index anew")


def test_a_flipped_bit_of_the_manifest_is_noticed_wherever_it_is(tmp_path: Path) -> None:
    saved(tmp_path)
    path = tmp_path / "manifest.json"
    content = path.read_bytes()
    rng = random.Random(0)
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :])
        with pytest.raises(IndexFolderError):
            read_manifest(tmp_path)


@pytest.mark.parametrize("content", [
    b"", b"{", b"null", b"[]", b"{}", b'"text"', b"\xff\xfe", b"[" * 100_000, b'{"format": 2}', b'{"format": 1}',
    b'{"format": 1, "sha256": 5}', b'{"format": 1, "files": null, "sha256": null}', b'{"format": ' + b"9" * 5000 + b"}",
])
def test_a_manifest_of_rubbish_is_refused(tmp_path: Path, content: bytes) -> None:
    saved(tmp_path)
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(IndexFolderError, match=r"build the index anew"):
        load(tmp_path)


def test_a_cut_manifest_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    content = (tmp_path / "manifest.json").read_bytes()
    for length in range(len(content) - 1):  # the line break at the end is no content
        (tmp_path / "manifest.json").write_bytes(content[:length])
        with pytest.raises(IndexFolderError):
            read_manifest(tmp_path)


def test_parts_of_two_folders_do_not_go_together(tmp_path: Path) -> None:
    saved(tmp_path / "a", 6)
    saved(tmp_path / "b", 6, "g")
    shutil.copy(tmp_path / "b" / "manifest.json", tmp_path / "a" / "manifest.json")
    with pytest.raises(IndexFolderError, match="can't be read"):
        load(tmp_path / "a")


# --- crashes. The child's own version of `saved` is that of this file, so both ends agree on what is saved.


def child(code: str, *arguments: object) -> subprocess.Popen[str]:
    script = f"import sys\nfrom pathlib import Path\nfrom {__name__} import *\nfolder = Path(sys.argv[1])\n{code}"
    return subprocess.Popen([sys.executable, "-c", script, *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE, text=True)


CRASH_AT_EVERY_STEP = """
import os, signal
from kb.folder import load_index

def crash_after(steps):
    def hook(event, arguments):
        if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.listdir", "os.scandir", "fcntl.flock"):
            nonlocal steps
            steps -= 1
            if steps < 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

versions = {saved(Path(f"{folder}-{name}"), 5, name).version for name in "ab"}
old, new = (FaqRetriever.build(HashEmbedder(), faqs(5, name)) for name in "ab")
for steps in range(1000):
    if sys.argv[2] == "replacing":
        old.save(folder, model="hash", max_tokens=7)
    pid = os.fork()
    if pid == 0:
        crash_after(steps)
        new.save(folder, model="hash", max_tokens=7)
        os._exit(0)
    finished = os.waitpid(pid, 0)[1] == 0
    if (folder / "manifest.json").exists():
        print(FaqRetriever.load(folder, HashEmbedder()).version, flush=True)
    else:
        print("none", flush=True)
    if finished:
        break
print(len(list(folder.iterdir())))
"""


@pytest.mark.parametrize("how", ["replacing", "for the first time"])
def test_a_save_killed_at_any_step_leaves_the_old_index_or_the_new_one_and_can_be_repeated(tmp_path: Path, how: str) -> None:
    """Killed before each call that touches the folder, one after the other; leftovers are swept by the save that succeeds."""
    out, _ = (process := child(CRASH_AT_EVERY_STEP, tmp_path / "kb", how)).communicate()
    *states, files = out.split()
    old, new = (FaqRetriever.build(HashEmbedder(), faqs(5, name)).version for name in "ab")
    before = old if how == "replacing" else "none"
    assert process.returncode == 0
    assert len(states) > 15
    assert states == sorted(states, key=[before, new].index), "once the new one is there, it stays"
    assert {before, new} == set(states)
    assert files == "5"


SAVE_FOR_EVER = """
print("ready", flush=True)
retrievers = [FaqRetriever.build(HashEmbedder(), faqs(count, "ab"[count % 2])) for count in (400, 401)]
while True:
    for retriever in retrievers:
        retriever.save(folder, model="hash", max_tokens=7)
        print(retriever.version, flush=True)
"""


def test_a_folder_loads_after_its_savers_were_killed_at_any_moment(tmp_path: Path) -> None:
    rng = random.Random(0)
    versions = {FaqRetriever.build(HashEmbedder(), faqs(count, "ab"[count % 2])).version for count in (400, 401)}
    for _ in range(4):
        process = child(SAVE_FOR_EVER, tmp_path)
        assert process.stdout is not None
        for _ in range(rng.randrange(2, 6)):
            process.stdout.readline()
        for _ in range(rng.randrange(200_000)):  # somewhere in a save
            pass
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert load(tmp_path).version in versions
    assert len(list(tmp_path.iterdir())) < 9, "leftovers are swept by the next saver"
    saved(tmp_path)
    assert len(list(tmp_path.iterdir())) == 5


def test_two_savers_and_a_reader_do_not_disturb_each_other(tmp_path: Path) -> None:
    saved(tmp_path)
    versions = {FaqRetriever.build(HashEmbedder(), faqs(count, "ab"[count % 2])).version for count in (400, 401)}
    processes = [child(SAVE_FOR_EVER, tmp_path) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()  # ready
        process.stdout.readline()  # saved once
    try:
        seen = {load(tmp_path).version for _ in range(60)}
        assert [process.poll() for process in processes] == [None, None], "both are still saving"
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert seen <= versions
    assert load(tmp_path).version in versions


# --- a disk with no room


LIMITED_SAVE = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    saved(folder, 40, "g")
except IndexFolderError as error:
    print(error)
"""


@pytest.mark.parametrize("share", [0.0, 0.02, 0.1, 0.5, 0.97])
def test_a_file_that_cannot_grow_leaves_the_old_index_and_says_so(tmp_path: Path, share: float) -> None:
    folder = tmp_path / "kb"
    saved(tmp_path / "large", 40, "g")
    largest = max(path.stat().st_size for path in (tmp_path / "large").iterdir())
    version = saved(folder).version
    files = sorted(path.name for path in folder.iterdir())
    out, _ = (process := child(LIMITED_SAVE, folder, int(share * largest))).communicate()
    assert process.returncode == 0
    assert out == f"{folder}: can't be written (File too large); an index that was there is unchanged\n"
    assert load(folder).version == version
    assert sorted(path.name for path in folder.iterdir()) == files


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0 or subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True, check=False
    ).returncode:
        pytest.skip("needs leave to mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_the_old_index_and_says_so(small_disk: Path) -> None:
    """For every amount of room from none to enough: FAISS's own writer takes a full disk for success."""
    folder = small_disk / "kb"
    version = saved(folder).version
    old = sum(path.stat().st_blocks * 512 for path in folder.iterdir())
    new = FaqRetriever.build(HashEmbedder(), faqs(60, "g"))
    filler = small_disk / "filler"
    messages: list[str] = []
    for room in range(0, 100 * 1024, 4096):
        filler.write_bytes(b"x" * (256 * 1024 - old - room - 4096))
        try:
            new.save(folder, model="hash", max_tokens=7)
        except IndexFolderError as error:
            messages.append(str(error))
            filler.unlink()
        else:
            break
        assert load(folder).version == version
    assert len(messages) > 5
    assert all("No space left on device" in message for message in messages)
    assert load(folder).version == new.version


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(IndexFolderError, match=r"can't be written \(Permission denied\)"):
        saved(tmp_path / "kb")
    tmp_path.chmod(0o700)


def test_a_file_where_the_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "kb").write_text("mine")
    with pytest.raises(IndexFolderError, match=r"kb: can't be written \(File exists\)"):
        saved(tmp_path / "kb")
    with pytest.raises(IndexFolderError, match=r"kb: expected an index folder with manifest.json, got none"):
        load(tmp_path / "kb")


def test_an_index_that_does_not_fit_its_faqs_is_refused(tmp_path: Path) -> None:
    """All hashes right, the content not: written by a program that isn't ours."""
    from kb.folder import save_index

    retriever = saved(tmp_path)
    save_index(tmp_path, retriever.index, retriever.faqs[:-1], model_id="hash/64", model="hash", max_tokens=7,
               lexical_weight=retriever.lexical_weight)
    with pytest.raises(IndexFolderError, match="build the index anew"):
        load_index(tmp_path)


def test_the_version_depends_on_every_field_and_the_encoder_but_not_on_the_order() -> None:
    a, b = faqs(2)
    version = FaqRetriever.build(HashEmbedder(), [a, b]).version
    assert FaqRetriever.build(HashEmbedder(), [b, a]).version == version
    assert FaqRetriever.build(HashEmbedder(32), [a, b]).version != version
    for changed in (replace(a, question="x"), replace(a, answer="x"), replace(a, category="x"), replace(a, paraphrases=()),
                    replace(a, source_url="http://x"), replace(a, id="x")):
        assert FaqRetriever.build(HashEmbedder(), [changed, b]).version != version
