"""`fetchgate serve` over a real Milvus server: built, asked, edited, shared, and without it in mid-conversation."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import pytest

from kb.source import write_faqs
from kb.types import Faq
from tests.e2e.test_living_service import PARROT, ask, edit, said, version
from tests.e2e.test_served import fetchgate
from tests.milvus_server import MilvusServer, needs_milvus
from tests.real_service import real_service

pytestmark = needs_milvus

FAQS = (
    Faq("fee-late", "How much is the late fee?", "The late fee is ₹450. It is waived once a year.", "fees"),
    Faq("card-lost", "What if I lose my card?", "Block it in the app at once.", "cards"),
    Faq("lounge", "Which lounges are free?", "Four visits a year are free.", "travel"),
)
LATE_FEE = "How much is the late fee?"


@pytest.fixture
def milvus(tmp_path: Path) -> Iterator[MilvusServer]:
    (tmp_path / "milvus").mkdir()
    server = MilvusServer(tmp_path / "milvus")
    yield server
    server.kill()


@pytest.fixture
def settings(milvus: MilvusServer, tmp_path: Path) -> dict[str, str]:
    """Of a service over a collection that is built."""
    write_faqs(tmp_path / "faqs.jsonl", FAQS)
    built = fetchgate(tmp_path, "kb", "build", "--faqs", "faqs.jsonl", "--milvus", milvus.uri, "--collection", "desk", "--json")
    assert built.returncode == 0, built.stderr
    assert json.loads(built.stdout) | {"seconds": 0} == {"version": json.loads(built.stdout)["version"], "faqs": 3, "collection": "desk",
                                                         "seconds": 0}
    return {"FETCHGATE_MILVUS_URI": milvus.uri, "FETCHGATE_MILVUS_COLLECTION": "desk", "FETCHGATE_MILVUS_TIMEOUT": "1",
            "FETCHGATE_POLICY": "always"}


def turn(sdk: openai.OpenAI, *texts: str) -> tuple[str, dict[str, Any]]:
    """The answer to a conversation of user, assistant, user, … texts, and what the gate says of it."""
    messages: list[Any] = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]
    done = sdk.chat.completions.create(model="fetchgate", messages=messages)
    assert done.model_extra is not None
    return done.choices[0].message.content or "", done.model_extra["fetchgate"]


def streamed(sdk: openai.OpenAI, *texts: str) -> tuple[str, dict[str, Any]]:
    messages: list[Any] = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]
    chunks = list(sdk.chat.completions.create(model="fetchgate", messages=messages, stream=True))
    extra = chunks[-1].model_extra
    assert extra is not None
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices), extra["fetchgate"]


def test_faqs_in_milvus_are_asked_edited_and_deleted_by_services_that_share_them(
    settings: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    # what milvus_uri names wins over an FAQ file
    with (
        real_service(tmp_path, "--faqs", str(tmp_path / "faqs.jsonl"), env=settings) as url,
        real_service(tmp_path / "other", env=settings) as other,
        openai.OpenAI(base_url=f"{url}/v1", api_key="x") as sdk,
    ):
        answer, gate = turn(sdk, LATE_FEE)
        assert "₹450" in answer
        assert (gate["action"], gate["degraded"], "fee-late" in gate["shown"]) == ("FETCH", [], True)
        _, gate = turn(sdk, LATE_FEE, answer, "is it waived?")
        assert (gate["degraded"], "fee-late" in gate["shown"]) == ([], True)
        before = version(url)
        added = edit(url, "POST", body=PARROT)
        assert added.status_code == 200, added.text
        assert added.json() == {"version": version(url), "previous_version": before, "faqs": 4, "added": 1, "replaced": 0, "unchanged": 0,
                                "ids": ["parrot"], "warnings": []}
        for one in (url, other):
            assert "Norwegian Blue" in said(one, PARROT["question"])
            assert version(one) == added.json()["version"]
        twin = edit(other, "POST", body={**PARROT, "id": "twin", "answer": "Only if it is a Norwegian Blue!"}).json()
        assert [(warning["id"], warning["similar_to"]) for warning in twin["warnings"]] == [("twin", "parrot")]
        assert edit(url, "GET", "?limit=2").json()["faqs"] == 5
        gone = edit(url, "DELETE", body={"ids": ["twin", "parrot"]})
        assert (gone.status_code, gone.json()["deleted"], gone.json()["version"]) == (200, 2, before)
        for one in (url, other):
            assert "Norwegian Blue" not in json.dumps(ask(one, PARROT["question"]))
        assert edit(url, "DELETE", "/parrot").status_code == edit(url, "GET", "/parrot").status_code == 404
    acts = json.loads(fetchgate(tmp_path, "log", "audit", "--json", "--db", "log.db").stdout)
    assert {(act["act"], *act["ids"]) for act in acts} == {("put", "parrot"), ("delete", "twin", "parrot")}
    assert {act["kb_version_before"] for act in acts} >= {before}


def test_a_conversation_goes_on_when_milvus_is_killed_in_the_middle_and_when_it_is_back(
    milvus: MilvusServer, settings: dict[str, str], tmp_path: Path
) -> None:
    with real_service(tmp_path, env=settings) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as sdk:
        answer, gate = turn(sdk, LATE_FEE)
        assert gate["degraded"] == []
        milvus.kill()
        for ask_ in (turn, streamed):
            began = time.monotonic()
            without, gate = ask_(sdk, LATE_FEE, answer, "is it waived?")
            assert time.monotonic() - began < 10
            assert "isn't available right now" in without
            assert (gate["degraded"], gate["shown"], gate["citations"]) == (["kb_unavailable"], [], [])
        # the same request as the first, whose answer stood on an FAQ that nobody can check now
        assert turn(sdk, LATE_FEE)[1]["degraded"] == ["kb_unavailable"]
        refused = edit(url, "POST", body=PARROT)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "kb_not_saved")
        assert "retry-after" in refused.headers
        assert httpx.get(f"{url}/health/ready", timeout=30).status_code == 503
        milvus.start()
        wait_until_ready(url)
        _, gate = turn(sdk, LATE_FEE, answer, "and how often is it waived?")
        assert (gate["degraded"], "fee-late" in gate["shown"]) == ([], True)
        assert edit(url, "POST", body=PARROT).status_code == 200


def test_a_collection_that_is_not_there_or_made_by_another_encoder_ends_the_start_with_what_to_do(
    settings: dict[str, str], tmp_path: Path
) -> None:
    missing = fetchgate(tmp_path, "serve", "--port", "0", **settings | {"FETCHGATE_MILVUS_COLLECTION": "nowhere"})
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "collection nowhere: expected a knowledge base, got no such collection; check the name or build it" in missing.stderr


@pytest.mark.parametrize("options", [(), ("--out", "kb", "--milvus", "http://127.0.0.1:1")], ids=["neither", "both"])
def test_a_build_goes_into_a_folder_or_into_milvus(options: tuple[str, ...], tmp_path: Path) -> None:
    refused = fetchgate(tmp_path, "kb", "build", "--faqs", "faqs.jsonl", *options)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "expected either --out DIR or --milvus URI" in refused.stderr


def test_a_build_into_a_milvus_that_is_not_there_is_an_error_of_one_line(tmp_path: Path) -> None:
    write_faqs(tmp_path / "faqs.jsonl", FAQS)
    failed = fetchgate(tmp_path, "kb", "build", "--faqs", "faqs.jsonl", "--milvus", "http://127.0.0.1:1", FETCHGATE_MILVUS_TIMEOUT="1")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith("error: http://127.0.0.1:1, collection fetchgate: expected Milvus to answer")
    assert failed.stderr.count("\n") == 1


def wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + 30
    while httpx.get(f"{url}/health/ready", timeout=30).status_code != 200:
        assert time.monotonic() < deadline, "not ready within 30 s"
        time.sleep(0.2)
