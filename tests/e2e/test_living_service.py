"""`fetchgate serve` with everything real, while its knowledge base is edited, swapped and killed under it."""

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from kb.embedder import EmbedderConfig, load_embedder
from kb.folder import load_index, read_manifest
from kb.retriever import FaqRetriever
from kb.source import read_faqs, write_faqs
from kb.types import Faq
from service.keys import Scope, create_key
from service.wiring import SHIPPED_ENCODER, SHIPPED_FAQS
from tests.e2e.test_served import fetchgate
from tests.fakes import HashEmbedder
from tests.real_service import FETCHGATE, real_service, service_process

QUESTION = "How much is the late payment fee?"
PARROT: dict[str, Any] = {"id": "parrot", "question": "May I pay with a parrot?", "answer": "Only if it is a Norwegian Blue."}
SOON = 20.0
"""Seconds within which a change from outside must be served; it takes two or three."""


@pytest.fixture
def index(helpdesk_index: Path, tmp_path: Path) -> Path:
    """A copy of the help desk's index, to be changed."""
    return shutil.copytree(helpdesk_index, tmp_path / "index")


def edit(url: str, method: str, path: str = "", body: object = None, key: str = "x") -> httpx.Response:
    return httpx.request(method, f"{url}/v1/kb/faqs{path}", json=body, timeout=60, headers={"authorization": f"Bearer {key}"})


def ask(url: str, query: str, key: str = "x") -> dict[str, Any]:
    headers = {"x-stainless-retry-count": "0", "authorization": f"Bearer {key}"}
    body = {"model": "fetchgate", "messages": [{"role": "user", "content": query}]}
    response = httpx.post(f"{url}/v1/chat/completions", timeout=60, headers=headers, json=body)
    assert response.status_code == 200, response.text
    return dict(response.json())


def said(url: str, query: str, key: str = "x") -> str:
    return str(ask(url, query, key)["choices"][0]["message"]["content"])


def version(url: str, key: str = "x") -> str:
    return str(httpx.get(f"{url}/v1/kb", headers={"authorization": f"Bearer {key}"}).json()["version"])


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < deadline, f"not within {SOON:.0f} s"
        time.sleep(0.1)


@pytest.mark.parametrize("source", ["--kb", "--faqs"])
def test_edits_are_served_at_once_and_survive_kill_9(tmp_path: Path, index: Path, source: str) -> None:
    file = tmp_path / "faqs.jsonl"
    write_faqs(file, read_faqs(SHIPPED_FAQS)[:20])
    (chat_key, chat_hash), (key, key_hash) = create_key(), create_key({Scope.CHAT, Scope.ADMIN})
    options = (source, str(index if source == "--kb" else file), "--policy", "always")
    env = {"FETCHGATE_API_KEYS": f"{chat_hash}, {key_hash}"}
    faq = read_faqs(file)[3]
    with service_process(tmp_path, *options, env=env) as (url, process, _):
        assert f"[{faq.id}]" in said(url, faq.question, key)
        assert edit(url, "DELETE", f"/{faq.id}", key=chat_key).status_code == 403
        assert edit(url, "DELETE", f"/{faq.id}", key=key).status_code == 200
        assert f"[{faq.id}]" not in said(url, faq.question, key)
        added = edit(url, "POST", body=PARROT, key=key)
        assert added.status_code == 200
        assert "Norwegian Blue" in said(url, PARROT["question"], key)
        process.kill()
        process.wait()
    with real_service(tmp_path, *options, env=env) as url:
        assert f"[{faq.id}]" not in said(url, faq.question, key)
        assert "Norwegian Blue" in said(url, PARROT["question"], key)
        assert edit(url, "GET", f"/{faq.id}", key=key).status_code == 404
        assert version(url, key) == added.json()["version"]
    acts = json.loads(fetchgate(tmp_path, "log", "audit", "--json", "--db", "log.db").stdout)
    assert [(act["owner"], act["act"], act["ids"]) for act in acts] == [(key_hash.lookup, "put", ["parrot"]),
                                                                        (key_hash.lookup, "delete", [faq.id])]
    assert acts[0]["kb_version_after"] == added.json()["version"]
    if source == "--kb":
        assert read_manifest(index).content_hash == added.json()["version"]


def test_many_chats_during_edits_and_swaps_are_all_answered(tmp_path: Path, index: Path) -> None:
    config = EmbedderConfig(str(SHIPPED_ENCODER))
    fewer = FaqRetriever.build(load_embedder(config), read_faqs(SHIPPED_FAQS)[:10])
    with real_service(tmp_path, "--kb", str(index), "--policy", "always") as url:
        done = threading.Event()
        deleted: set[str] = set()

        def chat() -> int:
            count = 0
            while not done.is_set():
                gone = set(deleted)
                answer = ask(url, PARROT["question"] if count % 2 else QUESTION)
                assert not gone & set(answer["fetchgate"]["shown"])
                count += 1
            return count

        with ThreadPoolExecutor(4) as pool:
            chats = [pool.submit(chat) for _ in range(4)]
            try:
                for n in range(4):
                    faq_id = f"parrot-{n}"
                    assert edit(url, "POST", body={**PARROT, "id": faq_id}).status_code == 200
                    assert edit(url, "DELETE", f"/{faq_id}").status_code == 200
                    deleted.add(faq_id)
                fewer.save(index, model=config.model, max_tokens=config.max_tokens)
                wait_for(lambda: httpx.get(f"{url}/v1/kb").json()["faqs"] == 10)
            finally:
                done.set()
            assert all(one.result(60) for one in chats)


def test_edits_over_http_and_a_watched_file_do_not_lose_each_others_changes(tmp_path: Path, index: Path) -> None:
    file = tmp_path / "desk.jsonl"
    faqs = read_faqs(SHIPPED_FAQS)
    write_faqs(file, faqs)
    watch = subprocess.Popen([*FETCHGATE, "kb", "watch", str(file), "--kb", str(index), "--json"], cwd=tmp_path, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert watch.stdout is not None
        assert json.loads(watch.stdout.readline())["added"] == 0
        with real_service(tmp_path, "--kb", str(index), "--policy", "always") as url:
            assert edit(url, "POST", body=PARROT).status_code == 200
            assert edit(url, "DELETE", "/fee-late").status_code == 200
            served = version(url)
            write_faqs(file, tuple(replace(faq, answer="It is lost for good.") if faq.id == faqs[-1].id else faq for faq in faqs))
            changed = json.loads(watch.stdout.readline())
            assert changed["replaced"] == 1
            wait_for(lambda: version(url) != served)
            assert version(url) == changed["version"]
            ids = {faq["id"] for faq in edit(url, "GET", "?limit=1000").json()["data"]}
            assert ids == {faq.id for faq in faqs} - {"fee-late"} | {"parrot"}
        assert {faq.id for faq in load_index(index)[2]} == ids
    finally:
        watch.terminate()
        watch.communicate()


def test_a_watched_file_is_served_as_it_changes_and_a_broken_one_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "desk.csv"
    file.write_text("id,question,answer\nopen,When are you open?,From 9 to 5.\n")
    with service_process(tmp_path, "--faqs", "desk.csv", "--watch", "--policy", "always") as (url, _, output):
        assert "9 to 5" in said(url, "when are you open?")
        file.write_text("id,question,answer\nopen,When are you open?,From 10 to 6.\n")
        wait_for(lambda: "10 to 6" in said(url, "when are you open?"))
        file.write_text("id,question,answer\nopen,When are you open?\n")
        wait_for(lambda: "desk.csv:2: answer: expected 3 cells, got 2" in output.tail)
        assert "10 to 6" in said(url, "when are you open?")
        file.write_text("id,question,answer\nopen,When are you open?,Never.\n")
        wait_for(lambda: "Never" in said(url, "when are you open?"))


def test_an_index_of_another_encoder_is_refused_with_a_reason_and_the_old_one_goes_on_serving(tmp_path: Path, index: Path) -> None:
    other = FaqRetriever.build(HashEmbedder(), (Faq("what", "What?", "Nothing."),))
    with service_process(tmp_path, "--kb", str(index), "--policy", "always") as (url, _, output):
        before = version(url)
        other.save(index, model="hash", max_tokens=7)
        wait_for(lambda: "can't be taken in" in output.tail)
        assert "expected the encoder hash/64" in output.tail
        assert version(url) == before
        assert "[fee-late]" in said(url, QUESTION)
        assert edit(url, "POST", body=PARROT).status_code == 503
