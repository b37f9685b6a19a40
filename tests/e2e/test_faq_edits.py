"""The FAQs over HTTP: who may edit them, what is refused and how, and what is answered while and after they change."""

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2 as httpx
import pytest

from chat.errors import LogError
from chat.plan import PipelineConfig
from kb.types import Faq
from service.edits import MAX_PASSAGES
from service.keys import EVERY_SCOPE, Scope, create_key
from service.turns import Limits
from tests.e2e.conftest import FAQS, Service
from tests.e2e.test_http import ASK, error_of, post
from tests.fakes import ScriptedLLM

Start = Callable[..., Service]
NEW: dict[str, Any] = {"id": "gift-card", "question": "Do you sell gift cards?", "answer": "Yes, in the app.", "category": "cards",
                       "paraphrases": ["can I buy a voucher"], "source_url": "https://bank.example/gifts"}
LATE_FEE = "How much is the late fee?"


def call(service: Service, method: str, path: str = "/faqs", body: object = None, key: str = "x", **headers: str) -> httpx.Response:
    content = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    kind = {} if body is None else {"content-type": "application/json"}
    return httpx.request(method, f"{service.url}/v1/kb{path}", content=content, timeout=30,
                         headers={**kind, "authorization": f"Bearer {key}", **{k.replace("_", "-"): v for k, v in headers.items()}})


def ask(service: Service, query: str = LATE_FEE, **headers: str) -> dict[str, Any]:
    response = post(service, {**ASK, "messages": [{"role": "user", "content": query}]}, **headers)
    assert response.status_code == 200, response.text
    return dict(response.json())


def text_of(answer: dict[str, Any]) -> str:
    return str(answer["choices"][0]["message"]["content"])


STATIC = PipelineConfig(static_threshold=0.2)


def test_an_faq_is_added_read_replaced_and_deleted(start: Start) -> None:
    service = start(config=STATIC)
    version = service.kb.version
    added = call(service, "POST", body=NEW)
    assert added.status_code == 200, added.text
    assert added.json() == {"version": service.kb.version, "previous_version": version, "faqs": 4, "added": 1, "replaced": 0,
                            "unchanged": 0, "ids": ["gift-card"], "warnings": []}
    assert call(service, "GET", "/faqs/gift-card").json() == NEW
    assert text_of(ask(service, "Do you sell gift cards?")) == "Yes, in the app. [gift-card]"
    changed = call(service, "POST", body={"faqs": [{**NEW, "answer": "No longer."}, {**NEW, "id": "x/y?#", "question": "And shares?"}]})
    assert (changed.json()["added"], changed.json()["replaced"]) == (1, 1)
    assert text_of(ask(service, "Do you sell gift cards?", x_conversation_id="2")) == "No longer. [gift-card]"
    assert call(service, "POST", body={"faqs": [{**NEW, "answer": "No longer."}]}).json()["unchanged"] == 1
    assert call(service, "GET", "/faqs/x%2Fy%3F%23").json()["id"] == "x/y?#"
    gone = call(service, "DELETE", "/faqs/x%2Fy%3F%23")
    assert (gone.json()["deleted"], gone.json()["ids"], gone.json()["faqs"]) == (1, ["x/y?#"], 4)
    both = call(service, "DELETE", body={"ids": ["gift-card", "lounge", "lounge"]})
    assert (both.json()["deleted"], both.json()["faqs"], both.json()["version"]) == (2, 2, service.kb.version)
    assert "gift-card" not in text_of(ask(service, "Do you sell gift cards?", x_conversation_id="3"))
    assert httpx.get(f"{service.url}/v1/kb").json()["faqs"] == 2


def test_an_id_is_made_of_the_question_when_none_is_given(start: Start) -> None:
    service = start()
    made = call(service, "POST", body={"question": "Do you sell gift cards?", "answer": "Yes."}).json()["ids"]
    assert made[0].startswith("do-you-sell-gift-cards-")
    assert call(service, "POST", body={"question": "Do you sell gift cards?", "answer": "No."}).json()["replaced"] == 1


@pytest.mark.parametrize(("body", "param", "says"), [
    ([], None, "expected an FAQ object"),
    ("text", None, "expected an FAQ object"),
    ({"faqs": []}, "faqs", "at least one FAQ object, got none"),
    ({"faqs": {"id": "x"}}, "faqs", "expected a list of at least one FAQ object, got dict"),
    ({"faqs": [NEW, 5]}, "faqs.1", "faqs.1: expected an FAQ object, got int '5'"),
    ({}, "question", "question: expected this field"),
    ({**NEW, "question": 5}, "question", "question: expected text, got int '5'"),
    ({"faqs": [NEW, {"id": "b", "question": "?", "answer": ["x"]}]}, "faqs.1.answer", "faqs.1.answer: expected text, got list"),
    ({"faqs": [{"id": "b", "question": " ", "answer": ""}]}, "faqs.0.question", "expected a question or an answer, got neither"),
    ({"faqs": [NEW, {**NEW, "id": " gift-card "}]}, "faqs.1.id", "'gift-card' is that of faqs.0 already"),
    ({**NEW, "id": "two words"}, "id", "expected text without spaces"),
    ({**NEW, "id": ["x"]}, "id", "expected text, got list"),
    ({**NEW, "source_url": "javascript:alert(1)"}, "source_url", "expected http(s)"),
    ({**NEW, "paraphrases": {"a": 1}}, "paraphrases", "expected a list of texts, got dict"),
    ({**NEW, "paraphrases": ["ok", 5]}, "paraphrases", "expected text, got int '5'"),
    ({**NEW, "answer": "x\x00"}, "answer", "a NUL byte"),
    ({**NEW, "answer": "\ud83d"}, "answer", "half of a surrogate pair"),
    ({**NEW, "answer": "x" * 100_001}, "answer", "expected at most 100,000 characters"),
    ({**NEW, "paraphrases": [f"p{n}" for n in range(MAX_PASSAGES)]}, "faqs", f"at most {MAX_PASSAGES}"),
    (b"{not json", None, "expected JSON"),
    (b"\xff\xfe", None, "JSON"),
    (b"", None, ""),
    (b"[" * 200_000, None, ""),
    (b'{"id": NaN}', None, ""),
])
def test_a_bad_faq_is_a_400_that_names_index_and_field_and_changes_nothing(
    start: Start, body: object, param: str | None, says: str
) -> None:
    service = start()
    response = call(service, "POST", body=body)
    assert response.status_code == 400, response.text
    assert response.headers["x-should-retry"] == "false"
    error = error_of(response)
    assert says in error["message"]
    if param is not None:
        assert error["param"] == param
    assert service.kb.faqs == FAQS
    assert service.acts == []


def test_several_bad_faqs_are_named_together(start: Start) -> None:
    message = error_of(call(start(), "POST", body={"faqs": [{"id": "a"}, NEW, {"id": "b", "question": 1, "answer": ""}]}))["message"]
    assert [line.partition(":")[0] for line in message.splitlines()] == ["faqs.0.question", "faqs.2.question", "Nothing was changed; mend "
                                                                         "these and send all again."]


@pytest.mark.parametrize("body", [{}, [], {"ids": []}, {"ids": "lounge"}, {"ids": ["lounge", 5]}, {"ids": None}, "lounge"])
def test_a_bad_list_of_ids_is_a_400(start: Start, body: object) -> None:
    service = start()
    response = call(service, "DELETE", body=body)
    assert response.status_code == 400
    assert error_of(response)["param"] == "ids"
    assert service.kb.faqs == FAQS


def test_an_unknown_id_is_a_404_and_nothing_is_deleted(start: Start) -> None:
    service = start()
    for response in (call(service, "GET", "/faqs/nope"), call(service, "DELETE", "/faqs/nope"),
                     call(service, "DELETE", body={"ids": ["lounge", "nope"]})):
        assert response.status_code == 404
        assert error_of(response)["code"] == "faq_not_found"
        assert "nope" in error_of(response)["message"]
    assert service.kb.faqs == FAQS
    assert service.acts == []


def test_near_duplicates_are_taken_and_named(start: Start) -> None:
    service = start()
    same = {**NEW, "id": "twin", "question": FAQS[1].question, "answer": FAQS[1].answer + "!", "paraphrases": []}
    [warning] = call(service, "POST", body={"faqs": [NEW, same]}).json()["warnings"]
    assert (warning["id"], warning["similar_to"]) == ("twin", "card-lost")
    assert 0.95 <= warning["similarity"] <= 1
    assert service.kb.get("twin") is not None


def test_faqs_are_listed_page_by_page_also_when_the_last_one_seen_was_deleted(start: Start) -> None:
    service = start()
    first = call(service, "GET", "/faqs?limit=2").json()
    assert ([faq["id"] for faq in first["data"]], first["has_more"], first["faqs"]) == (["card-lost", "fee-late"], True, 3)
    assert call(service, "DELETE", "/faqs/fee-late").status_code == 200
    second = call(service, "GET", "/faqs?limit=2&after=fee-late").json()
    assert ([faq["id"] for faq in second["data"]], second["has_more"]) == (["lounge"], False)
    assert call(service, "GET", "/faqs?after=zzz").json()["data"] == []
    for wrong in ("0", "1001", "x"):
        response = call(service, "GET", f"/faqs?limit={wrong}")
        assert (response.status_code, error_of(response)["param"]) == (400, "limit")


# --- who may


ROUTES = (("POST", "/faqs", NEW), ("DELETE", "/faqs", {"ids": ["lounge"]}), ("DELETE", "/faqs/lounge", None), ("GET", "/faqs", None),
          ("GET", "/faqs/lounge", None))


@pytest.mark.parametrize("scopes", [{Scope.CHAT}, EVERY_SCOPE - {Scope.ADMIN}])
def test_a_key_without_the_scope_is_refused_on_every_route(start: Start, scopes: frozenset[Scope]) -> None:
    key, hashed = create_key(scopes)
    service = start(keys=(hashed,))
    for method, path, body in ROUTES:
        response = call(service, method, path, body, key)
        assert response.status_code == 403
        assert response.headers["x-should-retry"] == "false"
        assert (error_of(response)["type"], error_of(response)["code"]) == ("permission_error", "missing_scope")
        assert call(service, method, path, body, "fg-wrong").status_code == 401
    assert service.kb.faqs == FAQS
    assert post(service, authorization=f"Bearer {key}").status_code == 200


def test_a_key_that_may_only_administer_may_not_chat(start: Start) -> None:
    key, hashed = create_key({Scope.ADMIN})
    service = start(keys=(hashed,))
    assert call(service, "POST", body=NEW, key=key).status_code == 200
    assert [act.owner for act in service.acts] == [hashed.lookup]
    refused = post(service, authorization=f"Bearer {key}")
    assert (refused.status_code, error_of(refused)["code"]) == (403, "missing_scope")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "text/json"])
def test_what_a_foreign_page_can_send_without_asking_is_no_edit(start: Start, kind: str) -> None:
    service = start()
    for method, body in (("POST", NEW), ("DELETE", {"ids": ["lounge"]})):
        response = call(service, method, body=body, content_type=kind)
        assert response.status_code == 415
        assert error_of(response)["code"] == "unsupported_media_type"
    assert service.kb.faqs == FAQS


def test_a_foreign_page_that_asks_first_is_not_told_that_it_may(start: Start) -> None:
    asked = httpx.options(f"{start().url}/v1/kb/faqs", headers={
        "origin": "https://evil.example", "access-control-request-method": "DELETE", "access-control-request-headers": "content-type"})
    assert asked.status_code == 405
    assert not [name for name in asked.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("headers", [
    {"host": "evil.example"}, {"host": "evil.example:8000", "origin": "http://evil.example:8000"}, {"host": "127.0.0.1.evil.example"},
    {"origin": "https://evil.example"}, {"origin": "null"}, {"host": "[", "origin": "http://["}, {"host": "localhost@evil.example"},
])
def test_without_keys_a_page_of_another_site_can_neither_read_nor_edit_faqs(start: Start, headers: dict[str, str]) -> None:
    service = start()
    for method, path, body in ROUTES:
        response = call(service, method, path, body, **headers)
        assert response.status_code == 403, (method, path)
        assert error_of(response)["code"] == "foreign_origin"
    assert service.kb.faqs == FAQS


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:9000", "[::1]:8000", "LOCALHOST:1"])
def test_without_keys_a_page_of_this_machines_own_may_edit(start: Start, host: str) -> None:
    assert call(start(), "POST", body=NEW, host=host, origin=f"http://{host}").status_code == 200


def test_with_keys_the_name_of_the_host_does_not_matter(start: Start) -> None:
    key, hashed = create_key({Scope.ADMIN})
    assert call(start(keys=(hashed,)), "POST", body=NEW, key=key, host="faq.example", origin="https://faq.example").status_code == 200


# --- the audit


def test_every_act_has_its_row_with_owner_ids_and_versions(start: Start) -> None:
    service = start()
    first = service.kb.version
    second = call(service, "POST", body=NEW).json()["version"]
    third = call(service, "DELETE", body={"ids": ["lounge", "gift-card"]}).json()["version"]
    assert [(act.owner, act.act, act.ids, act.kb_version_before, act.kb_version_after) for act in service.acts] == [
        ("local", "put", ("gift-card",), first, second), ("local", "delete", ("lounge", "gift-card"), second, third)]


def test_no_edit_is_made_without_its_row(start: Start) -> None:
    class Full(list):  # type: ignore[type-arg]
        def append(self, act: object) -> None:
            raise LogError("got a full disk")

    service = start(acts=Full())
    response = call(service, "DELETE", "/faqs/lounge")
    assert (response.status_code, error_of(response)["code"]) == (503, "audit_unavailable")
    assert response.headers["retry-after"]
    assert service.kb.faqs == FAQS


def test_an_edit_that_can_not_be_saved_is_told_undone_and_said_so_in_the_audit(start: Start) -> None:
    service = start()
    journal = service.folder / "edits-0.json"
    journal.mkdir()  # nothing can be written in its place
    response = call(service, "DELETE", "/faqs/lounge")
    assert (response.status_code, error_of(response)["code"]) == (503, "kb_not_saved")
    assert str(service.folder) not in response.text
    assert service.kb.faqs == FAQS
    journal.rmdir()
    assert call(service, "DELETE", "/faqs/lounge").status_code == 200


# --- what is answered meanwhile and afterwards


def test_a_retry_after_a_delete_is_answered_anew(start: Start) -> None:
    service = start(config=STATIC)
    for n, header in enumerate(({"idempotency_key": "k"}, {"x_stainless_retry_count": "1"}, {})):
        headers = {**header, "x_conversation_id": str(n)}
        call(service, "POST", body={"id": "fee-late", "question": LATE_FEE, "answer": "₹450."})
        first = ask(service, **headers)
        assert text_of(first) == "₹450. [fee-late]"
        assert ask(service, **headers)["id"] == first["id"], "as long as the FAQ stands, a retry is the same turn"
        assert call(service, "POST", body=NEW).status_code == 200
        assert ask(service, **headers)["id"] == first["id"], "an edit of another FAQ changes nothing"
        assert call(service, "DELETE", "/faqs/fee-late").status_code == 200
        again = ask(service, **headers)
        assert "fee-late" not in again["fetchgate"]["shown"]
        assert again["id"] != first["id"]
        assert ask(service, **headers)["id"] == again["id"]


def test_a_streamed_answer_is_not_given_again_after_a_delete(start: Start) -> None:
    service = start(config=STATIC)
    body = {**ASK, "stream": True, "messages": [{"role": "user", "content": LATE_FEE}]}
    assert "[fee-late]" in post(service, body, idempotency_key="k").text
    call(service, "DELETE", "/faqs/fee-late")
    assert "[fee-late]" not in post(service, body, idempotency_key="k").text


def test_a_retry_after_a_replacement_gets_the_new_text(start: Start) -> None:
    service = start(config=STATIC)
    assert "450" in text_of(ask(service, idempotency_key="k"))
    call(service, "POST", body={"id": "fee-late", "question": LATE_FEE, "answer": "₹500."})
    assert text_of(ask(service, idempotency_key="k")) == "₹500. [fee-late]"


def test_a_deleted_faq_does_not_stand_in_for_an_llm_that_is_down(start: Start) -> None:
    service = start(llm=ScriptedLLM(("x",), fail_after=0), config=PipelineConfig(fallback_threshold=0.2))
    assert "450" in text_of(ask(service))
    call(service, "DELETE", body={"ids": [faq.id for faq in FAQS]})
    assert post(service, {**ASK, "messages": [{"role": "user", "content": LATE_FEE}]}).status_code == 503
    assert httpx.get(f"{service.url}/v1/kb").json()["faqs"] == 0


def test_a_deleted_faq_leaves_the_prompts_of_conversations_that_had_it(start: Start) -> None:
    service = start(answers=("It is ₹450 [fee-late].",))
    first = text_of(ask(service, x_conversation_id="c"))
    call(service, "DELETE", "/faqs/fee-late")
    messages = [{"role": "user", "content": LATE_FEE}, {"role": "assistant", "content": first}, {"role": "user", "content": "why so much?"}]
    assert post(service, {**ASK, "messages": messages}, x_conversation_id="c").status_code == 200
    assert FAQS[0].answer in "".join(message.content for message in service.llm.prompts[0])
    assert FAQS[0].answer not in "".join(message.content for message in service.llm.prompts[1])


def test_chats_go_on_during_edits_and_none_that_began_after_a_delete_has_the_deleted_faq(start: Start) -> None:
    service = start(config=STATIC, limits=Limits(1000, 64))
    deleted: set[str] = set()
    done = threading.Event()
    wrong: list[str] = []

    def chat(number: int) -> int:
        answered = 0
        while not done.is_set():
            gone = set(deleted)
            for query in ("Question about thing 3?", LATE_FEE):
                answer = ask(service, query, x_stainless_retry_count="0", x_conversation_id=f"{number}-{answered}")
                found = {*answer["fetchgate"]["shown"], *(cited["id"] for cited in answer["fetchgate"]["citations"])}
                wrong.extend(found & gone)
            answered += 1
        return answered

    def edit(number: int) -> None:
        for turn in range(6):
            faq_id = f"t{number}-{turn}"
            faq = {"id": faq_id, "question": f"Question about thing {number}?", "answer": f"Answer {turn}."}
            assert call(service, "POST", body=faq).status_code == 200
            assert call(service, "DELETE", f"/faqs/{faq_id}").status_code == 200
            deleted.add(faq_id)

    with ThreadPoolExecutor(12) as pool:
        chats = [pool.submit(chat, n) for n in range(8)]
        edits: Sequence[Any] = [pool.submit(edit, n) for n in range(4)]
        try:
            for one in edits:
                one.result(120)
        finally:
            done.set()
        assert sum(one.result(60) for one in chats) > 8
    assert wrong == []
    assert service.kb.faqs == FAQS
    assert len(service.acts) == 48


def test_what_was_edited_is_there_when_the_service_starts_again(start: Start) -> None:
    service = start()
    call(service, "POST", body=NEW)
    call(service, "DELETE", "/faqs/lounge")
    again = start(home=service.home)
    assert {faq.id for faq in again.kb.faqs} == {"fee-late", "card-lost", "gift-card"}
    assert again.kb.get("gift-card") == Faq(**{**NEW, "paraphrases": tuple(NEW["paraphrases"])})
