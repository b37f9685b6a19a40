"""How long a report over many turns takes, and how much memory: `python -m report.bench --turns 10000000`.

The turns are made up, in Parquet as `fetchgate log export` writes it: conversations of four turns, two policies, a holdback, seven
baselines a turn, some turns judged. Reading, summing and intervals are timed; the making of the file isn't. Leaves out rendering.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from evaluation.stats import RESAMPLES
from report.savings import savings_report
from report.source import MEMORY_LIMIT, THREADS, open_parquet
from report.sums import ReportOptions

TURNS_A_CONVERSATION = 4
JUDGED = 0.02
"""Share of the turns that a judge looked at."""


def make_turns(path: Path, turns: int, *, seed: int = 0) -> None:
    """Write a log of made-up turns as Parquet."""
    price = '{"input": 2.5, "cached_input": 1.25, "output": 10.0, "currency": "USD", "version": "2025-06-01"}'
    names = ("always_fetch", "paper", "frugal", "repeats", "one_faq", "no_history_faqs", "no_faqs")
    more = (f"""format('{{{{"baseline": "{name}", "input_tokens": {{}}, "output_tokens": {{}}, "output_method": "same_answer"}}}}',
              input + (CASE WHEN skipped THEN size ELSE 0 END) * {factor} // 4, output)"""
            for name, factor in zip(names, (4, 8, 3, 5, 2, 3, 0), strict=True))
    _write(path, seed, f"""
      WITH numbered AS (
        SELECT i, i // {TURNS_A_CONVERSATION} AS c, hash(i // {TURNS_A_CONVERSATION} + {seed}) % 1000 AS kind,
          hash(i + {seed}) % 1000 AS luck, 200 + hash(i, 1) % 400 AS size FROM range({turns}) t(i)
      ), decided AS (
        SELECT *, kind < 50 AS held, kind >= 50 AND luck < 300 + kind // 4 AS skipped, kind >= 50 AND luck >= 950 AS static FROM numbered
      ), costed AS (
        SELECT *, CASE WHEN static THEN 0 WHEN skipped THEN 300 ELSE 300 + size END AS input, CASE WHEN static THEN 0 ELSE 40 END AS output
        FROM decided
      )
      SELECT i + 1 AS sequence, format('{{:08x}}-{{:04x}}-4000-8000-{{:012x}}', i, i % 65536, hash(i) % 281474976710656) AS id,
        'key-' || c % 5 AS owner, format('conversation-{{:08x}}', c) AS conversation_id,
        CAST(i % {TURNS_A_CONVERSATION} AS INTEGER) AS position,
        TIMESTAMPTZ '2026-08-01 00:00:00+00' + to_microseconds(i * CAST(86400e6 * 60 / {turns} AS BIGINT)) AS created_at, 'chat' AS source,
        'How do I change the address of my order ' || i || '?' AS query, repeat('An answer of the usual length. ', 8) AS answer,
        CASE WHEN static THEN 'STATIC' WHEN skipped THEN 'NO_FETCH' ELSE 'FETCH' END AS action,
        (1000 - luck) / 1000.0 AS fetch_probability, 0.02 AS uncertainty, 1.0 AS behavior_prob,
        CASE WHEN held THEN 'holdback' WHEN static THEN 'static' WHEN c % 2 = 0 THEN 'gate-1' ELSE 'gate-2' END AS policy_version,
        '[["faq-' || i % 40 || '", 0.81], ["faq-1", 0.7]]' AS hits, CAST(input AS INTEGER) AS input_tokens,
        CAST(output AS INTEGER) AS output_tokens, CAST(input // 3 AS INTEGER) AS cached_input_tokens, 'server' AS usage_source,
        '[' || concat_ws(', ', {', '.join(more)}) || ']' AS counterfactuals, '{price}' AS price, 'gpt-4o' AS model,
        '{{"recall": 0.2, "retrieve": 3.5, "decide": 6.25, "prompt": 0.1, "generate": 800.0, "total": 900.0}}' AS latency_ms,
        '[]' AS degraded, CAST(NULL AS VARCHAR) AS refusal, false AS background FROM costed""")


def make_verdicts(path: Path, turns: int, *, seed: int = 0) -> None:
    """Write a judge's verdicts on both arms of some of those turns as Parquet."""
    _write(path, seed, f"""
      SELECT row_number() OVER () AS sequence,
        format('{{:08x}}-{{:04x}}-4000-8000-{{:012x}}', i, i % 65536, hash(i) % 281474976710656) AS turn_id,
        TIMESTAMPTZ '2026-10-01 00:00:00+00' AS created_at, arm, 'bench:1' AS judge, hash(i, arm) % 100 >= 8 AS good, true AS safe,
        0.9 AS probability, 'made up' AS reason, 'made up too' AS answer, CASE arm WHEN 'FETCH' THEN 700 ELSE 300 END AS input_tokens,
        40 AS output_tokens, 900 AS judge_input_tokens, 60 AS judge_output_tokens, 0.003 AS cost, 'USD' AS currency
      FROM range({turns}) t(i), (VALUES ('FETCH'), ('NO_FETCH')) a(arm) WHERE hash(i, 2) % 1000 < {int(1000 * JUDGED)}""")


def measure(turns: int, folder: Path, *, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, float]:
    """Seconds and bytes that a report over so many turns takes; the memory is the process's at its highest, from its start on."""
    made = folder / f"turns-{turns}.parquet", folder / f"verdicts-{turns}.parquet"
    if not made[0].is_file():
        make_turns(made[0], turns, seed=seed)
        make_verdicts(made[1], turns, seed=seed)
    categories = {f"faq-{number}": f"category-{number % 8}" for number in range(40)}
    began, cpu_began = time.perf_counter(), time.process_time()
    with open_parquet(*made, categories=categories) as table:
        read = time.perf_counter()
        options = ReportOptions(turns_a_month=1_000_000, prefix_tokens=4000, resamples=resamples)
        report = savings_report(table, options, datetime(2026, 10, 1, tzinfo=UTC))
    ended = time.perf_counter()
    return {
        "turns": turns, "conversations": report.scope.conversations, "file_bytes": made[0].stat().st_size, "read_s": round(read - began, 2),
        "report_s": round(ended - read, 2), "whole_s": round(ended - began, 2),
        "cpu_s": round(time.process_time() - cpu_began, 2),
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, "threads": THREADS,
    }


def _write(path: Path, seed: int, query: str) -> None:
    with duckdb.connect(config={"memory_limit": MEMORY_LIMIT, "threads": THREADS}) as connection:
        connection.execute("SET preserve_insertion_order = false")
        connection.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet, COMPRESSION zstd)")


def main() -> None:
    """Measure one size and print it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m report.bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where the made-up files are kept; deleted afterwards where it isn't given")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        sys.stdout.write(json.dumps(measure(given.turns, given.folder or Path(temporary), seed=given.seed)) + "\n")


if __name__ == "__main__":
    main()
