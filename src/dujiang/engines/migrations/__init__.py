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


def upgrade(database: sa.Engine) -> None:
    """Bring the database to the newest revision. Two programs may do it at once: the second finds it done."""
    config = configuration()
    with database.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
