"""The way in: HTTP API, chat page, CLI, settings and wiring."""
