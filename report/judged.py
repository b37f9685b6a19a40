"""Which judge's verdicts a report takes, and the turns that have some: SQL over the tables of a report.

A source below stands in the place of `turns` in a query: it has the same columns and some more. Leaves out what is made of them
(`quality.py`, `wrong.py`, `curve.py`).
"""

from report.errors import ReportOptionError
from report.sums import SERVED, ReportOptions, Rows, Scoped, scope
from reward.feedback import BAD_STARS, GOOD_STARS

BY_JUDGE = "(SELECT t.*, v.good AS good, v.judge AS judge FROM turns t JOIN verdicts v ON v.turn_id = t.id AND v.arm = t.action)"
"""Turns with each judge's word on the answer that went out."""
BY_PEOPLE = f"""(SELECT t.*, w.good AS good FROM turns t JOIN (
  SELECT turn_id, CASE sign(sum(vote)) WHEN 1 THEN true WHEN -1 THEN false END AS good FROM (
    SELECT turn_id, CASE WHEN stars IS NULL THEN CASE good WHEN true THEN 1 WHEN false THEN -1 END
      WHEN stars >= {GOOD_STARS} THEN 1 WHEN stars <= {BAD_STARS} THEN -1 END AS vote FROM ratings)
  WHERE vote IS NOT NULL GROUP BY turn_id) w ON w.turn_id = t.id)"""
"""Turns with what most of their raters say; NULL where as many say Good as Bad."""
BOTH_ARMS = """(SELECT t.*, f.judge AS judge, f.good AS fetch_good, s.good AS skip_good, s.reason AS skip_reason, f.answer AS fetch_answer,
  f.input_tokens + f.output_tokens AS fetch_arm_tokens, s.input_tokens + s.output_tokens AS skip_arm_tokens
  FROM turns t JOIN verdicts f ON f.turn_id = t.id AND f.arm = 'FETCH'
  JOIN verdicts s ON s.turn_id = t.id AND s.arm = 'NO_FETCH' AND s.judge = f.judge)"""
"""Turns with a judge's words on both arms; `..._arm_tokens` are those of an answer that was written for it, NULL for the turn's own."""


def judge_of(rows: Rows, options: ReportOptions) -> str | None:
    """The version of the judge whose verdicts count: of those asked for by version or name, the one with most verdicts on these turns.

    None: nothing was judged. Raises: ReportOptionError where a judge was asked for that never gave a verdict.
    """
    scoped = scope(options, any_policy=True)
    found = rows.rows(
        f"SELECT v.judge, count(t.id) AS given FROM verdicts v LEFT JOIN (SELECT id FROM turns WHERE {scoped.where} AND {SERVED}) t "
        "ON t.id = v.turn_id GROUP BY v.judge ORDER BY given DESC, v.judge", scoped.params)
    asked = options.judge
    fitting = [(str(version), int(given)) for version, given in found if asked is None or asked in (version, version.split(":")[0])]
    if asked is not None and not fitting:
        there = ", ".join(sorted(str(version) for version, _ in found)) or "none"
        raise ReportOptionError(f"judge: expected one with verdicts in the log, got {asked!r}; there are those of {there}")
    return fitting[0][0] if fitting and (asked is not None or fitting[0][1]) else None


def by(scoped: Scoped, judge: str) -> Scoped:
    """The same turns, with this judge's words alone."""
    return Scoped(f"{scoped.where} AND judge = ?", (*scoped.params, judge))
