"""Edits of the knowledge base over HTTP: bodies to FAQs, one edit at a time, its audit row, the reply.

The rules for an FAQ are those of FAQ files (`kb/source.py`). Leaves out how an edit is made and kept (`kb/living.py`, `kb/milvus_kb.py`).
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from anyio import CapacityLimiter, to_thread

from chat.errors import LogError
from chat.log.audit import AdminAct
from kb.edits import Near, near_duplicates
from kb.errors import IndexFolderError
from kb.index import passages
from kb.living import Edited, LivingKb
from kb.milvus_kb import MilvusEdited, MilvusKb
from kb.source import faq_of
from kb.types import Faq
from service.errors import ApiError

logger = logging.getLogger(__name__)

MAX_PASSAGES = 2000
"""Of one request: each is embedded before the reply."""
MAX_WAITING = 32
"""Edits that wait for another one to be done."""
MAX_REPORTED = 10
BUSY_RETRY_AFTER = 2

JSON = dict[str, Any]
EditableKb = LivingKb | MilvusKb


class FaqEdits:
    """Makes edits for the API, in the order in which they come."""

    def __init__(self, kb: EditableKb, audit: Callable[[AdminAct], None]) -> None:
        self._kb = kb
        self._audit = audit
        self._one = CapacityLimiter(1)

    async def put(self, owner: str, faqs: Sequence[Faq]) -> JSON:
        """Add or replace FAQs. Raises: ApiError, KbError; nothing is changed then."""
        return await self._in_turn(self._put, owner, faqs)

    async def delete(self, owner: str, faq_ids: Sequence[str]) -> JSON:
        """Delete FAQs. Raises: ApiError, KbError; nothing is changed then."""
        return await self._in_turn(self._delete, owner, faq_ids)

    async def _in_turn(self, edit: Callable[[str, Any], JSON], owner: str, what: Sequence[Any]) -> JSON:
        if self._one.statistics().tasks_waiting >= MAX_WAITING:
            raise ApiError(503, f"Expected at most {MAX_WAITING} edits to wait, and they do; try again, with more FAQs in one request",
                           "busy", retry_after=BUSY_RETRY_AFTER)
        return await to_thread.run_sync(edit, owner, what, limiter=self._one)

    def _put(self, owner: str, faqs: Sequence[Faq]) -> JSON:
        ids = tuple(faq.id for faq in faqs)
        edited = self._edit(owner, "put", ids, put=faqs)
        made = edited.made
        warnings = [{"id": near.faq_id, "similar_to": near.other_id, "similarity": round(near.similarity, 4),
                     "message": f"{near.faq_id} is nearly the same as {near.other_id}; keep one of them"}
                    for near in self._near_duplicates(edited, ids)]
        return _counts(edited) | {"added": len(made.added), "replaced": len(made.replaced),
                                  "unchanged": len(ids) - len(made.added) - len(made.replaced), "ids": list(ids), "warnings": warnings}

    def _delete(self, owner: str, faq_ids: Sequence[str]) -> JSON:
        ids = tuple(dict.fromkeys(faq_ids))
        edited = self._edit(owner, "delete", ids, remove=ids)
        return _counts(edited) | {"deleted": len(ids), "ids": list(ids)}

    def _near_duplicates(self, edited: Edited | MilvusEdited, ids: Sequence[str]) -> tuple[Near, ...]:
        if isinstance(edited, Edited):
            return near_duplicates(edited.kb, ids)
        assert isinstance(self._kb, MilvusKb), "an edit of Milvus is made there"
        try:
            return self._kb.near_duplicates(ids)
        except IndexFolderError:
            logger.warning("the edit is made; whether FAQs are nearly the same can't be known", exc_info=True)
            return ()

    def _edit(
        self, owner: str, act: str, ids: tuple[str, ...], put: Sequence[Faq] = (), remove: Sequence[str] = ()
    ) -> Edited | MilvusEdited:
        """An edit with its row in the audit, written first: no edit without its row."""
        recorded: list[AdminAct] = []

        def record(before: str, after: str) -> None:
            row = AdminAct(datetime.now(UTC), owner, act, ids, before, after)
            try:
                self._audit(row)
            except LogError as error:
                logger.exception("no audit row, so no edit")
                raise ApiError(503, "The audit can't be written, so nothing was changed; the server's log says why.", "audit_unavailable",
                               retry_after=BUSY_RETRY_AFTER) from error
            recorded.append(row)

        try:
            edited = self._kb.edit(put, remove, before_saving=record)
        except BaseException as error:
            for row in recorded:
                self._undo(row)
            if isinstance(error, IndexFolderError) and isinstance(self._kb, MilvusKb):
                logger.exception("Milvus failed in an edit")
                raise ApiError(503, "Milvus didn't take the edit, or not all of it; send it again once `/health/ready` says that it is "
                               "back.", "kb_not_saved", retry_after=BUSY_RETRY_AFTER) from error
            raise
        logger.info("%s of %d FAQs by %s: knowledge base %s is now %s", act, len(ids), owner, edited.before, edited.kb.version)
        return edited

    def _undo(self, row: AdminAct) -> None:
        try:
            self._audit(AdminAct(datetime.now(UTC), row.owner, "undo", row.ids, row.kb_version_after, row.kb_version_before))
        except LogError:
            logger.exception("the audit says that FAQs were edited, and they were not: %s of %s", row.act, ", ".join(row.ids))


def faqs_of(body: object) -> tuple[Faq, ...]:
    """The FAQs of a body: one object, or `faqs` with a list of them. Raises: ApiError 400 that names index and field."""
    if not isinstance(body, Mapping):
        raise _bad("body: expected an FAQ object, or {\"faqs\": [FAQ objects]}, got " + _kind(body), None)
    if "faqs" not in body:
        return _checked([("", body)])
    records = body["faqs"]
    if not isinstance(records, list) or not records:
        raise _bad(f"faqs: expected a list of at least one FAQ object, got {'none' if records == [] else _kind(records)}", "faqs")
    return _checked([(f"faqs.{n}.", record) for n, record in enumerate(records)])


def ids_of(body: object) -> tuple[str, ...]:
    """The ids of a body {"ids": […]}. Raises: ApiError 400."""
    ids = body.get("ids") if isinstance(body, Mapping) else None
    if not isinstance(ids, list) or not ids or not all(isinstance(faq_id, str) for faq_id in ids):
        raise _bad("ids: expected {\"ids\": [\"…\"]} with at least one id of an FAQ", "ids")
    return tuple(ids)


def faq_object(faq: Faq) -> JSON:
    """An FAQ as the API gives it; POST takes it back."""
    return asdict(faq) | {"paraphrases": list(faq.paraphrases)}


def _checked(records: Sequence[tuple[str, object]]) -> tuple[Faq, ...]:
    """Records, each with what its fields' names begin with, as FAQs of which no two have the same id."""
    faqs: dict[str, Faq] = {}
    first: dict[str, str] = {}
    errors: list[str] = []
    for at, record in records:
        try:
            if not isinstance(record, Mapping):
                raise ValueError(f"expected an FAQ object, got {_kind(record)}")
            faq = faq_of(record)
            if faq.id in faqs:
                raise ValueError(f"id: {faq.id!r} is that of {first[faq.id].rstrip('.')} already; give each FAQ its own")
        except ValueError as error:
            errors.append(f"{at}{error}" if isinstance(record, Mapping) else f"{at.rstrip('.')}: {error}")
            if len(errors) == MAX_REPORTED:
                break
        else:
            faqs[faq.id], first[faq.id] = faq, at
    if errors:
        raise _bad("\n".join([*errors, "Nothing was changed; mend these and send all again."]), errors[0].partition(":")[0])
    if (count := sum(len(passages(faq)) for faq in faqs.values())) > MAX_PASSAGES:
        raise _bad(f"faqs: expected at most {MAX_PASSAGES} texts to embed in one request (FAQs, paraphrases, sentences), got {count}; "
                   "send the FAQs in several, or use `fetchgate kb build`", "faqs")
    return tuple(faqs.values())


def _counts(edited: Edited | MilvusEdited) -> JSON:
    return {"version": edited.kb.version, "previous_version": edited.before, "faqs": len(edited.kb.faqs)}


def _bad(message: str, param: str | None) -> ApiError:
    return ApiError(400, message, "invalid_request", param)


def _kind(value: object) -> str:
    return f"{type(value).__name__} {str(value)[:40]!r}"
