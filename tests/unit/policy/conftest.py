"""The tiny encoders that a gate is built on, and a gate on one of them."""

from pathlib import Path

import pytest

from tests.tiny_encoder import make_tiny_encoder, make_tiny_gpt2

TEXTS = ["How do I block my card?", "and if it comes back", "Naya card kab milega bhai, I asked last week already"]


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_encoder(tmp_path_factory.mktemp("bert") / "encoder")


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_gpt2(tmp_path_factory.mktemp("gpt2") / "encoder", TEXTS)


@pytest.fixture(params=["bert", "gpt2"])
def encoder(request: pytest.FixtureRequest) -> Path:
    """The folder of each kind in turn."""
    folder: Path = request.getfixturevalue(request.param)
    return folder
