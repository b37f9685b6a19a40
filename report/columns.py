"""The SQL that turns rows of the conversation log into the narrow tables that a report reads: the same for a live log and for Parquet.

`raw` rows are those of `chat/log/schema.py`, what is nested there being JSON text. Times become plain timestamps in UTC. A column that
an older export lacks is NULL, as what it says is unknown. Leaves out reading (`source.py`) and sums (`sums.py`).
"""

from collections.abc import Collection

from chat.holdback import HOLDBACK_POLICY
from report.errors import SourceError

BASELINES = ("always_fetch", "paper", "frugal", "repeats", "one_faq", "no_history_faqs", "no_faqs", "without_rewrite")
"""Prompt settings whose cost a turn may be logged with; `without_rewrite` is the turn as it was, less the call that rewrote its query."""
HOLDBACK = HOLDBACK_POLICY
"""`policy_version` of the conversations that are always served with a fetch."""
UNCERTAINTY_PENALTY = 0.5
"""Of the skip score: standard deviations of P(FETCH) that are taken off, as `policy/decide.py` does by default."""
MAX_BLOCKS = 4096

TURN_TYPES = {
    "sequence": "BIGINT", "id": "VARCHAR", "owner": "VARCHAR", "conversation_id": "VARCHAR", "position": "INTEGER",
    "created_at": "TIMESTAMPTZ", "source": "VARCHAR", "action": "VARCHAR", "fetch_probability": "DOUBLE", "uncertainty": "DOUBLE",
    "policy_version": "VARCHAR", "hits": "VARCHAR", "input_tokens": "BIGINT", "output_tokens": "BIGINT",
    "cached_input_tokens": "BIGINT", "usage_source": "VARCHAR", "counterfactuals": "VARCHAR", "price": "VARCHAR", "model": "VARCHAR",
    "latency_ms": "VARCHAR", "degraded": "VARCHAR", "refusal": "VARCHAR", "background": "BOOLEAN",
}
"""Columns of `turns` that are read, texts apart."""
NEEDED_OF_TURNS = ("sequence", "id", "owner", "conversation_id", "position", "created_at", "source", "action", "policy_version",
                   "input_tokens", "output_tokens", "counterfactuals")
VERDICT_TYPES = {
    "sequence": "BIGINT", "turn_id": "VARCHAR", "created_at": "TIMESTAMPTZ", "arm": "VARCHAR", "judge": "VARCHAR", "good": "BOOLEAN",
    "safe": "BOOLEAN", "probability": "DOUBLE", "reason": "VARCHAR", "answer": "VARCHAR", "input_tokens": "BIGINT",
    "output_tokens": "BIGINT", "judge_input_tokens": "BIGINT", "judge_output_tokens": "BIGINT", "cost": "DOUBLE", "currency": "VARCHAR",
}
NEEDED_OF_VERDICTS = ("sequence", "turn_id", "created_at", "arm", "judge", "good")
RATING_TYPES = {
    "sequence": "BIGINT", "turn_id": "VARCHAR", "created_at": "TIMESTAMPTZ", "owner": "VARCHAR", "rater": "VARCHAR", "role": "VARCHAR",
    "good": "BOOLEAN", "stars": "INTEGER",
}
NEEDED_OF_RATINGS = ("sequence", "turn_id", "owner", "rater", "role", "good", "stars")


def raw(relation: str, there: Collection[str], types: dict[str, str], needed: Collection[str]) -> str:
    """A query for the columns that are read, those that aren't there as NULL. Raises: SourceError naming needed ones that are missing."""
    if missing := [name for name in needed if name not in there]:
        raise SourceError(f"{relation}: expected the columns of an exported log, got none named {', '.join(missing)}; export it with "
                          "`fetchgate log export`")
    columns = (f"CAST({name if name in there else 'NULL'} AS {kind}) AS {name}" for name, kind in types.items())
    return f"SELECT {', '.join(columns)} FROM {relation}"


def narrow(rows: str, *, by_category: bool) -> str:
    """A query for the table `turns` but for `block`, from a query for raw rows; categories come from a table of FAQ ids."""
    costs = ", ".join(f"_cf[list_position(_names, '{name}')].input_tokens AS cf_{name}_in, "
                      f"_cf[list_position(_names, '{name}')].output_tokens AS cf_{name}_out" for name in BASELINES)
    category = "(SELECT any_value(c.category) FROM categories c WHERE c.faq_id = _top)" if by_category else "CAST(NULL AS VARCHAR)"
    top = "json_extract_string(hits, '$[0][0]')" if by_category else "NULL"
    return f"""
    WITH raw AS ({rows}), parsed AS (
      SELECT *, {top} AS _top,
        from_json(counterfactuals, '[{{"baseline":"VARCHAR","input_tokens":"BIGINT","output_tokens":"BIGINT"}}]') AS _cf,
        from_json(price, '{{"input":"DOUBLE","cached_input":"DOUBLE","output":"DOUBLE","currency":"VARCHAR","version":"VARCHAR"}}') AS _p,
        from_json(latency_ms,
          '{{"recall":"DOUBLE","retrieve":"DOUBLE","decide":"DOUBLE","prompt":"DOUBLE","filter":"DOUBLE"}}') AS _ms
      FROM raw WHERE source = 'chat'
    ), named AS (SELECT *, list_transform(_cf, lambda c: c.baseline) AS _names FROM parsed)
    SELECT sequence, id, owner, conversation_id, position,
      make_timestamp(epoch_us(created_at)) AS created_at, CAST(make_timestamp(epoch_us(created_at)) AS DATE) AS day,
      action, policy_version,
      CASE WHEN action <> 'STATIC' THEN 1 - fetch_probability - {UNCERTAINTY_PENALTY} * uncertainty END AS skip_score,
      input_tokens, output_tokens, cached_input_tokens, usage_source,
      coalesce(background, false) AS background,
      coalesce(refusal NOT IN ('null', ''), false) AS refused,
      coalesce(degraded NOT IN ('null', '', '[]'), false) AS degraded,
      coalesce(policy_version = '{HOLDBACK}', false) AS holdback,
      _p.input AS input_price, coalesce(_p.cached_input, _p.input) AS cached_price, _p.output AS output_price,
      _p.currency AS currency, _p.version AS price_version, model, hash(model, _p) AS price_key,
      coalesce(_ms.recall, 0) + coalesce(_ms.retrieve, 0) + coalesce(_ms.decide, 0) + coalesce(_ms.prompt, 0)
        + coalesce(_ms.filter, 0) AS compute_ms,
      {category} AS category, hash(owner, conversation_id) AS conversation, {costs}
    FROM named"""


def latest(rows: str, by: str) -> str:
    """A query for the last of the rows by `by`, without their sequence."""
    return (f"SELECT * EXCLUDE (sequence, created_at), make_timestamp(epoch_us(created_at)) AS created_at FROM ({rows}) "
            f"QUALIFY row_number() OVER (PARTITION BY {by} ORDER BY sequence DESC) = 1")


VERDICTS_BY = "turn_id, judge, arm"
RATINGS_BY = "turn_id, owner, rater"
