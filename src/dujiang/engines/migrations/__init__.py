"""Migrations of the database, run by Alembic inside one transaction."""

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config


def configuration() -> Config:
    """Alembic's configuration, without a file."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config


def upgrade(database: sa.Engine, lock: sa.TextClause | None) -> None:
    """Bring the database to the newest revision. Two programs may do it at once: the second finds it done.

    `lock`: a statement that waits for the others, where a transaction alone does not.
    """
    config = configuration()
    with database.begin() as connection:
        if lock is not None:
            connection.execute(lock)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
