"""The image is built as it should be, as far as that shows without Docker: the same steps in a clean environment give a service.

By default the dependencies come from this environment, so that no test needs the network; `pytest -m network tests/docs/test_dockerfile.py`
installs everything that is locked into an empty one, which takes minutes.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from service.settings import Settings
from tests.conftest import ROOT
from tests.docs.test_layers import PACKAGES
from tests.real_service import real_service

JSON = dict[str, Any]
TORCH_INDEX = '--extra-index-url "$TORCH_INDEX" '


@dataclass(frozen=True, slots=True)
class Instruction:
    """One line of a Dockerfile, continued lines joined."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """Arguments; flags like `--from=build` left out."""
        return [word for word in self.text.split() if not word.startswith("--")]


def stages(dockerfile: str) -> list[list[Instruction]]:
    """The instructions of each stage, beginning with its FROM; what comes before the first is left out."""
    found: list[list[Instruction]] = []
    for line in re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", dockerfile, flags=re.MULTILINE)).splitlines():
        name, _, text = line.strip().partition(" ")
        if name.upper() == "FROM":
            found.append([])
        if name and found:
            found[-1].append(Instruction(name.upper(), text.strip()))
    return found


def ignored(path: str, patterns: list[str]) -> bool:
    """Whether a .dockerignore of these patterns leaves a path out: the last pattern that fits it or a folder of it decides."""
    parts = PurePosixPath(path).parts
    parents = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    out = False
    for pattern in patterns:
        wanted = pattern.removeprefix("!").removeprefix("**/")
        anywhere = pattern.removeprefix("!").startswith("**")
        names = [*parents, *parts] if anywhere else [parent for parent in parents if parent.count("/") == wanted.count("/")]
        if any(fnmatchcase(name, wanted) for name in names):
            out = not pattern.startswith("!")
    return out


def patterns() -> list[str]:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


STAGES = stages((ROOT / "Dockerfile").read_text(encoding="utf-8"))
LAST = {instruction.name: instruction for instruction in STAGES[-1]}
"""The last stage's instructions; of several with one name the last, which is what Docker goes by."""


def copied() -> list[str]:
    """What is copied out of the checkout."""
    return [source for stage in STAGES for one in stage if one.name == "COPY" and "--from=" not in one.text for source in one.words[:-1]]


def health_command() -> list[str]:
    """The HEALTHCHECK's own command."""
    command = json.loads(LAST["HEALTHCHECK"].text.partition("CMD ")[2])
    assert isinstance(command, list)
    return command


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    found = subprocess.run([hadolint, "--no-color", "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "hadolint ignore" not in (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_hadolint_would_find_something(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python\nRUN cd /src\n", encoding="utf-8")
    hadolint = Path(sys.executable).parent / "hadolint"
    found = subprocess.run([hadolint, "--no-color", "Dockerfile"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert "DL3006" in found.stdout


def test_what_installs_is_left_behind_in_a_stage_of_its_own() -> None:
    assert len(STAGES) >= 2
    assert [one.text for one in STAGES[-1] if one.name == "COPY"] == ["--from=build /venv /venv"]


def test_the_service_runs_as_a_user_without_rights() -> None:
    user = LAST["USER"].text.partition(":")[0]
    assert user.isdigit(), "a number, since whoever checks that it isn't root can't look names up"
    assert int(user) > 0
    assert f"--uid {user} " in " ".join(one.text for one in STAGES[-1] if one.name == "RUN")


def test_the_container_serves_where_it_says_and_is_asked_whether_it_is_ready() -> None:
    assert json.loads(LAST["CMD"].text) == ["fetchgate", "serve"]
    assert LAST["EXPOSE"].text == str(Settings.model_fields["port"].default)
    assert f"http://127.0.0.1:{LAST['EXPOSE'].text}/health/ready" in health_command()[-1]
    assert LAST["VOLUME"].text == LAST["WORKDIR"].text


@pytest.mark.parametrize("source", copied())
def test_what_is_copied_exists_and_is_not_ignored(source: str) -> None:
    assert (ROOT / source).exists()
    assert not ignored(source, patterns())


def test_every_package_is_copied() -> None:
    assert {*PACKAGES, "pyproject.toml", "requirements.lock", "README.md"} == set(copied())


@pytest.mark.parametrize("path", [".env", ".git/config", ".venv/bin/python", "var/log.db", "var/secret", "tests/fakes.py",
                                  "kb/__pycache__/types.cpython-311.pyc", "service/routes/__pycache__/kb.cpython-311.pyc", "kb.egg-info/x"])
def test_what_the_image_does_not_need_is_not_sent_to_its_builder(path: str) -> None:
    assert ignored(path, patterns())


@pytest.mark.parametrize(("path", "lines", "out"), [
    ("a/b", ["a"], True), ("a/b", ["b"], False), ("a/b", ["**/b"], True), ("a/b", ["**", "!a"], False), ("a/b", ["a", "!a/b"], False),
    ("a/b", ["**", "!a", "**/b"], True), ("ab", ["a"], False), ("ab", ["a*"], True), ("a/b", ["*b"], False),
])
def test_the_last_pattern_that_fits_decides(path: str, lines: list[str], out: bool) -> None:
    assert ignored(path, lines) is out


@pytest.fixture
def places(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Where the image's folders are on this machine; gone after the test, since an environment takes gigabytes."""
    yield {"/venv": str(tmp_path / "venv"), "/src": str(tmp_path / "src"), "/data": str(tmp_path / "data")}
    for folder in tmp_path.iterdir():
        shutil.rmtree(folder)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("offline", [
    pytest.param(True, id="dependencies-lent"),
    pytest.param(False, id="dependencies-installed", marks=pytest.mark.network),  # pip asks its index, as it does for the image
])
def test_the_same_steps_in_a_clean_environment_give_a_service_that_answers_with_a_citation(
    places: dict[str, str], offline: bool
) -> None:
    Path(places["/data"]).mkdir()
    build(places, offline=offline)
    installed = Path(places["/venv"]) / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    assert not_installed(Path(places["/src"]), installed) == []

    environment = image_environment(places)
    fetchgate = str(Path(places["/venv"]) / "bin" / json.loads(LAST["CMD"].text)[0])
    key, hashed = create_key(fetchgate, environment)
    settings = {**environment, "FETCHGATE_API_KEYS": hashed, "FETCHGATE_HOLDBACK": "0"}
    with real_service(Path(places["/data"]), env=settings, command=[fetchgate]) as announced:
        port = announced.rpartition(":")[2]
        assert announced == f"http://0.0.0.0:{port}", "inside a container, loopback would be reached by nobody"
        assert health(port, environment) == 0
        url = f"http://127.0.0.1:{port}"
        question = get(f"{url}/v1/kb", key)["examples"][0]
        answer = ask(url, key, question)
        assert answer["fetchgate"]["citations"], answer
        assert "<html" in text(url).lower()
        assert text(f"{url}/static/chat.js")
    assert health(port, environment) != 0, "a service that is gone is not ready"
    assert Path(places["/data"], "log.db").stat().st_size > 0


def build(places: dict[str, str], *, offline: bool) -> None:
    """Go through the first stage, in a folder with what is copied and nothing else; the index of torch is left to this machine.

    `offline` lends the new environment our installed packages, by a path file, and forbids pip to ask for more.
    """
    folder = Path(places["/src"])
    folder.mkdir()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    if offline:
        environment |= {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}  # pip reads 0 here as "no isolation"
    for one in STAGES[0]:
        if one.name == "COPY":
            for source in one.words[:-1]:
                copy(source, folder / one.words[-1])
        elif one.name == "RUN":
            line = relocated(one.text.replace(TORCH_INDEX, ""), places)
            done = subprocess.run(["sh", "-c", line], cwd=folder, env={**environment, "PATH": path}, capture_output=True, text=True,
                                  check=False)
            assert done.returncode == 0, f"{line}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
            if offline and " -m venv " in line:
                lend_packages(Path(places["/venv"]))


def lend_packages(venv: Path) -> None:
    """Our site-packages behind those of the new environment; our own editable installation isn't lent with them."""
    ours = sysconfig.get_path("purelib")
    theirs = venv / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    for bundled in theirs.glob("setuptools*"):  # Python 3.11 brings an old one, which would hide ours
        shutil.rmtree(bundled)
    (theirs / "lent.pth").write_text(f"{ours}\n")


def copy(source: str, target: Path) -> None:
    """As COPY does: a file into a folder, a folder's content into one; what is ignored stays."""
    if (ROOT / source).is_file():
        shutil.copy(ROOT / source, target)
        return
    for file in (ROOT / source).rglob("*"):
        name = file.relative_to(ROOT).as_posix()
        if file.is_file() and not ignored(name, patterns()):
            into = target / file.relative_to(ROOT / source)
            into.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, into)


def relocated(line: str, places: dict[str, str]) -> str:
    return re.sub(r"(?<![\w./])/(?:venv|src|data)\b", lambda found: places[found[0]], line)


def not_installed(source: Path, installed: Path) -> list[str]:
    """Files of the packages, data among them, that an installation has lost."""
    files = [file.relative_to(source) for package in PACKAGES for file in (source / package).rglob("*") if file.is_file()]
    return [str(file) for file in files if not (installed / file).is_file()]


def image_environment(places: dict[str, str]) -> dict[str, str]:
    """What ENV sets in the last stage."""
    pairs = (word.split("=", 1) for one in STAGES[-1] if one.name == "ENV" for word in one.words)
    return {name: relocated(value, places).replace("$PATH", os.environ["PATH"]) for name, value in pairs} | {"PYTHONPATH": ""}


def create_key(fetchgate: str, environment: dict[str, str]) -> tuple[str, str]:
    """A key for the client and its hash for the service, which refuses to be reached by others without one."""
    made = subprocess.run([fetchgate, "keys", "create", "--json"], env=environment, capture_output=True, text=True, check=True)
    found = json.loads(made.stdout)
    return found["key"], found["hashed"]


def health(port: str, environment: dict[str, str]) -> int:
    """The exit code of the HEALTHCHECK's command, asked on this port."""
    program, *arguments = [word.replace(f":{LAST['EXPOSE'].text}/", f":{port}/") for word in health_command()]
    found = shutil.which(program, path=environment["PATH"])
    assert found is not None
    assert found.startswith(environment["PATH"].partition(os.pathsep)[0]), "the image has no other python than the one in /venv"
    return subprocess.run([found, *arguments], env={**os.environ, **environment}, capture_output=True, check=False).returncode


def text(url: str, key: str = "", body: JSON | None = None) -> str:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return str(response.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            raise AssertionError(f"{url}: {error.code} {error.read().decode()}") from None


def get(url: str, key: str, body: JSON | None = None) -> JSON:
    found = json.loads(text(url, key, body))
    assert isinstance(found, dict)
    return found


def ask(url: str, key: str, question: str) -> JSON:
    return get(f"{url}/v1/chat/completions", key, {"model": "fetchgate", "messages": [{"role": "user", "content": question}]})
