"""Application logs: one line a record on stderr, a turn's figures included. Message text never stands in them above DEBUG."""

import logging

TURN_FIELDS = ("turn_id", "action", "behavior_prob", "similarity", "input_tokens", "output_tokens", "policy_version")


class LineFormatter(logging.Formatter):
    """`time level logger message`, then a turn's figures as `name=value`."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        figures = [f"{name}={getattr(record, name)}" for name in TURN_FIELDS if hasattr(record, name)]
        return " ".join([line, *figures])


def configure(level: int = logging.INFO) -> None:
    """Send all logs to stderr. Called by the CLI only."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("httpx", "httpx2", "httpcore", "openai", "sentence_transformers", "faiss", "alembic", "watchfiles", "uvicorn.access",
                  "uvicorn.error"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
