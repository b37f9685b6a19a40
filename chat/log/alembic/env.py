"""Runs the revisions on the connection that `chat/log/migrations.py` brings; that connection's transaction is kept."""

from alembic import context

from chat.log.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
