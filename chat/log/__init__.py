"""The conversation log: an append-only record of turns in SQLite or PostgreSQL. `schema.py` explains it first."""
