"""Importing a module does nothing: it opens, connects, starts, reads and prints nothing, and needs nothing heavy.

Each test imports in a process of its own, where nothing was imported before.
"""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.docs.test_layers import PACKAGES

HEAVY = ("torch", "faiss", "transformers", "sentence_transformers")

BLOCKED = """
import importlib, sys
for name in {blocked!r}:
    sys.modules[name] = None  # whoever imports it gets an ImportError
importlib.import_module({module!r})
"""

LOADED = """
import json, sys
import service.cli.main
print(json.dumps(sorted(name for name in sys.modules if "." not in name)))
"""

WATCHED = """
import importlib, json, logging, os, sys
# what pydantic reads for each class, and rich for each console
LIBRARIES_OWN = {"PYDANTIC_DISABLE_PLUGINS", "COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"}
modules = sys.argv[1:]
ours, done = {module.partition(".")[0] for module in modules}, []

def note(what):
    # ours when no import stands between it and the top level of one of our modules
    frame = sys._getframe(2)
    while frame is not None and "importlib" not in frame.f_code.co_filename:
        name = frame.f_globals.get("__name__", "")
        if name.partition(".")[0] in ours:
            done.append(f"{name} line {frame.f_lineno}: {what}")
            return
        frame = frame.f_back

def audit(event, arguments):
    if event == "open" or event.startswith(("socket.", "subprocess.", "os.", "shutil.", "sqlite3.", "_thread.")):
        note(f"{event} {str(arguments)[:80]}")

class Watched(type(os.environ)):
    def __getitem__(self, name):
        if name not in LIBRARIES_OWN:
            note(f"reads the environment variable {name}")
        return super().__getitem__(name)

os.environ.__class__ = Watched
sys.addaudithook(audit)
for module in modules:
    before = list(logging.getLogger().handlers)
    importlib.import_module(module)
    if logging.getLogger().handlers != before:
        done.append(f"{module}: sets up logging")
print(json.dumps(done))
"""


def run(script: str, *arguments: str, folder: Path = ROOT) -> str:
    """The standard output of a script in a fresh process. It must end well."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run([sys.executable, "-c", script, *arguments], cwd=folder, env=environment, capture_output=True, text=True,
                          timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def modules() -> list[str]:
    """Every module of the seven packages; Alembic's scripts are run by Alembic and imported by nobody."""
    files = [file.relative_to(ROOT) for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    return [".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files if "alembic" not in file.parts]


def core() -> list[str]:
    """The modules that pyproject's contract keeps free of the heavy libraries."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    [contract] = [c for c in config["tool"]["importlinter"]["contracts"] if "torch" in c.get("forbidden_modules", ())]
    assert set(contract["forbidden_modules"]) == set(HEAVY)
    return list(contract["source_modules"])


@pytest.mark.parametrize("module", core())
def test_a_core_module_is_imported_where_the_heavy_libraries_are_not_installed(module: str) -> None:
    assert run(BLOCKED.format(blocked=HEAVY, module=module)) == ""


def test_the_command_line_starts_without_loading_anything_heavy() -> None:
    loaded = json.loads(run(LOADED))
    assert "typer" in loaded, "the measurement finds what is loaded"
    assert not {*HEAVY, "fastapi", "sqlalchemy", "pydantic", "openai"} & set(loaded)


def test_importing_any_module_does_nothing() -> None:
    assert len(modules()) > 40
    assert json.loads(run(WATCHED, *modules())) == []


@pytest.mark.parametrize(("line", "named"), [
    ("open(__file__).close()", "open"),
    ("import os; os.environ.get('HOME')", "environment variable HOME"),
    ("import socket; socket.socket()", "socket"),
    ("import logging; logging.basicConfig()", "sets up logging"),
])
def test_a_module_that_does_something_is_noticed(tmp_path: Path, line: str, named: str) -> None:
    (tmp_path / "busy.py").write_text(f"{line}\n", encoding="utf-8")
    [noticed] = json.loads(run(WATCHED, "busy", folder=tmp_path))
    assert noticed.startswith("busy")
    assert named in noticed
