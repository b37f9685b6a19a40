"""What is written holds: links lead somewhere, no path is of one machine, and nothing has grown too long to read."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.conftest import ROOT
from tests.docs.test_layers import PACKAGES

MODULE_LINES = 400
FUNCTION_LINES = 60
TEXT_SUFFIXES = {".md", ".py", ".toml", ".lock", ".ipynb", ".js", ".css", ".html", ".json", ".sh", ".yaml", ".yml", ".ini", ".mako", ""}
ONE_MACHINES = re.compile(r"(?<![\w./-])/(?:work|root|home/\w+)/")
TEMPORARY = re.compile(r"(?<![\w./-])/tmp/")
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\[\]]*\])*\]\((?!https?:|mailto:)<?([^()\s>]+)>?(?:\s+\"[^\"]*\")?\)")
FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1\s*$", re.MULTILINE | re.DOTALL)


def texts() -> list[Path]:
    """Every text of the project, made and installed things left out."""
    folders = [ROOT / name for name in (*PACKAGES, "docs", "notebooks", "tests")]
    found = [*ROOT.iterdir(), *(file for folder in folders for file in folder.rglob("*"))]
    return sorted(f for f in found if f.is_file() and f.suffix in TEXT_SUFFIXES and "tiktoken" not in f.parts
                  and not any(part in ("__pycache__", ".ipynb_checkpoints") for part in f.parts))


def pages() -> list[Path]:
    return [file for file in texts() if file.suffix == ".md"]


def sources() -> list[Path]:
    return [file for file in texts() if file.suffix == ".py" and file.relative_to(ROOT).parts[0] in PACKAGES]


def links(page: str) -> list[str]:
    """Targets of a page's relative links, those in code left out."""
    return LINK.findall(re.sub(r"`[^`\n]*`", "", FENCE.sub("", page)))


def anchors(page: str) -> set[str]:
    """Names that its headings can be reached by, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+?) *$", FENCE.sub("", page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(page: Path) -> Iterator[str]:
    """The relative links of a page that lead nowhere."""
    for link in links(page.read_text(encoding="utf-8")):
        target, _, anchor = unquote(link).partition("#")
        file = page.parent / target if target else page
        if not file.exists():
            yield f"{page}: {link} doesn't exist"
        elif anchor and file.suffix == ".md" and anchor not in anchors(file.read_text(encoding="utf-8")):
            yield f"{page}: {link}: {file.name} has no such heading"


def functions(source: str) -> Iterator[tuple[str, int]]:
    """Each function's name and its lines, decorators left out."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def test_every_relative_link_leads_somewhere() -> None:
    assert ROOT / "README.md" in pages()
    assert [dead for page in pages() for dead in dead_links(page)] == []


def test_a_dead_link_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Two words!\n[a](b.md) [b](page.md#two-words) [c](#three) `[d](d.md)`\n```\n[e](e.md)\n```\n"
                    "[f](https://example.org/f) [g [h]](i.png \"title\")\n", encoding="utf-8")
    assert [dead.split(": ")[1] for dead in dead_links(page)] == ["b.md doesn't exist", "#three", "i.png doesn't exist"]


def test_no_text_names_a_path_of_one_machine() -> None:
    named = [f"{file.relative_to(ROOT)}: {found[0]}" for file in texts()
             if (found := ONE_MACHINES.search(file.read_text(encoding="utf-8")))]
    assert named == []


def test_no_page_or_notebook_names_a_temporary_path() -> None:
    named = [str(file.relative_to(ROOT)) for file in texts()
             if file.suffix in (".md", ".ipynb") and TEMPORARY.search(file.read_text(encoding="utf-8"))]
    assert named == []


@pytest.mark.parametrize("folder", ["work", "root", "home/ann"])
def test_a_path_of_one_machine_is_noticed(folder: str) -> None:
    assert ONE_MACHINES.search(f"see '/{folder}/notes'")
    assert not ONE_MACHINES.search(f"https://example.org/{folder}/notes or our/{folder}/notes")


def test_no_module_is_too_long() -> None:
    assert len(sources()) > 40
    lengths = {str(file.relative_to(ROOT)): len(file.read_text(encoding="utf-8").splitlines()) for file in sources()}
    assert {name: lines for name, lines in lengths.items() if lines > MODULE_LINES} == {}


def test_no_function_is_too_long() -> None:
    long = [f"{file.relative_to(ROOT)}: {name} has {lines} lines" for file in sources()
            for name, lines in functions(file.read_text(encoding="utf-8")) if lines > FUNCTION_LINES]
    assert long == []


def test_the_length_of_a_function_is_measured() -> None:
    source = "@cache\ndef one():\n    pass\nclass A:\n    async def two(self):\n        x = 1\n        return x\n"
    assert dict(functions(source)) == {"one": 2, "two": 3}
