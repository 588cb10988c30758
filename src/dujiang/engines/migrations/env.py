"""Alembic's entry: runs on the connection that `upgrade` hands over."""

from alembic import context

from dujiang.engines.sql.schema import METADATA

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=METADATA, transaction_per_migration=False)
with context.begin_transaction():
    context.run_migrations()
