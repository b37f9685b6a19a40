"""A recount of the log with the FAQs and the prompt settings of the service; what is counted is `report/recount.py`'s."""

from chat.log.store import SqlConversationLog
from chat.tokens import TiktokenCounter
from evaluation.labelling import conversations
from kb.milvus_kb import MilvusKb
from report.recount import Recount, Recounter
from service.settings import Settings
from service.wiring import build_kb, build_policy, pipeline_config

REMEMBERED = 1 << 16
"""Messages whose token counts are remembered."""


def recounted(log: SqlConversationLog, settings: Settings) -> Recount:
    """The recount of every served turn. Raises: LogError, KbError, PolicyError, ValueError that say what to mend."""
    _, record = build_policy(settings)
    _, kb = build_kb(settings)
    try:
        config = pipeline_config(settings, record, kb.version)
        counter = TiktokenCounter(remembered=REMEMBERED)
        recounter = Recounter(counter, kb.get, kb.version, config.prompt, config.baselines)
        return recounter.recount(turn for one in conversations(log) for turn in log.turns_of(one.owner, one.id))
    finally:
        if isinstance(kb, MilvusKb):
            kb.close()
